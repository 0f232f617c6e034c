"""What a model answers, what it was made from and how, and what it therefore cannot see."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import PureWindowsPath

from cvj_ml.config import DAY, SourceSpec, format_duration
from cvj_ml.evaluation.assessment import Assessment
from cvj_ml.evaluation.backtesting import MINIMUM_CONVERTED
from cvj_ml.journey.words import duration_in_words, rule_in_words
from cvj_ml.model_card.facts import Training, first_and_last, given_settings
from cvj_ml.model_card.markdown import NOTHING, bullets, escape, formatted, plural, sentence_list, share, table
from cvj_ml.models.hazard.fitting import LOW_EVIDENCE, Settings
from cvj_ml.models.hazard.tree_size import ERRORS
from cvj_ml.panel.model_spec import selection_of
from cvj_ml.panel.panel import LEAST_ROWS, ROWS_A_MOVER, Panel
from cvj_ml.windows import to_datetime

_FILES_SHOWN = 5
_DIGITS = 12
_YEAR, _TWO_YEARS = 365, 730
_PACKAGES = ("cvj-ml", "lightgbm", "numpy", "scikit-learn", "scipy")


def _day(training: Training, instant: int) -> str:
    return to_datetime(instant, training.config.zone).date().isoformat()


def _moment(training: Training, instant: int) -> str:
    """Return an instant's date, with the time where it is no midnight."""
    local = to_datetime(instant, training.config.zone)
    return f"{local:%Y-%m-%d}" if (local.hour, local.minute) == (0, 0) else f"{local:%Y-%m-%d %H:%M}"


def _days(training: Training) -> str:
    return f"{sentence_list(str(horizon // DAY) for horizon in training.definition.horizons)} days"


def purpose(training: Training) -> str:
    """Return in two sentences what the model answers and up to when it was taught."""
    return (
        f"How likely each customer is to come back, and to reach each later stage of the journey"
        f" {escape(training.definition.journey.name)}, within {_days(training)}. It learned from what was known before"
        f" {_moment(training, training.cut)} ({training.config.time_zone})."
    )


def provenance_in_short(training: Training) -> Iterator[str]:
    """Yield what the model rests on, for the head of the card."""
    panel = training.panel
    customers = len(set(panel.customer.tolist()))
    first, last = first_and_last(panel)
    yield (
        f"Learned from {plural(training.usage.used, 'touchpoint')}: {plural(len(panel), 'snapshot')} of"
        f" {plural(customers, 'customer')}, from {_day(training, first)} to {_day(training, last)}."
    )
    if weak := [name for name, _ in training.low()]:
        yield f"{sentence_list(weak)} rest on base rates: too few customers moved there to learn who."
    if hidden := sorted(training.visible.unobserved, key=training.definition.journey.index):
        yield f"Not seen in the data, so neither predicted nor listed: {sentence_list(hidden)}."


def answered_questions(training: Training) -> str:
    """Return what the model answers."""
    definition = training.definition
    ahead = (
        "every later stage that can be seen"
        if definition.next_stages is None
        else f"the next {plural(definition.next_stages, 'stage')} that can be seen"
    )
    points = [
        f"**Reach**: the probability that a customer stands at a stage, or a higher one, at some time within"
        f" {_days(training)} of the day asked about; for {ahead}. Stages may be skipped.",
        "**Return**: the probability of a touchpoint of the customer's own, or of a later stage, within the same time."
        + (
            f" What the business sends ({sentence_list(definition.outbound)}) is no return."
            if definition.outbound
            else ""
        ),
        "**Current stage**: the observed stage"
        + (", and a probability for each stage it may truly be." if training.stages else ", taken as the true one."),
        "A probability says that a customer moves, not that a contact makes them move. What a contact gains shows in"
        " the comparison with a list's control group.",
    ]
    return f"## What it answers\n\n{bullets(points)}"


_COUNTED = ["table", "rows in", "stored", "refused", "duplicates", "of unknown customers", "left out"]


