"""What changed since an earlier night: who is new on the plan, who was dropped and why, who moved stage.

The plan of a night is everybody who is on one of its lists. A night names nobody whom its own data do not name: who is
gone from them is counted, never listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.lists import BASES
from cvj_ml.lists.eligibility import REASONS, WHY
from cvj_ml.lists.ranked_list import NOT_LISTED, RankedList, summarise
from cvj_ml.lists.standing import BETWEEN, Standing, is_in
from cvj_ml.models.segment_levels import SEGMENTS
from cvj_ml.schemas import INSTANT, Contract
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.windows import to_datetime

DROPPED = {
    "moved_on": "in a later stage now",
    "moved_back": "in an earlier stage now: left, or corrected",
    **REASONS,
    **NOT_LISTED,
    "no_list": "the list is not made any more",
    "gone": "not in the data any more",
    "joined": "another id of somebody who is in the data",
}
"""Why somebody is not on the plan any more."""

NOT_COMPARABLE = {
    "no_night": "no such night is published",
    "journey": "it followed another journey, or does not say which",
    "damaged": "it is damaged; `cvj-ml verify` says how, and running it again replaces it",
}
"""Why there is no comparison with a base."""

CHANGES = Contract(
    "CHANGES",
    {
        "customer_id": pa.string(),
        "base": pa.string(),
        "base_as_of": INSTANT,
        "plan_change": pa.string(),
        "from_list": pa.string(),
        "to_list": pa.string(),
        "why": pa.string(),
        "stage_change": pa.string(),
        "from_stage": pa.string(),
        "to_stage": pa.string(),
        "group": pa.string(),
    },
    ("customer_id", "base"),
)
"""A row for each customer of tonight and each base, where plan or stage differ."""


@dataclass(frozen=True, slots=True)
class Balance:
    """How a number came about: ``now`` = ``before`` + ``entered`` − ``left``."""

    before: int
    entered: int
    left: int
    now: int

    def __post_init__(self) -> None:
        if self.before + self.entered - self.left != self.now:
            raise AssertionError(f"{self} does not add up")

    @classmethod
    def sum(cls, several: Sequence[Balance]) -> Balance:
        """Return the balance of several groups that nobody shares."""
        return cls(*(sum(getattr(one, name) for one in several) for name in ("before", "entered", "left", "now")))

    @classmethod
    def between(cls, before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_], gone: int) -> Balance:
        """Return the balance of a group, given who of tonight's customers was and is in it, and who of it is gone."""
        left = int((before & ~now).sum()) + gone
        return cls(int(before.sum()) + gone, int((now & ~before).sum()), left, int(now.sum()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tonight beside one base: `CHANGES`, and the numbers behind it.

    people, plan: of everybody, and of those on any list; stages (by name, null before any), lists and segments: each
    one's, of the ready segments only where both nights know of them;
    dropped: of the plan, by reason, in the order of `DROPPED`; gone: not in tonight's data; erased: from the base since
    it was published, so neither in ``people.before`` nor among the gone.
    """

    base: str
    as_of: int
    rows: pa.Table
    people: Balance
    plan: Balance
    stages: Mapping[str | None, Balance]
    lists: Mapping[str, Balance]
    dropped: Mapping[str, int]
    other_list: int
    moved_stage: int
    erased: int
    segments: Mapping[str, Balance] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(self.dropped.values()) != self.plan.left:
            raise AssertionError(f"{self.plan.left} dropped; by reason: {self.dropped}")


@dataclass(frozen=True, slots=True)
class NotComparable:
    """A base that tonight cannot be compared with, and why: a key of `NOT_COMPARABLE`; ``as_of`` where it is known."""

    base: str
    reason: str
    as_of: int | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """Tonight beside each of `BASES`, in their order."""

    comparisons: tuple[Comparison | NotComparable, ...]

    @property
    def comparable(self) -> list[Comparison]:
        """The bases that there are numbers for."""
        return [one for one in self.comparisons if isinstance(one, Comparison)]

    @property
    def rows(self) -> pa.Table:
        """`CHANGES` of all bases, by customer and then in the order of the bases."""
        rows = pa.concat_tables([CHANGES.schema.empty_table(), *(one.rows for one in self.comparable)])
        order = pc.index_in(rows["base"], value_set=pa.array(list(BASES)))
        keys = [("customer_id", "ascending"), ("place", "ascending")]
        return rows.take(pc.sort_indices(rows.append_column("place", order), sort_keys=keys)).combine_chunks()

    def as_document(self, zone: ZoneInfo) -> dict[str, dict[str, Any]]:
        """Return the numbers as plain data, by base; ``not_comparable`` says why there are none."""
        return {one.base: _document(one, zone) for one in self.comparisons}


NOTHING_BEFORE = Changes(tuple(NotComparable(base, "no_night") for base in BASES))
"""What changed where no night was published before."""


def compare(base: str, before: Standing, tonight: Standing, why: pa.Table, stages: Sequence[str]) -> Comparison:
    """Compare a night with an earlier one of the same journey.

    why: `WHY`, the reason tonight of whoever was on the plan of the base and is in the same stage but on no list;
    stages: the journey's, in order. AssertionError where a reason is missing.
    """
    at = pc.index_in(tonight.customers, value_set=before.customers)
    new, was_made = _mask(at.is_null()), _kept(before, tonight.lists)
    from_stage, from_list, made = (one.take(at) for one in (before.stage, before.lists_of_each(), was_made))
    to_stage, to_list = tonight.stage, tonight.lists_of_each()
    was, now = _places(from_stage, stages), _places(to_stage, stages)
    on, stays = _mask(from_list.is_valid()), _mask(to_list.is_valid())
    moved = ~new & (was != now)
    dropped, swapped = on & ~stays, on & stays & _mask(pc.not_equal(from_list, to_list))
    given = (
        why["reason"]
        .combine_chunks()
        .take(pc.index_in(tonight.customers, value_set=why["customer_id"].combine_chunks()))
    )
    reason = _first([(moved & (now > was), "moved_on"), (moved, "moved_back"), (~_mask(made), "no_list")], given)
    reason = pc.if_else(pa.array(dropped), reason, pa.scalar(None, pa.string()))
    if reason.null_count != len(dropped) - dropped.sum():
        raise AssertionError(f"{base}: somebody was dropped from the plan without a reason")
    rows = {
        "customer_id": tonight.customers,
        "base": pa.repeat(base, len(at)),
        "base_as_of": pa.array(np.full(len(at), before.as_of).astype("datetime64[us]"), INSTANT),
        "plan_change": _first([(~on & stays, "new"), (dropped, "dropped"), (swapped, "other_list")]),
        "from_list": from_list,
        "to_list": to_list,
        "why": reason,
        "stage_change": _first([(new, "new"), (moved, "moved")]),
        "from_stage": from_stage,
        "to_stage": to_stage,
        "group": _group_of_each(tonight),
    }
    table = pa.table(rows, schema=CHANGES.schema)
    changed = pc.or_(table["plan_change"].is_valid(), table["stage_change"].is_valid())
    gone = ~is_in(before.customers, tonight.customers)
    standing = _places(before.stage, stages)
    planned = _mask(before.lists_of_each().is_valid())
    names = dict.fromkeys([*before.lists, *tonight.lists])
    other = is_in(before.customers, pa.array(sorted(before.joined), pa.string()))
    counted = {
        **dict(zip(*_counts(reason), strict=True)),
        "gone": int((gone & planned & ~other).sum()),
        "joined": int((gone & planned & other).sum()),
    }
    return Comparison(
        base,
        before.as_of,
        table.filter(changed),
        Balance.between(~new, np.ones(len(new), dtype=np.bool_), int(gone.sum())),
        Balance.between(on, stays, int((gone & planned).sum())),
        {
            stage: Balance.between(~new & (was == place), now == place, int((gone & (standing == place)).sum()))
            for place, stage in enumerate([None, *stages], -1)
        },
        {
            name: Balance.between(
                _mask(pa.array(before.on(name)).take(at)), tonight.on(name), int((gone & before.on(name)).sum())
            )
            for name in names
        },
        {name: counted[name] for name in DROPPED if counted.get(name)},
        int(swapped.sum()),
        int(moved.sum()),
        before.erased,
        _segments(before, tonight, at, gone),
    )


def _segments(before: Standing, tonight: Standing, at: pa.Array, gone: npt.NDArray[np.bool_]) -> dict[str, Balance]:
    """Return the balance of each ready segment; at: where tonight's customers stood then, gone: who left the data."""
    was, now = before.segment, tonight.segment
    if was is None or now is None:
        return {}
    then = was.take(at)
    return {
        name: Balance.between(
            _mask(pc.equal(then, name)), _mask(pc.equal(now, name)), int((gone & _mask(pc.equal(was, name))).sum())
        )
        for name in SEGMENTS
    }


def reasons_tonight(lists: Iterable[RankedList]) -> pa.Table:
    """Return `WHY` of all lists: of several the reason of the one on which a customer came furthest."""
    names = pa.array([*REASONS, *NOT_LISTED])
    every = pa.concat_tables([WHY.empty_table(), *(one.why for one in lists)])
    places = every.set_column(1, "place", pc.index_in(every["reason"], value_set=names))
    furthest = places.group_by("customer_id", use_threads=False).aggregate([("place", "max")])
    return pa.table([furthest["customer_id"], names.take(furthest["place_max"].combine_chunks())], schema=WHY)


SUMMARY_PARTS = ("listed", "new", "dropped", "in_stage", "entered", "left")
"""Columns of the summary, each with the name of a base behind it; null where that cannot be compared."""


def with_changes(lists: Sequence[RankedList], changes: Changes) -> pa.Table:
    """Return the summary of the lists with `SUMMARY_PARTS` of each base.

    Of a list of several stages, who moved from one to another of them left the one and entered the other.

    With a base, ``listed`` = ``listed_last`` + ``new_last`` − ``dropped_last``, where who came from another list is new
    and who went to one is dropped, and ``in_stage`` = ``in_stage_last`` + ``entered_last`` − ``left_last``.
    """
    summary, found = summarise(lists), {one.base: one for one in changes.comparable}
    for base in BASES:
        rows: list[Sequence[int | None]] = []
        for one in lists:
            stages = [found[base].stages[name] for name in one.spec.origins] if base in found else []
            balances = (found[base].lists[one.name], Balance.sum(stages)) if base in found else ()
            parts = [number for balance in balances for number in (balance.before, balance.entered, balance.left)]
            rows.append(parts or [None] * len(SUMMARY_PARTS))
        for place, part in enumerate(SUMMARY_PARTS):
            column = pa.array([row[place] for row in rows], pa.int64())
            summary = summary.append_column(f"{part}_{base}", column)
    return summary


def without_erased(name: str, listed: Sequence[str], changed: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return what `SUMMARY_PARTS` of a list lose when customers are erased, so that they still add up.

    listed: those of them who are on the list; changed: their rows of `CHANGES`.
    """
    less = {f"{part}_{base}": 0 for base in BASES for part in SUMMARY_PARTS}
    here = set(listed)
    for base in BASES:
        rows = {row["customer_id"]: row for row in changed if row["base"] == base}
        for customer in here:
            row = rows.get(customer)  # without one nothing is different
            less[f"{'listed' if row is None or _on(row, name) else 'new'}_{base}"] += 1
            less[f"{'in_stage' if row is None or row['stage_change'] is None else 'entered'}_{base}"] += 1
        dropped = sum(_on(row, name) for customer, row in rows.items() if customer not in here)
        less[f"listed_{base}"] += dropped
        less[f"dropped_{base}"] += dropped
    return less


def _on(row: Mapping[str, Any], name: str) -> bool:
    """Return whether a customer was on a list of the base."""
    return name in (row["from_list"] or "").split(BETWEEN)


def count_stages(scores: StoredTable) -> dict[str, int]:
    """Return how many customers stand in each stage; those before any under the empty name."""
    counts: dict[str, int] = {}
    for batch in scores.batches(["stage"]):
        for name, number in zip(*_counts(batch["stage"].fill_null("")), strict=True):
            counts[name] = counts.get(name, 0) + number
    return counts


def _document(one: Comparison | NotComparable, zone: ZoneInfo) -> dict[str, Any]:
    as_of = None if one.as_of is None else to_datetime(one.as_of, zone).isoformat()
    if isinstance(one, NotComparable):
        return {"as_of": as_of, "not_comparable": one.reason}
    return {
        "as_of": as_of,
        "people": asdict(one.people),
        "plan": asdict(one.plan),
        "stages": {name or "": asdict(flow) for name, flow in one.stages.items()},
        "lists": {name: asdict(flow) for name, flow in one.lists.items()},
        "dropped": dict(one.dropped),
        "other_list": one.other_list,
        "moved_stage": one.moved_stage,
        "erased": one.erased,
        **({"segments": {name: asdict(flow) for name, flow in one.segments.items()}} if one.segments else {}),
    }


def _kept(before: Standing, lists: Sequence[str]) -> pa.Array:
    """Return who of the base was on a list that is made tonight, too."""
    still = [before.on(name) for name in before.lists if name in lists]
    return pa.array(np.any(still, axis=0) if still else np.zeros(len(before.people), dtype=np.bool_))


def _group_of_each(night: Standing) -> pa.Array:
    """Return everybody's group; null for who is on no list."""
    plan = night.plan.group_by("customer_id", use_threads=False).aggregate([("group", "min")])  # the same on every list
    return (
        plan["group_min"]
        .combine_chunks()
        .take(pc.index_in(night.customers, value_set=plan["customer_id"].combine_chunks()))
    )


def _places(stage: pa.Array, stages: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the position of stages in the journey, -1 before any."""
    found: npt.NDArray[np.int64] = (
        pc.fill_null(pc.index_in(stage, value_set=pa.array(stages, pa.string())), -1).to_numpy().astype(np.int64)
    )
    return found


def _first(cases: Sequence[tuple[npt.NDArray[np.bool_], str]], otherwise: pa.Array | None = None) -> pa.Array:
    """Return for each row the name of the first case that holds."""
    found = pa.nulls(len(cases[0][0]), pa.string()) if otherwise is None else otherwise
    for holds, name in reversed(cases):
        found = pc.if_else(pa.array(holds), name, found)
    return found


def _counts(texts: pa.Array) -> tuple[list[str], list[int]]:
    found = texts.drop_null().value_counts()
    return found.field("values").to_pylist(), found.field("counts").to_pylist()


def _mask(flags: pa.Array) -> npt.NDArray[np.bool_]:
    """Return flags as a mask; what is missing does not hold."""
    mask: npt.NDArray[np.bool_] = pc.fill_null(flags, False).to_numpy(zero_copy_only=False)
    return mask
