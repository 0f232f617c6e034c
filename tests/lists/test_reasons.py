"""Reasons: contributions that add up, told as facts about a customer beside a typical one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import yaml
from scipy.special import expit
from tests.trained import SETTINGS, Trained

from cvj_ml.commands.train import training_panel
from cvj_ml.config import DAY, UnhappySpec, load_config
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import ModelError
from cvj_ml.histories import Block
from cvj_ml.inputs import Histories, open_histories
from cvj_ml.lists.last_events import did, name
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.lists.ranking import rank
from cvj_ml.lists.reasons import BECAUSE, COLUMNS, SMALLEST, by_fact, sentence, with_reasons
from cvj_ml.models.explain.explanation import Explainer
from cvj_ml.models.explain.typical import learn_reference
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.models.hazard.reach import prediction_rows
from cvj_ml.models.predictor import Predictions, Predictor
from cvj_ml.night.scores import score
from cvj_ml.panel.panel import HazardRows
from cvj_ml.run import Silent
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.simulate import simulate
from cvj_ml.windows import parse_as_of

pytest_plugins = ["tests.fixtures"]

F64 = npt.NDArray[np.float64]
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "reasons" / "reasons.txt"
LISTS = [
    ("Aware", "Engage"),
    ("Engage", "Subscribe"),
    ("Subscribe", "Convert"),
    ("Convert", "Ascend"),
    ("Ascend", "Advocate"),
]


@pytest.fixture(scope="module")
def predictor(trained: Trained) -> Predictor:
    """The champion, with maps whose slopes differ by target and interval, one of them below zero."""
    opened = open_bundle(trained.bundle).predictor
    rng = np.random.default_rng(3)
    shape = opened.calibration.slope.shape
    slope = rng.uniform(0.6, 1.1, shape)
    slope[2, 0] = -0.3
    return replace(opened, calibration=Calibration(rng.normal(0, 0.2, shape), slope))


@pytest.fixture(scope="module")
def answers(trained: Trained, predictor: Predictor) -> Predictions:
    canary = open_bundle(trained.bundle).canary
    return predictor.answer(canary.block, canary.as_of)


def margins(predictor: Predictor, x: npt.NDArray[np.float32], stage: int, target: int, intervals: int) -> F64:
    """The margin of each row as the documentation defines it, one row and interval after the other."""
    result = np.zeros(len(x))
    for i in range(len(x)):
        rows = prediction_rows(np.arange(predictor.calibration.slope.shape[0])[None] == target, intervals)
        raw = predictor.trees.logits(x[i : i + 1], np.array([stage], dtype=np.int8), rows)
        mapped = predictor.calibration.apply(raw, rows.target, rows.interval)
        logits = np.where(predictor.trees.base.known[stage + 1, target, :intervals], mapped, raw)
        survival, added = 1.0, []
        for logit in logits:
            added.append(survival * expit(logit))
            survival -= added[-1]
        result[i] = np.dot(added, logits) / sum(added)
    return result


def test_contributions_and_base_add_up_to_the_margin(predictor: Predictor, answers: Predictions) -> None:
    """Silent error 29: one named margin; what target, steps and interval add is in the base."""
    definition, reference, explainer = predictor.definition, predictor.reference, Explainer(predictor)
    assert reference is not None
    checked = 0
    for stage in sorted(set(answers.stage.tolist())):
        rows = np.flatnonzero(answers.stage == stage)[:12]
        x, typical = answers.x[rows], reference.typical[stage + 1]
        for target in np.flatnonzero(definition.at_risk(np.array([stage], dtype=np.int8))[0])[1:]:
            for intervals in (1, len(definition.horizons)):
                found = explainer.explain(x, stage, int(target), intervals, typical)
                expected = margins(predictor, x, stage, int(target), intervals)
                assert found.margin == pytest.approx(expected, rel=1e-9, abs=1e-9)
                assert found.base + found.contributions.sum(axis=1) == pytest.approx(expected, rel=1e-9, abs=1e-9)
                facts = by_fact(definition, found)
                assert facts.base + facts.contributions.sum(axis=1) == pytest.approx(expected, rel=1e-9, abs=1e-9)
                assert not {fact[0] for fact in facts.names} & {"stage", "target", "interval"}
                checked += predictor.learned[stage + 1, target, intervals - 1]
    assert checked > 5, "targets with trees were explained, too"


def test_a_row_is_explained_the_same_in_any_company(predictor: Predictor, answers: Predictions) -> None:
    assert predictor.reference is not None
    rows = np.flatnonzero(answers.stage == 1)
    explainer, typical = Explainer(predictor), predictor.reference.typical[2]
    whole = explainer.explain(answers.x[rows], 1, 3, 2, typical)
    for size in (1, 7):
        parts = [
            explainer.explain(answers.x[rows[begin : begin + size]], 1, 3, 2, typical)
            for begin in range(0, len(rows), size)
        ]
        assert np.array_equal(np.vstack([one.contributions for one in parts]), whole.contributions)
        assert np.array_equal(np.concatenate([one.base for one in parts]), whole.base)


def test_a_customer_like_most_has_nothing_to_tell(predictor: Predictor) -> None:
    assert predictor.reference is not None
    typical = predictor.reference.typical[2]
    found = Explainer(predictor).explain(typical[None], 1, 3, 2, typical)
    assert np.abs(found.contributions).max() < 1e-12 < SMALLEST


def test_reasons_are_there_without_compiled_trees(predictor: Predictor, answers: Predictions) -> None:
    """LightGBM's own contributions take their place, for whatever has trees; what has none is as it was."""
    assert predictor.reference is not None and predictor.trees.forest is not None
    trees = replace(predictor.trees)
    object.__setattr__(trees, "forest", None)
    left, compiled = Explainer(replace(predictor, trees=trees)), Explainer(predictor)
    bare = replace(predictor, trees=replace(predictor.trees, booster=None))
    learned = set()
    for stage in sorted(set(answers.stage.tolist())):
        x, typical = answers.x[answers.stage == stage][:5], predictor.reference.typical[stage + 1]
        for target in np.flatnonzero(predictor.definition.at_risk(np.array([stage], dtype=np.int8))[0]):
            for intervals in (1, len(predictor.definition.horizons)):
                expected = compiled.explain(x, stage, int(target), intervals, typical)
                found = left.explain(x, stage, int(target), intervals, typical)
                assert found.margin == pytest.approx(expected.margin, abs=1e-9)
                assert found.base == pytest.approx(expected.base, abs=1e-6)
                assert found.contributions == pytest.approx(expected.contributions, abs=1e-6)
                assert found.base + found.contributions.sum(axis=1) == pytest.approx(found.margin, abs=1e-6)
                learned.add(bool(predictor.learned[stage + 1, target, intervals - 1]))
                without = Explainer(bare).explain(x, stage, int(target), intervals, typical)
                assert without.base + without.contributions.sum(axis=1) == pytest.approx(without.margin, abs=1e-9)
    assert learned == {False, True}, "with trees, and on base rates alone"