def data(training: Training) -> str:
    """Return what went in, row by row and file by file; names of sources and files only."""
    store, usage = training.store, training.usage
    tables = [
        *store.counts.items(),
        *([("attributes", store.attribute_counts)] if store.attribute_counts else []),
        *([("stage_labels", store.label_counts)] if store.label_counts else []),
        *([("members", store.member_counts)] if store.member_counts else []),
    ]
    rows = [
        (
            escape(name),
            f"{counts.rows_in:,}",
            f"{counts.stored:,}",
            f"{sum(counts.refused.values()):,}",
            f"{counts.duplicates:,}",
            f"{counts.unmatched:,}",
            f"{counts.left_out:,}",
        )
        for name, counts in tables
    ]
    refused = [
        f"{escape(name)}: {', '.join(f'{count:,} {escape(why)}' for why, count in sorted(counts.refused.items()))}"
        for name, counts in tables
        if counts.refused
    ]
    stored = sum(counts.stored for counts in store.counts.values())
    panel = training.panel
    first, last = first_and_last(panel)
    sampled = "all of them" if panel.share >= 1 else f"a random {share(panel.share)} of them"
    parts = [
        "## Data",
        table(_COUNTED, rows, numbers=len(_COUNTED) - 1),
        *([f"Refused: {'; '.join(refused)}."] if refused else []),
        f"Of the {plural(stored, 'stored touchpoint')} of {plural(store.customers, 'customer')} the model may use"
        f" {usage.used:,}; {usage.not_yet_visible:,} were not visible yet on {_moment(training, training.cut)}, and"
        f" {usage.superseded:,} had been replaced by a newer version.",
        f"Customers were asked about every {duration_in_words(training.config.snapshots.every)} from"
        f" {_day(training, first)} to {_day(training, last)}: {plural(panel.eligible, 'snapshot')}, of which the"
        f" model learned from {sampled} ({len(panel):,}).",
        table(["source", "file", "sha256 begins", "bytes"], _files(training), numbers=1),
    ]
    return "\n\n".join(parts)


def _files(training: Training) -> Iterator[tuple[str, str, str, str]]:
    """Yield the first files of each source, without their folders, then how many more there are."""
    for source, files in training.store.fingerprints.items():
        named = sorted((PureWindowsPath(one["file"]).name, one["sha256"], one["bytes"]) for one in files)
        for file, digest, size in named[:_FILES_SHOWN]:
            yield escape(source), escape(file), f"`{digest[:_DIGITS]}`", f"{size:,}"
        if rest := named[_FILES_SHOWN:]:
            yield escape(source), f"and {len(rest):,} more", NOTHING, f"{sum(size for *_, size in rest):,}"


def journey(training: Training) -> str:
    """Return the stages, what enters them, and how many customers taught each target."""
    definition, low = training.definition, dict(training.low())
    coverage = training.config.coverage
    held = "held" if any(stage.leave is not None for stage in definition.journey.stages) else "entered"
    rows = []
    for i, stage in enumerate(definition.journey.stages):
        seen = stage.name not in definition.journey.unobserved
        asked = seen and bool(training.panel.labels.at_risk[:, 1 + i].any())
        notes = [
            *([f"left with: {rule_in_words(stage.leave)}"] if stage.leave is not None else []),
            *(["not seen in the data"] if not seen else []),
            *(["rests on base rates"] if stage.name in low else []),
            *(
                [f"evidence seen of {coverage[stage.name]:.0%} who are there"]
                if coverage.get(stage.name, 1.0) < 1
                else []
            ),
        ]
        converted = f"{training.panel.converters[1 + i]:,}" if asked else NOTHING
        rows.append((escape(stage.name), escape(rule_in_words(stage.enter)), escape("; ".join(notes)), converted))
    parts = [
        f"## Journey: {escape(definition.journey.name)}",
        table(["stage", "entered with the first", "note", "customers who moved there"], rows, numbers=1),
        f"A customer's observed stage is the highest one {held}."
        f" {training.panel.converters[0]:,} customers returned. Counted are the moves that training could see.",
    ]
    parts += [escape(warning) for warning in training.visible.warnings]
    return "\n\n".join(parts)


