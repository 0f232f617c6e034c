"""The linear hazard: its inputs are those written out here, its sum is the plain one, its contributions are Shapley's.

The compiled sum is so to the last bit, and however rows are cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit

from cvj_ml.models.hazard.base_rates import BaseRates
from cvj_ml.models.hazard.linear import INPUTS, Columns, LinearHazard, _inputs
from cvj_ml.panel.panel import HazardRows

STAGES, INTERVALS, CUSTOMERS = 3, 4, 9


@dataclass(frozen=True)
class Case:
    """A line of random coefficients, and rows to ask it about."""

    hazard: LinearHazard
    x: npt.NDArray[np.float32]
    columns: Columns
    base: BaseRates
    stage: npt.NDArray[np.int8]
    rows: HazardRows

    def logits(self, x: npt.NDArray[np.float32], rows: HazardRows) -> npt.NDArray[np.float64]:
        return self.hazard.logits(x, self.columns, self.base, self.stage, rows)


def case(seed: int, rows: int) -> Case:
    rng = np.random.default_rng(seed)
    x = rng.choice([0, 1, 3, 40.5, 700, -2, np.nan], (CUSTOMERS, 10)).astype(np.float32)
    progress = rng.integers(4, 10, (STAGES + 1, 2))
    progress[rng.random(STAGES + 1) < 0.3] = -1
    rates = rng.uniform(0.001, 0.9, (STAGES + 1, STAGES + 1, INTERVALS))
    known = np.ones(rates.shape, dtype=np.bool_)
    return Case(
        LinearHazard(rng.uniform(0, 900, 4), rng.normal(0, 1, 22), rng.uniform(0.1, 3, 22), rng.normal(0, 1, 22), 0.3),
        x,
        Columns(progress, np.array([3, 0, 1, 2]), rng.normal(0, 2, INTERVALS)),
        BaseRates(np.zeros(0), rates, np.zeros(0), known, np.ones((STAGES + 1, STAGES + 1))),
        rng.integers(-1, STAGES, CUSTOMERS).astype(np.int8),
        HazardRows(
            rng.integers(0, CUSTOMERS, rows),
            rng.integers(0, STAGES + 1, rows).astype(np.int8),
            rng.integers(0, INTERVALS, rows).astype(np.int8),
            np.zeros(rows, dtype=np.bool_),
        ),
    )


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 60))
def test_the_sum_is_that_of_the_table_of_inputs(seed: int, rows: int) -> None:
    one = case(seed, rows)
    hazard, inputs = one.hazard, _inputs(one.x, one.columns, one.hazard.missing, one.base, one.stage, one.rows)
    table = (inputs - hazard.mean) / hazard.scale
    expected = np.full(rows, hazard.intercept)
    for column, weight in zip(table.T, hazard.coefficients, strict=True):
        expected += weight * column
    assert one.logits(one.x, one.rows).tobytes() == expected.tobytes()
    half = one.rows.take(slice(rows // 2, None))
    assert one.logits(one.x, half).tobytes() == expected[rows // 2 :].tobytes()


@given(seed=st.integers(0, 2**32 - 1))
def test_the_inputs_are_these(seed: int) -> None:
    """Bundles hold a coefficient for each input by its place, so neither their order nor their meaning may change."""
    one = case(seed, 5)
    rows, columns = one.rows, one.columns
    found = _inputs(one.x, columns, one.hazard.missing, one.base, one.stage, rows)
    assert len(INPUTS) == found.shape[1] == 22
    for r in range(len(rows)):
        i, j, m = rows.snapshot[r], rows.target[r], rows.interval[r]
        known = [one.x[i, column] for column in columns.history]
        logs = [
            np.log1p(max(w if np.isnan(v) else float(v), 0.0)) for v, w in zip(known, one.hazard.missing, strict=True)
        ]
        recency, frequency, tenure, active = logs
        habits = [recency, frequency, tenure, active, recency * frequency, recency - tenure]
        remaining = float(one.x[i, columns.progress[j, 1]]) if columns.progress[j, 1] >= 0 else 0.0
        needed, middle = np.log1p(max(np.nan_to_num(remaining), 0.0)), columns.middle[m]
        ahead = [needed, needed * needed, needed * recency, needed * frequency, needed * tenure]
        ahead += [middle * needed, middle * recency, middle * frequency, middle * tenure]
        expected = [*habits, *[0.0] * 15] if j == 0 else [*[0.0] * 6, *habits, *ahead]
        assert found[r] == pytest.approx([logit(one.base.by_stage[one.stage[i] + 1, j, m]), *expected], rel=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_contributions_are_the_shapley_values_of_the_sum(seed: int) -> None:
    """The oracle lets a typical customer become this one, fact after fact, in every order there is."""
    one = case(seed, 4)
    rows, typical = one.rows, one.x[0]
    found = one.hazard.contributions(one.x, typical, one.columns, rows)
    orders = list(permutations(range(5)))
    for r in range(len(rows)):
        row, where = rows.take(slice(r, r + 1)), int(rows.snapshot[r])
        of_facts = [*one.columns.history, one.columns.progress[rows.target[r], 1]]
        expected = np.zeros(5)
        worth: dict[frozenset[int], float] = {}

        def logit_with(facts: frozenset[int], where: int = where, row: HazardRows = row) -> float:
            x = one.x.copy()
            x[where] = [one.x[where, c] if c in facts else typical[c] for c in range(x.shape[1])]
            return float(one.logits(x, row)[0])

        for order in orders:
            there: frozenset[int] = frozenset()
            for fact in order:
                more = there | {int(of_facts[fact])}
                for facts in (there, more):
                    if facts not in worth:
                        worth[facts] = logit_with(facts)
                expected[fact] += (worth[more] - worth[there]) / len(orders)
                there = more
        assert found[r] == pytest.approx(expected, rel=1e-9, abs=1e-9)
