"""What a backtest found: figures with intervals over customers, calibration, and where a baseline does better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.evaluation.backtesting import MODEL, Cell, Evaluated
from cvj_ml.evaluation.bootstrap import Resampled, holm, interval, p_value, reflected_interval, resample
from cvj_ml.evaluation.metrics import (
    Interval,
    auc,
    calibration_slope_intercept,
    expected_calibration_error,
    log_loss_terms,
    observed_expected,
)

MINIMUM_CALIBRATED = 100
"""Customers who must have moved before a cell's calibration is evaluated."""

SIGNIFICANT = 0.05


def _with_bounds(*names: str) -> list[str]:
    return [f"{name}{bound}" for name in names for bound in ("", "_low", "_high")]


_FIGURES = _with_bounds("observed_expected", "calibration_slope", "expected_calibration_error")
_CELL = ["from", "to", "horizon_days"]
_COUNTS = ["transitions", "n", "converted"]
_LOSS, _ABOVE = _with_bounds("log_loss"), _with_bounds("log_loss_above_model")
_CELLS = ["contender", *_CELL, "n", "converted", "base_rate", *_LOSS, *_with_bounds("auc"), *_FIGURES, *_ABOVE]
_MEANS = ["question", "horizon_days", "contender", *_COUNTS, *_LOSS, *_ABOVE]
_CALIBRATION = ["question", "horizon_days", *_COUNTS, *_FIGURES]


@dataclass(frozen=True, slots=True)
class Assessment:
    """Tables of one fold; bounds are 95 % intervals over customers.

    cells: a row for each contender, transition and horizon. means: a row for each contender, question (reach of
    later stages, or return) and horizon, over the transitions in which everybody can be evaluated, weighted by
    customers. calibration: the model's, pooled over cells in which at least 100 customers moved. failing: of these
    cells those whose observed/expected or slope differs from 1 after Holm's correction. baseline_wins: cells in which
    a baseline has the lower log loss, and whether that is more than chance after Holm's correction.
    """

    cells: pd.DataFrame
    means: pd.DataFrame
    calibration: pd.DataFrame
    failing: pd.DataFrame
    baseline_wins: pd.DataFrame


def assess(evaluated: Evaluated, keys: npt.NDArray[np.uint64]) -> Assessment:
    """Evaluate every contender of a fold; ``keys`` are those of the draws (`draw_keys`)."""
    cells = [cell for cell in evaluated.cells() if evaluated.evaluable(cell)]
    names = [MODEL, *(name for name in evaluated.probabilities if name != MODEL)]
    drawn: list[Resampled] = []
    rows: list[dict[str, object]] = []
    tests: list[dict[str, object]] = []
    for cell in cells:
        predicted = [evaluated.predicted(name, cell) for name in names]
        drawn.append(
            resample(evaluated.converted_in(cell), predicted[0], evaluated.customer[cell.rows], keys, predicted[1:])
        )
        rows += _rows(evaluated, cell, names, drawn[-1])
        tests += _tests(evaluated, cell, names, drawn[-1])
    tested = pd.DataFrame(tests, columns=[*_CELL, "contender", "figure", "estimate", "low", "high", "p"])
    return Assessment(
        pd.DataFrame(rows, columns=_CELLS),
        pd.DataFrame(_means(evaluated, cells, names, drawn), columns=_MEANS),
        pd.DataFrame(_calibration(evaluated, cells, keys), columns=_CALIBRATION),
        _failing(tested[tested["contender"] == MODEL]),
        _baseline_wins(tested[tested["contender"] != MODEL]),
    )


def questions(evaluated: Evaluated, cells: Sequence[Cell]) -> Iterator[tuple[str, int, list[Cell]]]:
    """Yield (question, horizon, its cells): ``reach`` of later stages and ``return`` are evaluated apart."""
    for question in ("reach", "return"):
        for h in range(len(evaluated.horizons)):
            here = [cell for cell in cells if cell.horizon == h and (cell.target == 0) == (question == "return")]
            if here:
                yield question, h, here


