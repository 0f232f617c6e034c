"""The rule by which a challenger replaces the champion."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvj_ml.config import DAY
from cvj_ml.evaluation.backtesting import MODEL, Evaluated
from cvj_ml.evaluation.baselines import StageRate
from cvj_ml.evaluation.bootstrap import draw_keys
from cvj_ml.evaluation.metrics import log_loss_terms
from cvj_ml.evaluation.promotion import CHALLENGER, CHAMPION, decide, decide_first

KEYS = draw_keys(300, 1)


def two_models(
    champion: tuple[float, float] = (1, 0), challenger: tuple[float, float] = (1, 0), size: int = 3000, seed: int = 2
) -> Evaluated:
    """Half of the customers stand before Buyer, half before Fan; each model's slope is that of its stage."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1, 1, size)
    stage = (np.arange(size) % 2).astype(np.int8)
    ahead = stage.astype(np.int64) + 2
    converted, known = np.zeros((size, 4, 1), dtype=np.bool_), np.zeros((size, 4, 1), dtype=np.bool_)
    rows = np.arange(size)
    known[rows, ahead] = True
    converted[rows, ahead, 0] = random.random(size) < 1 / (1 + np.exp(-truth))
    predicted = {}
    for name, slopes in ((CHAMPION, champion), (CHALLENGER, challenger)):
        p = np.full(converted.shape, np.nan)
        p[rows, ahead, 0] = 1 / (1 + np.exp(-np.array(slopes)[stage] * truth - (np.array(slopes)[stage] - 1)))
        predicted[name] = p
    return Evaluated(("Visitor", "Buyer", "Fan"), (30 * DAY,), rows, stage, converted, known, predicted)


def test_a_clearly_better_challenger_is_promoted_with_its_numbers() -> None:
    evaluated = two_models(champion=(0, 0), challenger=(1, 1))
    found = decide(evaluated, KEYS)
    assert found.promote and not found.worse
    rows, ahead = np.arange(3000), evaluated.stage.astype(np.int64) + 2
    y = evaluated.converted[rows, ahead, 0]
    losses = {name: log_loss_terms(y, p[rows, ahead, 0]) for name, p in evaluated.probabilities.items()}
    assert found.difference.estimate == pytest.approx((losses[CHALLENGER] - losses[CHAMPION]).mean())
    assert found.difference.low < found.difference.estimate < found.difference.high < 0
    assert found.customers == 3000
    assert [(one.origin, one.target, one.customers) for one in found.transitions] == [
        ("Visitor", "Buyer", 1500),
        ("Buyer", "Fan", 1500),
    ]
    assert found.sentence.startswith("Promoted the challenger: its log loss changes by -0.")
    numbers = json.loads(found.as_json())
    assert numbers["promote"] is True and numbers["worse"] == 0
    assert numbers["estimate"] == found.difference.estimate


def test_the_same_model_is_not_promoted() -> None:
    found = decide(two_models(), KEYS)
    assert not found.promote and found.difference.estimate == 0
    assert found.sentence.endswith("which is not surely better.")


def test_better_on_average_and_worse_in_one_transition_is_not_promoted() -> None:
    found = decide(two_models(champion=(-1, 1), challenger=(1, 0.3)), KEYS)
    assert found.difference.high < 0 and not found.promote
    (worse,) = found.worse
    assert (worse.origin, worse.target) == ("Buyer", "Fan") and worse.p_holm < 0.05
    assert "the challenger is worse for Buyer to Fan in 30 days" in found.sentence


def test_the_return_alone_decides_only_where_no_stage_can_be_judged() -> None:
    evaluated = two_models()
    evaluated.known[:, 0], evaluated.converted[:, 0] = True, evaluated.converted.any(axis=1)
    for name, p in evaluated.probabilities.items():
        p[:, 0] = np.nanmax(p[:, 2:], axis=1) if name == CHALLENGER else 0.5
    assert not decide(evaluated, KEYS).promote, "the stages, which are equal, decide"
    assert [one.target for one in decide(evaluated, KEYS).transitions] == ["return", "Buyer", "Fan"]
    only = replace(evaluated, known=evaluated.known & (np.arange(4) == 0)[None, :, None])
    assert decide(only, KEYS).promote