def test_the_linear_start_is_shared_out_exactly(predictor: Predictor, answers: Predictions) -> None:
    """Shapley values of a quadratic form: they sum to the difference, and swap their sign with the two customers."""
    linear, trees = predictor.trees.linear, predictor.trees
    assert linear is not None
    rng = np.random.default_rng(5)
    dense = replace(linear, coefficients=rng.normal(0, 1, len(linear.coefficients)))
    x, other = answers.x, answers.x[17]
    size, targets, intervals = len(x), *predictor.calibration.slope.shape
    rows = HazardRows(
        np.arange(size),
        rng.integers(targets, size=size).astype(np.int8),
        rng.integers(intervals, size=size).astype(np.int8),
        np.zeros(size, dtype=np.bool_),
    )
    found = dense.contributions(x, other, trees.columns, rows)
    mine = dense.logits(x, trees.columns, trees.base, answers.stage, rows)
    theirs = dense.logits(np.tile(other, (size, 1)), trees.columns, trees.base, answers.stage, rows)
    assert found.sum(axis=1) == pytest.approx(mine - theirs, rel=1e-9, abs=1e-9)
    assert set(np.unique(rows.target)) == set(range(targets))


def test_a_pair_of_facts_shares_its_product(predictor: Predictor, answers: Predictions) -> None:
    """A product of two facts is halved between them, whoever of the two is named first."""
    linear, columns = predictor.trees.linear, predictor.trees.columns
    assert linear is not None
    only = np.zeros(len(linear.coefficients))
    only[5] = 1.0  # recency x touchpoints, of the return
    row = HazardRows(*(np.zeros(1, dtype=kind) for kind in (np.int64, np.int8, np.int8, np.bool_)))
    x, typical = answers.x[:1].copy(), answers.x[0].copy()
    x[0, columns.history[:2]], typical[columns.history[:2]] = np.expm1([3.0, 2.0]), np.expm1([1.0, 1.0])
    found = replace(linear, coefficients=only, scale=np.ones(len(only))).contributions(x, typical, columns, row)
    assert found[0] == pytest.approx([2 * (2 + 1) / 2, 1 * (3 + 1) / 2, 0, 0, 0], rel=1e-6)


