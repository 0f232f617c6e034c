"""The panel: the only place where X meets labels, under a budget of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY
from cvj_ml.engines import Blocks
from cvj_ml.errors import DataError, nearest, raise_all
from cvj_ml.histories import Block
from cvj_ml.journey import Outcome, evidence
from cvj_ml.panel.amounts import Amounts, amount_columns, future_amounts
from cvj_ml.panel.labels import Labels, label, label_leaves, label_outcomes
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.snapshots import Snapshots, eligible, sampling_keys
from cvj_ml.windows import NEVER, Instants, edges, happened_within, observed_whole

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Panel:
    """Snapshots with features and labels; every row stands for ``1 / share`` eligible snapshots.

    ``customer`` indexes ``names``, the ids of all customers. ``eligible`` counts the snapshots and ``converters`` the
    customers who moved to each target, both before sampling. Labels are what was visible at the ``cut``, when rows as
    old as ``arrival_delay`` had arrived. ``outcomes`` are the labels of the definition's own outcomes, ``fulfilled``
    counts the customers of each as ``converters`` does, among the rows that were sampled. ``amounts`` are what was
    bought, where the definition asks for purchases.
    """

    x: npt.NDArray[np.float32]
    customer: npt.NDArray[np.int64]
    as_of: Instants
    stage: npt.NDArray[np.int8]
    days_in_stage: npt.NDArray[np.float64]
    labels: Labels
    share: float
    eligible: int
    converters: npt.NDArray[np.int64]
    names: tuple[str, ...]
    definition: ModelSpec
    cut: int
    arrival_delay: int
    outcomes: Labels
    fulfilled: npt.NDArray[np.int64]
    amounts: Amounts | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def inner_cut(self) -> int:
        """C' = the cut less max(90 days, a quarter of the outcome span): what later rows decide is taught before it."""
        return self.cut - max(90 * DAY, (self.cut - int(self.as_of.min())) // 4)

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """Return one feature of all rows."""
        return self.x[:, self.definition.catalogue.names.index(name)]

    def asking(self, outcome: Outcome) -> Panel:
        """Return the same snapshots with one of the definition's own outcomes in the place of the return."""
        place = self.definition.own_outcomes.index(outcome)
        times, at_risk = np.full_like(self.labels.times, NEVER), np.zeros_like(self.labels.at_risk)
        times[:, 0], at_risk[:, 0] = self.outcomes.times[:, place], self.outcomes.at_risk[:, place]
        converters = np.zeros_like(self.converters)
        converters[0] = self.fulfilled[place]
        return replace(
            self,
            labels=Labels(times, at_risk, self.labels.follow_up, 0),
            converters=converters,
            definition=self.definition.asking(outcome),
        )

    def matured(self) -> tuple[_Mask, _Mask]:
        """Return what had happened within each horizon, and where that is known: (snapshots, targets, horizons)."""
        horizons, labels = self.definition.horizons, self.labels
        converted = np.stack([happened_within(labels.times, horizon) for horizon in horizons], axis=2)
        whole = np.stack([observed_whole(labels.follow_up, horizon) for horizon in horizons], axis=1)
        return converted, labels.at_risk[:, :, None] & whole[:, None, :]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a snapshot: who and when, the observed stage, the features, and what came after.

        For the return, each stage and each outcome, ``at_risk_<target>`` says whether the snapshot is asked about it,
        and ``days_until_<target>`` when it happened: missing where it had not by the end of ``follow_up_days``, up to
        which nobody could have missed it. Where purchases are asked for, ``value_<h>d``, ``refunds_<h>d`` and
        ``purchases_<h>d`` are what was bought within each horizon, missing where it was not over. `from_frame` takes
        the rows back.
        """
        spec, labels = self.definition, self.labels
        stages = pd.array([*spec.journey.names, None], dtype="str")
        who = {
            "customer_id": np.array(self.names, dtype=object)[self.customer],
            "as_of": pd.to_datetime(self.as_of, unit="us", utc=True),
            "observed_stage": stages[self.stage],
            "observed_days_in_stage": self.days_in_stage,
        }
        after: dict[str, Any] = {"follow_up_days": labels.follow_up / DAY}
        for name, one in zip(self._asked(), self._targets(), strict=True):
            at_risk, times = one.at_risk[:, 0], one.times[:, 0]
            happened = at_risk & (times < labels.follow_up)
            after[f"at_risk_{name}"] = at_risk
            after[f"days_until_{name}"] = np.where(happened, times / DAY, np.nan)
        if self.amounts is not None:
            after |= self.amounts.by_horizon(spec.horizons, 10**spec.catalogue.value_decimals)
        features = pd.DataFrame(self.x, columns=spec.catalogue.names)
        return pd.concat([pd.DataFrame(who), features, pd.DataFrame(after)], axis=1)

    def from_frame(self, frame: pd.DataFrame) -> Panel:
        """Return this panel with the rows of a frame in the form of `to_frame`: some of its own, or changed ones.

        What was counted before sampling (``share``, ``eligible``, ``converters``) stays. DataError where columns are
        missing or new, or a row is not one of a known customer, each once an instant.
        """
        spec, wanted = self.definition, list(self._columns())
        faults = [f"there is no column {name!r}.{nearest(name, frame.columns)}" for name in wanted if name not in frame]
        faults += [f"the column {name!r} is not part of a panel" for name in frame.columns if name not in wanted]
        raise_all(DataError, "This frame is no panel:", faults)
        number = {name: i for i, name in enumerate(self.names)}
        customer = np.array([number.get(name, -1) for name in frame["customer_id"]], dtype=np.int64)
        as_of = frame["as_of"].dt.as_unit("us").astype("int64").to_numpy()
        if strangers := int((customer < 0).sum()):
            faults.append(f"{strangers} row(s) name a customer that the panel does not know")
        if repeats := len(frame) - len(np.unique(np.column_stack([customer, as_of]), axis=0)):
            faults.append(f"{repeats} row(s) repeat a customer and instant")
        position = {name: i for i, name in enumerate(spec.journey.names)}
        known = frame["observed_stage"].isna() | frame["observed_stage"].isin(position)
        if not known.all():
            faults.append(f"{(~known).sum()} row(s) name an observed_stage that the journey does not have")
        raise_all(DataError, "This frame is no panel:", faults)
        # Rows stand by customer, as those of a panel that was built: what samples rows by position draws the same.
        order = np.lexsort((as_of, customer))
        frame = frame.iloc[order]
        follow_up = _microseconds(frame["follow_up_days"].to_numpy(np.float64) * DAY)

        def labels_of(names: Sequence[str], late: int) -> Labels:
            times = [_microseconds(frame[f"days_until_{name}"].to_numpy(np.float64) * DAY) for name in names]
            at_risk = [frame[f"at_risk_{name}"].to_numpy(np.bool_) for name in names]
            return Labels(_side_by_side(times, len(frame)), _side_by_side(at_risk, len(frame)), follow_up, late)

        return replace(
            self,
            x=frame[spec.catalogue.names].to_numpy(np.float32),
            customer=customer[order],
            as_of=as_of[order],
            stage=np.array([position.get(name, -1) for name in frame["observed_stage"]], dtype=np.int8),
            days_in_stage=frame["observed_days_in_stage"].to_numpy(np.float64),
            labels=labels_of(spec.target_slugs, self.labels.late),
            outcomes=labels_of([one.name for one in spec.own_outcomes], 0),
            amounts=Amounts.of_horizons(frame, spec.horizons, 10**spec.catalogue.value_decimals)
            if self.amounts is not None
            else None,
        )

    def _columns(self) -> Iterator[str]:
        """Yield the columns of `to_frame`, in order."""
        yield from ("customer_id", "as_of", "observed_stage", "observed_days_in_stage")
        yield from self.definition.catalogue.names
        yield "follow_up_days"
        for name in self._asked():
            yield from (f"at_risk_{name}", f"days_until_{name}")
        if self.amounts is not None:
            yield from amount_columns(self.definition.horizons)

    def _asked(self) -> list[str]:
        return [*self.definition.target_slugs, *(one.name for one in self.definition.own_outcomes)]

    def _targets(self) -> Iterator[Labels]:
        """Yield the labels of each of `_asked`."""
        for one in (self.labels, self.outcomes):
            yield from (one.of(j) for j in range(one.times.shape[1]))


def _side_by_side(columns: Sequence[npt.NDArray[Any]], rows: int) -> npt.NDArray[Any]:
    """Return columns as a table, which may have none."""
    return np.column_stack(columns) if columns else np.zeros((rows, 0), dtype=np.int64)


def _microseconds(values: npt.NDArray[np.float64]) -> Instants:
    """Return times as whole microseconds, NEVER where one is missing."""
    missing = np.isnan(values)
    return np.where(missing, NEVER, np.rint(np.where(missing, 0, values)).astype(np.int64))


LEAST_ROWS = 50_000
"""Hazard rows that any training may have, however few moved."""

ROWS_A_MOVER = 50
"""Hazard rows for each customer who moved: more of them repeat the same people (docs/decisions/0034)."""


@dataclass(frozen=True, slots=True)
class HazardRows:
    """Rows (snapshot, target, interval) of the discrete-time hazard, with whether the event fell inside."""

    snapshot: npt.NDArray[np.int64]
    target: npt.NDArray[np.int8]
    interval: npt.NDArray[np.int8]
    converted: _Mask

    def __len__(self) -> int:
        return len(self.snapshot)

    def take(self, keep: _Mask | npt.NDArray[np.int64] | slice) -> HazardRows:
        """Return the rows marked by a mask, at these positions, or of a slice."""
        return HazardRows(self.snapshot[keep], self.target[keep], self.interval[keep], self.converted[keep])


def hazard_rows(labels: Labels, horizons: tuple[int, ...]) -> HazardRows:
    """Expand labels into hazard rows.

    A row exists iff the event had not happened before the interval and the *whole* interval was observed, whether
    or not the event is inside: keeping only the early events of unfinished intervals would bias rates upwards.
    """
    parts = []
    bounds = edges(horizons)
    for m, (low, high) in enumerate(itertools.pairwise(bounds)):
        at_risk = labels.at_risk & (labels.times >= low) & observed_whole(labels.follow_up, high)[:, None]
        snapshot, target = np.nonzero(at_risk)
        converted = labels.times[snapshot, target] < high
        parts.append((snapshot, target, np.full(len(snapshot), m), converted))
    snapshot, target, interval, converted = (np.concatenate(column) for column in zip(*parts, strict=True))
    return HazardRows(snapshot.astype(np.int64), target.astype(np.int8), interval.astype(np.int8), converted)


@dataclass(frozen=True, slots=True)
class _Part:
    x: npt.NDArray[np.float32]
    snapshots: Snapshots
    stage: npt.NDArray[np.int8]
    days_in_stage: npt.NDArray[np.float64]
    labels: Labels
    outcomes: Labels
    amounts: Amounts | None
    names: tuple[str, ...]
    eligible: int


def build_panel(
    definition: ModelSpec,
    blocks: Blocks,
    instants: Instants,
    cut: int,
    arrival_delay: int,
    *,
    max_rows: int | None = None,
    seed: int = 0,
) -> Panel:
    """Compute features and labels of the eligible snapshots at the instants, as known at the cut.

    Above ``max_rows`` hazard rows, or 50 for each customer who moved (50,000 at least), snapshots are sampled by a
    hash of (customer_id, as_of, seed) *before* their features are computed; one share for all, so base rates stay.
    """
    counts = blocks.map(lambda block: _count(definition, block, instants, cut, arrival_delay))
    rows = sum(one.rows for one in counts)
    movers = int(np.sum([one.converters for one in counts], axis=0).max())
    most = rows if max_rows is None else min(max_rows, max(LEAST_ROWS, ROWS_A_MOVER * movers))
    share = min(1.0, most / max(rows, 1))

    def part(block: Block) -> _Part:
        stays = definition.stays(block)
        snapshots = eligible(block.touchpoints, instants)
        asked = len(snapshots)
        if share < 1:
            snapshots = snapshots.take(sampling_keys(block.customers, snapshots, seed) < share)
        state = stays.at(snapshots.customer, snapshots.as_of)
        labels = _label(definition, block, snapshots, state.stage, cut, arrival_delay)
        return _Part(
            definition.features(block, stays, snapshots),
            snapshots,
            state.stage,
            state.days_in_stage,
            labels,
            label_outcomes(
                definition.own_outcomes,
                block.touchpoints,
                snapshots,
                cut,
                arrival_delay,
                label_leaves(definition.journey, evidence(definition.journey, block), stays, snapshots, cut),
            ),
            _amounts(definition, block, snapshots, cut, arrival_delay),
            block.customers,
            asked,
        )

    parts = blocks.map(part)
    names = [name for one in parts for name in one.names]
    by_name = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    number = np.empty_like(by_name)
    number[by_name] = np.arange(len(names))
    first = np.cumsum([0] + [len(one.names) for one in parts])
    customers = [number[one.snapshots.customer + start] for one, start in zip(parts, first, strict=False)]
    # Rows stand by customer, whatever bucket they came from: what samples rows by position must draw the same.
    place = np.empty(sum(map(len, customers)), dtype=np.int64)
    place[np.argsort(np.concatenate(customers), kind="stable")] = np.arange(len(place))
    x = np.empty((len(place), len(definition.catalogue.features)), dtype=np.float32)
    begin = 0
    for one in parts:
        x[place[begin : begin + len(one.x)]] = one.x
        begin += len(one.x)

    def gather(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        joined = np.concatenate(columns)
        ordered = np.empty_like(joined)
        ordered[place] = joined
        return ordered

    def gather_labels(several: Sequence[Labels]) -> Labels:
        return Labels(
            gather([one.times for one in several]),
            gather([one.at_risk for one in several]),
            gather([one.follow_up for one in several]),
            sum(one.late for one in several),
        )

    customer = gather(customers)
    outcomes = gather_labels([one.outcomes for one in parts])
    return Panel(
        x,
        customer,
        gather([one.snapshots.as_of for one in parts]),
        gather([one.stage for one in parts]),
        gather([one.days_in_stage for one in parts]),
        gather_labels([one.labels for one in parts]),
        share,
        sum(one.eligible for one in parts),
        np.sum([one.converters for one in counts], axis=0),
        tuple(names[i] for i in by_name),
        definition,
        cut,
        arrival_delay,
        outcomes,
        _movers(hazard_rows(outcomes, definition.horizons), customer, outcomes.times.shape[1]),
        Amounts.joined([one.amounts for one in parts if one.amounts is not None], gather),
    )


def _amounts(definition: ModelSpec, block: Block, snapshots: Snapshots, cut: int, arrival_delay: int) -> Amounts | None:
    purchases = definition.purchases
    if purchases is None:
        return None
    return future_amounts(block.touchpoints, purchases, snapshots, definition.horizons, cut, arrival_delay)


def _label(
    definition: ModelSpec,
    block: Block,
    snapshots: Snapshots,
    stage: npt.NDArray[np.int8],
    cut: int,
    arrival_delay: int,
) -> Labels:
    labels = label(
        definition.journey,
        evidence(definition.journey, block),
        snapshots,
        stage,
        cut,
        arrival_delay,
    )
    return Labels(labels.times, labels.at_risk & definition.at_risk(stage), labels.follow_up, labels.late)


@dataclass(frozen=True, slots=True)
class _Count:
    rows: int
    converters: npt.NDArray[np.int64]


def _count(definition: ModelSpec, block: Block, instants: Instants, cut: int, arrival_delay: int) -> _Count:
    """Count a block's hazard rows, and the customers who moved to each target: rows of one customer count once."""
    snapshots = eligible(block.touchpoints, instants)
    stage = definition.stays(block).at(snapshots.customer, snapshots.as_of).stage
    rows = hazard_rows(_label(definition, block, snapshots, stage, cut, arrival_delay), definition.horizons)
    return _Count(len(rows), _movers(rows, snapshots.customer, definition.cells[0]))


def _movers(rows: HazardRows, customer: npt.NDArray[np.int64], targets: int) -> npt.NDArray[np.int64]:
    """Count the customers who moved to each target, each once; ``customer`` is that of each snapshot."""
    pairs = np.unique(customer[rows.snapshot[rows.converted]] * targets + rows.target[rows.converted])
    return np.bincount(pairs % max(targets, 1), minlength=targets)
