"""Which part of the forecast was wrong on the fold: its level, its spread or its ranking, in words and in figures."""

from __future__ import annotations

from collections.abc import Iterator

from cvj_ml.config import DAY
from cvj_ml.evaluation.assessment import Assessment
from cvj_ml.evaluation.backtesting import MODEL
from cvj_ml.evaluation.diagnosis import diagnosis
from cvj_ml.model_card.facts import Training
from cvj_ml.model_card.markdown import bullets, escape, formatted, table, with_interval
from cvj_ml.windows import to_datetime


def diagnosis_in_short(training: Training, assessment: Assessment) -> Iterator[str]:
    """Yield for each question which part was wrong, at the horizons of the lists."""
    first = to_datetime(training.result.fold.cut, training.definition.zone).date()
    shown = [horizon // DAY for horizon in training.horizons]
    parts = assessment.decomposition
    for row in parts[parts["contender"] == MODEL].to_dict("records"):
        if row["horizon_days"] in shown:
            yield diagnosis(row, first)


def level_slope_ranking(training: Training, assessment: Assessment) -> str:
    """Return the parts of the log loss, of the model and of every baseline."""
    heading = "## Level, slope and ranking"
    if assessment.decomposition.empty:
        return f"{heading}\n\nToo few customers moved in every transition, so no part can be told from another."
    rows = [
        (
            str(row["question"]),
            f"{row['horizon_days']} days",
            escape(row["contender"]),
            formatted(row["log_loss"], 4),
            with_interval(row, "level", 4),
            formatted(row["slope"], 4),
            with_interval(row, "ranking", 4),
            with_interval(row, "auc", 3),
            f"{formatted(row['converted'], 0)} / {formatted(row['expected'], 0)}",
        )
        for row in assessment.decomposition.to_dict("records")
        if row["horizon_days"] in {horizon // DAY for horizon in training.horizons}
    ]
    columns = ["question", "within", "contender", "log loss", "level", "slope", "ranking", "AUC", "observed / expected"]
    return "\n\n".join(
        [
            heading,
            bullets(diagnosis_in_short(training, assessment)),
            table(columns, rows, numbers=6),
            "Log loss is the sum of three parts: what the right level would have saved, what the right slope would have"
            " saved on top, and what remains, which only a better ranking lowers. Level and slope are refitted on the"
            " outcomes themselves, so they tell what was wrong and not what could have been known. A part is called"
            " wrong where the 95 % interval of observed/expected, or of the slope, leaves out 1; percentages are shares"
            " of what was expected. The AUC is a mean over the transitions, weighted by customers.",
        ]
    )