# Lists.


@pytest.fixture(scope="module")
def histories(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Histories:
    lists = [{"from": a, "to": b, "horizon": "30d", "capacity": 10} for a, b in LISTS]
    config = trained.config(trained.variant(tmp_path_factory.mktemp("reasons"), lists=lists))
    return open_histories(config, Silent())


@pytest.fixture(scope="module")
def ranked(trained: Trained, histories: Histories, tmp_path_factory: pytest.TempPathFactory) -> tuple[RankedList, ...]:
    model = open_bundle(trained.bundle).predictor
    folder = tmp_path_factory.mktemp("scores")
    scores = score(histories, model, "0123456789ab", trained.as_of, folder).scores
    return rank(histories.config, StoredTable.at(scores), histories.visible.journey, trained.as_of)


@pytest.fixture(scope="module")
def explained(trained: Trained, histories: Histories, ranked: tuple[RankedList, ...]) -> tuple[RankedList, ...]:
    return with_reasons(
        ranked, open_bundle(trained.bundle).predictor, histories.engine(), trained.as_of, histories.config
    )


def reasons_of(one: RankedList) -> list[list[str | None]]:
    return [list(row) for row in zip(*(one.rows[column].to_pylist() for column in COLUMNS), strict=True)]


def test_reasons_say_facts_and_never_a_feature(
    trained: Trained, ranked: list[RankedList], explained: tuple[RankedList, ...]
) -> None:
    names = open_bundle(trained.bundle).predictor.definition.catalogue.names
    told = 0
    for before, after in zip(ranked, explained, strict=True):
        kept = [column for column in after.rows.column_names if column not in (*COLUMNS, BECAUSE)]
        assert after.rows.select(kept).equals(before.rows.select(kept)), "nothing else changes"
        assert after.rows.schema.equals(before.rows.schema)
        for row in reasons_of(after):
            texts = [text for text in row if text is not None]
            assert row == texts + [None] * (3 - len(texts)), "there is no gap before a reason"
            for text in texts:
                assert re.match(
                    r"(Speaks (for|against)|Note): .+; (most|typical of|typical of all) (\w+ )?customers: .+$", text
                ), text
                assert not [one for one in names if "_" in one and one in text] and "nan" not in text
            assert len(set(texts)) == len(texts)
            told += len(texts)
    assert told > 60
    both = {text.split(":")[0] for one in explained for row in reasons_of(one) for text in row if text}
    assert {"Speaks for", "Speaks against"} <= both <= {"Speaks for", "Speaks against", "Note"}


def own_words(reason: str) -> str:
    """What a reason says of the customer, without what is typical of others."""
    return reason.partition(": ")[2].rpartition("; ")[0]


def named(event: str, text: str) -> bool:
    return did(event) in text or f"“{name(event)}”" in text


@pytest.fixture(scope="module")
def simulated(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Histories, tuple[RankedList, ...], int]]:
    """Nights of other simulated customers than those of the training, with everybody listed."""
    model, nights = open_bundle(trained.bundle).predictor, []
    for seed in (11, 12):
        folder = tmp_path_factory.mktemp(f"simulated-{seed}")
        simulate(customers=150, seed=seed).write(folder)
        lists = [{"from": a, "to": b, "horizon": "30d"} for a, b in LISTS]
        file = folder / "c.yaml"
        file.write_text(yaml.safe_dump({**SETTINGS, "lists": lists, "out": str(folder / "out")}))
        config = load_config(file)
        histories = open_histories(config, Silent())
        for day in ("2025-04-10", "2025-06-24"):
            as_of = parse_as_of(day, config.zone)
            scores = score(histories, model, "0123456789ab", as_of, folder / day).scores
            ranked = rank(histories.config, StoredTable.at(scores), histories.visible.journey, as_of)
            nights.append((histories, ranked, as_of))
    return nights


