"""Ranked lists: order, capacity, contract, and a control group that depends on nothing but a hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml import schemas
from cvj_ml.config import DAY, Config, ListSizeSpec
from cvj_ml.errors import ConfigError, DataError
from cvj_ml.journey import Journey
from cvj_ml.lists.control import epoch_name, in_control
from cvj_ml.lists.ranked_list import ListSize, confirmations, list_specs, recommended_size, summarise
from cvj_ml.lists.ranking import rank
from cvj_ml.models.bundle.bundle import ModelEvidence
from cvj_ml.models.bundle.track_record import PastScores, TrackRecord
from cvj_ml.schemas import TARGETS
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.windows import midnight

STAGES = ("Visitor", "Buyer", "Fan")
CONTRACT = schemas.scores(["visitor", "buyer", "fan"], {"buyer": [7, 30], "fan": [7, 30]}, [7, 30])


def config(**settings: Any) -> Config:
    stages = [{"name": name, "enter": {"event": name.lower()}} for name in STAGES]
    return Config.model_validate(
        {
            "name": "shop",
            "time_zone": "Europe/London",
            "history_from": "2024-01-01",
            "sources": {"log": {"path": "log.csv"}},
            "journey": {"name": "short", "stages": stages},
            "horizons": ["7d", "30d"],
            "list_size": {"least": 0},  # whole lists, where nothing else is asked
            **settings,
        }
    )


AS_OF = midnight(date(2024, 11, 1), config().zone)


def scores(
    customers: Sequence[str], buyer: Sequence[float | None], stage: Sequence[str | None] | str = "Visitor"
) -> pa.Table:
    """A night's SCORES in which p_reach_buyer_30d is given and everything else is plain."""
    size = len(customers)
    values: dict[str, Any] = {
        "customer_id": list(customers),
        "as_of": np.full(size, AS_OF).astype("datetime64[us]"),
        "stage": [stage] * size if isinstance(stage, str) else list(stage),
        "dormant": [False] * size,
        "p_reach_buyer_30d": list(buyer),
        "p_reach_fan_30d": [None if p is None else p / 2 for p in buyer],
        "low_evidence": [[]] * size,
        "model_version": ["0123456789ab"] * size,
    }
    table = pa.table(
        {
            name: pa.array(values[name], kind, from_pandas=True) if name in values else pa.nulls(size, kind)
            for name, kind in CONTRACT.columns.items()
        }
    )
    CONTRACT.check(table)
    return table


def one_list(table: pa.Table, as_of: int = AS_OF, *, to: str = "Buyer", start: str = "Visitor", **settings: Any) -> Any:
    capacity = settings.pop("capacity", None)
    spec = {"from": start, "to": to, "horizon": "30d", "capacity": capacity}
    (only,) = rank(
        config(lists=[spec], **settings),
        StoredTable.of(table),
        Journey(config(lists=[spec], **settings).journey),
        as_of,
    )
    return only


def names(count: int, prefix: str = "c") -> list[str]:
    return [f"{prefix}{number:05d}" for number in range(count)]


def test_a_list_holds_its_contract_and_ranks_by_probability() -> None:
    found = one_list(scores(["a", "b", "c"], [0.2, 0.6, 0.4]), stage_value={"Buyer": 50})
    assert found.name == "visitor__buyer__30d"
    assert found.title == "Visitor → Buyer, 30 days"
    assert found.eligible == 3
    assert found.rows.schema.names == list(TARGETS.columns)
    rows = found.rows.to_pylist()
    assert [(row["rank"], row["customer_id"], row["probability"]) for row in rows] == [
        (1, "b", 0.6),
        (2, "c", 0.4),
        (3, "a", 0.2),
    ]
    assert [row["lift"] for row in rows] == pytest.approx([1.5, 1.0, 0.5])
    assert [row["expected_value"] for row in rows] == pytest.approx([30.0, 20.0, 10.0])
    first = rows[0]
    assert (first["from_stage"], first["to_stage"], first["horizon_days"]) == ("Visitor", "Buyer", 30)
    assert (first["control_share"], first["model_version"]) == (0.1, "0123456789ab")
    assert first["as_of"].isoformat() == "2024-11-01T00:00:00+00:00"
    later = ("track_record_n", "track_record_k", "track_record_predicted", "track_record_low", "track_record_high")
    for name in (*later, "reason_1", "reason_2", "reason_3", "play", "channel"):
        assert found.rows[name].null_count == 3


def test_ties_are_broken_by_id() -> None:
    """SCORES stand in the order of the ids, which is that of their code points."""
    people = sorted(["c10", "c9", "C1", "é", "c1"])
    found = one_list(scores(people, [0.5] * 5), stage_value={"Buyer": 3})
    assert found.rows["customer_id"].to_pylist() == ["C1", "c1", "c10", "c9", "é"]


