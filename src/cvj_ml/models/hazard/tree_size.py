"""How much the trees may learn, and how: default ones, or others where customers who were held out bear them out.

A panel repeats each customer many times, so its rows say less than their number suggests, and default trees are safe
on any data. Where histories are rich they leave much unsaid, where they are poor they say too much;
docs/decisions/0018-capacity.md has the figures. The same customers tell whether predictions are too extreme.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.models.hazard.calibration import (
    Calibration,
    HazardOutcomes,
    helpful_slopes,
    identity,
    log_losses,
    set_levels,
)
from cvj_ml.models.hazard.fitting import BinnedRows, Settings, Start, start_from
from cvj_ml.models.hazard.ridge import RIDGE_SHARE, head_of
from cvj_ml.panel.panel import HazardRows

_F64 = npt.NDArray[np.float64]
_Positions = npt.NDArray[np.int64]

DEFAULT = Settings(leaves=7, rows_a_leaf=500, lambda_l2=100.0, path_smooth=1000.0, rounds=150, learning_rate=0.1)
LARGE = Settings(leaves=31, rows_a_leaf=100, lambda_l2=5.0, path_smooth=20.0, rounds=60, learning_rate=0.1)
EARLY_STOPPED = replace(DEFAULT, rounds=75)

EXTRA_ROUNDS = 2
"""Times as many rounds of small trees that split at random, as of those that they are compared with."""

RIDGE_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Of what is added to the line, among which customers held out choose."""

ERRORS = 3.0
"""Standard errors over customers that other trees' log loss has to lie below the default ones'."""

MOST_ROWS = 50_000
"""Hazard rows that settings are compared on: fewer favour the default trees, never the large ones."""

_FOLDS = 4
_MOVED = 200
"""Customers who moved below whom nothing is compared: the default trees are used, and no slopes."""

_MOST_ROUNDS = 500

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TreeSizeComparison:
    """Mean log loss of trees with other settings minus the ``than`` ones', and its standard error over customers."""

    settings: Settings
    than: Settings
    difference: float
    error: float

    @property
    def better(self) -> bool:
        """Return whether they are better beyond doubt."""
        return self.difference < -ERRORS * self.error


