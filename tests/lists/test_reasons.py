"""Reasons: contributions that add up, told as facts about a customer beside a typical one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy.special import expit
from tests.trained import Trained

from cvj_ml import commands
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import ModelError
from cvj_ml.histories import Block
from cvj_ml.lists import RankedList, rank, with_reasons
from cvj_ml.lists.reasons import COLUMNS, SMALLEST, beside_typical, by_fact, name, say
from cvj_ml.models.explain.explanation import Explainer
from cvj_ml.models.explain.typical import learn_reference
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.models.hazard.reach import prediction_rows
from cvj_ml.models.predictor import Predictions, Predictor
from cvj_ml.panel.panel import HazardRows
from cvj_ml.scoring import StoredTable, open_bundle

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
                facts = by_fact(definition, found, definition.journey.names[max(stage, 0)])
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
def histories(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> commands.Histories:
    lists = [{"from": a, "to": b, "horizon": "30d", "capacity": 6} for a, b in LISTS]
    config = trained.config(trained.variant(tmp_path_factory.mktemp("reasons"), lists=lists))
    return commands.open_histories(config, commands.Silent())


@pytest.fixture(scope="module")
def ranked(
    trained: Trained, histories: commands.Histories, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RankedList, ...]:
    model = open_bundle(trained.bundle).predictor
    folder = tmp_path_factory.mktemp("scores")
    scores = commands.score(histories, model, "0123456789ab", trained.as_of, folder).scores
    return rank(histories.config, StoredTable.at(scores), histories.visible.journey, trained.as_of)


@pytest.fixture(scope="module")
def explained(
    trained: Trained, histories: commands.Histories, ranked: tuple[RankedList, ...]
) -> tuple[RankedList, ...]:
    return with_reasons(ranked, open_bundle(trained.bundle).predictor, histories.engine(), trained.as_of)


def reasons_of(one: RankedList) -> list[list[str | None]]:
    return [list(row) for row in zip(*(one.rows[column].to_pylist() for column in COLUMNS), strict=True)]


def test_reasons_say_facts_and_never_a_feature(
    trained: Trained, ranked: list[RankedList], explained: tuple[RankedList, ...]
) -> None:
    names = open_bundle(trained.bundle).predictor.definition.catalogue.names
    told = 0
    for before, after in zip(ranked, explained, strict=True):
        kept = [column for column in after.rows.column_names if column not in COLUMNS]
        assert after.rows.select(kept).equals(before.rows.select(kept)), "nothing else changes"
        assert after.rows.schema.equals(before.rows.schema)
        for row in reasons_of(after):
            texts = [text for text in row if text is not None]
            assert row == texts + [None] * (3 - len(texts)), "there is no gap before a reason"
            for text in texts:
                assert re.match(
                    r"Speaks (for|against): .+; (most|typical of|typical of all) (\w+ )?customers: .+$", text
                ), text
                assert not [one for one in names if "_" in one and one in text] and "nan" not in text
            assert len(set(texts)) == len(texts)
            told += len(texts)
    assert told > 60
    both = {text.split(":")[0] for one in explained for row in reasons_of(one) for text in row if text}
    assert both == {"Speaks for", "Speaks against"}


def test_reasons_depend_on_no_other_list(
    trained: Trained, histories: commands.Histories, ranked: list[RankedList], explained: tuple[RankedList, ...]
) -> None:
    model = open_bundle(trained.bundle).predictor
    for one, expected in zip(ranked, explained, strict=True):
        (found,) = with_reasons([one], model, LocalEngine(histories.store, 2), trained.as_of)
        assert reasons_of(found) == reasons_of(expected)


def test_only_the_buckets_of_listed_customers_are_read(
    trained: Trained, histories: commands.Histories, monkeypatch: pytest.MonkeyPatch
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
        return [*numbers, *(one.tolist() for one in codes), definition.entries(one)[i].tolist()]

    whole = original(store, 2)
    for customer in wanted:
        assert known(block, customer) == known(whole, customer)
    assert histories.engine().only([]).map(len) == []


def test_a_score_that_comes_out_otherwise_stops_the_lists(
    trained: Trained, histories: commands.Histories, ranked: list[RankedList]
) -> None:
    rows = ranked[1].rows
    changed = pa.array(np.nextafter(rows["probability"].to_numpy(), 1.0))
    other = replace(ranked[1], rows=rows.set_column(rows.column_names.index("probability"), "probability", changed))
    with pytest.raises(AssertionError, match="could not be computed again"):
        with_reasons([other], open_bundle(trained.bundle).predictor, histories.engine(), trained.as_of)


def test_a_model_without_a_reference_gives_no_reasons(trained: Trained, histories: commands.Histories) -> None:
    model = replace(open_bundle(trained.bundle).predictor, reference=None)
    with pytest.raises(ModelError, match="Train anew"):
        with_reasons([], model, histories.engine(), trained.as_of)


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
    """Thirty customers; ``tests/golden/reasons/README.md`` says how to renew and what to look at."""
    assert sum(len(one.rows) for one in explained) == 30
    found = as_text(explained)
    if os.environ.get("CVJ_ML_RENEW") == "golden":
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


# Words and reference.


def test_what_is_typical_is_learned_from_customers_and_not_from_rows(
    trained: Trained, histories: commands.Histories
) -> None:
    """Silent error 10: a customer counts once, with the newest snapshot; few customers show what is typical of all."""
    panel = commands.training_panel(histories, trained.as_of)
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


def test_a_name_of_the_data_stays_one_short_line() -> None:
    assert name("pricing_page\n\tvisit") == "pricing page visit"
    assert len(name("x" * 10_000)) == 40 and name("x" * 10_000).endswith("…")


@pytest.fixture(scope="module")
def words(trained: Trained) -> Any:
    """Compare two values of one feature, or of several columns, all others being unknown."""
    definition = open_bundle(trained.bundle).predictor.definition
    names = definition.catalogue.names

    def tell(
        column: str, mine: dict[str, float], typical: dict[str, float], stage: str | None = "Convert"
    ) -> str | None:
        rows = []
        for given in (mine, typical):
            row = [float("nan")] * len(names)
            for one, value in given.items():
                row[names.index(one)] = value
            rows.append(row)
        return beside_typical(definition, names.index(column), rows[0], rows[1], stage)

    return tell


NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "mine", "typical", "own", "usual"),
    [
        ("count_event_purchase_30d", 1, 0, "1 “purchase” touchpoint in the last 30 days", "most: none"),
        ("count_event_purchase_all", 1234, 2, "1,234 “purchase” touchpoints so far", "typical of: 2"),
        ("count_event_purchase_7d", 0, 2, "no “purchase” touchpoint in the last 7 days", "typical of: 2"),
        ("count_channel_email_30d", 2, 0, "2 touchpoints through email in the last 30 days", "most: none"),
        ("recency_event_purchase", 1.2, NAN, "last “purchase” touchpoint 1 day ago", "most: none so far"),
        (
            "recency_event_purchase", NAN, 0.4,
            "no “purchase” touchpoint so far", "typical of: the last one less than a day ago",
        ),
        (
            "trend_event_purchase", 1, 0,
            "1 more “purchase” touchpoint in the last 30 days than in the time before", "most: no change",
        ),
        (
            "trend__touchpoints", -3, 0,
            "3 fewer touchpoints in the last 30 days than in the time before", "most: no change",
        ),
        ("active_days_30d", 1, 4, "1 active day in the last 30 days", "typical of: 4"),
        ("sessions_all", 3, 4, "3 sessions so far", "typical of: 4"),
        ("value_sum_all", 1234.5, 40, "total value 1,234.50 so far", "typical of: 40.00"),
        ("value_sum_all", 12, 0, "total value 12.00 so far", "most: 0"),
        ("value_max_90d", NAN, 40, "no value recorded in the last 90 days", "typical of: 40.00"),
        ("gap_mean_all", 4.54, 12.3, "touchpoints 4.5 days apart on average so far", "typical of: 12 days apart"),
        ("tenure", 40, 200, "first touchpoint 40 days ago", "typical of: 200 days ago"),
        ("days_in_stage", 1, 30, "in this stage for 1 day", "typical of: 30 days"),
        ("days_since_Subscribe", NAN, 30, "Subscribe not entered", "typical of: 30 days ago"),
        ("days_from_Aware_to_Engage", -2, 5, "entered Engage 2 days before Aware", "typical of: 5 days"),
        ("attribute_age", 45, NAN, "age is 45", "most: not known"),
        ("stage", 1, 2, None, None),
        ("recency", 3.1, 2.9, None, None),
    ],
)  # fmt: skip
def test_features_in_words(
    words: Any, column: str, mine: float, typical: float, own: str | None, usual: str | None
) -> None:
    told = usual and f"{own}; {usual.replace(':', ' Convert customers:')}"
    assert words(column, {column: mine}, {column: typical}) == told


def test_progress_in_words(words: Any) -> None:
    done = {"fulfilled_Ascend": 2 / 3, "remaining_Ascend": 1.0}
    rounded = {"fulfilled_Ascend": 0.333, "remaining_Ascend": 2.0}
    nothing = {"fulfilled_Ascend": 0.0, "remaining_Ascend": 1.0}
    text = "2 of 3 “purchase” touchpoints done towards Ascend; typical of Convert customers: 1 of 3"
    assert words("fulfilled_Ascend", done, rounded) == words("remaining_Ascend", done, rounded) == text
    told = words("remaining_Ascend", nothing, done)
    assert told == "nothing done yet towards Ascend; typical of Convert customers: 2 of 3"
    assert words("remaining_Ascend", done, done) is None


def test_nobody_is_told_to_be_behind_customers_of_other_stages(words: Any) -> None:
    """Where too few customers are in a stage, all are the measure, but not of how far one has come."""
    mine, typical = (
        {"fulfilled_Ascend": 0.0, "remaining_Ascend": 1.0},
        {"fulfilled_Ascend": 1.0, "remaining_Ascend": 0.0},
    )
    assert words("fulfilled_Ascend", mine, typical, None) is None
    assert words("days_in_stage", {"days_in_stage": 3}, {"days_in_stage": 90}, None) is None
    assert words("recency", {"recency": 3}, {"recency": 90}, None) == (
        "last touchpoint 3 days ago; typical of all customers: 90 days ago"
    )


def test_every_column_can_be_said_and_labels_are_words(trained: Trained) -> None:
    definition = open_bundle(trained.bundle).predictor.definition
    for value in (0.0, 1.0, 2.0, NAN):
        row = [value] * len(definition.catalogue.features)
        for column, feature in enumerate(definition.catalogue.features):
            said = say(definition, column, row)
            assert said is not None or feature.fact[0] == "stage" or np.isnan(value)
            assert said is None or ("_" not in said.whole and "nan" not in said.whole.split())