def features(training: Training) -> str:
    """Return the features by group, their windows, and what was left out for which reason."""
    catalogue, asked = training.definition.catalogue, training.config.features
    vocabulary = catalogue.vocabulary
    groups = Counter(feature.group for feature in catalogue.features)
    parts = [
        "## Features",
        f"{len(catalogue.features):,} numbers a customer, all from the customer's own history before the day asked"
        f" about; over the last {sentence_list(str(window // DAY) for window in catalogue.windows)} days and over all"
        " time."
        if catalogue.windows
        else f"{len(catalogue.features):,} numbers a customer, all from the customer's own history, over all time.",
        table(["group", "features"], [(escape(name), f"{count:,}") for name, count in sorted(groups.items())], 1),
    ]
    out = []
    if missing := [window for window in asked.windows if window not in catalogue.windows]:
        out.append(
            f"windows of {sentence_list(map(duration_in_words, missing))}: longer than the burn-in"
            f" ({duration_in_words(training.config.burn_in)}), so the first snapshots could not look back over them"
            " whole"
        )
    if catalogue.trend is None:
        out.append(
            f"trends over {duration_in_words(asked.trend)}: twice that is longer than the burn-in"
            f" ({duration_in_words(training.config.burn_in)})"
        )
    if rare := len(set(training.store.events) - set(vocabulary.events)):
        out.append(
            f"{plural(rare, 'event')} beside the {len(vocabulary.events)} that most customers have: counted as “other”"
        )
    if catalogue.excluded:
        kept = list(filter(selection_of(training.config).names, catalogue.features))
        out.append(
            f"{plural(len(catalogue.excluded), 'feature')} by `features.exclude` ({escape(', '.join(asked.exclude))});"
            f" it names {plural(len(kept), 'feature')} more that the method itself reads by name, so they stay"
        )
    if training.config.contact:
        out.append("contact details: shown in lists only, never a feature")
    if training.config.stage_labels:
        out.append("the source of stage labels: it feeds nothing else, or the model would copy it")
    if catalogue.custom:
        own = [f"{one.spec.name}: {one.spec.function}, source {one.digest[:12]}" for one in catalogue.custom]
        parts.append(f"Of functions of your own:\n\n{bullets(map(escape, own))}")
    if out:
        parts.append(f"Left out:\n\n{bullets(out)}")
    if kinds := training.definition.calendar.kinds:
        parts.append(f"Known calendar:\n\n{bullets(_kinds(training, kinds))}")
    return "\n\n".join(parts)


def _kinds(training: Training, kinds: Sequence[str]) -> Iterator[str]:
    """Yield of each kind of period how often training saw one, and what it does to the odds of a day inside."""
    effect = training.predictor.trees.calendar
    for kind in kinds:
        if effect is None or kind not in effect.kinds:
            yield f"{escape(kind)}: training saw no period of it, so it changes nothing"
            continue
        factors = [f"{math.exp(one):.2f}" for one in effect.inside(kind)]
        yield (
            f"{escape(kind)}: {plural(effect.occurrences[effect.kinds.index(kind)], 'past period')}; an interval wholly"
            f" inside of one has {factors[0]} times the odds of a return and {factors[1]} times those of reaching a"
            " stage, against one far from any"
        )


def blind_spots(training: Training, assessment: Assessment) -> str:
    """Return what this model cannot see, each point with the fact of this training that it comes from."""
    return f"## What it cannot see\n\n{bullets(_blind_spots(training, assessment))}"


def _blind_spots(training: Training, assessment: Assessment) -> Iterator[str]:
    config, panel, definition = training.config, training.panel, training.definition
    fold = training.result.fold
    yield (
        f"**Other seasons.** It is judged by one window, from {_day(training, fold.cut)} to"
        f" {_day(training, fold.until)}. The intervals say what other customers would have shown then, not what another"
        " season would."
    )
    once = f"; {_once(training.outcome_days)} of the year were seen once at most"
    yield (
        "**The time of year.** It is no feature: beyond the periods of a declared calendar growth, decline and season"
        f" cannot be told apart{once if training.outcome_days < _TWO_YEARS else ''}."
    )
    if hidden := sorted(training.visible.unobserved, key=definition.journey.index):
        yield f"**{sentence_list(hidden)}.** Nobody is ever seen there: the data holds nothing that would tell."
    if weak := [f"{name} ({plural(converted, 'customer')})" for name, converted in training.low()]:
        yield (
            f"**Who moves to {sentence_list(weak)}.** Fewer than {LOW_EVIDENCE} customers moved, so everybody of a"
            " stage and recency gets the same base rate; the order within such a list says little."
        )
    for one in training.predictor.unlived():
        yield f"**{one.stage} to {one.target}.** {one.sentence.split(': ', 1)[1].capitalize()}."
    evaluated = assessment.cells[["from", "to", "horizon_days"]].drop_duplicates()
    known = training.result.rows[["from", "to", "horizon_days"]].drop_duplicates()
    if unproven := len(known) - len(evaluated):
        yield (
            f"**{unproven} of {len(known)} transitions and horizons.** Fewer than {MINIMUM_CONVERTED} customers moved"
            " in the fold, so nothing here says whether their probabilities are right."
        )
    yield (
        f"**What came before {config.history_from}.** The sources record from then on: who entered a stage earlier, and"
        " shows nothing of it since, stands lower here."
    )
    if trusting := [name for name, source in config.sources.items() if _known_at_once(source)]:
        yield (
            f"**When {sentence_list(trusting)} became known.**"
            f" Without `known_at` or `known_after` each row counts as"
            " known"
            " the moment it happened. If rows are loaded later or dated back, the figures above are too good;"
            " `cvj-ml audit` looks for that."
        )
    if config.attributes and config.attributes.static:
        yield (
            "**What attributes used to be.** They are declared static: today's value was used at every past day. One"
            " that changes after a move gives that move away."
        )
    if not definition.outbound:
        yield (
            "**The business's own contacts.** No event is declared outbound, so a campaign shows only in what customers"
            " do after it, and looks like their own will."
        )
    if not config.coverage:
        yield (
            "**Evidence that was never recorded.** No coverage is declared, so who has a stage without a trace in the"
            " data stands lower here than in truth."
        )
    if late := panel.labels.late:
        yield (
            f"**Moves that became known late.** {plural(late, 'question')} of the training"
            f" ({share(late / _asked(panel))} of all) had to be left out: the customer had moved already, and nobody"
            " could know."
        )
    for name, counts in training.store.counts.items():
        if counts.reassigned:
            yield (
                f"**Who is who in {escape(name)}.** {plural(counts.reassigned, 'row')} carry a touchpoint_id that"
                " belongs to another customer, too."
            )