Nights = list[tuple[Histories, tuple[RankedList, ...], int]]
WANTED = frozenset({"purchase", "referral_shared", "product_used"})
"""Events that a rule counts: progress names them, and no business calls them bad."""


@pytest.mark.parametrize("seed", range(4))
def test_no_reason_praises_what_is_bad(trained: Trained, simulated: Nights, seed: int) -> None:
    """Silent error 77: refunds and tickets, whatever else a business calls bad, and bad ratings speak for nobody."""
    model = open_bundle(trained.bundle).predictor
    others = sorted({*model.definition.catalogue.vocabulary.events} - WANTED)
    some = np.random.default_rng(seed).choice(others, size=5, replace=False).tolist() if seed else []
    unhappy = UnhappySpec(tickets=("support_ticket",), setbacks=("refund", *some))
    seen = Counter[str]()
    for histories, ranked, as_of in simulated:
        journey = histories.config.journey.model_copy(update={"unhappy": unhappy})
        config = histories.config.model_copy(update={"journey": journey})
        for one in with_reasons(ranked, model, histories.engine(), as_of, config):
            for text in (text for row in reasons_of(one) for text in row if text):
                bad = any(named(event, own_words(text)) for event in unhappy.events)
                bad |= re.search(r"with [12] of 5", own_words(text)) is not None
                assert not (bad and text.startswith("Speaks for")), text
                assert bad or not text.startswith("Note"), text
                seen[text.split(":")[0]] += bad
    assert seen["Note"] and seen["Speaks against"]


def test_reasons_name_what_happened_wherever_that_counts(trained: Trained, simulated: Nights) -> None:
    """At least one of three is concrete where one contributes, and what happened is said once."""
    model = open_bundle(trained.bundle).predictor
    words = model.definition.catalogue.vocabulary
    events = [text for event in words.events for text in (did(event), f"“{name(event)}”")]
    rows = concrete = 0
    for histories, ranked, as_of in simulated:
        for one in with_reasons(ranked, model, histories.engine(), as_of, histories.config):
            for row in reasons_of(one):
                texts = [own_words(text) for text in row if text]
                assert not any("touchpoint" in text for text in texts)
                assert not [a for a in texts for b in texts if a != b and a in b]
                named = [any(event in text for event in events) for text in texts if " is “" not in text]
                found = any(named) or any(re.search("through|value|towards", text) for text in texts)
                rows, concrete = rows + bool(texts), concrete + found
                if not found and len(texts) == 3:
                    assert not any("last seen" in text for text in texts), texts
    assert rows > 300 and concrete > 0.9 * rows


def test_no_sign_contradicts_reading(trained: Trained, simulated: Nights) -> None:
    """More, sooner and more often speak for; what never happened speaks for nobody; one newcomer is one fact."""
    model = open_bundle(trained.bundle).predictor
    for histories, ranked, as_of in simulated:
        for one in with_reasons(ranked, model, histories.engine(), as_of, histories.config):
            for row in reasons_of(one):
                texts = [text for text in row if text]
                presence = r"first seen|active day|interaction|session|back every|in this stage|entered|has been in"
                # "Other interactions" are those with events outside the vocabulary.
                assert sum(bool(re.search(presence, text)) and "other interaction" not in text for text in texts) <= 1
                for text in texts:
                    told = re.match(r"Speaks (for|against): last seen (.+?)(?: \(.+\))?; .+: (.+)$", text)
                    if told and "Note" not in text:
                        mine, usual = (days_ago(told[k]) for k in (2, 3))
                        assert (mine < usual) == (told[1] == "for"), text
                    if text.startswith("Speaks for"):
                        assert not re.match(r"(no|nothing|fewer than) ", own_words(text)), text
                    assert not re.search(r"\d of \d+ .*: \d+%", text), text


def days_ago(text: str) -> float:
    if text in ("today", "yesterday", "less than a day ago"):
        return 0.5
    return float(text.replace(",", "").split(" ")[0])


