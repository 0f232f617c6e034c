"""The simulation says the truth: a slow reading of the cvj8 rules and realised moves agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cvj_ml.config import DAY, JourneySpec, Rule
from cvj_ml.config.documents import read_yaml
from cvj_ml.errors import ConfigError
from cvj_ml.histories import Attributes, Block, Text
from cvj_ml.simulate import Simulation, random_block, simulate
from cvj_ml.windows import NEVER, to_microseconds

START = date(2024, 1, 1)
ORIGIN = 19_723 * DAY


@pytest.fixture(scope="module")
def small() -> Simulation:
    return simulate(customers=500, seed=7)


@pytest.fixture(scope="module")
def large() -> Simulation:
    return simulate(customers=12_000, seed=3, days=400)


# The oracle: plain Python over rows, one customer and one instant at a time.


@dataclass(frozen=True)
class Row:
    occurred: int
    visible: int
    order: tuple[str, ...]
    event: str
    rating: float


def rows_by_customer(simulation: Simulation) -> list[list[Row]]:
    frame = simulation.touchpoints
    rows: dict[str, list[Row]] = {customer: [] for customer in sorted(simulation.customers["customer_id"].unique())}
    for record in frame.itertuples(index=False):
        occurred, known = to_microseconds(record.occurred_at), to_microseconds(record.known_at)
        order = (record.event, record.channel, str(record.value), record.touchpoint_id)
        rows[record.customer_id].append(Row(occurred, max(occurred, known), order, record.event, record.rating))
    return [sorted(of_one, key=lambda row: (row.occurred, row.order)) for of_one in rows.values()]


def fires(rule: Rule, rows: Sequence[Row], entries: dict[str, int | None]) -> int | None:
    """Return the index of the row at which a rule first holds."""
    if rule.any:
        found = [index for child in rule.any if (index := fires(child, rows, entries)) is not None]
        return min(found, default=None)
    after = -1
    if rule.after:
        entered = entries[rule.after]
        if entered is None:
            return None
        after = entered
    least = rule.where.get("rating", {}).get("gte", -np.inf)
    hits = [
        index
        for index, row in enumerate(rows)
        if index > after
        and ("*" in (rule.event or ()) or row.event in (rule.event or ()))
        and (not rule.where or row.rating >= float(str(least)))
    ]
    return hits[rule.count - 1] if len(hits) >= rule.count else None


def observed_stage(journey: JourneySpec, rows: Sequence[Row], midnight: int) -> int:
    seen = [row for row in rows if row.visible < midnight]
    entries: dict[str, int | None] = {}
    for position in journey.in_order_of_rules():
        stage = journey.stages[position]
        entries[stage.name] = fires(stage.enter, seen, entries)
    return max((i for i, name in enumerate(journey.names) if entries[name] is not None), default=-1)


@pytest.fixture(scope="module")
def cvj8() -> JourneySpec:
    with as_file(files("cvj_ml") / "journey" / "presets" / "cvj8.yaml") as path:
        return JourneySpec.model_validate(read_yaml(path))


@pytest.mark.slow
def test_the_rules_read_the_true_stage_at_every_midnight(small: Simulation, cvj8: JourneySpec) -> None:
    histories = rows_by_customer(small)
    midnights = [*range(0, 541, 27), 1, 2, 3, 539]
    wrong = 0
    for day in midnights:
        truth = small.true_stage(ORIGIN + day * DAY)
        wrong += sum(
            observed_stage(cvj8, rows, ORIGIN + day * DAY) != stage
            for rows, stage in zip(histories, truth, strict=True)
        )
    assert wrong == 0


def test_the_midnights_around_each_move_agree_too(small: Simulation, cvj8: JourneySpec) -> None:
    histories = rows_by_customer(small)
    stages = np.stack([small.true_stage(ORIGIN + day * DAY) for day in range(541)])
    days, customers = np.nonzero(stages[1:] != stages[:-1])
    assert len(days) > 1_500
    for day, customer in list(zip(days, customers, strict=True))[::2]:
        for midnight in (day, day + 1):
            found = observed_stage(cvj8, histories[customer], ORIGIN + int(midnight) * DAY)
            assert found == stages[midnight, customer]


def test_stages_never_fall_and_some_are_stepped_over(small: Simulation) -> None:
    stages = np.stack([small.true_stage(ORIGIN + day * DAY) for day in range(541)])
    steps = np.diff(stages, axis=0)
    assert steps.min() == 0
    assert {1, 2, 3} == set(steps[(steps > 0) & (stages[:-1] >= 0)])
    assert (stages[0] == -1).all() and (stages[-1] >= 0).all()


def test_every_stage_holds_enough_customers_and_moves_are_plentiful(large: Simulation) -> None:
    share = np.bincount(large.true_stage(ORIGIN + 400 * DAY), minlength=8) / 12_000
    assert share.min() > 0.02
    before, after = large.true_stage(ORIGIN + 310 * DAY), large.true_stage(ORIGIN + 400 * DAY)
    assert np.sum((before == 6) & (after == 7)) > 80
    assert np.sum((before == 3) & (after >= 5)) > 80


def z_score(probability: npt.NDArray[np.float64], happened: npt.NDArray[np.bool_]) -> float:
    spread = np.sqrt(np.sum(probability * (1 - probability)))
    return float((happened.sum() - probability.sum()) / spread)


def test_true_reach_is_calibrated_against_realised_moves(large: Simulation) -> None:
    as_of, days = ORIGIN + 250 * DAY, (1, 30, 120)
    reach = large.true_reach(as_of, [day * DAY for day in days])
    now = large.true_stage(as_of)
    checked = 0
    for k, day in enumerate(days):
        then = large.true_stage(as_of + day * DAY)
        for start in range(7):
            for target in range(start + 1, 8):
                probability, happened = reach[now == start, target, k], then[now == start] >= target
                # Cells with few expected moves are too skewed for a normal bound.
                if probability.sum() > 15:
                    assert abs(z_score(probability, happened)) < 4, (day, start, target)
                    checked += 1
    assert checked > 25


def test_true_reach_is_calibrated_within_bands_of_probability(large: Simulation) -> None:
    as_of = ORIGIN + 250 * DAY
    reach, now = large.true_reach(as_of, [60 * DAY])[:, :, 0], large.true_stage(as_of)
    then = large.true_stage(as_of + 60 * DAY)
    rising = (now >= 0) & (now < 7)
    probability, happened = reach[rising, now[rising] + 1], then[rising] > now[rising]
    bands = np.digitize(probability, [0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9])
    assert len(np.unique(bands)) == 10
    for band in range(10):
        assert abs(z_score(probability[bands == band], happened[bands == band])) < 4, band


def test_true_reach_is_coherent_and_marks_the_past_and_the_absent(small: Simulation) -> None:
    as_of = ORIGIN + 200 * DAY
    reach, now = small.true_reach(as_of, [7 * DAY, 30 * DAY, 90 * DAY]), small.true_stage(as_of)
    absent = now == -1
    assert absent.any() and np.isnan(reach[absent]).all()
    present = reach[~absent]
    assert ((present >= 0) & (present <= 1)).all()
    assert (np.diff(present, axis=2) >= -1e-12).all() and (np.diff(present, axis=1) <= 1e-12).all()
    reached = np.arange(8) <= now[~absent, None]
    assert (present[reached] > 1 - 1e-9).all()
    assert small.true_reach(as_of, []).shape == (500, 8, 0)


def test_behaviour_before_an_instant_tells_of_moves_after_it(large: Simulation) -> None:
    as_of = ORIGIN + 250 * DAY
    frame = large.touchpoints
    instant = pd.Timestamp("2024-09-07", tz="UTC")
    inbound = ~frame["event"].isin(["email_sent", "ad_impression"])
    recent = frame[inbound & frame["occurred_at"].between(instant - pd.Timedelta("30D"), instant, inclusive="left")]
    ids = sorted(large.customers["customer_id"].unique())
    count = recent["customer_id"].value_counts().reindex(ids, fill_value=0).to_numpy()
    now, then = large.true_stage(as_of), large.true_stage(as_of + 30 * DAY)
    rising = (now >= 0) & (now < 7)
    quiet, busy = rising & (count == 0), rising & (count >= 8)
    moved = then > now
    assert moved[busy].mean() > 3 * moved[quiet].mean() > 0


def test_tables_have_the_promised_columns_types_and_keys(small: Simulation) -> None:
    frame = small.touchpoints
    names = ["customer_id", "occurred_at", "known_at", "event", "channel", "value", "rating", "touchpoint_id"]
    assert list(frame.columns) == names
    assert str(frame["occurred_at"].dtype) == str(frame["known_at"].dtype) == "datetime64[us, UTC]"
    assert frame["touchpoint_id"].is_unique and frame["customer_id"].nunique() == 500
    assert frame["customer_id"].str.fullmatch(r"c\d{6}").all()
    assert frame[["customer_id", "event", "channel", "touchpoint_id"]].notna().all(axis=None)
    assert (frame["rating"].dropna().isin([1, 2, 3, 4, 5])).all()
    assert frame["value"].min() < 0 < frame["value"].max()
    cents = frame["value"].dropna() * 100
    assert np.allclose(cents, cents.round(), atol=1e-6)
    assert frame["occurred_at"].min() >= pd.Timestamp(START, tz="UTC")
    assert frame["occurred_at"].max() < pd.Timestamp(START, tz="UTC") + pd.Timedelta("540D")


def test_a_few_touchpoints_arrive_late(small: Simulation) -> None:
    delay = small.touchpoints["known_at"] - small.touchpoints["occurred_at"]
    assert delay.min() == pd.Timedelta(0) and delay.max() <= pd.Timedelta("2D")
    assert 0.02 < (delay > pd.Timedelta(0)).mean() < 0.08


def test_attributes_come_in_versions_from_the_arrival_on(large: Simulation) -> None:
    attributes = large.customers
    arrival = large.touchpoints.groupby("customer_id")["occurred_at"].min()
    assert (attributes["known_at"] >= attributes["customer_id"].map(arrival)).all()
    assert not attributes.duplicated(["customer_id", "known_at"]).any()
    versions = attributes.groupby("customer_id")
    assert 0.05 < (versions.size() > 1).mean() < 0.25
    assert (versions["plan"].nunique() > 1).any()
    assert 0 < attributes["country"].isna().mean() < 0.1 and 0 < attributes["age"].isna().mean() < 0.1
    ascended = large.true_stage(ORIGIN + 400 * DAY) >= 5
    ids = np.array(sorted(attributes["customer_id"].unique()))
    premium = np.isin(ids, attributes.loc[attributes["plan"] == "premium", "customer_id"])
    assert ascended[premium].mean() > 1.1 * ascended[~premium].mean()


def test_the_default_size_has_about_a_million_touchpoints() -> None:
    per_customer = len(simulate(customers=2_000, seed=5).touchpoints) / 2_000
    assert 42 < per_customer < 62


def test_equal_seeds_give_equal_data_and_others_do_not() -> None:
    first, again, other = (simulate(customers=60, seed=seed, days=90) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.touchpoints, again.touchpoints)
    pd.testing.assert_frame_equal(first.customers, again.customers)
    assert not first.touchpoints["occurred_at"].equals(other.touchpoints["occurred_at"])


@pytest.mark.parametrize(("customers", "days"), [(1, 1), (1, 40), (3, 2)])
def test_tiny_simulations_work(customers: int, days: int) -> None:
    tiny = simulate(customers=customers, days=days)
    assert tiny.touchpoints["customer_id"].nunique() == customers
    assert tiny.true_reach(ORIGIN + days * DAY, [DAY]).shape == (customers, 8, 1)


def test_written_files_hold_the_same_rows_shuffled(small: Simulation, tmp_path: Path) -> None:
    small.write(tmp_path / "data")
    table = pq.read_table(tmp_path / "data" / "touchpoints.parquet", partitioning=None)
    assert str(table.schema.field("occurred_at").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("customer_id").type) == "string"
    assert table["value"].null_count == small.touchpoints["value"].isna().sum() > 0
    back = table.to_pandas()
    assert not back["occurred_at"].is_monotonic_increasing
    back = back.sort_values("touchpoint_id", ignore_index=True)
    pd.testing.assert_frame_equal(back, small.touchpoints, check_dtype=False)
    attributes = pq.read_table(tmp_path / "data" / "customers.parquet", partitioning=None)
    assert attributes.num_rows == len(small.customers)
    small.write(tmp_path / "again")
    for name in ("touchpoints.parquet", "customers.parquet", "contact.parquet"):
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_addresses_belong_to_nobody(small: Simulation) -> None:
    contact, log = small.contact, small.touchpoints
    given = log[log["event"].isin(("signup", "lead", "account_created", "purchase"))]["customer_id"]
    assert contact["customer_id"].tolist() == sorted(given.unique()), "nobody is asked for what we have"
    assert contact["email"].dropna().str.fullmatch(r"customer\.c\d+@example\.com").all()
    assert contact["phone"].dropna().str.fullmatch(r"(\+1 )?\(\d{3}\) 555-01\d\d").all()
    assert contact["phone"].dropna().is_unique and contact["email"].dropna().is_unique
    assert contact["first_name"].dropna().str.fullmatch(r"Customer \d+").all()
    assert contact[["email", "phone", "first_name"]].isna().any().all()


def test_questions_that_the_process_cannot_answer_are_refused(small: Simulation) -> None:
    for instant in (ORIGIN + 1, ORIGIN - DAY, ORIGIN + 541 * DAY):
        with pytest.raises(ConfigError, match=r"UTC midnights from its start \(2024-01-01\) to 540 days later"):
            small.true_stage(instant)
    for horizon in (0, DAY // 2, -DAY):
        with pytest.raises(ConfigError, match="whole days"):
            small.true_reach(ORIGIN, [horizon])
    with pytest.raises(ConfigError, match="found 0 and 540"):
        simulate(customers=0)


# Random blocks


def block(seed: int = 4, customers: int = 60) -> Block:
    return random_block(
        customers=customers,
        seed=seed,
        events=("visit", "purchase", "an_event", "email_sent"),
        channels=("web", "email", "app"),
        properties={"rating": None, "colour": ("red", "blue"), "unused": ()},
        attributes={"country": ("DE", "US"), "age": None},
        outbound={"email_sent"},
        until=ORIGIN,
    )


def texts(column: Text) -> list[str | None]:
    return [column.values[code] if code >= 0 else None for code in column.codes]


def test_a_random_block_is_sorted_by_content_within_customers() -> None:
    found = block()
    points = found.touchpoints
    assert list(found.customers) == sorted(found.customers) and found.customers[0] == "canary-0001"
    assert points.offsets[0] == 0 and points.offsets[-1] == len(points) and (np.diff(points.offsets) > 0).all()
    event, channel = texts(points.event), texts(points.channel)
    value = [str(v) if has else "" for v, has in zip(points.value, points.has_value, strict=True)]
    for start, stop in zip(points.offsets[:-1], points.offsets[1:], strict=True):
        keys = [(points.occurred_at[i], event[i] or "", channel[i] or "", value[i]) for i in range(start, stop)]
        assert keys == sorted(keys)


def test_a_random_block_holds_the_awkward_cases() -> None:
    points = block().touchpoints
    first, last = points.offsets[:-1], points.offsets[1:]
    inside = np.setdiff1d(np.arange(1, len(points)), first)
    plain = points.superseded_at == NEVER
    assert (points.occurred_at[inside] == points.occurred_at[inside - 1]).sum() > 10
    assert (points.visible_at > points.occurred_at).any()
    assert (points.visible_at > ORIGIN).any() and (points.visible_at == ORIGIN).any()
    assert 0 < np.sum(~plain) < 0.15 * len(points)
    assert (points.superseded_at > points.visible_at).all()
    for row in np.flatnonzero(~plain):
        own = np.searchsorted(last, row, side="right")
        newer = slice(first[own], last[own])
        same = points.occurred_at[newer] == points.occurred_at[row]
        assert (points.visible_at[newer][same] == points.superseded_at[row]).any()
    assert (points.value[points.has_value] < 0).any() and (points.value[~points.has_value] == 0).all()
    assert ((ORIGIN - points.occurred_at) % DAY == 0).any()
    assert ((points.occurred_at >= ORIGIN - 400 * DAY) & (points.occurred_at < ORIGIN)).all()
    assert (points.day == points.occurred_at // DAY).all()
    assert (points.channel.codes == -1).any() and (points.event.codes >= 0).all()


def test_a_random_block_follows_the_vocabulary() -> None:
    found = block()
    points, attributes = found.touchpoints, found.attributes
    assert [name != "email_sent" for name in texts(points.event)] == points.inbound.tolist()
    assert set(texts(points.event)) == {"visit", "purchase", "an_event", "email_sent"}
    rating, colour, unused = (points.properties[name] for name in ("rating", "colour", "unused"))
    assert isinstance(rating, np.ndarray) and isinstance(colour, Text) and isinstance(unused, Text)
    assert set(rating[~np.isnan(rating)]) == {1, 2, 3, 4, 5} and np.isnan(rating).any()
    assert set(texts(colour)) == {"red", "blue", None} and set(texts(unused)) == {None}
    assert isinstance(attributes, Attributes) and set(attributes.columns) == {"country", "age"}
    sizes = np.diff(attributes.offsets)
    assert sizes.min() == 0 and sizes.max() > 1 and len(sizes) == len(found)
    for start, stop in zip(attributes.offsets[:-1], attributes.offsets[1:], strict=True):
        assert (np.diff(attributes.known_at[start:stop]) >= 0).all()


def test_a_random_block_repeats_by_seed() -> None:
    one, same, other = block(4).touchpoints, block(4).touchpoints, block(5).touchpoints
    for name in ("occurred_at", "visible_at", "superseded_at", "value"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert len(one) != len(other) or (one.occurred_at != other.occurred_at).any()


def test_a_random_block_needs_a_vocabulary() -> None:
    with pytest.raises(ConfigError, match="found 5, 400, 0 and 1"):
        random_block(
            customers=5, seed=1, events=(), channels=("a",), properties={}, attributes={}, outbound=(), until=ORIGIN
        )
