"""The story of ``cvj-ml train``.

With ``--tune``, settings are searched for on earlier folds, and every trial is logged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from cvj_ml import tracking
from cvj_ml.commands.backtest import backtest_fold
from cvj_ml.commands.contact_effects import learn_contact_effects
from cvj_ml.config import Config
from cvj_ml.errors import ModelError
from cvj_ml.evaluation.backtesting import FoldResult
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys
from cvj_ml.evaluation.folds import Fold, last_matured, require_teachable
from cvj_ml.evaluation.mlflow_record import evidence
from cvj_ml.evaluation.past_forecasts import forecast_errors, past_forecasts
from cvj_ml.evaluation.past_scores import track_record
from cvj_ml.evaluation.promotion import Verdict, challenge, decide_first, undecided
from cvj_ml.evaluation.stage_evaluation import FitOfStages, fit_and_evaluate
from cvj_ml.evaluation.tuning import Search, Trial, search
from cvj_ml.evaluation.year_ago import learn_year_ago
from cvj_ml.inputs import Histories, open_histories, require_customers
from cvj_ml.journey_analytics.source_facts import season_at
from cvj_ml.model_card import Training, write_card
from cvj_ml.models.bundle.bundle import save
from cvj_ml.models.drift_profile.learning import learn_drift
from cvj_ml.models.explain.typical import learn_reference
from cvj_ml.models.hazard.fitting import Settings
from cvj_ml.models.hazard.tree_size import Choice
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_amounts, fit_outcomes, fit_reach
from cvj_ml.night.champion import champion
from cvj_ml.panel.model_spec import ModelSpec, define
from cvj_ml.panel.panel import Panel, build_panel
from cvj_ml.panel.stage_panel import Tracking
from cvj_ml.run import Effort, Watcher
from cvj_ml.scoring.opening import make_canary, open_bundle
from cvj_ml.scoring.segment_learning import learn_segments
from cvj_ml.scoring.serving import interface_of
from cvj_ml.snapshots import training_grid
from cvj_ml.store import Usage
from cvj_ml.windows import to_datetime, to_microseconds

Promote = Literal["auto", "always", "never"]

MOST_WARNED = 3
"""Stages without evidence that a training warns of; the card has them all."""


def training_panel(histories: Histories, cut: int) -> Panel:
    """Build the panel of everything that was visible before the cut."""
    config, store = histories.config, histories.store
    require_teachable(histories.run(), cut, "Training")
    with histories.watcher.step("Building the panel") as progress:
        engine = histories.engine(progress)
        definition = define(config, histories.visible.journey, engine, cut)
        return build_panel(
            definition,
            engine,
            training_grid(config, cut),
            cut,
            store.arrival_delay,
            max_rows=config.model.max_rows,
            seed=config.model.seed,
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """A registered model, the fold that its metrics come from, and the fit of the current stage where there is one."""

    version: tracking.ModelVersion
    fold: FoldResult
    usage: Usage
    verdict: Verdict
    stages: FitOfStages | None


def train(config: Config, as_of: int, watcher: Watcher, promote: Promote = "auto", tune: int = 0) -> Trained:
    """Report the last matured fold once, compare with the champion, refit at ``as_of``, register, promote.

    promote: ``auto`` by the rule of `decide`, ``always`` or ``never``; with ``auto`` the first version of a name is the
    champion unless `decide_first` refuses it.
    tune: how many settings of the trees to try on earlier folds first.
    """
    effort = Effort()
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of)
    settings = tuned_settings(histories, reported_fold(histories, as_of), tune) if tune else None
    facts = learn_model(histories, as_of, usage, settings)
    result = facts.result
    verdict = evaluate_challenger(histories, result, promote)
    facts = replace(facts, verdict=verdict)
    with watcher.step("Writing the model card"):
        card = write_card(facts, histories.engine(), draw_keys(DRAWS, config.model.seed))
    with watcher.step("Registering the model"), tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch, "bundle")
        digest = write_bundle(facts, histories, card.text, bundle)
        opened = open_bundle(bundle, digest, config.features.functions)
        found = evidence(facts.predictor, facts.panel, result, facts.fit, facts.stages)
        record = tracking.TrainingRecord(
            parameters={"as_of": to_datetime(as_of, config.zone).isoformat(), **found.parameters},
            cut=to_datetime(as_of, config.zone).isoformat(),
            inputs=histories.store.fingerprints,
            metrics={**found.metrics, **card.metrics},
            judged_at=to_datetime(result.fold.cut, config.zone).isoformat(),
            bundle=bundle,
            digest=digest,
            interface=interface_of(opened),
            tables={**found.tables, **card.tables},
            figures=found.figures,
            tags={"verdict": verdict.sentence, "verdict_numbers": verdict.as_json()},
            effort=effort,
        )
        # The canary of what is promoted was scored when the bundle was opened, above.
        version = tracking.log_training(config, record, usable=verdict.promote)
        if verdict.promote:
            version = tracking.promote(config, version.version)
    return Trained(version, result, facts.usage, verdict, facts.stages)


def reported_fold(histories: Histories, as_of: int) -> Fold:
    """Return the last matured fold, by which the recipe of a training is evaluated; ConfigError where none can be."""
    # The panel at as_of has more room than the fold before it: what is too long even for it is named alone.
    require_teachable(histories.run(), as_of, "Training")
    return last_matured(histories.run(), as_of)


def learn_model(histories: Histories, as_of: int, usage: Usage, settings: Settings | None = None) -> Training:
    """Evaluate the recipe on the last matured fold, refit it at ``as_of``, and return all that is known of the model.

    Nothing is registered, and no verdict is given. Without ``settings`` those of the trees are chosen in the fold.
    """
    config, store, watcher = histories.config, histories.store, histories.watcher
    fold = reported_fold(histories, as_of)
    result = backtest_fold(histories, fold, settings)
    panel = training_panel(histories, as_of)
    with watcher.step("Refitting at as_of") as progress:
        fit = fit_reach(panel, config.model.seed, histories.threads, given=result.fit.choice, progress=progress)
        year_ago = learn_year_ago(histories.run(progress), as_of, panel.definition, fit)
        given = _outcome_choices(result, panel.definition)
        outcomes, _ = fit_outcomes(panel, config.model.seed, histories.threads, given)
    posterior = true_stages(histories, panel.definition, as_of)
    stage_model = posterior.model if posterior else None
    predictor = Predictor(
        panel.definition,
        fit.trees,
        fit.calibration,
        stage_model,
        learn_reference(panel),
        year_ago=year_ago,
        outcomes=outcomes,
    )
    with watcher.step("Learning the amounts"):
        predictor = fit_amounts(predictor, panel, histories.threads)
    if predictor.value is not None and result.amounts is not None:
        predictor = replace(predictor, value=replace(predictor.value, ranks=result.amounts.ranks))
        watcher.say(result.amounts.sentence)
    with watcher.step("Remembering the customers") as progress:
        first = int(panel.as_of.min())
        predictor = replace(
            predictor, drift=learn_drift(predictor, histories.engine(progress), store.customers, as_of, first)
        )
        levels = learn_segments(predictor, histories.engine(progress), store.customers, config.segments, as_of)
        predictor = replace(predictor, segments=levels)
    with watcher.step("Learning from past nights"):
        nights = learn_contact_effects(
            histories, panel.definition, levels.usual_gap, as_of, draw_keys(DRAWS, config.model.seed)
        )
        # In the order of their names, as a bundle gives them back.
        effects = sorted((one.effect for one in nights.learned), key=lambda one: one.name)
        predictor = replace(predictor, effects=tuple(effects))
    for sentence in nights.sentences:
        watcher.say(sentence)
    for warning in _weaknesses(config, panel, predictor):
        watcher.say(f"warning: {warning}")
    if not config.model.year_ago_level and (season := season_at(config, store, as_of)):
        watcher.say(f"warning: {season}")
    undone = undecided(False, "Not compared with any other model, and not registered.")
    return Training(
        *(config, store, histories.visible, usage, as_of, result, panel, fit, predictor, posterior, undone),
        contact_notes=nights.notes,
    )


def _outcome_choices(result: FoldResult, definition: ModelSpec) -> dict[str, Choice]:
    """Return what the fold has chosen for each outcome; the settings alone where it was no question of its own yet."""
    plain = Choice(result.fit.choice.settings)
    return {one.name: result.outcome_choices.get(one.name, plain) for one in definition.own_outcomes}


def write_bundle(facts: Training, histories: Histories, card: str, folder: Path) -> str:
    """Write a model with its canary, its track record, past forecasts' errors and its card; return the digest."""
    with histories.watcher.step("Keeping the track record"):
        record = track_record(histories.run(), facts.result)
    with histories.watcher.step("Looking back at earlier forecasts") as progress:
        run = histories.run(progress)
        errors = forecast_errors(run, past_forecasts(run, facts.result))
    canary = make_canary(facts.predictor, facts.cut, facts.config.model.seed)
    return save(facts.predictor, canary, folder, record, card, errors)