def _once(days: int) -> str:
    """Return of how many days of the year a span of outcomes has not seen a second one."""
    return f"{min(2 * _YEAR - days, _YEAR)} days"


def _asked(panel: Panel) -> int:
    return int(panel.labels.at_risk.sum()) + panel.labels.late


def _known_at_once(source: SourceSpec) -> bool:
    return source.known_after is None and "known_at" not in source.columns


def _capacity(training: Training) -> str:
    """Return why the trees learn as much as they do; nothing where nothing was compared."""
    found = [
        f"{_other(one.settings, one.than)} by {one.difference:+.4f} (standard error {one.error:.4f})"
        for one in training.result.fit.choice.comparisons
    ]
    if not found:
        return ""
    return (
        " How much trees may learn was asked of customers who were held out, on later days where there are some: their"
        f" log loss is changed through {sentence_list(found)}. It takes {ERRORS:g} standard errors below 0 for another"
        " size to be believed, and any number below 0 for splits at random thresholds."
    )


def _other(settings: Settings, than: Settings) -> str:
    if settings.extra != than.extra:
        return "splits at random thresholds"
    return "larger trees" if settings.leaves > than.leaves else "half as many trees"


def recipe(training: Training) -> str:
    """Return how the model was fitted, and with which versions."""
    fit, panel, config = training.fit, training.panel, training.config
    settings = fit.choice.settings
    fold = training.result.fold
    trees = training.predictor.trees
    of_return, of_reach = trees.ridge_share
    learned = (
        f"A linear hazard, then {settings.rounds} {'extremely randomised ' if settings.extra else ''}LightGBM trees of"
        f" {settings.leaves} leaves that start from it (learning rate {settings.learning_rate:g}, at least"
        f" {settings.rows_a_leaf:,} rows a leaf, L2 {settings.lambda_l2:g}, path smoothing {settings.path_smooth:g},"
        f" {settings.columns:g} of the columns a tree), mixed with a ridge regression on all features (its share is"
        f" {of_return:g} for the return and {of_reach:g} for reach)."
        if trees.booster
        else "Base rates by stage and recency alone: there was too little to learn more from."
    )
    calibrated = (
        "Calibrated: slopes from later snapshots of customers held out, levels from the outcomes of the last year."
        if fit.choice.slopes is not None
        else "Levels from the outcomes of the last year; slopes found on later snapshots did not help customers who"
        " were kept out, or could not be found."
    )
    arrival = training.store.arrival_delay
    delay = f"; outcomes counted as complete {duration_in_words(arrival)} after they happened" if arrival else ""
    points = [
        f"{learned}{_capacity(training) if trees.booster else ''}",
        f"{calibrated}{given_settings(training)}",
        f"The figures are those of the same recipe, fitted on what was known before {_day(training, fold.cut)} and"
        f" judged by what was known on {_day(training, fold.until)}; then it was refitted on everything.",
        f"Horizons {', '.join(map(format_duration, training.definition.horizons))}; at most"
        f" {config.model.max_rows:,} rows, and {ROWS_A_MOVER} for each customer who moved ({LEAST_ROWS:,} at least);"
        f" sampled share {formatted(panel.share, 3)}; seed {config.model.seed}{delay}.",
        f"Versions: {', '.join(f'{name} {metadata.version(name)}' for name in _PACKAGES)}.",
        "How all this is computed is in docs/method.md.",
    ]
    return f"## Recipe and versions\n\n{bullets(points)}"
