"""How good a model is: accuracy beside the baselines, calibration, current stage, subgroups, the champion."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.evaluation.assessment import MINIMUM_CALIBRATED, Assessment
from cvj_ml.evaluation.backtesting import MINIMUM_CONVERTED, MODEL
from cvj_ml.evaluation.stage_evaluation import CLIP
from cvj_ml.model_card.facts import Training
from cvj_ml.model_card.markdown import (
    NOTHING,
    bullets,
    escape,
    formatted,
    plural,
    sentence_list,
    share,
    table,
    with_interval,
)
from cvj_ml.windows import to_datetime

_Row = Mapping[Hashable, Any]

_SHOWN = 12
_SOURCES = {
    "labels": "stage labels from another source say what the true stage of some customers is",
    "complete": "customers whose tracking is complete, with evidence taken away as coverage says",
    "presence": "nobody's true stage is known, so coverage alone says how many are hidden",
}


def _means(assessment: Assessment, question: str, days: int) -> tuple[_Row, _Row] | None:
    """Return the model's row of means and the best baseline's, None where nothing could be evaluated."""
    means = assessment.means
    here = means[(means["question"] == question) & (means["horizon_days"] == days)]
    if here.empty:
        return None
    rows = here.to_dict("records")
    model = next(row for row in rows if row["contender"] == MODEL)
    return model, min((row for row in rows if row["contender"] != MODEL), key=lambda row: float(row["log_loss"]))


def quality_in_short(training: Training, assessment: Assessment, compared: pd.DataFrame) -> Iterator[str]:
    """Yield the figures for the head of the card, at the horizon of the lists."""
    days = training.horizons[0] // DAY
    for question in ("reach", "return"):
        found = _means(assessment, question, days)
        if found is None:
            yield f"Nothing proves its {question} within {days} days: fewer than {MINIMUM_CONVERTED} customers moved."
            continue
        model, best = found
        better = "better" if best["log_loss_above_model"] > 0 else "worse"
        surely = (
            "" if best["log_loss_above_model_low"] * best["log_loss_above_model_high"] > 0 else ", perhaps by chance"
        )
        yield (
            f"{question.capitalize()} within {days} days: log loss {with_interval(model, 'log_loss', 4)}, {better}"
            f" than the best baseline ({escape(best['contender'])}, {formatted(best['log_loss'], 4)}){surely}."
        )
    calibrated = assessment.calibration
    for row in calibrated[calibrated["horizon_days"] == days].to_dict("records"):
        yield (
            f"Calibration of {row['question']}: observed/expected {with_interval(row, 'observed_expected', 2)}, slope"
            f" {with_interval(row, 'calibration_slope', 2)}."
        )
    if failing := len(assessment.failing):
        yield f"Calibration beyond what chance allows: {plural(failing, 'figure')} of single transitions, named below."
    if wins := int(assessment.baseline_wins["beyond_chance"].sum()):
        yield f"A plain baseline better beyond chance: {plural(wins, 'comparison')}, named below."
    if gaps := int(compared["calibration_differs"].sum()):
        yield f"A subgroup wrong in another way than the rest: {plural(gaps, 'comparison')}, named below."


def accuracy(training: Training, assessment: Assessment) -> str:
    """Return the fold's figures, over all transitions and one by one, beside the baselines."""
    definition, fold = training.definition, training.result.fold
    rows = []
    for question in ("reach", "return"):
        for horizon in definition.horizons:
            if found := _means(assessment, question, horizon // DAY):
                model, best = found
                rows.append(
                    (
                        question,
                        f"{horizon // DAY} days",
                        escape(best["contender"]),
                        f"{model['n']:,}",
                        f"{model['converted']:,}",
                        with_interval(model, "log_loss", 4),
                        formatted(best["log_loss"], 4),
                        with_interval(best, "log_loss_above_model", 4),
                    )
                )
    day, until = (to_datetime(instant, definition.zone).date() for instant in (fold.cut, fold.until))
    parts = [
        "## How good it is",
        f"Judged by a fold: fitted on what was known before {day}, asked on that day about every customer"
        f" ({len(training.result.panel):,}), and compared with what was known on {until}. In brackets 95 % intervals"
        " over customers. A log loss says how surprised the probabilities were by what happened: lower is better.",
        table(
            ["question", "within", "best baseline", "asked", "converted", "log loss", "baseline's", "model better by"],
            rows,
            numbers=5,
        )
        if rows
        else f"In no transition {MINIMUM_CONVERTED} customers moved, so nothing can be said about accuracy.",
        *(
            [
                "Reach counts a customer once for each stage ahead. Where “model better by” lies below 0 the baseline"
                " is better."
            ]
            if rows
            else []
        ),
    ]
    for horizon in training.horizons:
        if text := _transitions(assessment, horizon // DAY):
            parts += [f"### Transitions within {horizon // DAY} days", text]
    parts += ["### Where a baseline does better", _wins(assessment)]
    return "\n\n".join(parts)


def _transitions(assessment: Assessment, days: int) -> str:
    cells = assessment.cells[assessment.cells["horizon_days"] == days]
    rows = []
    for (origin, target), here in cells.groupby(["from", "to"], sort=False):
        model = here[here["contender"] == MODEL].iloc[0].to_dict()
        best = here[here["contender"] != MODEL].sort_values("log_loss", kind="stable").iloc[0]
        rows.append(
            (
                f"{escape(origin)} → {escape(target)}",
                f"{model['n']:,}",
                f"{model['converted']:,}",
                with_interval(model, "log_loss", 4),
                f"{formatted(best['log_loss'], 4)} ({escape(best['contender'])})",
                with_interval(model, "auc", 3),
                with_interval(model, "observed_expected", 2),
            )
        )
    columns = ["transition", "customers", "converted", "log loss", "best baseline", "AUC", "observed/expected"]
    return table(columns, rows, numbers=6) if rows else ""


def _wins(assessment: Assessment) -> str:
    wins = assessment.baseline_wins
    evaluated = len(assessment.cells[["from", "to", "horizon_days"]].drop_duplicates())
    if wins.empty:
        return f"In none of {evaluated} transitions and horizons." if evaluated else "Nothing could be compared."
    clear = wins[wins["beyond_chance"]]
    places = len(wins[["from", "to", "horizon_days"]].drop_duplicates())
    if clear.empty:
        return (
            f"In {places} of {evaluated} transitions and horizons a baseline has the lower log loss, in none of them"
            " beyond chance (Holm's correction over all comparisons)."
        )
    rows = [
        (
            f"{escape(row['from'])} → {escape(row['to'])}",
            f"{row['horizon_days']} days",
            escape(row["contender"]),
            f"{formatted(-row['log_loss_above_model'], 4)}"
            f" ({formatted(-row['high'], 4)} to {formatted(-row['low'], 4)})",
        )
        for row in clear.head(_SHOWN).to_dict("records")
    ]
    text = table(["transition", "within", "baseline", "better than the model by"], rows, numbers=1)
    return f"{text}\n\n{_more(len(clear), 'comparison')}Beyond chance after Holm's correction over all comparisons."


def _more(found: int, noun: str) -> str:
    return f"The clearest {_SHOWN} of {plural(found, noun)}. " if found > _SHOWN else ""


def calibration(training: Training, assessment: Assessment) -> str:
    """Return slope, level and error with their intervals, and which transitions fail, with drift where it is that."""
    heading = "## Calibration"
    if assessment.calibration.empty:
        return (
            f"{heading}\n\nNo transition has {MINIMUM_CALIBRATED} customers who moved in the fold, so nothing can be"
            " said for sure; observed/expected of single transitions stands above with its interval."
        )
    rows = [
        (
            str(row["question"]),
            f"{row['horizon_days']} days",
            f"{row['converted']:,}",
            with_interval(row, "observed_expected", 2),
            with_interval(row, "calibration_slope", 2),
            with_interval(row, "expected_calibration_error", 4),
        )
        for row in assessment.calibration.to_dict("records")
    ]
    parts = [
        heading,
        table(["question", "within", "converted", "observed/expected", "slope", "mean error"], rows, numbers=4),
        f"Over transitions in which at least {MINIMUM_CALIBRATED} customers moved. Observed/expected above 1: more"
        " moved than predicted. Slope below 1: predictions too extreme. Both are 1 where the probabilities can be"
        " taken at their word. The mean error is how far predicted and observed shares lie apart over ten groups;"
        " chance alone makes it larger than 0, and its interval takes that away, so it may lie below the figure.",
        "### Transitions that fail",
        _failing(training, assessment.failing),
    ]
    return "\n\n".join(parts)


def _failing(training: Training, failing: pd.DataFrame) -> str:
    if failing.empty:
        return "None: no transition's observed/expected or slope differs from 1 after Holm's correction."
    rows = []
    for _, row in failing.sort_values("p_holm", kind="stable").iterrows():
        reason = NOTHING
        if row["figure"] == "observed_expected":
            drift, before, during = training.is_drift(row)
            reason = f"{share(before)} moved before the fold, {share(during)} in it" + (": drift" if drift else "")
        rows.append(
            (
                f"{escape(row['from'])} → {escape(row['to'])}",
                f"{row['horizon_days']} days",
                str(row["finding"]),
                reason,
                {"observed_expected": "observed/expected", "calibration_slope": "slope"}[row["figure"]],
                f"{formatted(row['estimate'], 2)} ({formatted(row['low'], 2)} to {formatted(row['high'], 2)})",
            )
        )
    columns = ["transition", "within", "finding", "reason", "figure", "value"]
    return (
        f"{table(columns, rows, numbers=1)}\n\nFailing: the figure differs from 1 after Holm's correction over all of"
        " them. Drift: of the customers at this stage another share moved in the fold's window than before it, in that"
        " direction and by at least half as much."
    )


def current_stage(training: Training) -> str:
    """Return how the true stage is told from the observed one, how well, and what another coverage would say."""
    heading, stages = "## Current stage", training.stages
    if stages is None:
        return (
            f"{heading}\n\nNo coverage is declared, so the observed stage is taken as the true one, with probability 1."
        )
    names = [name for name in training.definition.journey.names if name not in training.definition.journey.unobserved]
    declared = ", ".join(f"{escape(name)} {value:g}" for name, value in training.config.coverage.items())
    parts = [
        heading,
        f"Declared coverage, the share of customers at a stage whose evidence is visible: {declared}. It cannot be"
        f" learned from touchpoints. Source of the truth: {_SOURCES[stages.model.source]}.",
    ]
    parts += [
        f"**{escape(warning[:1].upper() + warning[1:])}.**"
        for warning in stages.warnings(training.definition.journey.names)
    ]
    if stages.evidence is None and stages.model.source != "presence":
        parts.append("There are too few customers whose true stage is known to judge this.")
    elif stages.evidence is not None:
        parts += list(_stage_evidence(stages.evidence.metrics, stages.evidence.mix, names, stages.evidence.customers))
    parts += [
        "### If the declared coverage is wrong",
        _misstated(stages.misstated, names),
    ]
    return "\n\n".join(parts)


def _stage_evidence(metrics: pd.DataFrame, mix: pd.DataFrame, names: list[str], customers: int) -> Iterator[str]:
    rows = [
        (
            escape(row["contender"]),
            formatted(row["log_loss"], 4),
            share(row["accuracy"]),
            formatted(row["macro_f1"], 3),
            formatted(row["kappa"], 3),
            formatted(row["ranked_probability_score"], 4),
            formatted(row["calibration_error"], 4),
        )
        for row in metrics.to_dict("records")
    ]
    columns = ["", "log loss", "accuracy", "macro F1", "weighted kappa", "ranked probability score", "mean error"]
    yield (
        f"Judged on {plural(customers, 'customer')} whose true stage is known, by models that had not seen them"
        f" (probabilities below {CLIP:g} count as {CLIP:g}):"
    )
    yield table(columns, rows, numbers=6)
    yield "Customers expected at each stage over those who are there (1 is right):"
    rows_of_mix = [
        (escape(row["contender"]), *(formatted(float(row[name]), 2) for name in names))
        for row in mix.to_dict("records")
    ]
    yield table(["", *map(escape, names)], rows_of_mix, numbers=len(names))


def _misstated(misstated: pd.DataFrame, names: list[str]) -> str:
    declared = misstated.iloc[0]
    rows = [("as declared", *(formatted(float(declared[name]), 0) for name in names))]
    for row in misstated.iloc[1:].to_dict("records"):
        rows.append(
            (
                f"{escape(row['changed'])} {row['coverage']:g}",
                *(_converted(float(row[name]), float(declared[name])) for name in names),
            )
        )
    return (
        f"{table(['coverage', *map(escape, names)], rows, numbers=len(names))}\n\nCustomers expected at each stage,"
        " of those by whom the posterior was fitted, and the change where one coverage is 0.1 lower or higher."
    )


def _converted(value: float, declared: float) -> str:
    if not (declared > 0 and math.isfinite(value)) or abs(value / declared - 1) < 0.005 or round(value - declared) == 0:
        return formatted(value, 0)
    return f"{formatted(value, 0)} ({value / declared - 1:+.0%})".replace("%", " %")


def subgroups(compared: pd.DataFrame, segments: Sequence[str]) -> str:
    """Return the subgroups that the model serves otherwise than the rest, or that none was found."""
    heading = "## Subgroups"
    named = sentence_list(name.replace("_", " ").replace("attribute:", "") for name in segments)
    if compared.empty:
        return (
            f"{heading}\n\nBy {named}: no subgroup and its rest have {MINIMUM_CONVERTED} customers each who moved, so"
            " none can be compared."
        )
    flagged = compared[compared["calibration_differs"] | compared["log_loss_differs"]]
    comparisons = plural(len(compared), "comparison")
    if flagged.empty:
        return (
            f"{heading}\n\nBy {named}: {comparisons} of a subgroup with the rest of the same transition, at the"
            " horizons of the lists, and none differs after Holm's correction."
        )
    order = flagged.assign(p=flagged[["p_log_loss_holm", "p_observed_expected_holm"]].min(axis=1))
    rows = [
        (
            f"{escape(str(row['segment']).removeprefix('attribute:'))}: {escape(row['value'])}",
            f"{escape(row['from'])} → {escape(row['to'])}",
            f"{row['horizon_days']} days",
            "is wrong in another way" if row["calibration_differs"] else "is harder to predict",
            f"{row['n']:,}",
            f"{formatted(row['observed_expected'], 2)} / {formatted(row['observed_expected_rest'], 2)}",
            with_interval(row, "log_loss_gap", 3),
        )
        for row in order.sort_values("p", kind="stable").head(_SHOWN).to_dict("records")
    ]
    columns = ["subgroup", "transition", "within", "finding", "customers", "observed/expected, rest's", "log loss gap"]
    return (
        f"{heading}\n\nBy {named}: {len(flagged):,} of {comparisons} with the rest of the same transition, at the"
        f" horizons of the lists, differ after Holm's correction. {_more(len(flagged), 'difference')}".rstrip()
        + f"\n\n{table(columns, rows, numbers=3)}"
    )


def verdict(training: Training) -> str:
    """Return whether this model replaced the champion, with the numbers that decided."""
    found = training.verdict
    parts = ["## Against the champion", escape(found.sentence)]
    if found.transitions:
        parts.append(
            f"Compared on {plural(found.customers, 'customer')} and {plural(len(found.transitions), 'transition')} with"
            " horizon, by models that were both cut before that window."
        )
    if found.worse:
        parts.append(
            bullets(
                f"{escape(one.origin)} → {escape(one.target)} within {one.horizon_days} days: log loss"
                f" {one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f}), {plural(one.converted, 'customer')} moved"
                for one in found.worse
            )
        )
    return "\n\n".join(parts)
