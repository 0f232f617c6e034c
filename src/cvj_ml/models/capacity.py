"""How much the trees may learn: cautious ones, or bolder ones where customers who were held out bear them out.

A panel repeats each customer many times, so its rows say less than their number suggests, and cautious trees are safe
on any data. Where histories are rich they leave much unsaid; docs/decisions/0018-capacity.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cvj_ml.models.fitting import LOW_EVIDENCE, Settings, Start, start_from
from cvj_ml.models.reach import Trees
from cvj_ml.panel import HazardRows, Panel

_F64 = npt.NDArray[np.float64]

CAUTIOUS = Settings(leaves=7, rows_a_leaf=500, lambda_l2=100.0, path_smooth=1000.0, rounds=300, learning_rate=0.05)
BOLD = Settings(leaves=31, rows_a_leaf=100, lambda_l2=5.0, path_smooth=20.0, rounds=600, learning_rate=0.05)
"""Of these at most so many rounds: they end where customers who are held out gain no more."""

ERRORS = 3.0
"""Standard errors over customers that the bold trees' log loss has to lie below the cautious ones'."""

MOST_ROWS = 200_000
"""Hazard rows that the comparison is made on: fewer favour the cautious trees, never the bold ones."""

_FOLDS = 4
_MOVED = 200
"""Customers who moved below whom nothing is compared: the cautious trees are used."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The bold trees' mean log loss minus the cautious ones', its standard error over customers, and the rounds."""

    difference: float
    error: float
    rounds: int

    @property
    def bold(self) -> bool:
        """Return whether the bold trees are better beyond doubt."""
        return self.difference < -ERRORS * self.error

    @property
    def settings(self) -> Settings:
        """Return the settings to fit with."""
        return replace(BOLD, rounds=self.rounds) if self.bold else CAUTIOUS


def compare(
    panel: Panel,
    rows: HazardRows,
    seed: int,
    threads: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison | None:
    """Fit both on three quarters of the customers and judge them by the fourth, in turn; None on too little data.

    Each fold of customers ends the bold trees' rounds where it gains no more, which favours them by less than the
    standard errors that they have to gain; their number in the fit itself is the median of the folds'.
    """
    rows = rows.take(panel.movers[rows.target] >= LOW_EVIDENCE)
    rows = rows.take(slice(None, None, max(-(-len(rows) // MOST_ROWS), 1)))
    customer = panel.customer[rows.snapshot]
    if len(np.unique(customer[rows.moved])) < _MOVED:
        return None
    fold = np.random.default_rng(seed).integers(_FOLDS, size=int(customer.max()) + 1)[customer]
    above, rounds = np.zeros(len(rows)), []
    for k in range(_FOLDS):
        start, held = start_from(panel, rows.take(fold != k)), rows.take(fold == k)
        cautious, _ = _held_out(start, rows.take(fold != k), held, CAUTIOUS, seed, threads, early=False)
        bold, best = _held_out(start, rows.take(fold != k), held, BOLD, seed, threads, early=True)
        above[fold == k] = bold - cautious
        rounds.append(best)
        if progress is not None:
            progress(k + 1, _FOLDS)
    sums = np.bincount(customer, weights=above)
    return Comparison(float(above.mean()), float(np.sqrt((sums**2).sum()) / len(rows)), int(np.median(rounds)))


def _held_out(
    start: Start, taught: HazardRows, held: HazardRows, settings: Settings, seed: int, threads: int, *, early: bool
) -> tuple[_F64, int]:
    """Return the log loss of each held-out row, and after how many rounds; ``early``: where it is lowest."""
    booster = start.boost(taught, settings, seed, threads, held=held if early else None)
    rounds = booster.best_iteration if early else settings.rounds
    trees = Trees(booster, start.linear, start.base, start.low, start.columns).first(rounds)
    logit = trees.logits(start.panel.x, start.panel.stage, held, threads)
    return np.logaddexp(0.0, np.where(held.moved, -logit, logit)), rounds
