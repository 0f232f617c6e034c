"""The track record of a recipe: what became of customers whom a fold's model had scored, band by band."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY
from cvj_ml.evaluation.backtesting import MODEL, Evaluated, FoldResult, evaluated
from cvj_ml.evaluation.metrics import wilson_interval
from cvj_ml.models.bundle.track_record import Bands, TrackRecord
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.windows import before, follow_up, midnight, observed_whole, to_datetime

MINIMUM_CUSTOMERS = 50
"""Customers whom a band must hold."""

_QUANTILES = 20
_DIGITS = 3
_LOOKS = 3
"""How often snapshots are taken within the longest horizon."""


def track_record(run: Run, result: FoldResult) -> TrackRecord:
    """Return what became of customers scored by a fold's model at its cut and later, as far as that is known.

    Snapshots stand a third of the longest horizon apart. Each horizon takes those that lie at least itself apart and
    whose outcome is whole, so no move is counted twice; within a band a customer counts once, with the first snapshot.
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
        tuple(_bands(seen, instants, max(MINIMUM_CUSTOMERS, definition.min_customers))),
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


def _bands(seen: list[Evaluated], instants: list[int], fewest: int) -> Iterator[Bands]:
    stages, horizons = seen[0].stages, seen[0].horizons
    for h, horizon in enumerate(horizons):
        looks = [seen[i] for i in _apart(instants, horizon)]
        for origin, target in itertools.combinations(range(len(stages)), 2):
            cells = [one.known[:, 1 + target, h] & (one.stage == origin) for one in looks]
            p = np.concatenate(
                [one.probabilities[MODEL][c, 1 + target, h] for one, c in zip(looks, cells, strict=True)]
            )
            converted = np.concatenate([one.converted[c, 1 + target, h] for one, c in zip(looks, cells, strict=True)])
            customer = np.concatenate([one.customer[c] for one, c in zip(looks, cells, strict=True)])
            if len(np.unique(customer)) >= fewest:
                yield bands_of(stages[origin], stages[target], horizon // DAY, p, converted, customer, fewest)


def bands_of(
    origin: str,
    target: str,
    horizon_days: int,
    p: npt.NDArray[np.float64],
    converted: npt.NDArray[np.bool_],
    customer: npt.NDArray[np.int64],
    fewest: int = MINIMUM_CUSTOMERS,
) -> Bands:
    """Return the bands of one transition and horizon; rows (n,) stand in the order of time.

    Twentieths of the scores, merged from the top until each holds so many customers; a rest at the bottom joins the
    band above it. The scores between them are rounded: none is a customer's own.
    """
    twentieths = np.quantile(p, np.arange(1, _QUANTILES) / _QUANTILES, method="higher")
    cuts = np.unique([float(f"{one:.{_DIGITS}g}") for one in twentieths])
    band = np.searchsorted(cuts, p, side="right")
    kept: list[float] = []
    upper = len(cuts) + 1
    for lower in range(len(cuts), 0, -1):
        inside = (band >= lower) & (band < upper)
        if len(np.unique(customer[inside])) >= fewest:
            kept, upper = [float(cuts[lower - 1]), *kept], lower
    if kept and len(np.unique(customer[band < upper])) < fewest:
        kept = kept[1:]
    merged = np.searchsorted(kept, p, side="right")
    n, k = [], []
    for b in range(len(kept) + 1):
        rows = np.flatnonzero(merged == b)
        _, first = np.unique(customer[rows], return_index=True)
        n.append(len(first))
        k.append(int(converted[rows[first]].sum()))
    low, high = wilson_interval(k, n)
    return Bands(
        origin, target, horizon_days, tuple(kept), tuple(n), tuple(k), tuple(low.tolist()), tuple(high.tolist())
    )
