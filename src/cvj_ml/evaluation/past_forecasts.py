"""Past forecasts of numbers of moves: what earlier folds expected of their likeliest customers, and what happened."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvj_ml.config import DAY
from cvj_ml.evaluation.backtesting import MODEL, Evaluated, FoldResult, build_panels, evaluated
from cvj_ml.evaluation.folds import rolling
from cvj_ml.evaluation.year_ago import learn_year_ago
from cvj_ml.models.bundle.forecast_errors import EVERYBODY, Errors, ForecastErrors, between_folds
from cvj_ml.models.hazard.tree_size import Choice
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.run import Run
from cvj_ml.windows import to_datetime

PAST_FOLDS = 5
"""Matured folds before the reported one that a training looks back at, where the history has room for them."""

MOST_ROWS = 25_000
"""Hazard rows that a past fold learns from at most: its level is asked for, and five of them have to stay cheap."""

NUMBERS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
"""Numbers of the likeliest whose errors are kept; a list of another number takes the nearest."""


@dataclass(frozen=True, slots=True)
class PastForecast:
    """What was expected of the likeliest ``number`` customers of a transition at an instant, and what happened.

    number: `EVERYBODY` for the whole stage, of whom there are ``customers``; expected: Σp; variance: Σp(1 − p), of
    sampling; observed: moves.
    """

    instant: int
    origin: str
    target: str
    horizon_days: int
    number: int
    customers: int
    expected: float
    variance: float
    observed: int


def past_forecasts(run: Run, result: FoldResult) -> list[PastForecast]:
    """Return the forecasts of the reported fold and of up to `PAST_FOLDS` earlier ones, the oldest fold first.

    The earlier ones are refitted with the settings that the reported fold chose, on at most `MOST_ROWS` hazard rows;
    like it they are the longest horizon apart and judged by all that was visible when it was.
    """
    numbers, config, found = numbers_of(run), run.config, list[PastForecast]()

    def of(seen: Evaluated, instant: int) -> Iterator[PastForecast]:
        return forecasts_of(seen, instant, numbers, config.stage_value, config.model.min_customers)

    earlier = [fold for fold in rolling(run, result.fold.until, 1 + PAST_FOLDS) if fold.cut < result.fold.cut]
    # Neither the ridge's share nor slopes, which later outcomes chose.
    given = Choice(result.fit.choice.settings)
    for done, fold in enumerate(earlier):
        panels = build_panels(run, fold, max_rows=MOST_ROWS)
        fit = fit_reach(panels.history, run.seed, run.threads, given=given)
        definition = panels.history.definition
        year_ago = learn_year_ago(run, fold.cut, definition, fit)
        predictor = Predictor(definition, fit.trees, fit.calibration, year_ago=year_ago)
        seen = evaluated(panels.test, {MODEL: predictor.predict(panels.test, run.threads)})
        found += of(seen, fold.cut)
        if run.progress is not None:
            run.progress(done + 1, len(earlier))
    return [*found, *of(result.evaluated, result.fold.cut)]


def numbers_of(run: Run) -> tuple[int, ...]:
    """Return the numbers of customers to look at: `NUMBERS`, and the capacities of the configured lists."""
    capacities = {one.capacity for one in run.config.lists or () if one.capacity is not None}
    return tuple(sorted({*NUMBERS, *capacities}))


def forecasts_of(
    found: Evaluated, instant: int, numbers: Sequence[int], stage_value: Mapping[str, float], fewest: int
) -> Iterator[PastForecast]:
    """Yield what was expected of the likeliest customers of a fold, for each transition, horizon and number.

    Customers are ranked as lists rank them: by probability, ties by the worth of the target and of later stages times
    their probability, then by id. No stage of fewer than ``fewest`` customers is looked at, and no two numbers that lie
    nearer to each other.
    """
    p = found.probabilities[MODEL]
    worth = np.array([float(stage_value.get(name, 0.0)) for name in found.stages])
    for h, horizon in enumerate(found.horizons):
        for origin, target in itertools.combinations(range(len(found.stages)), 2):
            here = np.flatnonzero(found.known[:, 1 + target, h] & (found.stage == origin))
            if len(here) < fewest:
                continue
            chance, value = p[here, 1 + target, h], np.nan_to_num(p[here, 1 + target :, h]) @ worth[target:]
            ranked = np.lexsort((here, -value, -chance))
            chance, converted = chance[ranked], found.converted[here, 1 + target, h][ranked]
            for number in _apart(numbers, len(here), fewest):
                top = slice(number or None)
                yield PastForecast(
                    instant,
                    found.stages[origin],
                    found.stages[target],
                    horizon // DAY,
                    number,
                    len(chance[top]),
                    float(chance[top].sum()),
                    float((chance[top] * (1 - chance[top])).sum()),
                    int(converted[top].sum()),
                )


def _apart(numbers: Sequence[int], customers: int, fewest: int) -> Iterator[int]:
    """Yield the numbers, and `EVERYBODY`, that lie ``fewest`` apart: the difference of two says nothing of a person."""
    last = 0
    for number in numbers:
        if last + fewest <= number <= customers - fewest:
            yield number
            last = number
    yield EVERYBODY


def forecast_errors(run: Run, forecasts: Iterable[PastForecast]) -> ForecastErrors:
    """Return the errors of past forecasts, and how far they spread between folds."""
    seen = list(forecasts)
    cells: dict[tuple[str, str, int, int], list[PastForecast]] = {}
    for one in seen:
        cells.setdefault((one.origin, one.target, one.horizon_days, one.number), []).append(one)
    instants = sorted({one.instant for one in seen})
    return ForecastErrors(
        tuple(to_datetime(instant, run.config.zone).isoformat() for instant in instants),
        tuple(
            Errors(*cell, tuple(one.expected for one in past), tuple(one.observed for one in past), spread_of(past))
            for cell, past in cells.items()
        ),
    )


def spread_of(past: Sequence[PastForecast]) -> float | None:
    """Return the spread of one cell's errors between folds, None for too few folds."""
    return between_folds([one.expected for one in past], [one.variance for one in past], [one.observed for one in past])
