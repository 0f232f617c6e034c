"""The ready segments as the page shows them: who is in each, how that changed, what they are offered tonight."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, Config
from cvj_ml.lists.changes import Balance
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.models.segment_levels import SEGMENTS
from cvj_ml.report import wording
from cvj_ml.report.what_changed import WhatChanged
from cvj_ml.scoring.scores_table import StoredTable

NAMES = {name: name.replace("_", " ").capitalize() for name in SEGMENTS}


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A ready segment tonight: who it is of, how many, how many came and left since each base (None: not known).

    ``contact`` of them are to be contacted tonight, ``play`` is what most of these are offered. ``empty`` says why
    nobody can be in it.
    """

    name: str
    who: str
    here: int
    since: tuple[Balance | None, ...]
    contact: int
    play: str
    empty: str


def ready_segments(
    config: Config, scores: StoredTable, lists: Sequence[RankedList], changed: WhatChanged | None
) -> tuple[SegmentRow, ...]:
    """Return every ready segment, in the order in which they take people; none where the model knows of none."""
    table = scores.read(["customer_id", "segment"]) if "segment" in scores.column_names else None
    if table is None or table["segment"].null_count:
        return ()
    targets = [one.of_group("target").select(["customer_id", "play"]) for one in lists]
    plan = pa.concat_tables(targets) if targets else None
    found = []
    for name in SEGMENTS:
        here = table["customer_id"].filter(pc.equal(table["segment"], name)).combine_chunks()
        mine = plan.filter(pc.is_in(plan["customer_id"], value_set=here)) if plan is not None else None
        contact = 0 if mine is None else pc.count_distinct(mine["customer_id"]).as_py()
        balances = changed.segments.get(name, (None,) * len(changed.since)) if changed else ()
        empty = _why_empty(config, name, scores.column_names)
        found.append(SegmentRow(NAMES[name], _who(config, name), len(here), balances, contact, _most(mine), empty))
    return tuple(found)


def _most(plan: pa.Table | None) -> str:
    """Return the play that is offered most, of several the first by its text."""
    counts = [] if plan is None else plan["play"].drop_null().value_counts().to_pylist()
    return min(counts, key=lambda one: (-one["counts"], one["values"]), default={"values": ""})["values"]


def _who(config: Config, name: str) -> str:
    spec = config.segments
    if name == "dormant":
        return f"silent for {wording.days(config.journey.dormant_after / DAY)} or more"
    if name == "new":
        return f"first seen in the last {wording.days(spec.new / DAY)}"
    if name == "other":
        return "nothing of the above"
    level = getattr(spec, name)
    days = wording.days(spec.horizon(name, config.horizons) / DAY)
    words = {
        "ready_to_buy": f"to buy within {days}",
        "at_risk": f"of those active by their own rhythm to fall silent for {days}",
        "high_value": f"expected to buy for in {days}",
        "potential_high_value": f"they would buy for in {days} if they bought",
    }[name]
    if name in ("ready_to_buy", "at_risk"):
        of = f"the likeliest {level.top:.0%}" if level.top else f"likely by {level.at_least:.0%} or more"
    else:
        of = f"the highest {level.top:.0%} by what" if level.top else f"at least {level.at_least:g} is what"
        words = words if name == "potential_high_value" else f"they are {words}"
    return f"{of} {words}"


def _why_empty(config: Config, name: str, columns: Collection[str]) -> str:
    """Say which column nobody can be in a segment without; nothing where it is there."""
    if name in ("dormant", "new", "other"):
        return ""
    days = config.segments.horizon(name, config.horizons) // DAY
    needed = {"at_risk": ["p_churn"], "ready_to_buy": ["p_purchase"]}.get(name, ["p_purchase", "value"])
    missing = [f"{one}_{days}d" for one in needed if f"{one}_{days}d" not in columns]
    if not missing:
        return ""
    if config.journey.value is None and name != "at_risk":
        return "Nobody: the journey file has no value:, the events by which people buy"
    return f"Nobody: the scores have no column {' and no '.join(missing)}"
