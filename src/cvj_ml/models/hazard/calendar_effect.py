"""What known periods add to the linear hazard: few coefficients, learned from past periods and heavily shrunk.

logit' = logit + w * b'(z - mean z), with z the inputs of a kind of period in the row's interval (panel/calendar.py),
b of the return or of reaching stages, and w = n / (n + 1) where the history holds n distinct periods of the kind. What
was special about the days of one period, the period or anything else, cannot be told apart: a single one counts half.
What chance alone would give over customers is taken off first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from threadpoolctl import threadpool_limits

from cvj_ml.config import DAY
from cvj_ml.models.hazard.ridge import HEADS, head_of
from cvj_ml.panel.calendar import INPUTS, Groups, groups_of, interval_inputs, known_spans, merged
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import HazardRows, Panel
from cvj_ml.windows import Instants, edges

_F64 = npt.NDArray[np.float64]

_SPREAD = 1.0
"""Standard deviation, in log odds, of what a kind of period may do before anything is known of it."""

_STEPS = 50


@dataclass(frozen=True, slots=True)
class CalendarEffect:
    """Coefficients (heads, inputs) of some kinds, with the mean input of each (head, interval, input).

    ``definition`` has the periods, frozen. ``occurrences`` counts the distinct past periods that taught each kind;
    coefficients are shrunk by them already.
    """

    definition: ModelSpec
    kinds: tuple[str, ...]
    occurrences: tuple[int, ...]
    coefficients: _F64
    mean: _F64

    def inside(self, kind: str) -> tuple[float, float]:
        """Return what an interval wholly inside a period of a kind adds for the return, and for reaching a stage.

        Compared with an interval of which no such period is known.
        """
        width = len(INPUTS)
        first = self.kinds.index(kind) * width
        of_return, of_reach = self.coefficients[:, first : first + width].sum(axis=1)
        return float(of_return), float(of_reach)

    def logits(self, x: npt.NDArray[np.float32], as_of: Instants, rows: HazardRows) -> _F64:
        """Return what periods known at each snapshot's ``as_of`` add to the logit of each row."""
        definition = self.definition
        groups = groups_of(definition.calendar, definition.catalogue, x, as_of)
        inputs = interval_inputs(definition.calendar, self.kinds, groups, edges(definition.horizons))
        added = np.zeros((HEADS, *inputs.shape[:2]))
        for q in range(HEADS):
            for column in range(inputs.shape[2]):  # one by one: the same sum for any number of groups
                added[q] += self.coefficients[q, column] * (inputs[:, :, column] - self.mean[q, :, column])
        found: _F64 = added[head_of(rows.target), groups.of[rows.snapshot], rows.interval]
        return found


def fit_calendar(panel: Panel, rows: HazardRows, logit: _F64) -> CalendarEffect | None:
    """Fit the effect of the panel's calendar on hazard rows whose logits are given; None where no kind has a past.

    A kind takes part from its first past period on: one inside of which an interval of at least ``min_customers``
    distinct customers' rows lies, in part or whole, by whom it was known when they were asked about.
    """
    definition = panel.definition
    calendar = definition.calendar
    if not calendar or not len(rows):
        return None
    groups = groups_of(calendar, definition.catalogue, panel.x, panel.as_of)
    counted = {kind: _occurrences(panel, rows, groups, kind) for kind in calendar.kinds}
    kinds = tuple(kind for kind, found in counted.items() if found)
    if not kinds:
        return None
    inputs = interval_inputs(calendar, kinds, groups, edges(definition.horizons))
    times = _middles(groups, edges(definition.horizons))
    width = inputs.shape[2]
    coefficients, mean = np.zeros((HEADS, width)), np.zeros((HEADS, inputs.shape[1], width))
    head = head_of(rows.target)
    for q in range(HEADS):
        asked = head == q
        if asked.any():
            part = rows.take(asked)
            customer = panel.customer[part.snapshot]
            coefficients[q], mean[q] = _fit(part, logit[asked], customer, groups, inputs, times)
    occurrences = tuple(counted[kind] for kind in kinds)
    weight = np.repeat([n / (n + 1) for n in occurrences], len(INPUTS))
    return CalendarEffect(definition, kinds, occurrences, coefficients * weight, mean)


def _middles(groups: Groups, bounds: Sequence[int]) -> _F64:
    """Return the middle of each (group, interval), in years."""
    ends = np.array(bounds, dtype=np.float64)
    result: _F64 = (groups.as_of[:, None] + (ends[:-1] + ends[1:]) / 2) / (365 * DAY)
    return result


