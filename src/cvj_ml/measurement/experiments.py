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

from cvj_ml.config import DAY, ExperimentsSpec
from cvj_ml.engines import Blocks
from cvj_ml.errors import ConfigError, nearest, raise_all
from cvj_ml.histories import Block, Column, Text
from cvj_ml.measurement.outcomes import (
    Observation,
    PastList,
    first_listings,
    list_outcomes,
    listings,
    persons_of,
    places_in,
)
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.scoring.scores_table import rhythm_of
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import before, follow_up, observed_whole

UNBALANCED = 0.001
"""A draw of control that chance gives more rarely than this is taken for a fault (a sample-ratio test)."""

REDRAWN = 0.01
"""Where a larger share of those listed again within an epoch has changed its group, control was drawn anew."""

FEWEST_REDRAWN = 4
"""So few who changed it say nothing."""

LEFT_OUT = {
    "later_listing": "listed in the epoch before: what follows the first listing may be its consequence",
    "retired": "of a list, or an outcome of it, that the configuration does not ask for any more",
    "no_control": "no control group was drawn",
    "redrawn": "control was drawn anew within the epoch: its salt, share, name or length was changed",
    "epoch_end": "the horizon passes the end of the epoch, when control is drawn anew",
    "not_over": "the horizon is not over yet",
    "unbalanced": "more or fewer in control than the share makes likely",
    "no_list": "of nobody whom a list is of",
    "sampled": "more than are needed: a share of the people teaches",
    "not_known": "no longer in the log, or at the stage before the night though nobody could see it",
}
"""Why a listing is no row of an experiment, in the order in which it is asked."""

_OF_CONTACT = ("customer_id", "person", "as_of", "list", "epoch", "play", "channel")
COLUMNS = (*_OF_CONTACT, "arm", "treated", "propensity", "probability", "outcome")
"""The columns of EXPERIMENTS: instants in microseconds; propensity: of being treated; probability: as published.

``person`` is the customer that a row's id stands for today: everything splits by it. Of the user's own experiments
``epoch`` is empty, ``play`` the campaign and ``arm`` by its own name.
"""

_F64 = npt.NDArray[np.float64]

_NOBODY = pd.DataFrame({name: [] for name in COLUMNS})


@dataclass(frozen=True, slots=True)
class Experiments:
    """Rows by `COLUMNS`, with the counts of listings that are none by reason, and what is told of unbalanced lists."""

    rows: pd.DataFrame
    left_out: Mapping[str, int]
    unbalanced: tuple[str, ...] = ()

    def and_those(self, others: Experiments) -> Experiments:
        """Return both, their counts added up."""
        parts = [one for one in (self.rows, others.rows) if len(one)]
        rows = pd.concat(parts, ignore_index=True) if parts else self.rows
        counts = {name: count + others.left_out[name] for name, count in self.left_out.items()}
        return Experiments(rows, counts, (*self.unbalanced, *others.unbalanced))

    def at_most(self, rows: int, seed: int) -> Experiments:
        """Return so many rows at most: all of a sample of the people, the others counted."""
        if len(self.rows) <= rows:
            return self
        codes, people = pd.factorize(self.rows["person"])
        kept = (np.random.default_rng(seed).random(len(people)) < rows / len(self.rows))[codes]
        counts = {**self.left_out, "sampled": self.left_out["sampled"] + int((~kept).sum())}
        return Experiments(self.rows[kept].reset_index(drop=True), counts, self.unbalanced)


def experiments_of(
    lists: Sequence[PastList], ends: Sequence[int], asked: Sequence[bool], observation: Observation, blocks: Blocks
) -> Experiments:
    """Return the experiments of published lists; every listing is a row or is counted by the reason why it is none.

    lists: with those who were listed alone as ``scored``, in the order in which they were published; ends: when the
    epoch of each ended; asked: whether the configuration still asks what the list asked.
    """
    left_out = dict.fromkeys(LEFT_OUT, 0)
    kept: list[PastList] = []
    anew = redrawn(lists, ends)
    for past, end, wanted, found in zip(lists, ends, asked, first_listings(lists, observation.persons), strict=True):
        left_out["later_listing"] += len(past.scored) - len(found)
        if not wanted:
            left_out["retired"] += len(found)
            continue
        share = found["control_share"].to_numpy(dtype=np.float64)
        drawn = (share > 0) & (share < 1)
        left_out["no_control"] += int((~drawn).sum())
        found = found[drawn]
        if past.epoch in anew:
            left_out["redrawn"] += len(found)
        elif not observed_whole(end - past.as_of, past.horizon):
            left_out["epoch_end"] += len(found)
        elif not observation.is_over(past):
            left_out["not_over"] += len(found)
        else:
            kept.append(replace(past, scored=found.reset_index(drop=True)))
    kept, unbalanced = _balanced(kept, left_out)
    rows = _rows_of(kept, replace(observation, arm_neutral=True), blocks, left_out)
    total = sum(len(past.scored) for past in lists)
    if total != len(rows) + sum(left_out.values()):
        raise AssertionError(f"{total} listings, {len(rows)} rows, left out: {left_out}")
    return Experiments(rows, left_out, (*anew.values(), *unbalanced))


