"""Whether a list may be ranked by effect: only where that beats the published probability, and else why not.

The gain of a list is the mean doubly robust score of the k rows with the largest effects, minus that of the k likeliest
rows: what a contact brings more if the same number is chosen by effect. Effects and scores are out of fold
(`out_of_fold_effects`), so no row helped to choose itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from cvj_ml.errors import DataError
from cvj_ml.evaluation.bootstrap import grouped_sums, holm, interval
from cvj_ml.evaluation.metrics import Interval
from cvj_ml.evaluation.uplift_metrics import top_weights

SIGNIFICANCE = 0.05
POWER = 0.8

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]
_Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class RankingEvidence:
    """What is known of one list, or of one arm on it: one row a customer and contact of the experiment.

    pseudo_outcomes, effects and probability: (rows,) the doubly robust score, the effect that ranks (of models that saw
    none of the customer's rows, `OutOfFold.above_average`) and what was published. contacts: rows that were contacted.
    k: how many of these rows the list's capacity would contact.
    """

    name: str
    pseudo_outcomes: _F64
    effects: _F64
    probability: _F64
    customer: _I64
    contacts: int
    k: int


@dataclass(frozen=True, slots=True)
class RankingTest:
    """One list's gain per contact of ranking by effect, one-sided p, standard error; and the average effect."""

    gain: Interval
    p: float
    standard_error: float
    average: Interval


@dataclass(frozen=True, slots=True)
class EffectVerdict:
    """Whether a list is ranked by effect, and why.

    gain: per contact, in the unit of the outcome. p: one-sided, Holm's correction made. average: the effect of a
    contact on the average row. contacts_needed: how many more contacts would show such a gain with a power of 80 %; 0
    where it is shown, None where there is no gain to show.
    """

    ranks: bool
    sentence: str
    gain: Interval
    p: float
    average: Interval
    contacts_needed: int | None


def decide_ranking(
    pseudo_outcomes: _F64, effects: _F64, probability: _F64, customer: _I64, k: int, keys: _Keys
) -> RankingTest:
    """Return what ranking one list by effect gains over ranking it by probability; all arrays are (rows,).

    gain = mean of pseudo-outcomes of the top k by effect - mean of those of the top k by probability. Equal effects are
    ranked by probability, so where all are equal nothing is gained. p is normal with the standard deviation of the
    bootstrap over customers (`bootstrap.p_value`), one-sided. DataError where k is not between 1 and the rows.
    """
    if not 1 <= k <= len(effects):
        raise DataError(f"k is {k:,} and there are {len(effects):,} rows; give the number of rows that get a contact.")
    ranked = np.lexsort((probability, effects))
    changes = (np.diff(effects[ranked]) != 0) | (np.diff(probability[ranked]) != 0)
    place = np.empty(len(ranked))
    place[ranked] = np.append(0, np.cumsum(changes))
    by_effect, by_probability = top_weights(place, k), top_weights(probability, k)
    one = np.ones(len(effects))
    terms = np.column_stack([part for weight in (by_effect, by_probability, one) for part in (weight, weight)])
    terms[:, 1::2] *= pseudo_outcomes[:, None]
    drawn = grouped_sums(terms, np.zeros(len(effects), dtype=np.int64), 1, customer, keys)[:, 0]
    with np.errstate(invalid="ignore"):
        means = drawn[:, 1::2] / drawn[:, ::2]
    effect, likely, average = terms[:, 1::2].sum(axis=0) / terms[:, ::2].sum(axis=0)
    gain, draws = float(effect - likely), means[:, 0] - means[:, 1]
    error = float(np.nanstd(draws, ddof=1))
    p = float(norm.sf(gain / error)) if error > 0 else float(gain <= 0)
    return RankingTest(interval(gain, draws), p, error, interval(float(average), means[:, 2]))


def contacts_needed(test: RankingTest, contacts: int, lists: int = 1) -> int | None:
    """Return how many contacts more show a gain like this one with a power of 80 %; None where it is none.

    n' = n ((z_(1 - alpha / lists) + z_power) error / gain)^2, the error falling with the root of the contacts, as in
    any one-sided z-test; alpha / lists is Holm's first step. The gain is taken as estimated, which is uncertain itself.
    """
    if not test.gain.estimate > 0 or not test.standard_error > 0:
        return None
    needed = float(norm.isf(SIGNIFICANCE / lists) + norm.ppf(POWER)) * test.standard_error / test.gain.estimate
    return max(math.ceil(contacts * needed**2) - contacts, 1)


def verdicts(lists: Sequence[RankingEvidence], keys: _Keys) -> tuple[EffectVerdict, ...]:
    """Return a verdict for each list, p-values corrected for their number (Holm)."""
    tests = [
        decide_ranking(one.pseudo_outcomes, one.effects, one.probability, one.customer, one.k, keys) for one in lists
    ]
    adjusted = holm([test.p for test in tests])
    return tuple(_verdict(one, test, float(p), len(lists)) for one, test, p in zip(lists, tests, adjusted, strict=True))


def _verdict(one: RankingEvidence, test: RankingTest, p: float, lists: int) -> EffectVerdict:
    ranks = p < SIGNIFICANCE and test.gain.estimate > 0
    needed = 0 if ranks else contacts_needed(test, one.contacts, lists)
    if ranks:
        sentence = (
            f"{one.name}: ranked by effect. A contact brings {test.gain.estimate:.4f} more than if the {one.k:,}"
            f" likeliest were chosen (95 % interval {test.gain.low:+.4f} to {test.gain.high:+.4f}, one-sided"
            f" p = {p:.3f})."
        )
        return EffectVerdict(True, sentence, test.gain, p, test.average, needed)
    more = (
        f"about {_rounded(needed):,} more contacts would show such a gain with a power of {POWER:.0%}."
        if needed is not None
        else "no number of contacts shows a gain where none is seen."
    )
    sentence = (
        f"{one.name}: ranked by probability. {_of_all(test.average)}; choosing by effect changes what a contact brings"
        f" by {_numbers(test.gain)}, one-sided p = {p:.3f}, and {more}"
    )
    return EffectVerdict(False, sentence, test.gain, p, test.average, needed)


def _rounded(needed: int) -> int:
    """Return two digits of a number that rests on an estimate."""
    return int(float(f"{needed:.2g}"))


def _of_all(average: Interval) -> str:
    """Say what a contact does on average, where nothing tells customers apart."""
    if average.low > 0:
        return f"As far as is known everybody gains alike, {_numbers(average)} a contact"
    if average.high < 0:
        return f"Contacts do harm, {_numbers(average)} each on average"
    return f"No effect is shown, {_numbers(average)} a contact on average"


def _numbers(found: Interval) -> str:
    return f"{found.estimate:+.4f} (95 % interval {found.low:+.4f} to {found.high:+.4f})"
