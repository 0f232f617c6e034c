"""Three reasons in plain words for every listed customer: what speaks for and against the move, most weighty first.

A reason is one fact about the customer: contributions of all columns that tell of the same thing (windows and
statistics of one event, say) are added, and the column that weighs most among them is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml.config import DAY
from cvj_ml.engines import Engine
from cvj_ml.errors import ModelError
from cvj_ml.histories import Block
from cvj_ml.lists.ranking import RankedList
from cvj_ml.lists.words import compare
from cvj_ml.models.explanation import Explainer, Explanation
from cvj_ml.models.predictor import Answers, Predictor
from cvj_ml.models.reference import Reference
from cvj_ml.panel import Definition

_F64 = npt.NDArray[np.float64]

COLUMNS = ("reason_1", "reason_2", "reason_3")
SMALLEST = float(np.log(1.05))
"""A fact that changes the odds by less than 5 % is no reason."""

_NOT_THEIRS = ("stage", "calendar")
"""Facts that all customers of a list share; what they add belongs to the base."""

_Fact = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """A margin by facts: ``margin`` = ``base`` + the sum of ``contributions`` (rows, facts), up to rounding."""

    names: tuple[_Fact, ...]
    columns: tuple[tuple[int, ...], ...]
    margin: _F64
    base: _F64
    contributions: _F64


def with_reasons(
    lists: Sequence[RankedList], predictor: Predictor, engine: Engine, as_of: int
) -> tuple[RankedList, ...]:
    """Return the lists with their reasons.

    Features of the listed customers are computed anew, in their buckets only. ModelError where the model has no
    reference; AssertionError where a probability comes out otherwise than on the list.
    """
    if predictor.reference is None:
        raise ModelError("The model does not know what is typical of its customers (reference.json). Train anew.")
    reference, explainer = predictor.reference, Explainer(predictor)
    listed = [one.rows["customer_id"].to_pylist() for one in lists]
    shown = [one.rows["probability"].to_numpy() for one in lists]
    place = [{name: i for i, name in enumerate(names)} for names in listed]

    def work(block: Block) -> list[dict[int, list[str | None]]]:
        answers = predictor.answer(block, as_of)
        names = [block.customers[i] for i in answers.snapshots.customer]
        found = []
        for one, places, probability in zip(lists, place, shown, strict=True):
            rows = np.array([i for i, name in enumerate(names) if name in places], dtype=np.int64)
            where = [places[names[i]] for i in rows]
            texts = _reasons(one, predictor.definition, explainer, reference, answers, rows, probability[where])
            found.append(dict(zip(where, texts, strict=True)))
        return found

    parts = engine.only(name for names in listed for name in names).map(work)
    result = []
    for k, one in enumerate(lists):
        by_place = {i: texts for part in parts for i, texts in part[k].items()}
        table = one.rows
        for r, column in enumerate(COLUMNS):
            values = pa.array([by_place[i][r] for i in range(len(table))], type=pa.string())
            table = table.set_column(table.column_names.index(column), column, values)
        result.append(replace(one, rows=table))
    return tuple(result)


def _reasons(
    one: RankedList,
    definition: Definition,
    explainer: Explainer,
    reference: Reference,
    answers: Answers,
    rows: npt.NDArray[np.int64],
    probability: _F64,
) -> list[list[str | None]]:
    names = definition.journey.names
    stage, target = names.index(one.spec.from_stage), 1 + names.index(one.spec.to_stage)
    horizon = definition.horizons.index(one.spec.horizon)
    if not np.array_equal(answers.probability[rows, target, horizon], probability):
        raise AssertionError(f"{one.title}, {one.spec.horizon // DAY} days: a listed score could not be computed again")
    x, typical = answers.x[rows], reference.typical[stage + 1]
    explanation = explainer.explain(x, stage, target, horizon + 1, typical)
    facts = by_fact(definition, explanation, one.spec.from_stage)
    whom = one.spec.from_stage if reference.own[stage + 1] else None
    usual = typical.tolist()
    return [
        _three(definition, facts, facts.contributions[i], explanation.contributions[i], x[i].tolist(), usual, whom)
        for i in range(len(rows))
    ]


def by_fact(definition: Definition, explanation: Explanation, stage: str) -> Facts:
    """Add the contributions of columns up by fact, for customers of one stage."""
    columns: dict[_Fact, list[int]] = {}
    base = explanation.base.copy()
    for column, feature in enumerate(definition.catalogue.features):
        # The days since the present stage was entered are the days in it, but for those who had been higher before.
        fact = ("in_stage",) if feature.fact == ("entered", stage) else feature.fact
        if fact[0] in _NOT_THEIRS:
            base += explanation.contributions[:, column]
        else:
            columns.setdefault(fact, []).append(column)
    sums = np.zeros((len(base), len(columns)))
    for k, members in enumerate(columns.values()):
        for column in members:  # one by one: the same sum for any number of rows
            sums[:, k] += explanation.contributions[:, column]
    return Facts(tuple(columns), tuple(map(tuple, columns.values())), explanation.margin, base, sums)


def _three(
    definition: Definition,
    facts: Facts,
    by_fact: _F64,
    by_column: _F64,
    mine: Sequence[float],
    typical: Sequence[float],
    stage: str | None,
) -> list[str | None]:
    """Return three reasons for one customer, None where there are fewer: the weightiest facts that can be told."""
    reasons: list[str | None] = []
    for k in np.argsort(-np.abs(by_fact), kind="stable"):
        if abs(by_fact[k]) < SMALLEST or len(reasons) == len(COLUMNS):
            break
        sign = np.sign(by_fact[k])
        members = sorted(facts.columns[k], key=lambda column: -sign * by_column[column])
        told = (compare(definition, column, mine, typical, stage) for column in members if sign * by_column[column] > 0)
        if text := next((one for one in told if one), None):
            reasons.append(f"Speaks {'for' if sign > 0 else 'against'}: {text}")
    return reasons + [None] * (len(COLUMNS) - len(reasons))