def _weaknesses(config: Config, panel: Panel, predictor: Predictor) -> Iterator[str]:
    """Yield what a person should know of a model whose data was small, in sentences."""
    if (taught := len(np.unique(panel.customer))) < config.model.min_customers:
        yield (
            f"{taught} customer(s) are fewer than model.min_customers ({config.model.min_customers}), so every"
            " name in the data is `other` and nothing is learned but base rates."
        )
    targets = np.array(["return", *config.journey.names])[predictor.trees.low & panel.labels.at_risk.any(axis=0)]
    own = zip(predictor.definition.own_outcomes, predictor.outcomes, strict=True)
    if weak := [*targets, *(one.name for one, model in own if model.trees.low[0])]:
        yield (
            f"too few customers moved to learn from, so these targets rest on base rates by stage and"
            f" recency: {', '.join(weak)}. Scores name them in low_evidence."
        )
    taught_kinds = predictor.trees.calendar.kinds if predictor.trees.calendar else ()
    if unseen := [kind for kind in panel.definition.calendar.kinds if kind not in taught_kinds]:
        yield (
            f"of these kinds of calendar periods training saw none in the past, so they change nothing:"
            f" {', '.join(unseen)}. Name past periods of them, with the day on which each was known."
        )
    for one in islice((one for one in predictor.unlived() if one.target == "return"), MOST_WARNED):
        yield f"{one.sentence}. Scores name it in low_evidence."