@dataclass(frozen=True, slots=True)
class Choice:
    """What customers who are held out decide before a fit: settings, the ridge's share, slopes of the calibration.

    ``slopes`` are None where they do not help, or nothing is known of them; ``events`` is how many moves the trees had
    seen of which they tell. ``comparisons`` led to the settings; none where they were given, or too few customers moved
    to compare by.
    """

    settings: Settings
    ridge_share: tuple[float, float] = RIDGE_SHARE
    slopes: Calibration | None = None
    events: float = 0.0
    comparisons: tuple[TreeSizeComparison, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A fold of customers held out: what trees start from, and positions of the rows that teach and that evaluate."""

    start: Start
    taught: _Positions
    evaluated: _Positions


def choose(
    binned: BinnedRows,
    early: _Positions,
    later: _Positions,
    seed: int,
    threads: int,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Return the choice for trees on all of the rows; with given ``settings`` only the ridge's share and slopes are.

    All are fitted on ``early`` rows and evaluated by ``later`` ones, of other customers: what trees have learned has to
    hold for other people and at another time. A history too short for later rows evaluates by the same days, and learns
    no slopes and no share. Large trees' rounds then end where held-out customers gain nothing more, on all rows; small
    trees that split at random have twice the rounds in the end, since each of theirs learns less.
    """
    everything, fixed = np.arange(len(binned.rows)), binned.panel.definition.trees.given
    default = replace(DEFAULT, **fixed)
    dated = min(_movers(binned, early), _movers(binned, later)) >= _MOVED
    early, later = (_some(early), _some(later)) if dated else (_some(everything), _some(everything))
    if _movers(binned, later) < _MOVED or (settings and not dated):
        return Choice(settings or default)
    parts = _held_out(binned, early, later, seed)
    if any(one.start.linear is None for one in parts):
        return Choice(settings or default)
    compared = _Compared(binned, parts, later, seed, threads, progress)
    comparisons: tuple[TreeSizeComparison, ...] = ()
    chosen = settings
    if chosen is None:
        chosen, comparisons = compared.choose()
    share = compared.ridge_share(chosen) if dated else RIDGE_SHARE
    known = compared.known(chosen, share)
    slopes = helpful_slopes(known, *binned.panel.definition.cells, seed) if dated else None
    events = float(np.mean([binned.rows.converted[one.taught].sum() for one in parts]))
    searched, large = settings is None and "rounds" not in fixed, replace(LARGE, **fixed)
    if searched and replace(chosen, extra=large.extra) == large:
        some = _some(everything)
        held_out = _held_out(binned, some, some, seed) if dated else parts
        chosen = _with_rounds(binned, held_out, chosen, seed, threads)
    elif searched and chosen.extra:
        chosen = replace(chosen, rounds=EXTRA_ROUNDS * chosen.rounds)
    return Choice(chosen, share, slopes, events, comparisons)


class _Compared:
    """Trees of several settings on the same folds; what is fitted once is remembered."""

    def __init__(
        self,
        binned: BinnedRows,
        parts: list[HeldOut],
        later: _Positions,
        seed: int,
        threads: int,
        progress: Progress | None,
    ) -> None:
        self._binned, self._parts = binned, parts
        self._seed, self._threads, self._progress = seed, threads, progress
        self._fixed = binned.panel.definition.trees.given
        self._default, self._early_stopped = (replace(one, **self._fixed) for one in (DEFAULT, EARLY_STOPPED))
        self._fold = np.full(len(later), -1, dtype=np.int64)
        place = np.full(len(binned.rows), -1, dtype=np.int64)
        place[later] = np.arange(len(later))
        for k, part in enumerate(parts):
            self._fold[place[part.evaluated]] = k
        self._rows = binned.rows.take(later)
        self._customer = binned.panel.customer[self._rows.snapshot]
        self._logits: dict[tuple[Settings, int], tuple[_F64, _F64]] = {}

    def choose(self) -> tuple[Settings, tuple[TreeSizeComparison, ...]]:
        """Return the best size, with extremely randomised splits where they are better still.

        What the configuration gives is the same in all of them; those that it makes equal are not compared.
        """
        default = self._default
        others = (one for one in (self._early_stopped, replace(LARGE, **self._fixed)) if one != default)
        sizes = tuple(self._compare(one, default) for one in others)
        better = [one for one in sizes if one.better]
        best = min(better, key=lambda one: one.difference).settings if better else default
        if "extra" in self._fixed:
            return best, sizes
        # Neither way to split is bolder than the other, so no doubt has to be overcome, and half of the folds will do.
        extra = self._difference(replace(best, extra=True), best, _FOLDS // 2)
        return (extra.settings if extra.difference < 0 else best), (*sizes, extra)

    def ridge_share(self, settings: Settings) -> tuple[float, float]:
        """Return the ridge's share of each head with which the log loss of customers held out is lowest."""
        return_rows = self._rows.target == 0
        losses: tuple[list[float], list[float]] = ([], [])
        for share in RIDGE_SHARES:
            of_each = self._losses(settings, _FOLDS, (share, share))
            for head, rows in enumerate((return_rows, ~return_rows)):
                losses[head].append(float(of_each[rows].sum()))
        return_share, reach_share = (RIDGE_SHARES[int(np.argmin(one))] for one in losses)
        return return_share, reach_share

    def known(self, settings: Settings, share: tuple[float, float]) -> HazardOutcomes:
        """Return what was said of customers who had not been seen, and something known of, beside what happened."""
        found, known = self._outcomes(settings, _FOLDS, share), np.zeros(len(self._rows), dtype=np.bool_)
        for k, part in enumerate(self._parts):
            held = self._fold == k
            known[held] = part.start.base.is_known(self._binned.panel.stage, self._rows.take(held))
        return found.take(known)

    def _compare(self, settings: Settings, than: Settings) -> TreeSizeComparison:
        """Compare on half of the folds, and on all where the other settings are not worse there."""
        half = self._difference(settings, than, _FOLDS // 2)
        return self._difference(settings, than, _FOLDS) if half.difference < 0 else half

    def _difference(self, settings: Settings, than: Settings, folds: int) -> TreeSizeComparison:
        of_than = self._losses(than, folds)  # first: fewer rounds of the default trees come with them
        above = self._losses(settings, folds) - of_than
        sums = np.bincount(self._customer[self._fold < folds], weights=above)
        error = float(np.sqrt((sums**2).sum()) / len(above))
        return TreeSizeComparison(settings, than, float(above.mean()), error)

    def _losses(self, settings: Settings, folds: int, share: tuple[float, float] = RIDGE_SHARE) -> _F64:
        """Return each row's log loss, levels set as they are in the end."""
        said = self._outcomes(settings, folds, share)
        levels = set_levels(identity(*self._binned.panel.definition.cells), said)
        return log_losses(levels.apply(said.logit, said.target, said.interval), said.converted)

    def _outcomes(self, settings: Settings, folds: int, share: tuple[float, float]) -> HazardOutcomes:
        of_ridge = np.array(share)[head_of(self._rows.target)]
        rows, logit = self._rows, np.empty(len(self._rows))
        for k in range(folds):
            if (settings, k) not in self._logits:
                self._fit(settings, k)
            held = self._fold == k
            by_trees, by_ridge = self._logits[settings, k]
            logit[held] = (1 - of_ridge[held]) * by_trees + of_ridge[held] * by_ridge
        held = self._fold < folds
        return HazardOutcomes(logit, rows.converted, rows.target, rows.interval, self._customer).take(held)

    def _fit(self, settings: Settings, k: int) -> None:
        panel, start, held = self._binned.panel, self._parts[k].start, self._rows.take(self._fold == k)
        booster = self._binned.boost(start, self._parts[k].taught, settings, self._seed, self._threads)
        # What the line says with the trees alone, and with the ridge alone.
        trees = start.with_trees(booster, (0.0, 0.0))
        by_trees = trees.logits(panel.x, panel.stage, held, self._threads, panel.as_of)
        by_ridge = start.with_trees(booster, (1.0, 1.0)).logits(panel.x, panel.stage, held, self._threads, panel.as_of)
        self._logits[settings, k] = by_trees, by_ridge
        if settings == self._default and self._early_stopped != self._default:
            # Trees with fewer rounds are the first ones of those with more.
            first = trees.first(self._early_stopped.rounds)
            by_first = first.logits(panel.x, panel.stage, held, self._threads, panel.as_of)
            self._logits[self._early_stopped, k] = by_first, by_ridge
        if self._progress is not None:
            self._progress(k + 1, _FOLDS)


def _with_rounds(binned: BinnedRows, parts: Sequence[HeldOut], settings: Settings, seed: int, threads: int) -> Settings:
    """Return the settings with as many rounds as held-out customers gain from, the median of the folds."""
    most = replace(settings, rounds=_MOST_ROUNDS)
    rounds = [
        binned.boost(one.start, one.taught, most, seed, threads, held=one.evaluated).best_iteration for one in parts
    ]
    return replace(settings, rounds=int(np.median(rounds)))


def _held_out(binned: BinnedRows, taught: _Positions, evaluated: _Positions, seed: int) -> list[HeldOut]:
    """Hold each fold of customers out in turn."""
    panel, rows = binned.panel, binned.rows
    fold = np.random.default_rng(seed).integers(_FOLDS, size=int(panel.customer.max()) + 1)
    of_taught, of_evaluated = (fold[panel.customer[rows.snapshot[at]]] for at in (taught, evaluated))
    return [
        HeldOut(
            start_from(panel, rows.take(taught[of_taught != k])), taught[of_taught != k], evaluated[of_evaluated == k]
        )
        for k in range(_FOLDS)
    ]


def _movers(binned: BinnedRows, positions: _Positions) -> int:
    rows: HazardRows = binned.rows.take(positions)
    return len(np.unique(binned.panel.customer[rows.snapshot[rows.converted]]))


def _some(positions: _Positions) -> _Positions:
    """Return evenly spaced positions, at most so many."""
    return positions[:: max(-(-len(positions) // MOST_ROWS), 1)]
