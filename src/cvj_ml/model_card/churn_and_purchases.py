"""The outcomes in the card: which have a model of their own, and how good it is beside the rules of thumb."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from cvj_ml.evaluation.backtesting import MODEL
from cvj_ml.evaluation.outcome_evaluation import LIFT_SHARES
from cvj_ml.journey import Outcome, in_scores
from cvj_ml.model_card.facts import Training
from cvj_ml.model_card.markdown import bullets, escape, formatted, sentence_list, table, with_interval

_Row = Mapping[Hashable, Any]

_MEANING = {
    "churn": "no kept event within the horizon",
    "purchase": "an event of the journey's `value` within the horizon",
}


def churn_and_purchases(training: Training, found: pd.DataFrame) -> str:
    """Return the section on churn and purchase; ``found`` is `outcome_table` of the fold."""
    definition = training.definition
    parts = ["## Churn and purchases", bullets(_asked(one) for one in definition.outcomes)]
    rows = [
        (
            escape(model["outcome"]),
            f"{model['horizon_days']} days",
            f"{model['n']:,}",
            f"{model['converted']:,}",
            with_interval(model, "log_loss", 4),
            f"{formatted(best['log_loss'], 4)} ({escape(best['contender'])})",
            with_interval(model, "observed_expected", 2),
            " / ".join(formatted(model[f"lift_{share * 100:g}"], 2) for share in LIFT_SHARES),
            " / ".join(formatted(thumb[f"lift_{share * 100:g}"], 2) for share in LIFT_SHARES),
        )
        for model, best, thumb in _compared(found)
    ]
    if rows:
        shares = " / ".join(f"{share * 100:g}" for share in LIFT_SHARES)
        columns = ["outcome", "within", "asked", "happened", "log loss", "best baseline", "observed/expected"]
        parts += [
            table([*columns, f"lift at the top {shares} %", "by stage and recency"], rows, numbers=7),
            "Lift is how much more often it happened to the likeliest than to all. A churn probability says who leaves"
            " if you go on as before, not whom a contact would keep.",
        ]
    elif definition.own_outcomes:
        parts.append("Too few customers moved within any horizon for a word on how good these are.")
    return "\n\n".join(parts)


def _asked(one: Outcome) -> str:
    if one.stage is not None:
        return f"**{escape(one.name)}**: the stay in {escape(one.stage)} ends by its rules, of those who hold it."
    name = in_scores(one.name)
    named = sentence_list(sorted(one.events))
    events = f"any of their own touchpoints{f' but {named}' if named else ''}" if one.but else named
    same = f"; on this data the same question as {one.same_as}, whose answer it has" if one.same_as else ""
    return f"**{escape(name)}**: {_MEANING[name]} ({events}){same}."


def _compared(found: pd.DataFrame) -> Iterator[tuple[_Row, _Row, _Row]]:
    """Yield of each outcome and horizon the rows of the model, of the best baseline and of the rule of thumb."""
    for _, here in found.groupby(["outcome", "horizon_days"], sort=False):
        by_contender: dict[object, _Row] = {row["contender"]: row for row in here.to_dict("records")}
        others = [row for name, row in by_contender.items() if name != MODEL]
        best = min(others, key=lambda row: float(row["log_loss"]))
        yield by_contender[MODEL], best, by_contender["stage and recency"]
