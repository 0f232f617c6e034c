"""The track record of a recipe: what became of the customers whom a fold's model had scored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY
from cvj_ml.evaluation.backtesting import MODEL, Evaluated, FoldResult, evaluated
from cvj_ml.models.bundle.track_record import FEWEST, PastScores, TrackRecord
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.windows import before, follow_up, midnight, observed_whole, to_datetime

_DIGITS = 3
_LOOKS = 3
"""How often snapshots are taken within the longest horizon."""


def track_record(run: Run, result: FoldResult) -> TrackRecord:
    """Return what became of customers scored by a fold's model at its cut and later, as far as that is known.

    Snapshots stand a third of the longest horizon apart. Each horizon takes those that lie at least itself apart and
    whose outcome is whole, so no move is counted twice; a customer counts once, with the first snapshot.
    """
    definition = result.panel.definition
    instants = _instants(result, run.arrival_delay)
    seen = [result.evaluated]
    for instant in instants[1:]:
        panel = build_panel(definition, run.blocks, np.array([instant]), result.fold.until, run.arrival_delay)
        seen.append(evaluated(panel, {MODEL: result.predictor.predict(panel, run.threads)}))
    zone = definition.zone
    return TrackRecord(
        to_datetime(result.fold.cut, zone).isoformat(),
        tuple(to_datetime(instant, zone).isoformat() for instant in instants),
        tuple(_scores(seen, instants, definition.min_customers)),
    )


def _instants(result: FoldResult, arrival_delay: int) -> list[int]:
    """Return the fold's cut and later midnights at which at least the shortest horizon is over."""
    definition, fold = result.panel.definition, result.fold
    days = -(-max(definition.horizons) // (_LOOKS * DAY))
    first = to_datetime(fold.cut, definition.zone)
    instants = [fold.cut]
    for look in itertools.count(1):
        instant = midnight((first + timedelta(days=look * days)).date(), definition.zone)
        if not observed_whole(follow_up(instant, fold.until, arrival_delay), min(definition.horizons)):
            return instants
        instants.append(instant)
    raise AssertionError("the horizons end somewhere")


def _apart(instants: list[int], horizon: int) -> list[int]:
    """Return the positions of instants of which each lies at least the horizon after the one chosen before."""
    chosen = [0]
    for i, instant in enumerate(instants):
        # An hour's grace: days of a changing clock are shorter.
        if not before(np.array(instant), instants[chosen[-1]] + horizon - DAY // 24):
            chosen.append(i)
    return chosen


def _scores(seen: list[Evaluated], instants: list[int], fewest: int) -> Iterator[PastScores]:
    stages, horizons = seen[0].stages, seen[0].horizons
    for h, horizon in enumerate(horizons):
        looks = [seen[i] for i in _apart(instants, horizon)]
        for origin, target in itertools.combinations(range(len(stages)), 2):
            rows = [one.known[:, 1 + target, h] & (one.stage == origin) for one in looks]
            p = np.concatenate([one.probabilities[MODEL][r, 1 + target, h] for one, r in zip(looks, rows, strict=True)])
            converted = np.concatenate([one.converted[r, 1 + target, h] for one, r in zip(looks, rows, strict=True)])
            customer = np.concatenate([one.customer[r] for one, r in zip(looks, rows, strict=True)])
            _, first = np.unique(customer, return_index=True)
            if len(first) >= max(FEWEST, fewest):
                yield past_scores(stages[origin], stages[target], horizon // DAY, p[first], converted[first], fewest)


def past_scores(
    origin: str,
    target: str,
    horizon_days: int,
    p: npt.NDArray[np.float64],
    converted: npt.NDArray[np.bool_],
    fewest: int,
) -> PastScores:
    """Return the cells of one transition and horizon; p and converted are (customers,), at least ``fewest``.

    From the top down, scores that are equal to three digits are added until a cell holds ``fewest`` customers; a rest
    at the bottom joins the cell above it.
    """
    rounded = np.array([float(f"{one:.{_DIGITS}g}") for one in p.tolist()])
    _, level = np.unique(rounded, return_inverse=True)
    sizes = np.bincount(level)
    cell, cells, held = np.zeros(len(sizes), dtype=np.int64), 0, 0
    for place in range(len(sizes))[::-1]:
        cell[place], held = cells, held + int(sizes[place])
        if held >= fewest:
            cells, held = cells + 1, 0
    # The rest at the bottom is no cell of its own; from the lowest score up from here.
    of = (cells - 1 - np.minimum(cell, cells - 1))[level]
    n = np.bincount(of)
    predicted = np.bincount(of, weights=p) / n
    return PastScores(
        origin,
        target,
        horizon_days,
        tuple(float(f"{one:.{_DIGITS}g}") for one in predicted.tolist()),
        tuple(n.tolist()),
        tuple(np.bincount(of[converted], minlength=cells).tolist()),
    )