def evaluate_challenger(histories: Histories, result: FoldResult, promote: Promote) -> Verdict:
    """Return whether the recipe of a fold replaces the champion."""
    config, present = histories.config, tracking.find_champion(histories.config)
    if promote == "never":
        kept = "Only registered" if present is None else "Kept the champion"
        return undecided(False, f"{kept}: asked for by --promote never, nothing was compared.")
    if promote == "always":
        first = "there was no champion; " if present is None else ""
        return undecided(True, f"Promoted: {first}asked for by --promote always, nothing was compared.")
    if present is None:
        learned = bool(result.predictor.learned.any())
        return decide_first(result.evaluated, draw_keys(DRAWS, config.model.seed), learned=learned)
    if not present.cut:
        return undecided(False, "Kept the champion: it was imported, so nobody knows which outcomes it has seen.")
    try:
        bundle = champion(config, histories.visible)
    except ModelError as error:
        histories.watcher.say(f"warning: {error}")
        return undecided(
            False,
            "Kept the champion, which cannot be compared under this configuration. `cvj-ml models promote` puts the new"
            " model in its place.",
        )
    with histories.watcher.step("Comparing with the champion"):
        return challenge(
            histories.run(), result, bundle.predictor, to_microseconds(datetime.fromisoformat(present.cut))
        )


def true_stages(histories: Histories, definition: ModelSpec, cut: int) -> FitOfStages | None:
    """Fit and evaluate the posterior of the true stage at the cut; None where no coverage is declared."""
    if not histories.config.coverage:
        return None
    watcher = histories.watcher
    with watcher.step("Fitting the current stage") as progress:
        found = fit_and_evaluate(
            definition,
            Tracking.of(histories.config),
            histories.engine(progress),
            cut,
            histories.config.model.seed,
            histories.threads,
        )
    for warning in found.warnings(definition.journey.names):
        watcher.say(f"warning: {warning}")
    return found


def tuned_settings(histories: Histories, reported: Fold, trials: int) -> Settings | None:
    """Return the settings to train with, None for the package's own; the reported fold is not looked at."""
    config, watcher = histories.config, histories.watcher
    with watcher.step(f"Trying {trials} settings on earlier folds") as progress:
        found = search(histories.run(progress), reported, trials)
    watcher.say(found.sentence)
    cut = to_datetime(reported.cut, config.zone).isoformat()
    record = _record(histories, found, cut)
    tracking.log_search(config, record, [_trial(one, record) for one in found.trials])
    return found.settings


def _record(histories: Histories, found: Search, cut: str) -> tracking.Record:
    zone = histories.config.zone
    last = max((fold.cut for fold in found.folds), default=None)
    return tracking.Record(
        parameters={
            **(_named(found.settings) if found.settings else {}),
            "folds": " ".join(to_datetime(fold.cut, zone).date().isoformat() for fold in found.folds) or "none",
            "verdict": found.sentence,
        },
        cut=cut,
        inputs=histories.store.fingerprints,
        metrics={},
        judged_at="" if last is None else to_datetime(last, zone).isoformat(),
    )


def _trial(one: Trial, search: tracking.Record) -> tracking.Record:
    above = {"": one.above.estimate, "_low": one.above.low, "_high": one.above.high}
    return replace(
        search,
        parameters=_named(one.settings),
        metrics={
            "validation.log_loss": one.log_loss,
            **{f"validation.log_loss_above_own{bound}": value for bound, value in above.items()},
            "validation.p": one.p,
        },
    )


def _named(settings: Settings) -> dict[str, str | int | float]:
    return {f"trees_{name}": value for name, value in settings.as_dict().items()}