def test_too_few_movers_keep_the_champion() -> None:
    evaluated = two_models(champion=(0, 0), size=20)
    evaluated.converted[:] = False
    found = decide(evaluated, KEYS)
    assert not found.promote and np.isnan(found.difference.estimate) and not found.transitions
    assert "too few customers moved" in found.sentence
    assert json.loads(found.as_json())["estimate"] is None


@settings(max_examples=15)
@given(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.integers(0, 5))
def test_no_model_replaces_one_that_would_replace_it(a: float, b: float, seed: int) -> None:
    """Swapping the two turns every difference around, so at most one of both verdicts promotes."""
    evaluated = two_models((a, a), (b, b), 400, seed)
    other = replace(
        evaluated,
        probabilities={CHAMPION: evaluated.probabilities[CHALLENGER], CHALLENGER: evaluated.probabilities[CHAMPION]},
    )
    one, two = decide(evaluated, KEYS), decide(other, KEYS)
    assert one.difference.estimate == pytest.approx(-two.difference.estimate)
    assert one.difference.low == pytest.approx(-two.difference.high)
    assert not (one.promote and two.promote)


def first_model(slope: float, shift: float = 0.0, size: int = 3000) -> Evaluated:
    """A model whose log-odds are those of the truth times a slope, beside the share of each stage."""
    evaluated = two_models(challenger=(1, 1), size=size)
    truth = evaluated.probabilities[CHALLENGER]
    odds = slope * np.log(truth / (1 - truth)) + shift
    rates = np.full(truth.shape, np.nan)
    for stage, ahead in ((0, 2), (1, 3)):
        here = evaluated.stage == stage
        rates[here, ahead] = evaluated.converted[here, ahead].mean()
    return replace(evaluated, probabilities={MODEL: 1 / (1 + np.exp(-odds)), StageRate.name: rates})


def test_a_first_model_that_beats_base_rates_is_promoted() -> None:
    found = decide_first(first_model(1.0), KEYS, learned=True)
    assert found.promote and not found.refused and found.difference.high < 0 and found.customers == 3000
    assert found.sentence.startswith(
        "Promoted: there was no champion, and against base rates its log loss changes by -"
    )


def test_a_first_model_worse_than_base_rates_is_refused() -> None:
    """Silent error 73: there was nothing to compare with, so whatever came first was promoted."""
    found = decide_first(first_model(-1.0), KEYS, learned=True)
    assert found.refused and not found.promote and found.difference.low > 0
    assert "the log loss of reach is above that of base rates by 0." in found.sentence
    assert json.loads(found.as_json())["refused"] is True


@pytest.mark.parametrize(("shift", "refused"), [(-2.5, True), (-0.6, False), (0.5, False)])
def test_a_first_model_expects_what_happens_to_a_third(shift: float, refused: bool) -> None:
    """Few moves are no way out: a model that expects ten thousand and sees none is refused, too."""
    evaluated = first_model(1.0, shift)
    assert ("were expected" in decide_first(evaluated, KEYS, learned=True).sentence) == refused
    nobody = replace(evaluated, converted=np.zeros_like(evaluated.converted))
    found = decide_first(nobody, KEYS, learned=True)
    assert found.refused and "and 0 happened" in found.sentence


def test_a_first_model_that_rests_on_base_rates_or_cannot_be_judged_is_promoted_and_says_so() -> None:
    bad = first_model(-1.0, 3.0)
    found = decide_first(bad, KEYS, learned=False)
    assert found.promote and "rests wholly on base rates" in found.sentence
    few = first_model(1.0, size=12)
    found = decide_first(replace(few, converted=np.zeros_like(few.converted)), KEYS, learned=True)
    assert found.promote and "Too few customers moved in the test" in found.sentence