@given(st.lists(st.sampled_from([0.0, 0.1, 0.1 + 1e-16, 0.5, 1.0]), max_size=30))
def test_lists_are_ordered_by_probability_then_id(probabilities: list[float]) -> None:
    people = list(zip(names(len(probabilities)), probabilities, strict=True))
    expected = [name for name, _ in sorted(people, key=lambda one: (-one[1], one[0]))]
    found = one_list(scores([name for name, _ in people], [p for _, p in people]))
    assert found.rows["customer_id"].to_pylist() == expected
    assert found.rows["rank"].to_pylist() == list(range(1, len(people) + 1))


def test_scores_in_another_order_are_refused() -> None:
    """What is equal keeps the order of SCORES, so that has to be the order of the ids."""
    with pytest.raises(AssertionError, match="SCORES are not sorted by customer_id"):
        one_list(scores(["b", "a"], [0.5, 0.5]))


def test_a_worth_that_is_not_set_leaves_the_expected_value_empty() -> None:
    assert one_list(scores(["a"], [0.5])).rows["expected_value"].to_pylist() == [None]


def test_the_capacity_cuts_before_the_control_group_is_marked() -> None:
    """Silent error 22: nobody moves up for those in control, and marking changes no row."""
    table = scores(names(400), np.linspace(0.9, 0.1, 400).tolist())
    whole = one_list(table, control={"share": 0.3})
    cut = one_list(table, control={"share": 0.3}, capacity=50)
    nobody = one_list(table, control={"share": 0}, capacity=50)
    assert cut.eligible == whole.eligible == 400
    assert cut.rows.equals(whole.rows.slice(0, 50))
    assert cut.rows["customer_id"].to_pylist() == nobody.rows["customer_id"].to_pylist() == names(50)
    assert set(nobody.rows["group"].to_pylist()) == {"target"}
    control = cut.rows["group"].to_pylist().count("control")
    assert 0 < control < 50
    assert len(cut.rows) == 50


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), max_size=40),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_the_recommended_size_is_the_first_after_which_a_step_holds_too_little(
    p: list[float], step: int, least: float
) -> None:
    p.sort(reverse=True)
    size = recommended_size(np.array(p), ListSizeSpec(step=step, least=least))
    ends = [n for n in range(step, len(p), step) if sum(p[n : n + step]) < least * sum(p[:step])]
    assert size == min([*ends, len(p)])


def test_a_list_without_a_capacity_ends_where_the_next_step_holds_too_little() -> None:
    """And it tells by how much, control included; a capacity of its own takes the place of the recommendation."""
    table = scores(names(100), [0.5] * 30 + [0.2] * 70)
    found = one_list(table, list_size={"step": 10, "least": 0.5}, control={"share": 0.5})
    assert len(found.rows) == 30 and found.not_listed["list_full"] == 70
    assert found.size == ListSize(10, 5.0, 10, 2.0, pytest.approx(14.0), True)
    capped = one_list(table, list_size={"step": 10, "least": 0.5}, capacity=95)
    assert len(capped.rows) == 95 and capped.size.recommended is False
    assert (capped.size.following, capped.size.following_moves) == (5, pytest.approx(1.0))


def test_the_lift_is_against_everyone_in_the_stage_not_against_the_listed() -> None:
    found = one_list(scores(["a", "b", "c", "d"], [0.8, 0.4, 0.2, 0.2]), capacity=1)
    assert found.rows["lift"].to_pylist() == pytest.approx([2.0])


def test_only_those_in_the_stage_are_listed() -> None:
    table = scores(["a", "b", "c", "d"], [0.5, None, 0.3, 0.2], ["Visitor", "Buyer", None, "Visitor"])
    found = one_list(table)
    assert found.rows["customer_id"].to_pylist() == ["a", "d"]
    assert found.eligible == 2


@pytest.mark.parametrize("customers", [[], ["a", "b"]], ids=["no scores", "nobody in the stage"])
def test_a_list_with_nobody_is_a_list(customers: list[str]) -> None:
    found = one_list(scores(customers, [None] * len(customers), "Fan"), control={"share": 0.5})
    assert (len(found.rows), found.eligible) == (0, 0)
    assert found.rows.schema.names == list(TARGETS.columns)
    TARGETS.check(found.rows)


def test_probabilities_of_nought_have_no_lift() -> None:
    assert one_list(scores(["a", "b"], [0.0, 0.0])).rows["lift"].to_pylist() == [None, None]