def test_a_play_with_a_trigger_says_what_brought_it(trained: Trained, simulated: Nights) -> None:
    """Only of plays that have a ``when:``, in words of the right kind; without a history every play fits everybody."""
    model = open_bundle(trained.bundle).predictor
    seen = Counter[bool]()
    for histories, ranked, as_of in simulated:
        plays = {play.text: play for stage in histories.config.journey.stages for play in stage.plays}
        for one in with_reasons(ranked, model, histories.engine(), as_of, histories.config):
            for text, because in zip(one.rows["play"].to_pylist(), one.rows["because"].to_pylist(), strict=True):
                assert because is None or plays[text].when is not None, (text, because)
                assert because is None or re.search(r"(ago|yesterday|today|never rated us| is .+)$", because), because
                seen[because is not None] += 1
    assert seen[True] > 20 and seen[False]


def test_reasons_depend_on_no_other_list(
    trained: Trained, histories: Histories, ranked: list[RankedList], explained: tuple[RankedList, ...]
) -> None:
    model = open_bundle(trained.bundle).predictor
    for one, expected in zip(ranked, explained, strict=True):
        (found,) = with_reasons([one], model, LocalEngine(histories.store, 2), trained.as_of, histories.config)
        assert reasons_of(found) == reasons_of(expected)


