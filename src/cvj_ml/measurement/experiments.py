"""EXPERIMENTS: who was contacted by chance and who was not, by list or campaign, and what became of both.

One table from two sources: published nights, whose control group is drawn by a hash, and experiments of the user's own.
A night counts for a customer by their *first* listing on any list of the epoch: one draw serves all its lists, so what
comes later is already a consequence of it, and the effect is that of the whole treatment arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from cvj_ml.engines import Blocks
from cvj_ml.histories import Block
from cvj_ml.measurement.outcomes import Observation, PastList, list_outcomes
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import observed_whole

UNBALANCED = 0.001
"""A draw of control that chance gives more rarely than this is taken for a fault (a sample-ratio test)."""

LEFT_OUT = {
    "later_listing": "listed in the epoch before: what follows the first listing may be its consequence",
    "no_control": "no control group was drawn",
    "epoch_end": "the horizon passes the end of the epoch, when control is drawn anew",
    "not_over": "the horizon is not over yet",
    "unbalanced": "more or fewer in control than the share makes likely",
    "not_known": "no longer in the log, or at the stage before the night though nobody could see it",
}
"""Why a listing is no row of an experiment, in the order in which it is asked."""

_OF_CONTACT = ("customer_id", "person", "as_of", "list", "epoch", "play", "channel")
COLUMNS = (*_OF_CONTACT, "treated", "propensity", "probability", "outcome")
"""The columns of EXPERIMENTS: instants in microseconds; propensity: of being treated; probability: as published.

``person`` is the customer that a row's id stands for today: everything splits by it.
"""


@dataclass(frozen=True, slots=True)
class Experiments:
    """Rows by `COLUMNS`, with the counts of listings that are none by reason, and what is told of unbalanced lists."""

    rows: pd.DataFrame
    left_out: Mapping[str, int]
    unbalanced: tuple[str, ...] = ()


def experiments_of(
    lists: Sequence[PastList], ends: Sequence[int], observation: Observation, blocks: Blocks
) -> Experiments:
    """Return the experiments of published lists; every listing is a row or is counted by the reason why it is none.

    lists: with those who were listed alone as ``scored``, in the order in which they were published; ends: when the
    epoch of each ended.
    """
    left_out = dict.fromkeys(LEFT_OUT, 0)
    seen: dict[str, set[str]] = {}
    kept: list[PastList] = []
    for past, end in zip(lists, ends, strict=True):
        person = past.scored["customer_id"].map(lambda name: observation.persons.get(name, name))
        before = seen.setdefault(past.epoch, set())
        first = ~person.isin(before) & ~person.duplicated()
        before.update(person)
        left_out["later_listing"] += int((~first).sum())
        found = past.scored[first].assign(person=person[first])
        share = found["control_share"].to_numpy(dtype=np.float64)
        drawn = (share > 0) & (share < 1)
        left_out["no_control"] += int((~drawn).sum())
        found = found[drawn]
        if not observed_whole(end - past.as_of, past.horizon):
            left_out["epoch_end"] += len(found)
        elif not observation.is_over(past):
            left_out["not_over"] += len(found)
        else:
            kept.append(replace(past, scored=found.reset_index(drop=True)))
    kept, unbalanced = _balanced(kept, left_out)
    parts = []
    for past, outcome in zip(kept, list_outcomes(kept, replace(observation, arm_neutral=True), blocks), strict=True):
        left_out["not_known"] += int((~outcome["known"]).sum())
        parts.append(_rows(past, outcome[outcome["known"]]))
    empty = pd.DataFrame({name: [] for name in COLUMNS})
    rows = pd.concat(parts, ignore_index=True) if any(map(len, parts)) else empty
    total = sum(len(past.scored) for past in lists)
    if total != len(rows) + sum(left_out.values()):
        raise AssertionError(f"{total} listings, {len(rows)} rows, left out: {left_out}")
    return Experiments(rows, left_out, unbalanced)


def _balanced(lists: Sequence[PastList], left_out: dict[str, int]) -> tuple[list[PastList], tuple[str, ...]]:
    """Return the lists without those of an epoch whose control group is of a size that chance hardly ever draws."""
    odd: dict[tuple[str, str], str] = {}
    for key in dict.fromkeys((past.name, past.epoch) for past in lists):
        rows = pd.concat([past.scored for past in lists if (past.name, past.epoch) == key])
        for share in sorted(set(rows["control_share"].tolist())):
            drawn = rows[rows["control_share"] == share]
            control, size = int((drawn["group"] == "control").sum()), len(drawn)
            if binomtest(control, size, share).pvalue < UNBALANCED:
                odd[key] = (
                    f"{key[0]}, {key[1]}: {control:,} of {size:,} listed are in control, where a share of {share:.1%}"
                    " makes other numbers likely, so something decided besides chance; its nights teach nothing"
                )
    for past in lists:
        if (past.name, past.epoch) in odd:
            left_out["unbalanced"] += len(past.scored)
    return [past for past in lists if (past.name, past.epoch) not in odd], tuple(odd.values())


def _rows(past: PastList, outcome: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "customer_id": outcome["customer_id"],
            "person": outcome["person"],
            "as_of": past.as_of,
            "list": past.name,
            "epoch": past.epoch,
            "play": outcome["play"],
            "channel": outcome["channel"],
            "treated": (outcome["group"] == "target"),
            "propensity": 1 - outcome["control_share"].to_numpy(dtype=np.float64),
            "probability": outcome["probability"],
            "outcome": outcome["converted"].to_numpy(dtype=np.float64),
        }
    )


def features_before(definition: ModelSpec, rows: pd.DataFrame, blocks: Blocks) -> npt.NDArray[np.float32]:
    """Return X of the rows of EXPERIMENTS, each customer as visible strictly before ``as_of``; (rows, features).

    NaN throughout for a customer who is not in the blocks.
    """
    names, instants = rows["customer_id"].to_numpy(), rows["as_of"].to_numpy(dtype=np.int64)
    x = np.full((len(rows), len(definition.catalogue.features)), np.nan, dtype=np.float32)

    def look(block: Block) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        place = {name: i for i, name in enumerate(block.customers)}
        here = np.array([place.get(name, -1) for name in names], dtype=np.int64)
        found = np.flatnonzero(here >= 0)
        pairs, back = np.unique(np.stack([here[found], instants[found]]), axis=1, return_inverse=True)
        snapshots = Snapshots(pairs[0], pairs[1])
        return found, definition.features(block, definition.stays(block), snapshots)[back.ravel()]

    for found, part in blocks.map(look):
        x[found] = part
    return x