def _occurrences(panel: Panel, rows: HazardRows, groups: Groups, kind: str) -> int:
    """Return how many distinct periods of a kind enough customers' observed intervals fall into.

    Periods that overlap or touch are one.
    """
    definition = panel.definition
    calendar, bounds = definition.calendar, np.array(edges(definition.horizons), dtype=np.int64)
    whole = merged((one.start, one.end) for one in calendar.of_kind(kind))
    by_group = list(known_spans(calendar.of_kind(kind), groups))
    group = groups.of[rows.snapshot]
    count = 0
    for start, end in whole:
        touches = np.zeros((len(by_group), len(bounds) - 1), dtype=np.bool_)
        for g, spans in enumerate(by_group):
            inside = [(max(a, start), min(b, end)) for a, b in spans if a < end and b > start]
            for a, b in inside:
                low, high = bounds[:-1] + groups.as_of[g], bounds[1:] + groups.as_of[g]
                touches[g] |= np.minimum(high, b) > np.maximum(low, a)
        there = touches[group, rows.interval]
        customers = len(np.unique(panel.customer[rows.snapshot[there]]))
        count += customers >= definition.min_customers
    return count


def _fit(
    rows: HazardRows, logit: _F64, customer: npt.NDArray[np.int64], groups: Groups, inputs: _F64, times: _F64
) -> tuple[_F64, _F64]:
    """Return coefficients of the inputs and the mean input of each interval, of the rows of one question.

    A logistic regression with the logits as offset, by Newton's steps. Each (target, interval) has a level of its own,
    so that an interval is compared with itself at other instants, and a trend in time stands beside: a period late in
    the history must not be taken for the growth of the business. Levels and trend are left behind.
    """
    cells, cell = np.unique(rows.target.astype(np.int64) * inputs.shape[1] + rows.interval, return_inverse=True)
    group = groups.of[rows.snapshot]
    bins, of = np.unique(cell * len(groups.as_of) + group, return_inverse=True)
    bin_cell, bin_group = np.divmod(bins, len(groups.as_of))
    bin_interval = cells[bin_cell] % inputs.shape[1]
    mine, time = inputs[bin_group, bin_interval], times[bin_group, bin_interval]
    levels = (bin_cell[:, None] == np.arange(len(cells))).astype(np.float64)
    design = np.column_stack([mine, time - time.mean(), levels])
    width = inputs.shape[2]
    # The levels are all but free: a thousandth of an event keeps a cell without any finite.
    precision = np.full(design.shape[1], 1e-3)
    precision[: width + 1] = 1 / _SPREAD**2
    converted = np.bincount(of, weights=rows.converted, minlength=len(bins))
    b: _F64 = np.zeros(design.shape[1])
    weight: _F64 = np.zeros(len(bins))
    # One thread: the order of additions must not depend on the machine's cores.
    with threadpool_limits(1):
        for _ in range(_STEPS):
            p = expit(logit + (design @ b)[of])
            weight = np.bincount(of, weights=p * (1 - p), minlength=len(bins)).astype(np.float64)
            gradient = design.T @ (converted - np.bincount(of, weights=p, minlength=len(bins))) - precision * b
            information = (design.T * weight) @ design + np.diag(precision)
            step = np.clip(np.linalg.solve(information, gradient), -1.0, 1.0)
            b += step
            if np.abs(step).max() < 1e-9:
                break
    mean = np.zeros((inputs.shape[1], width))
    for m in range(inputs.shape[1]):
        here = bin_interval == m
        if total := weight[here].sum():
            mean[m] = (weight[here, None] * mine[here]).sum(axis=0) / total
    residual = rows.converted - expit(logit + (design @ b)[of])
    with threadpool_limits(1):
        own = mine - design[:, width:] @ np.linalg.solve(
            (design[:, width:].T * weight) @ design[:, width:] + np.diag(precision[width:]),
            (design[:, width:].T * weight) @ mine,
        )
        inverse = np.linalg.inv((own.T * weight) @ own + np.diag(precision[:width]))
        # A customer's rows say the same many times, so scores are added up by customer before they are squared.
        scores = np.stack([np.bincount(customer, weights=residual * own[of, k]) for k in range(width)])
        noise = inverse @ (scores @ scores.T) @ inverse
    return b[:width] * _beyond_noise(b[:width], noise), mean


def _beyond_noise(b: _F64, noise: _F64) -> _F64:
    """Return by what each coefficient is multiplied: max(0, 1 - 2 d / W) of the d coefficients of its kind.

    W = b' V^-1 b is Wald's statistic, d where there is no effect (James and Stein's shrinkage, with the noise counted
    twice: an effect that is not there costs more often than a small one gains).
    """
    result, d = np.zeros(len(b)), len(INPUTS)
    for first in range(0, len(b), d):
        kind = slice(first, first + d)
        wald = float(b[kind] @ np.linalg.pinv(noise[kind, kind]) @ b[kind])
        result[kind] = max(0.0, 1 - 2 * d / wald) if wald > 0 else 0.0
    return result
