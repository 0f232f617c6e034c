"""Champion and challenger: one written rule for when a new model replaces the one in use, and one for the first.

Promote only if, on a window that both models were cut before, the challenger's mean log loss is lower with a 95 %
interval over customers below 0, and no transition is worse after Holm's correction. A first model has base rates for a
rival: out of time it may not be worse than they are beyond the interval, and what it expects has to be of the size of
what happened.

The comparison behind a verdict: the champion and the new recipe, both cut before the same matured window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, Config, format_duration
from cvj_ml.evaluation.assessment import SIGNIFICANT, outcomes_of, questions, stacked
from cvj_ml.evaluation.backtesting import MINIMUM_CONVERTED, MODEL, Cell, Evaluated, FoldResult, run_fold
from cvj_ml.evaluation.baselines import StageRate
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys, holm, paired_difference
from cvj_ml.evaluation.folds import Fold
from cvj_ml.evaluation.metrics import Interval, log_loss_terms
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.windows import follow_up, midnight, observed_whole, to_datetime

CHAMPION, CHALLENGER = "champion", "challenger"

MOST_OFF = 3.0
"""How many times more, or fewer, than expected may move before a first model is refused."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition and horizon: challenger's minus champion's log loss, and its p-value after Holm's correction."""

    origin: str
    target: str
    horizon_days: int
    customers: int
    converted: int
    difference: float
    low: float
    high: float
    p_holm: float

    @property
    def worse(self) -> bool:
        """Whether the challenger is worse here beyond chance."""
        return self.difference > 0 and self.p_holm < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger is promoted, with every number that decided and one sentence.

    difference: challenger's minus champion's (of a first model: base rates') mean log loss over the transitions that
    were evaluated, weighted by customers, with its interval; NaN where nothing could be compared. ``refused``: there is
    no champion, and this is no model to begin with.
    """

    promote: bool
    sentence: str
    difference: Interval
    customers: int
    transitions: tuple[Transition, ...]
    refused: bool = False

    @property
    def worse(self) -> tuple[Transition, ...]:
        """The transitions that are worse beyond chance."""
        return tuple(one for one in self.transitions if one.worse)

    def as_json(self) -> str:
        """Return the numbers as JSON, short enough for a tag; of the transitions that are worse the first five."""
        numbers = {name: _number(value) for name, value in self.difference._asdict().items()}
        return json.dumps(
            {
                "promote": self.promote,
                "refused": self.refused,
                **numbers,
                "customers": self.customers,
                "transitions": len(self.transitions),
                "worse": len(self.worse),
                "worst": [asdict(one) for one in self.worse[:5]],
            }
        )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def undecided(promote: bool, sentence: str) -> Verdict:
    """Return the verdict where there is nothing to compare."""
    return Verdict(promote, sentence, Interval(math.nan, math.nan, math.nan), 0, ())


def decide(evaluated: Evaluated, keys: npt.NDArray[np.uint64]) -> Verdict:
    """Apply the rule to what both models said of the same snapshots.

    evaluated: probabilities of ``champion`` and ``challenger`` alone, both cut before its instant; keys: `draw_keys`.
    The mean is that of the reach of later stages (of the return where no stage can be evaluated); the return counts as
    a transition that must not become worse. Only transitions in which at least 10 customers moved are compared.
    """
    if set(evaluated.probabilities) != {CHAMPION, CHALLENGER}:
        raise AssertionError(f"a verdict is about two models, found {sorted(evaluated.probabilities)}")
    cells = [cell for cell in evaluated.cells() if evaluated.evaluable(cell)]
    if not cells:
        return undecided(False, "Kept the champion: too few customers moved to compare the two models.")
    compared = [_difference(evaluated, [cell], keys) for cell in cells]
    adjusted = holm([p for _, p in compared])
    transitions = tuple(
        Transition(
            cell.origin,
            cell.name,
            evaluated.horizons[cell.horizon] // DAY,
            len(cell.rows),
            int(evaluated.converted_in(cell).sum()),
            *found,
            float(p),
        )
        for cell, (found, _), p in zip(cells, compared, adjusted, strict=True)
    )
    deciding = deciding_cells(evaluated)
    mean, _ = _difference(evaluated, deciding, keys)
    customers = len(np.unique(np.concatenate([evaluated.customer[cell.rows] for cell in deciding])))
    worse = [one for one in transitions if one.worse]
    promote = bool(mean.high < 0) and not worse
    return Verdict(promote, _sentence(promote, mean, worse), mean, customers, transitions)


def decide_first(evaluated: Evaluated, keys: npt.NDArray[np.uint64], *, learned: bool) -> Verdict:
    """Evaluate a model where there is no champion; ``learned`` is whether any question got more than base rates.

    evaluated: what the recipe and the baselines, cut before its instant, said of the same snapshots. The mean log loss
    of each question (reach, return) may not be above that of the stages' base rates with its whole 95 % interval, and
    at each horizon observed/expected over all customers lies within 1/3 to 3 (where 10 moved, or were expected to).
    """
    if not learned:
        return undecided(
            True,
            "Promoted: there was no champion. Too few customers moved to learn from, so the model rests wholly on base"
            " rates: it tells stages apart and not customers.",
        )
    rivals = {CHAMPION: evaluated.probabilities[StageRate.name], CHALLENGER: evaluated.probabilities[MODEL]}
    compared = replace(evaluated, probabilities=rivals)
    faults = list(_misjudged(evaluated))
    by_question: dict[str, list[Cell]] = {}
    for question, _, several in questions(compared, [cell for cell in compared.cells() if compared.evaluable(cell)]):
        by_question.setdefault(question, []).extend(several)
    differences = {question: _difference(compared, cells, keys)[0] for question, cells in by_question.items()}
    faults += [
        f"the log loss of {question} is above that of base rates by {found.estimate:.4f} (95 % interval"
        f" {found.low:.4f} to {found.high:.4f})"
        for question, found in differences.items()
        if found.low > 0
    ]
    deciding = by_question.get("reach") or by_question.get("return", [])
    customers = len(np.unique(np.concatenate([evaluated.customer[cell.rows] for cell in deciding]))) if deciding else 0
    found = differences.get("reach") or differences.get("return") or Interval(math.nan, math.nan, math.nan)
    if faults:
        sentence = f"Not promoted: there is no champion, and this model is none to begin with: {'; '.join(faults)}."
    elif deciding:
        sentence = (
            f"Promoted: there was no champion, and against base rates its log loss changes by {found.estimate:+.4f}"
            f" (95 % interval {found.low:+.4f} to {found.high:+.4f})."
        )
    else:
        sentence = "Promoted: there was no champion. Too few customers moved in the test to compare it with base rates."
    return Verdict(not faults, sentence, found, customers, (), refused=bool(faults))


def _misjudged(evaluated: Evaluated) -> Iterator[str]:
    """Say for which question and horizon far more, or far fewer, customers moved than the model expected."""
    totals: dict[tuple[str, int], tuple[float, float]] = {}
    for cell in evaluated.cells():
        p = evaluated.predicted(MODEL, cell)
        predicted = np.isfinite(p)
        key = ("return" if cell.target == 0 else "reach", cell.horizon)
        converted, expected = totals.get(key, (0.0, 0.0))
        totals[key] = (
            converted + float(evaluated.converted_in(cell)[predicted].sum()),
            expected + float(p[predicted].sum()),
        )
    for (question, horizon), (converted, expected) in totals.items():
        off = (
            max(converted, expected) >= MINIMUM_CONVERTED
            and not expected / MOST_OFF <= converted <= MOST_OFF * expected
        )
        if off:
            yield (
                f"of {question} in {evaluated.horizons[horizon] // DAY} days {expected:,.0f} were expected and"
                f" {converted:,.0f} happened (not within 1/{MOST_OFF:g} to {MOST_OFF:g} times)"
            )


def deciding_cells(evaluated: Evaluated) -> list[Cell]:
    """Return the cells whose mean log loss decides: the reach of later stages, or the return where there are none."""
    by_question: dict[str, list[Cell]] = {}
    for question, _, several in questions(evaluated, [cell for cell in evaluated.cells() if evaluated.evaluable(cell)]):
        by_question.setdefault(question, []).extend(several)
    return by_question.get("reach") or by_question.get("return", [])


def _difference(evaluated: Evaluated, cells: Sequence[Cell], keys: npt.NDArray[np.uint64]) -> tuple[Interval, float]:
    """Return challenger minus champion over all rows of the cells, with interval and p-value."""
    converted, customer = outcomes_of(evaluated, cells)
    champion, challenger = (
        log_loss_terms(converted, stacked(evaluated, cells, name)) for name in (CHAMPION, CHALLENGER)
    )
    return paired_difference(challenger, champion, customer, keys)


def _sentence(promote: bool, mean: Interval, worse: Sequence[Transition]) -> str:
    numbers = f"log loss changes by {mean.estimate:+.4f} (95 % interval {mean.low:+.4f} to {mean.high:+.4f})"
    if promote:
        return f"Promoted the challenger: its {numbers}, and no transition is worse."
    if worse:
        named = ", ".join(f"{one.origin} to {one.target} in {one.horizon_days} days" for one in worse[:3])
        more = f" and {len(worse) - 3} more" if len(worse) > 3 else ""
        return f"Kept the champion: the challenger is worse for {named}{more}; its {numbers}."
    return f"Kept the champion: the challenger's {numbers}, which is not surely better."


def challenge(
    run: Run,
    result: FoldResult,
    champion: Predictor,
    champion_cut: int,
) -> Verdict:
    """Evaluate the champion beside the recipe that a fold has fitted, and apply the rule.

    A champion younger than the fold has seen outcomes of its window, so the window then begins at the champion's own
    cut, where the recipe is fitted anew; horizons that are not over yet drop out. Before the horizon of the lists is
    over nothing is decided.
    """
    config, arrival_delay = run.config, run.arrival_delay
    if champion_cut > result.fold.cut:
        fold = Fold(_next_midnight(config, champion_cut), result.fold.until)
        horizon = config.default_list_horizon
        if not observed_whole(follow_up(fold.cut, fold.until, arrival_delay), horizon):
            ready = to_datetime(fold.cut + horizon + arrival_delay, config.zone).date() + timedelta(days=1)
            return undecided(
                False,
                f"Kept the champion: less than {format_duration(horizon)} have been observed since it was trained, so"
                f" there is nothing to compare on. Train again from {ready} on, or promote by hand.",
            )
        result = run_fold(run, fold)
    fold = result.fold
    panel = build_panel(
        champion.definition, run.blocks, np.array([fold.cut], dtype=np.int64), fold.until, arrival_delay
    )
    if not np.array_equal(panel.customer, result.panel.customer):
        raise AssertionError("the same instant has other customers under another model")
    predicted = {CHAMPION: champion.predict(panel, run.threads), CHALLENGER: result.probabilities[MODEL]}
    return decide(replace(result.evaluated, probabilities=predicted), draw_keys(DRAWS, config.model.seed))


def _next_midnight(config: Config, instant: int) -> int:
    day = to_datetime(instant, config.zone).date()
    at = midnight(day, config.zone)
    return at if at == instant else midnight(day + timedelta(days=1), config.zone)