def stacked(evaluated: Evaluated, cells: Sequence[Cell], contender: str) -> npt.NDArray[np.float64]:
    """Return what a contender said in several cells, one after the other."""
    return np.concatenate([evaluated.predicted(contender, cell) for cell in cells])


def outcomes_of(evaluated: Evaluated, cells: Sequence[Cell]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return who moved in several cells, and whose rows these are."""
    converted = np.concatenate([evaluated.converted_in(cell) for cell in cells])
    return converted, np.concatenate([evaluated.customer[cell.rows] for cell in cells])


def bounds(name: str, found: Interval) -> dict[str, float]:
    """Return an interval as three columns."""
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def calibratable(evaluated: Evaluated, cell: Cell) -> bool:
    """Return whether enough distinct customers moved for a word on calibration."""
    return len(np.unique(evaluated.customer[cell.rows[evaluated.converted_in(cell)]])) >= MINIMUM_CALIBRATED


def _loss(converted: npt.NDArray[np.bool_], p: npt.NDArray[np.float64]) -> float:
    return float(log_loss_terms(converted, p).mean())


def _name(evaluated: Evaluated, cell: Cell) -> dict[str, str | int]:
    return {"from": cell.origin, "to": cell.name, "horizon_days": evaluated.horizons[cell.horizon] // DAY}


def _rows(evaluated: Evaluated, cell: Cell, names: Sequence[str], drawn: Resampled) -> Iterator[dict[str, object]]:
    """Yield a cell's row for each contender; calibration is the model's, AUCs of others stand without interval."""
    converted = evaluated.converted_in(cell)
    p = evaluated.predicted(MODEL, cell)
    counts = {
        **_name(evaluated, cell),
        "n": len(converted),
        "converted": int(converted.sum()),
        "base_rate": float(converted.mean()),
    }
    yield {
        "contender": MODEL,
        **counts,
        **bounds("log_loss", interval(_loss(converted, p), drawn.log_loss[0])),
        **bounds("auc", interval(auc(converted, p), drawn.auc)),
        **_calibrated(converted, p, drawn),
    }
    for name, losses in zip(names[1:], drawn.log_loss[1:], strict=True):
        predicted = evaluated.predicted(name, cell)
        # No `paired_difference`: each contender's own draws are there, of the same customers, so no second pass is due.
        above = interval(_loss(converted, predicted) - _loss(converted, p), losses - drawn.log_loss[0])
        yield {
            "contender": name,
            **counts,
            **bounds("log_loss", interval(_loss(converted, predicted), losses)),
            "auc": auc(converted, predicted),
            **bounds("log_loss_above_model", above),
        }


def _calibrated(converted: npt.NDArray[np.bool_], p: npt.NDArray[np.float64], drawn: Resampled) -> dict[str, float]:
    """Return observed/expected, slope and calibration error with their bounds."""
    error = reflected_interval(expected_calibration_error(converted, p), drawn.expected_calibration_error)
    return {
        **bounds("observed_expected", interval(observed_expected(converted, p), drawn.observed_expected)),
        **bounds(
            "calibration_slope", interval(calibration_slope_intercept(converted, p).slope, drawn.calibration_slope)
        ),
        **bounds("expected_calibration_error", error),
    }


def _tests(evaluated: Evaluated, cell: Cell, names: Sequence[str], drawn: Resampled) -> Iterator[dict[str, object]]:
    """Yield what Holm's correction takes in: each baseline's log loss above the model's, the model's calibration."""
    converted, p = evaluated.converted_in(cell), evaluated.predicted(MODEL, cell)
    for name, losses in zip(names[1:], drawn.log_loss[1:], strict=True):
        above = _loss(converted, evaluated.predicted(name, cell)) - _loss(converted, p)
        draws = losses - drawn.log_loss[0]
        yield _test(evaluated, cell, name, "log_loss", interval(above, draws), p_value(above, draws))
    if not calibratable(evaluated, cell):
        return
    ratio = interval(observed_expected(converted, p), drawn.observed_expected)
    with np.errstate(divide="ignore"):
        # On the logarithm, where twice too many and half too few lie equally far from 1.
        p_ratio = p_value(math.log(ratio.estimate), np.log(drawn.observed_expected))
    yield _test(evaluated, cell, MODEL, "observed_expected", ratio, p_ratio)
    slope = interval(calibration_slope_intercept(converted, p).slope, drawn.calibration_slope)
    p_slope = p_value(slope.estimate, drawn.calibration_slope, null=1.0)
    yield _test(evaluated, cell, MODEL, "calibration_slope", slope, p_slope)


def _test(
    evaluated: Evaluated, cell: Cell, contender: str, figure: str, found: Interval, p: float
) -> dict[str, object]:
    found_bounds = {"estimate": found.estimate, "low": found.low, "high": found.high}
    return {**_name(evaluated, cell), "contender": contender, "figure": figure, **found_bounds, "p": p}


def _means(
    evaluated: Evaluated, cells: Sequence[Cell], names: Sequence[str], drawn: Sequence[Resampled]
) -> Iterator[dict[str, object]]:
    draws_of = dict(zip(cells, drawn, strict=True))
    for question, h, here in questions(evaluated, cells):
        rows = np.sum([draws_of[cell].rows for cell in here], axis=0)
        # Sums over the cells of each draw: a mean weighted by the customers drawn.
        with np.errstate(invalid="ignore"):
            losses = np.sum([draws_of[cell].log_loss * draws_of[cell].rows for cell in here], axis=0) / rows
        converted, _ = outcomes_of(evaluated, here)
        of_model = _loss(converted, stacked(evaluated, here, MODEL))
        for name, draws in zip(names, losses, strict=True):
            loss = _loss(converted, stacked(evaluated, here, name))
            above = interval(loss - of_model, draws - losses[0])
            yield {
                "question": question,
                "horizon_days": evaluated.horizons[h] // DAY,
                "contender": name,
                "transitions": len(here),
                "n": len(converted),
                "converted": int(converted.sum()),
                **bounds("log_loss", interval(loss, draws)),
                **(bounds("log_loss_above_model", above) if name != MODEL else {}),
            }


def _calibration(
    evaluated: Evaluated, cells: Sequence[Cell], keys: npt.NDArray[np.uint64]
) -> Iterator[dict[str, object]]:
    for question, h, here in questions(evaluated, [cell for cell in cells if calibratable(evaluated, cell)]):
        converted, customer = outcomes_of(evaluated, here)
        p = stacked(evaluated, here, MODEL)
        drawn = resample(converted, p, customer, keys)
        yield {
            "question": question,
            "horizon_days": evaluated.horizons[h] // DAY,
            "transitions": len(here),
            "n": len(converted),
            "converted": int(converted.sum()),
            **_calibrated(converted, p, drawn),
        }


def _failing(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the tests of calibration that stand after Holm's correction over all of them, in words, too."""
    corrected = tests.drop(columns="contender").assign(p_holm=holm(tests["p"]))
    failing = corrected[corrected["p_holm"] < SIGNIFICANT]
    words = [_finding(figure, value) for figure, value in zip(failing["figure"], failing["estimate"], strict=True)]
    return failing.assign(finding=words).reset_index(drop=True)


def _finding(figure: str, value: float) -> str:
    if figure == "observed_expected":
        return "more moved" if value > 1 else "fewer moved"
    return "too alike" if value > 1 else "too extreme"


def _baseline_wins(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the cells in which a baseline has the lower log loss, the clearest first."""
    corrected = tests.drop(columns="figure").assign(p_holm=holm(tests["p"]))
    wins = corrected[corrected["estimate"] < 0].rename(columns={"estimate": "log_loss_above_model"})
    return wins.assign(beyond_chance=wins["p_holm"] < SIGNIFICANT).sort_values("p_holm", ignore_index=True)
