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
from cvj_ml.evaluation.bootstrap import Draws, Resampled, draw_cell, holm, interval, p_value, reflected_interval
from cvj_ml.evaluation.metrics import Interval, auc, expected_calibration_error, log_loss_terms, observed_expected
from cvj_ml.evaluation.recalibration import calibration_slope_intercept, decompose_log_loss

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
_DECOMPOSITION = [
    *("question", "horizon_days", "contender", *_COUNTS, "expected", "log_loss"),
    *(*_with_bounds("level"), "slope", *_with_bounds("ranking", "auc", "observed_expected", "calibration_slope")),
]


@dataclass(frozen=True, slots=True)
class Assessment:
    """Tables of one fold; bounds are 95 % intervals over customers.

    cells: a row for each contender, transition and horizon. means: a row for each contender, question (reach of
    later stages, or return) and horizon, over the transitions in which everybody can be evaluated, weighted by
    customers. calibration: the model's, pooled over cells in which at least 100 customers moved. failing: of these
    cells those whose observed/expected or slope differs from 1 after Holm's correction. baseline_wins: cells in which
    a baseline has the lower log loss, and whether that is more than chance after Holm's correction. decomposition: as
    means, with the log-odds refitted over the rows of all these transitions at once: what part of the log loss is
    level, slope and ranking (`decompose_log_loss`), the moves that happened and were expected, and the AUC as a mean
    over the transitions, weighted by customers; bounds are the model's.
    """

    cells: pd.DataFrame
    means: pd.DataFrame
    calibration: pd.DataFrame
    failing: pd.DataFrame
    baseline_wins: pd.DataFrame
    decomposition: pd.DataFrame


@dataclass(frozen=True, slots=True)
class _Judged:
    """A cell whose customers can be evaluated, with every figure that several tables show.

    converted: (n,); losses and aucs: of each contender, the model first; calibrated: the model's, as columns.
    """

    cell: Cell
    converted: npt.NDArray[np.bool_]
    losses: tuple[float, ...]
    aucs: tuple[float, ...]
    drawn: Resampled
    calibrated: dict[str, float]