def test_lists_that_are_not_configured_are_the_observable_pairs() -> None:
    def pairs(unobserved: frozenset[str], **settings: Any) -> list[tuple[str, str, int]]:
        made = config(**settings)
        specs = list_specs(made, Journey(made.journey, unobserved))
        return [(one.from_stage, one.to_stage, one.horizon // DAY) for one in specs]

    assert pairs(frozenset()) == [("Visitor", "Buyer", 30), ("Buyer", "Fan", 30)]
    assert pairs(frozenset({"Buyer"})) == [("Visitor", "Fan", 30)]
    assert pairs(frozenset({"Buyer", "Fan"})) == []
    assert pairs(frozenset(), horizons=["7d", "14d", "60d"])[0][2] == 14
    assert pairs(frozenset(), lists=[]) == []
    both = rank(config(), StoredTable.of(scores(["a"], [0.5])), Journey(config().journey), AS_OF)
    assert [one.name for one in both] == ["visitor__buyer__30d", "buyer__fan__30d"]


def test_a_list_that_cannot_be_made_is_refused_by_name() -> None:
    wrong = config(lists=[{"from": "Visitor", "to": "Fan", "horizon": "30d"}], targets={"next": 1})
    with pytest.raises(ConfigError, match="Fan is 2 stages ahead, but only the next 1 are predicted"):
        list_specs(wrong, Journey(wrong.journey))
    # What lies between is not observed, so Fan is the next stage.
    assert list_specs(wrong, Journey(wrong.journey, frozenset({"Buyer"})))
    with pytest.raises(ConfigError, match="nothing in the data shows Fan; map its events, or drop this list"):
        list_specs(wrong, Journey(wrong.journey, frozenset({"Fan"})))


def test_every_listed_customer_carries_the_nearest_past_scores() -> None:
    """Nobody was ever scored like 0.9, and too few like 0.4."""
    past = PastScores("Visitor", "Buyer", 30, (0.1, 0.45, 0.59, 0.68, 0.72), (300, 20, 20, 40, 60), (27, 9, 9, 30, 38))
    known = ModelEvidence(TrackRecord("", (), (past,)))
    table = scores(["a", "b", "c", "d"], [0.9, 0.71, 0.4, 0.1])
    spec = {"from": "Visitor", "to": "Buyer", "horizon": "30d"}
    (found,) = rank(config(lists=[spec]), StoredTable.of(table), Journey(config(lists=[spec]).journey), AS_OF, known)
    told = found.rows.select([f"track_record_{name}" for name in ("n", "k", "predicted", "low", "high")]).to_pylist()
    assert [tuple(row.values())[:2] for row in told] == [(None, None), (100, 68), (None, None), (300, 27)]
    assert tuple(told[0].values()) == tuple(told[2].values()) == (None,) * 5
    assert told[1]["track_record_predicted"] == pytest.approx(0.704)
    # Wilson's interval of 68 in 100, worked out by hand.
    assert (told[1]["track_record_low"], told[1]["track_record_high"]) == pytest.approx((0.5834, 0.7633), abs=5e-5)
    assert confirmations(found.rows) == {"confirmed": 2, "not_confirmed": 0, "no_record": 2}
    wide = config(lists=[spec], report={"track_record_within": 0.35})
    (found,) = rank(wide, StoredTable.of(table), Journey(wide.journey), AS_OF, known)
    assert found.rows["track_record_n"].to_pylist() == [100, 100, 140, 300]
    # 68 of 100 moved, which speaks against 0.9 (0.58 to 0.76), and 86 of 140 against 0.4 (0.53 to 0.69).
    assert found.rows["track_record_k"].to_pylist() == [68, 68, 86, 27]
    for bound in ("low", "high"):
        assert found.rows[f"track_record_{bound}"].is_null().to_pylist() == [True, False, True, False]
    counts = {"confirmed": 2, "not_confirmed": 2, "no_record": 0}
    assert confirmations(found.rows) == counts
    assert summarise([found]).select(list(counts)).to_pylist() == [counts]
    table = StoredTable.of(scores(["a"], [0.5]))
    (other,) = rank(config(lists=[{**spec, "horizon": "7d"}]), table, Journey(config().journey), AS_OF, known)
    assert other.rows["track_record_n"].null_count == len(other.rows)


# The control group.


def test_the_draw_is_the_hash_of_salt_epoch_and_customer() -> None:
    drawn = in_control(["a", "b", "é"], "salt", "2024-quarter-4", 0.5)
    expected = [
        int.from_bytes(hashlib.sha256(f"salt\x1f2024-quarter-4\x1f{name}".encode()).digest()[:8], "big") < 2**63
        for name in ("a", "b", "é")
    ]
    assert drawn.tolist() == expected


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_the_share_is_kept_within_binomial_bounds(share: float) -> None:
    count = 20_000
    for salt, epoch in (("a", "2024-quarter-1"), ("a", "2024-quarter-2"), ("b", "2024-quarter-1")):
        drawn = in_control(names(count), salt, epoch, share).mean()
        assert abs(drawn - share) < 4.5 * math.sqrt(share * (1 - share) / count)


def test_nobody_and_nearly_everybody_can_be_in_control() -> None:
    assert not in_control(names(1000), "s", "e", 0).any()
    assert in_control(names(1000), "s", "e", 1 - 1e-12).all()


def test_a_larger_share_keeps_who_was_in_control() -> None:
    small, large = (in_control(names(5000), "s", "e", share) for share in (0.1, 0.2))
    assert not (small & ~large).any() and large.sum() > small.sum()


def test_epochs_and_salts_draw_independently() -> None:
    count, share = 20_000, 0.3
    base = in_control(names(count), "s", "2024-quarter-1", share)
    for salt, epoch in (("t", "2024-quarter-1"), ("s", "2024-quarter-2")):
        both = (base & in_control(names(count), salt, epoch, share)).mean()
        assert abs(both - share**2) < 4.5 * math.sqrt(share**2 * (1 - share**2) / count)


def arms(found: Any) -> dict[str, str]:
    return dict(zip(found.rows["customer_id"].to_pylist(), found.rows["group"].to_pylist(), strict=True))


def test_a_person_keeps_the_arm_in_every_list_of_an_epoch_whatever_the_score() -> None:
    """Silent error 22: the draw is blind to score, stage, list, neighbours and day."""
    people = names(600)
    random = np.random.default_rng(3)
    settings = {"control": {"share": 0.2, "salt": "s"}}
    tonight = arms(one_list(scores(people, random.random(600).tolist()), **settings))
    other_list = arms(one_list(scores(people, random.random(600).tolist()), to="Fan", **settings))
    other_stage = arms(
        one_list(scores(people, random.random(600).tolist(), "Buyer"), start="Buyer", to="Fan", **settings)
    )
    later = arms(one_list(scores(people[::3], random.random(200).tolist()), AS_OF + 60 * DAY - 1, **settings))
    assert tonight == other_list == other_stage
    assert later.items() <= tonight.items()
    next_epoch = arms(one_list(scores(people, random.random(600).tolist()), AS_OF + 61 * DAY, **settings))
    other_salt = arms(one_list(scores(people, [0.5] * 600), control={"share": 0.2, "salt": "t"}))
    assert next_epoch != tonight != other_salt


@pytest.mark.parametrize(
    ("epoch", "first", "last", "name"),
    [
        ("month", date(2024, 2, 1), date(2024, 2, 29), "2024-month-2"),
        ("quarter", date(2024, 10, 1), date(2024, 12, 31), "2024-quarter-4"),
        ("half", date(2024, 1, 1), date(2024, 6, 30), "2024-half-1"),
        ("year", date(2024, 1, 1), date(2024, 12, 31), "2024-year-1"),
    ],
)
def test_epochs_follow_the_calendar_of_the_business(epoch: str, first: date, last: date, name: str) -> None:
    zone = config().zone
    begin, end = midnight(first, zone), midnight(last, zone) + DAY - 1
    assert epoch_name(epoch, begin, zone) == epoch_name(epoch, end, zone) == name
    assert name not in (epoch_name(epoch, begin - 1, zone), epoch_name(epoch, end + 1, zone))


def test_without_a_salt_two_businesses_draw_differently() -> None:
    table = scores(names(300), [0.5] * 300)
    assert arms(one_list(table)) != arms(one_list(table, name="other"))
    assert arms(one_list(table)) == arms(one_list(table, control={"salt": "shop"}))


# The contract itself.


def test_a_contract_lists_every_fault_and_no_customer() -> None:
    good = one_list(scores(["a", "b"], [0.5, 0.4])).rows
    TARGETS.check(good)
    bad = good.drop_columns(["lift"]).append_column("lft", good["lift"])
    bad = bad.set_column(0, "rank", good["rank"].cast(pa.int32()))
    with pytest.raises(DataError) as caught:
        TARGETS.check(bad)
    assert str(caught.value) == (
        "The table TARGETS breaks its contract:\n"
        "  - the column 'rank' is int32, expected int64\n"
        "  - the column 'lift' is missing. Did you mean 'lft'?\n"
        "  - the column 'lft' is not part of it"
    )
    nameless = good.set_column(1, "customer_id", pa.array(["secret", None]))
    with pytest.raises(DataError, match=r"1 null\(s\) in the key customer_id"):
        TARGETS.check(nameless)
    twice = good.set_column(1, "customer_id", pa.array(["secret", "secret"]))
    with pytest.raises(DataError, match=r"1 row\(s\) repeat the key customer_id") as caught:
        TARGETS.check(twice)
    assert "secret" not in str(caught.value)