def redrawn(lists: Sequence[PastList], ends: Sequence[int]) -> dict[str, str]:
    """Return what is told of each epoch within which people changed groups: who was spared first is contacted later.

    ends: when the epoch of each list ended. A few may change it without a fault, when it turns out that two ids are of
    one person; where there was no control group, nobody was in one.
    """
    told: dict[str, str] = {}
    listed = listings(lists)
    listed = listed[(listed["control_share"] > 0) & (listed["control_share"] < 1)]
    night, length = listed["as_of"].to_numpy(dtype=np.int64), listed["epoch"].str.split("-").str[1]
    for epoch, end in dict(zip((past.epoch for past in lists), ends, strict=True)).items():
        begin = min(past.as_of for past in lists if past.epoch == epoch)
        # Nights of epochs of another length have another draw, too.
        others = (length != epoch.split("-")[1]).to_numpy() & ~before(night, begin) & before(night, end)
        rows = listed.loc[(listed["epoch"] == epoch).to_numpy() | others, ["customer_id", "group"]]
        again = int((rows["customer_id"].value_counts() > 1).sum())
        both = int(rows.drop_duplicates()["customer_id"].duplicated().sum())
        if both > max(REDRAWN * again, FEWEST_REDRAWN):
            told[epoch] = (
                f"{epoch}: {both:,} of {again:,} listed more than once were in both groups, so the control group was"
                " drawn anew within the epoch (another salt, share, name or length of epochs); its nights teach nothing"
            )
    return told


def _rows_of(
    lists: Sequence[PastList], observation: Observation, blocks: Blocks, left_out: dict[str, int]
) -> pd.DataFrame:
    """Return the rows of lists whose outcomes are known, and count the others."""
    parts = []
    for past, outcome in zip(lists, list_outcomes(lists, observation, blocks), strict=True):
        left_out["not_known"] += int((~outcome["known"]).sum())
        parts.append(_rows(past, outcome[outcome["known"]]))
    return pd.concat(parts, ignore_index=True) if any(map(len, parts)) else _NOBODY.copy()


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
            "as_of": outcome.get("as_of", past.as_of),
            "list": past.name,
            "epoch": past.epoch,
            "play": outcome["play"],
            "channel": outcome["channel"],
            "arm": outcome.get("arm", outcome["group"]),
            "treated": (outcome["group"] == "target"),
            # Of a targeted log it is to be estimated.
            "propensity": 1 - outcome["control_share"].to_numpy(dtype=np.float64),
            "probability": outcome["probability"],
            "outcome": outcome["converted"].to_numpy(dtype=np.float64),
        }
    )


def require_properties(spec: ExperimentsSpec, kinds: Mapping[str, str]) -> None:
    """Raise ConfigError where a property that the experiments name is not in the data, or is no number but must be."""
    faults = []
    for setting, name in spec.properties.items():
        if name not in kinds:
            faults.append(f"experiments.{setting}: in no touchpoint stands a property {name!r}.{nearest(name, kinds)}")
        elif setting == "propensity" and kinds[name] != "double":
            faults.append(f"experiments.propensity: the property {name!r} is text; map a column with numbers")
    raise_all(ConfigError, "The experiments cannot be read:", faults)