def assess(evaluated: Evaluated, keys: npt.NDArray[np.uint64]) -> Assessment:
    """Evaluate every contender of a fold; ``keys`` are those of the draws (`draw_keys`)."""
    names = [MODEL, *(name for name in evaluated.probabilities if name != MODEL)]
    judged = {cell: _judge(evaluated, cell, names, keys) for cell in evaluated.cells() if evaluated.evaluable(cell)}
    rows = [row for one in judged.values() for row in _rows(evaluated, one, names)]
    tests = [test for one in judged.values() for test in _tests(evaluated, one, names)]
    tested = pd.DataFrame(tests, columns=[*_CELL, "contender", "figure", "estimate", "low", "high", "p"])
    means: list[dict[str, object]] = []
    calibration: list[dict[str, object]] = []
    decomposition: list[dict[str, object]] = []
    for question, h, here in questions(evaluated, list(judged)):
        asked = {"question": question, "horizon_days": evaluated.horizons[h] // DAY}
        of_question = [judged[cell] for cell in here]
        pooled = _pooled(evaluated, here, keys)
        means += [{**asked, **row} for row in _means(of_question, names)]
        decomposition += [{**asked, **row} for row in _decomposition(evaluated, of_question, names, pooled)]
        if clear := [cell for cell in here if calibratable(evaluated, cell)]:
            # Mostly these are all cells, whose rows are then drawn once.
            drawn = pooled if len(clear) == len(here) else _pooled(evaluated, clear, keys)
            calibration.append({**asked, **_calibration(evaluated, clear, drawn)})
    return Assessment(
        pd.DataFrame(rows, columns=_CELLS),
        pd.DataFrame(means, columns=_MEANS),
        pd.DataFrame(calibration, columns=_CALIBRATION),
        _failing(tested[tested["contender"] == MODEL]),
        _baseline_wins(tested[tested["contender"] != MODEL]),
        pd.DataFrame(decomposition, columns=_DECOMPOSITION),
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


def _judge(evaluated: Evaluated, cell: Cell, names: Sequence[str], keys: npt.NDArray[np.uint64]) -> _Judged:
    converted = evaluated.converted_in(cell)
    predicted = [evaluated.predicted(name, cell) for name in names]
    drawn = draw_cell(converted, predicted[0], evaluated.customer[cell.rows], keys, predicted[1:]).statistics()
    return _Judged(
        cell,
        converted,
        tuple(float(log_loss_terms(converted, p).mean()) for p in predicted),
        tuple(auc(converted, p) for p in predicted),
        drawn,
        _calibrated(converted, predicted[0], drawn),
    )


def _pooled(evaluated: Evaluated, cells: Sequence[Cell], keys: npt.NDArray[np.uint64]) -> Draws:
    """Return the draws of the model's predictions in several cells together."""
    converted, customer = outcomes_of(evaluated, cells)
    return draw_cell(converted, stacked(evaluated, cells, MODEL), customer, keys)


def _name(evaluated: Evaluated, cell: Cell) -> dict[str, str | int]:
    return {"from": cell.origin, "to": cell.name, "horizon_days": evaluated.horizons[cell.horizon] // DAY}


def _rows(evaluated: Evaluated, one: _Judged, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield a cell's row for each contender; calibration is the model's, AUCs of others stand without interval."""
    drawn = one.drawn
    counts = {
        **_name(evaluated, one.cell),
        "n": len(one.converted),
        "converted": int(one.converted.sum()),
        "base_rate": float(one.converted.mean()),
    }
    yield {
        "contender": MODEL,
        **counts,
        **bounds("log_loss", interval(one.losses[0], drawn.log_loss[0])),
        **bounds("auc", interval(one.aucs[0], drawn.auc)),
        **one.calibrated,
    }
    for name, loss, area, losses in zip(names[1:], one.losses[1:], one.aucs[1:], drawn.log_loss[1:], strict=True):
        # No `paired_difference`: each contender's own draws are there, of the same customers, so no second pass is due.
        above = interval(loss - one.losses[0], losses - drawn.log_loss[0])
        yield {
            "contender": name,
            **counts,
            **bounds("log_loss", interval(loss, losses)),
            "auc": area,
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


def _tests(evaluated: Evaluated, one: _Judged, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield what Holm's correction takes in: each baseline's log loss above the model's, the model's calibration."""
    drawn = one.drawn
    for name, loss, losses in zip(names[1:], one.losses[1:], drawn.log_loss[1:], strict=True):
        above, draws = loss - one.losses[0], losses - drawn.log_loss[0]
        yield _test(evaluated, one.cell, name, "log_loss", interval(above, draws), p_value(above, draws))
    if not calibratable(evaluated, one.cell):
        return
    ratio, slope = (
        Interval(*(one.calibrated[f"{figure}{bound}"] for bound in ("", "_low", "_high")))
        for figure in ("observed_expected", "calibration_slope")
    )
    with np.errstate(divide="ignore"):
        # On the logarithm, where twice too many and half too few lie equally far from 1.
        p_ratio = p_value(math.log(ratio.estimate), np.log(drawn.observed_expected))
    yield _test(evaluated, one.cell, MODEL, "observed_expected", ratio, p_ratio)
    p_slope = p_value(slope.estimate, drawn.calibration_slope, null=1.0)
    yield _test(evaluated, one.cell, MODEL, "calibration_slope", slope, p_slope)


def _test(
    evaluated: Evaluated, cell: Cell, contender: str, figure: str, found: Interval, p: float
) -> dict[str, object]:
    found_bounds = {"estimate": found.estimate, "low": found.low, "high": found.high}
    return {**_name(evaluated, cell), "contender": contender, "figure": figure, **found_bounds, "p": p}


def _counts(cells: Sequence[_Judged]) -> dict[str, int]:
    return {
        "transitions": len(cells),
        "n": sum(len(one.converted) for one in cells),
        "converted": sum(int(one.converted.sum()) for one in cells),
    }


def _weighted(cells: Sequence[_Judged], figures: Sequence[float]) -> float:
    """Return a mean over cells, weighted by the customers in each."""
    return float(np.average(figures, weights=[len(one.converted) for one in cells]))


def _drawn_mean(cells: Sequence[_Judged], figures: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return a mean over cells in each draw, weighted by the customers drawn: (..., draws)."""
    rows = [one.drawn.rows for one in cells]
    with np.errstate(invalid="ignore"):
        total = np.sum([a * b for a, b in zip(figures, rows, strict=True)], axis=0)
        mean: npt.NDArray[np.float64] = total / np.sum(rows, axis=0)
    return mean


def _means(cells: Sequence[_Judged], names: Sequence[str]) -> Iterator[dict[str, object]]:
    losses = _drawn_mean(cells, [one.drawn.log_loss for one in cells])
    estimates = [_weighted(cells, [one.losses[k] for one in cells]) for k in range(len(names))]
    for name, loss, draws in zip(names, estimates, losses, strict=True):
        above = interval(loss - estimates[0], draws - losses[0])
        yield {
            "contender": name,
            **_counts(cells),
            **bounds("log_loss", interval(loss, draws)),
            **(bounds("log_loss_above_model", above) if name != MODEL else {}),
        }


def _decomposition(
    evaluated: Evaluated, cells: Sequence[_Judged], names: Sequence[str], pooled: Draws
) -> Iterator[dict[str, object]]:
    """Yield each contender's parts of the log loss over the rows of all cells; the intervals are the model's."""
    here = [one.cell for one in cells]
    converted, _ = outcomes_of(evaluated, here)
    drawn, parts = pooled.statistics(), pooled.parts()
    for k, name in enumerate(names):
        p = stacked(evaluated, here, name)
        found = decompose_log_loss(converted, p)
        figures = {
            "level": found.level,
            "ranking": found.ranking,
            "auc": _weighted(cells, [one.aucs[k] for one in cells]),
            "observed_expected": observed_expected(converted, p),
            "calibration_slope": calibration_slope_intercept(converted, p).slope,
        }
        row = {
            "contender": name,
            **_counts(cells),
            "expected": float(p.sum()),
            "log_loss": found.log_loss,
            "slope": found.slope,
            **figures,
        }
        if name == MODEL:
            draws = {
                "ranking": parts.ranking,
                "auc": _drawn_mean(cells, [one.drawn.auc for one in cells]),
                "observed_expected": drawn.observed_expected,
                "calibration_slope": drawn.calibration_slope,
            }
            for figure, values in draws.items():
                row |= bounds(figure, interval(figures[figure], values))
            # What is minimised becomes larger by the noise of a draw, as a calibration error does.
            row |= bounds("level", reflected_interval(found.level, parts.level))
        yield row


def _calibration(evaluated: Evaluated, cells: Sequence[Cell], drawn: Draws) -> dict[str, object]:
    converted, _ = outcomes_of(evaluated, cells)
    return {
        "transitions": len(cells),
        "n": len(converted),
        "converted": int(converted.sum()),
        **_calibrated(converted, stacked(evaluated, cells, MODEL), drawn.statistics()),
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
