"""TARGETS: whom to contact next, one ranked list a transition."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, Config, ListSpec, format_duration
from cvj_ml.contracts import TARGETS
from cvj_ml.errors import ConfigError, raise_all
from cvj_ml.lists.control import epoch_name, in_control
from cvj_ml.models.track_record import NO_RECORD, TrackRecord


@dataclass(frozen=True, slots=True)
class RankedList:
    """One list, with the name of its files and the numbers behind it."""

    name: str
    spec: ListSpec
    rows: pa.Table
    eligible: int

    @property
    def title(self) -> str:
        """The transition in words."""
        return f"{self.spec.from_stage} → {self.spec.to_stage}, {self.spec.horizon // DAY} days"


def list_specs(config: Config, unobserved: frozenset[str]) -> tuple[ListSpec, ...]:
    """Return the configured lists, or else consecutive observable pairs at 30 days (or the nearest horizon).

    Raises ConfigError for configured lists between stages that the data does not show, or that are not predicted.
    """
    observable = [name for name in config.journey.names if name not in unobserved]
    if config.lists is None:
        horizon = format_duration(config.default_list_horizon)
        pairs = itertools.pairwise(observable)
        return tuple(ListSpec.model_validate({"from": a, "to": b, "horizon": horizon}) for a, b in pairs)
    faults = []
    for i, one in enumerate(config.lists):
        place = f"lists[{i}] ({one.from_stage} to {one.to_stage})"
        hidden = [name for name in (one.from_stage, one.to_stage) if name in unobserved]
        faults += [f"{place}: nothing in the data shows {name}; map its events, or drop this list" for name in hidden]
        if not hidden and config.targets != "all":
            ahead = observable.index(one.to_stage) - observable.index(one.from_stage)
            if ahead > config.targets.next:
                faults.append(
                    f"{place}: {one.to_stage} is {ahead} stages ahead, but only the next {config.targets.next} are"
                    " predicted; raise targets.next, or drop this list"
                )
    raise_all(ConfigError, "These lists cannot be made:", faults)
    return config.lists


def rank(
    config: Config,
    scores: pa.Table,
    unobserved: frozenset[str],
    as_of: int,
    track_record: TrackRecord = NO_RECORD,
) -> list[RankedList]:
    """Make every configured list from one night's SCORES.

    Eligible customers are ranked by probability, ties by expected value, then id; cut to the capacity with the
    control group inside; then marked. Nobody moves up for those in control. Each row carries what the model's track
    record says of customers who were scored like this.
    """
    return [_rank_one(config, spec, scores, as_of, track_record) for spec in list_specs(config, unobserved)]


def _rank_one(config: Config, spec: ListSpec, scores: pa.Table, as_of: int, track_record: TrackRecord) -> RankedList:
    stages: Mapping[str, str] = {stage.name: stage.slug for stage in config.journey.stages}
    days = spec.horizon // DAY
    column = f"p_reach_{stages[spec.to_stage]}_{days}d"
    here = scores.filter(pc.equal(scores["stage"], spec.from_stage))
    probability = here[column].to_numpy(zero_copy_only=False)
    here = here.filter(pa.array(~np.isnan(probability)))
    probability = probability[~np.isnan(probability)]
    mean = float(probability.mean()) if len(probability) else np.nan
    worth = config.stage_value.get(spec.to_stage)
    value = probability * worth if worth is not None else np.full(len(probability), np.nan)
    customers = np.array(here["customer_id"].to_pylist(), dtype=object)
    order = np.lexsort((customers.astype(str), -np.nan_to_num(value), -probability))[: spec.capacity]
    share = config.control.share
    epoch = epoch_name(config.control.epoch, as_of, config.zone)
    control = in_control(customers[order], config.control.salt or config.name, epoch, share)
    size = len(order)
    columns = {
        "rank": np.arange(1, size + 1),
        "customer_id": customers[order],
        "from_stage": [spec.from_stage] * size,
        "to_stage": [spec.to_stage] * size,
        "horizon_days": np.full(size, days),
        "probability": probability[order],
        "lift": probability[order] / mean if mean else np.full(size, np.nan),
        "expected_value": value[order],
        "group": np.where(control, "control", "target"),
        "control_share": np.full(size, share),
        "as_of": here["as_of"].take(pa.array(order)),
        "model_version": here["model_version"].take(pa.array(order)),
    }
    if bands := track_record.find(spec.from_stage, spec.to_stage, days):
        band = bands.of(probability[order])
        columns |= {f"track_record_{name}": np.array(getattr(bands, name))[band] for name in ("n", "k", "low", "high")}
    rows = pa.table(
        {
            name: pa.nulls(size, kind) if name not in columns else _column(columns[name], kind)
            for name, kind in TARGETS.columns.items()
        }
    )
    TARGETS.check(rows)
    name = f"{stages[spec.from_stage]}__{stages[spec.to_stage]}__{days}d"
    return RankedList(name, spec, rows, len(here))


def _column(values: object, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return pa.array(values, type=kind, from_pandas=True)