def test_only_the_buckets_of_listed_customers_are_read(
    trained: Trained, histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = histories.store
    wanted = store.read(2).customers[3], store.read(2).customers[7]
    read: list[int] = []
    original = type(store).read
    monkeypatch.setattr(type(store), "read", lambda self, bucket: read.append(bucket) or original(self, bucket))
    (block,) = histories.engine().only(wanted).map(lambda one: one)
    assert read == [2] and block.customers == wanted
    definition = open_bundle(trained.bundle).predictor.definition

    def known(one: Block, customer: str) -> list[Any]:
        i, points, table = one.customers.index(customer), one.touchpoints, one.attributes
        assert table is not None
        mine, about = slice(*points.offsets[i : i + 2]), slice(*table.offsets[i : i + 2])
        numbers = [getattr(points, column)[mine].tolist() for column in ("occurred_at", "visible_at", "day", "value")]
        codes = points.event.codes[mine], points.channel.codes[mine], table.columns["country"].codes[about]  # type: ignore[union-attr]
        return [*numbers, *(one.tolist() for one in codes), definition.stays(one).first[i].tolist()]

    whole = original(store, 2)
    for customer in wanted:
        assert known(block, customer) == known(whole, customer)
    assert histories.engine().only([]).map(len) == []


def test_a_score_that_comes_out_otherwise_stops_the_lists(
    trained: Trained, histories: Histories, ranked: list[RankedList]
) -> None:
    rows = ranked[1].rows
    changed = pa.array(np.nextafter(rows["probability"].to_numpy(), 1.0))
    other = replace(ranked[1], rows=rows.set_column(rows.column_names.index("probability"), "probability", changed))
    with pytest.raises(AssertionError, match="could not be computed again"):
        with_reasons(
            [other], open_bundle(trained.bundle).predictor, histories.engine(), trained.as_of, histories.config
        )


def test_a_model_without_a_reference_gives_no_reasons(trained: Trained, histories: Histories) -> None:
    model = replace(open_bundle(trained.bundle).predictor, reference=None)
    with pytest.raises(ModelError, match="Train anew"):
        with_reasons([], model, histories.engine(), trained.as_of, histories.config)


def as_text(lists: Sequence[RankedList]) -> str:
    """Lists as one reads them aloud; customers by rank, since ids say nothing."""
    lines = []
    for one in lists:
        lines += [one.title, ""]
        for place, (row, probability) in enumerate(
            zip(reasons_of(one), one.rows["probability"].to_pylist(), strict=True), 1
        ):
            lines += [f"{place}. {probability:.0%}", *(f"   {text}" for text in row if text), ""]
    return "\n".join(lines)


def test_the_golden_reasons(explained: tuple[RankedList, ...]) -> None:
    """Fifty customers; ``tests/golden/reasons/README.md`` says how to renew and what to look at."""
    assert sum(any(row) for one in explained for row in reasons_of(one)) >= 40
    found = as_text(explained)
    if os.environ.get("CVJ_ML_RENEW") == "golden":
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


# Words and reference.


def test_what_is_typical_is_learned_from_customers_and_not_from_rows(trained: Trained, histories: Histories) -> None:
    """Silent error 10: a customer counts once, with the newest snapshot; few customers show what is typical of all."""
    panel = training_panel(histories, trained.as_of)
    found, fewest = learn_reference(panel), panel.definition.min_customers
    newest = {int(who): i for i, who in sorted(enumerate(panel.customer), key=lambda pair: panel.as_of[pair[0]])}
    rows = np.array(sorted(newest.values()))
    column = panel.definition.catalogue.names.index("recency")
    for stage in range(-1, len(panel.definition.journey.stages)):
        here = rows[panel.stage[rows] == stage]
        assert found.own[stage + 1] == (len(here) >= fewest)
        chosen = here if len(here) >= fewest else rows
        values = panel.x[chosen, column]
        values = np.sort(values[~np.isnan(values)])
        middle = float(values[(len(values) - 1) // 2])
        assert found.typical[stage + 1, column] == np.float32(f"{middle:.3g}")
    assert found.own.any() and not found.own.all()
    after = panel.definition.journey.spec.dormant_after
    dormant = np.array([row for row in rows if not panel.x[row, column] * DAY <= after])
    assert found.silent is not None and len(dormant)
    for stage in range(-1, len(panel.definition.journey.stages)):
        here = dormant[panel.stage[dormant] == stage]
        assert found.silent.own[stage + 1] == (len(here) >= fewest)
        values = np.sort(panel.x[here, column][~np.isnan(panel.x[here, column])])
        alone = float(f"{values[(len(values) - 1) // 2]:.3g}") if len(here) >= fewest and len(values) else None
        told = found.silent.typical[stage + 1, column]
        assert told == (np.float32(alone) if alone is not None else found.typical[stage + 1, column])


def test_who_is_at_risk_is_told_only_what_points_to_leaving(
    trained: Trained, histories: Histories, tmp_path: Path
) -> None:
    """Silent error 158: of a list of the leaving the margin is that of staying, with the sign turned, never praise."""
    lists = [{"at_risk": {"stages": ["Engage", "Convert", "Excite"]}, "horizon": "30d"}]
    lists += [{"win_back": {"stages": ["Engage", "Convert"]}, "horizon": "30d"}]
    config = load_config(trained.variant(tmp_path, lists=lists))
    model = open_bundle(trained.bundle).predictor
    scores = StoredTable.at(score(histories, model, "0123456789ab", trained.as_of, tmp_path / "s").scores)
    ranked = rank(config, scores, histories.visible.journey, trained.as_of)
    risk, back = with_reasons(ranked, model, histories.engine(), trained.as_of, config)
    told = [text for row in reasons_of(risk) for text in row if text]
    assert len(risk.rows) > 5 and told and all(text.startswith("Points to leaving: ") for text in told)
    assert {text.split(":")[0] for row in reasons_of(back) for text in row if text} <= {
        "Speaks for", "Speaks against", "Note",
    }  # fmt: skip
    assert model.reference is not None and model.reference.silent is not None
    assert sentence([told[0]]).startswith(told[0].removeprefix("Points to leaving: ")[0].upper())
    # The facts add up to the margin of staying, so what is told of a leaver lowers it.
    (kept,) = (one for one in model.definition.outcomes if one.name == "kept")
    own = model.asking(kept)
    explainer = Explainer(own)
    typical = model.reference.typical if model.reference else np.zeros(0)
    for block in histories.engine().map(lambda block: block):
        answers = model.answer(block, trained.as_of)
        rows = np.flatnonzero(answers.stage == 3)
        if not len(rows):
            continue
        found = explainer.explain(answers.x[rows], 3, 0, 2, typical[4], trained.as_of)
        np.testing.assert_allclose(found.base + found.contributions.sum(axis=1), found.margin, atol=1e-8)
        p = own._probabilities(answers.x[rows], answers.stage[rows], answers.snapshots.as_of[rows], 1)[:, 0, 1]
        order = np.argsort(p)
        assert (np.diff(found.margin[order]) > -0.2).all()