def assigned(spec: ExperimentsSpec, definition: ModelSpec, usual_gap: _F64, cut: int, blocks: Blocks) -> pd.DataFrame:
    """Return who was assigned to which arm of which of the user's experiments, when, and which lists are of them.

    usual_gap: in days, by stage, the first before any, as of `SegmentLevels`. One row a customer and campaign, their
    first one known at the cut: customer_id, as_of, campaign, arm, group (target or control), control_share (NaN where
    no propensity is told); and as a night of that instant would have it, stage (a name, None before any), active and
    dormant.
    """
    journey, recency = definition.journey, definition.catalogue.names.index("recency")
    names = np.array([*journey.names, None], dtype=object)

    def look(block: Block) -> pd.DataFrame:
        points = block.touchpoints
        rows = np.flatnonzero(points.event.isin(frozenset(spec.event)) & points.live(cut))
        owner, instant = points.owners()[rows], points.occurred_at[rows]
        arm, campaign = (_texts(points.properties.get(name or ""), rows) for name in (spec.arm, spec.campaign))
        told = pd.DataFrame({"owner": owner, "as_of": instant, "campaign": campaign, "arm": arm})
        told["control_share"] = 1 - _share(spec, points.properties, rows)
        told = told[told["arm"].notna()].sort_values("as_of", kind="stable").drop_duplicates(["owner", "campaign"])
        pairs, back = np.unique(told[["owner", "as_of"]].to_numpy(np.int64), axis=0, return_inverse=True)
        snapshots, back = Snapshots(pairs[:, 0], pairs[:, 1]), back.ravel()
        known_stays = definition.stays(block)
        stage = known_stays.at(snapshots.customer, snapshots.as_of).stage
        silent = definition.features(block, known_stays, snapshots)[:, recency] * DAY
        return told.assign(
            customer_id=np.array(block.customers, dtype=object)[told.pop("owner")],
            stage=names[stage][back],
            active=rhythm_of(definition, block, snapshots).active(usual_gap[stage + 1])[back],
            dormant=~(silent <= journey.spec.dormant_after)[back],
        )

    found = pd.concat(blocks.map(look) or [pd.DataFrame()], ignore_index=True)
    if not len(found):
        return found
    found["group"] = np.where(found["arm"].isin(spec.control), "control", "target")
    return found.sort_values(["as_of", "customer_id"], kind="stable").reset_index(drop=True)


def assigned_experiments(
    found: pd.DataFrame, lists: Sequence[PastList], observation: Observation, blocks: Blocks
) -> Experiments:
    """Return the experiments that assignments are, of each list that the customer could have been on at that instant.

    found: as of `assigned`; lists: what each asks, with nobody in it. An assignment is a row of every such list, or is
    counted by the reason why it is none.
    """
    left_out = dict.fromkeys(LEFT_OUT, 0)
    kept: list[PastList] = []
    matched = np.zeros(len(found), dtype=np.bool_)
    for asked in lists if len(found) else ():
        here = found["stage"].isin(asked.origins).to_numpy()
        if asked.audience is not None:
            here = here & found[asked.audience].to_numpy(dtype=np.bool_)
        matched |= here
        seen = follow_up(found["as_of"].to_numpy(dtype=np.int64), observation.cut, observation.arrival_delay)
        over = observed_whole(seen, asked.horizon)
        left_out["not_over"] += int((here & ~over).sum())
        rows = found[here & over].reset_index(drop=True)
        person = persons_of(rows["customer_id"], observation.persons)
        nothing = pd.Series([None] * len(rows), dtype=object)
        kept.append(
            replace(
                asked, scored=rows.assign(probability=np.nan, play=rows["campaign"], channel=nothing, person=person)
            )
        )
    left_out["no_list"] = int((~matched).sum())
    return Experiments(_rows_of(kept, replace(observation, arm_neutral=True), blocks, left_out), left_out)


def _texts(column: Column | None, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    """Return a property of some rows as text, None where there is none; numbers as whole as they are."""
    if isinstance(column, Text):
        return np.array([*column.values, None], dtype=object)[column.codes[rows]]
    if column is None:
        return np.full(len(rows), None, dtype=object)
    return np.array([None if np.isnan(one) else f"{one:g}" for one in column[rows]], dtype=object)


def _share(
    spec: ExperimentsSpec, properties: Mapping[str, Column], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the propensity to be treated of some rows; NaN where none is told."""
    if isinstance(spec.propensity, float):
        return np.full(len(rows), spec.propensity)
    column = properties.get(spec.propensity or "")
    if column is None or isinstance(column, Text):
        return np.full(len(rows), np.nan)
    return np.where((column[rows] > 0) & (column[rows] < 1), column[rows], np.nan)


def features_before(definition: ModelSpec, rows: pd.DataFrame, blocks: Blocks) -> npt.NDArray[np.float32]:
    """Return X of the rows of EXPERIMENTS, each customer as visible strictly before ``as_of``; (rows, features).

    NaN throughout for a customer who is not in the blocks.
    """
    codes, names = pd.factorize(rows["customer_id"])
    position = {name: i for i, name in enumerate(names)}
    instants = rows["as_of"].to_numpy(dtype=np.int64)
    x = np.full((len(rows), len(definition.catalogue.features)), np.nan, dtype=np.float32)

    def look(block: Block) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        here = places_in(block, position)
        found = np.flatnonzero(here[codes] >= 0)
        pairs, back = np.unique(np.stack([here[codes[found]], instants[found]]), axis=1, return_inverse=True)
        snapshots = Snapshots(pairs[0], pairs[1])
        return found, definition.features(block, definition.stays(block), snapshots)[back.ravel()]

    for found, part in blocks.map(look):
        x[found] = part
    return x
