"""The linear hazard: its compiled sum is the plain one, to the last bit, and does not depend on how rows are cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml.models.hazard.base_rates import BaseRates
from cvj_ml.models.hazard.linear import Columns, LinearHazard, _inputs
from cvj_ml.panel.panel import HazardRows


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 60))
def test_the_sum_is_that_of_the_table_of_inputs(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    stages, intervals, customers = 3, 4, 9
    x = rng.choice([0, 1, 3, 40.5, 700, -2, np.nan], (customers, 10)).astype(np.float32)
    progress = rng.integers(4, 10, (stages + 1, 2))
    progress[rng.random(stages + 1) < 0.3] = -1
    columns = Columns(progress, np.array([3, 0, 1, 2]), rng.normal(0, 2, intervals))
    rates = rng.uniform(0.001, 0.9, (stages + 1, stages + 1, intervals))
    known = np.ones(rates.shape, dtype=np.bool_)
    base = BaseRates(np.zeros(0), rates, np.zeros(0), known, np.ones((stages + 1, stages + 1)))
    scale = rng.uniform(0.1, 3, 22)
    hazard = LinearHazard(rng.uniform(0, 900, 4), rng.normal(0, 1, 22), scale, rng.normal(0, 1, 22), 0.3)
    stage = rng.integers(-1, stages, customers).astype(np.int8)
    asked = HazardRows(
        rng.integers(0, customers, rows),
        rng.integers(0, stages + 1, rows).astype(np.int8),
        rng.integers(0, intervals, rows).astype(np.int8),
        np.zeros(rows, dtype=np.bool_),
    )
    table = (_inputs(x, columns, hazard.missing, base, stage, asked) - hazard.mean) / hazard.scale
    expected = np.full(rows, hazard.intercept)
    for column, weight in zip(table.T, hazard.coefficients, strict=True):
        expected += weight * column
    found = hazard.logits(x, columns, base, stage, asked)
    assert found.tobytes() == expected.tobytes()
    half = asked.take(slice(rows // 2, None))
    assert hazard.logits(x, columns, base, stage, half).tobytes() == expected[rows // 2 :].tobytes()
