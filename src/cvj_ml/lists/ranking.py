"""TARGETS: whom to contact next, one ranked list a transition.

What became of every customer of a list's stage, one row a list.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, Config, ListSpec, Stage, format_duration, play_channels
from cvj_ml.customers import Permissions
from cvj_ml.errors import ConfigError, raise_all
from cvj_ml.journey import Journey
from cvj_ml.lists.contact_history import ContactHistory, contact_history_columns, no_contact_history
from cvj_ml.lists.control import HOLDOUT_EXPOSURES, epoch_name, holdout_exposures, in_control
from cvj_ml.lists.eligibility import REASONS, WHY, Reachable, columns_asked, left_out, reachable, require_permissions
from cvj_ml.lists.next_action import FULL, LISTED, NO_ROOM, play_for, preferred_channels, serve
from cvj_ml.models.bundle.forecast_errors import LEVELS, NO_ERRORS, CountRange, ExpectedMoves, ForecastErrors
from cvj_ml.models.bundle.track_record import NO_RECORD, TrackRecord
from cvj_ml.schemas import TARGETS, Contract
from cvj_ml.scoring import StoredTable

_TOGETHER = 100_000
"""Customers who are served at a time: most lists are full long before everybody was looked at."""


def without_evidence(listed: int, expected: float) -> bool:
    """Return whether the moves that are expected of all who are listed round to none, and of each as good as none."""
    return expected < 0.5 and expected < 0.01 * listed


@dataclass(frozen=True, slots=True)
class RankedList:
    """One list, with the name of its files and the numbers behind it.

    ``in_stage`` customers stand in the list's stage; those ``left_out`` by reason and the ``eligible`` add up to
    them, the ``not_listed`` by reason and the rows add up to the eligible. ``moves`` are expected of the listed, in
    control or not, ``stage_moves`` of everybody in the stage. ``why`` has who was asked about and is not listed.
    """

    name: str
    spec: ListSpec
    rows: pa.Table
    eligible: int
    in_stage: int
    left_out: Mapping[str, int]
    not_listed: Mapping[str, int]
    epoch: str
    moves: ExpectedMoves
    stage_moves: ExpectedMoves
    why: pa.Table = field(default_factory=WHY.empty_table)

    def __post_init__(self) -> None:
        found = self.in_stage, self.eligible, len(self.rows)
        if self.in_stage != self.eligible + sum(self.left_out.values()):
            raise AssertionError(f"{self.name}: in the stage, eligible, listed: {found}; left out: {self.left_out}")
        if self.eligible != len(self.rows) + sum(self.not_listed.values()):
            raise AssertionError(f"{self.name}: in the stage, eligible, listed: {found}; {self.not_listed}")

    @property
    def control(self) -> int:
        """How many rows are in the control group."""
        return int(pc.sum(pc.equal(self.rows["group"], "control")).as_py() or 0)

    @property
    def without_evidence(self) -> bool:
        """Whether next to no move is expected of those who are listed: their order says nothing."""
        return without_evidence(len(self.rows), self.moves.expected)

    @property
    def title(self) -> str:
        """The transition in words."""
        return title_of(self.spec.from_stage, self.spec.to_stage, self.spec.horizon // DAY)


def title_of(from_stage: str, to_stage: str, days: int) -> str:
    """Return the transition of a list in words."""
    return f"{from_stage} → {to_stage}, {days} day{'' if days == 1 else 's'}"


def list_specs(config: Config, journey: Journey) -> tuple[ListSpec, ...]:
    """Return the configured lists, or else consecutive observable pairs at 30 days (or the nearest horizon).

    Raises ConfigError for configured lists between stages that the data does not show, or that are not predicted.
    """
    observable = [journey.names[i] for i in journey.observable]
    if config.lists is None:
        horizon = format_duration(config.default_list_horizon)
        pairs = itertools.pairwise(observable)
        return tuple(ListSpec.model_validate({"from": a, "to": b, "horizon": horizon}) for a, b in pairs)
    faults = []
    for i, one in enumerate(config.lists):
        place = f"lists[{i}] ({one.from_stage} to {one.to_stage})"
        hidden = [name for name in (one.from_stage, one.to_stage) if name in journey.unobserved]
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
    scores: StoredTable,
    journey: Journey,
    as_of: int,
    track_record: TrackRecord = NO_RECORD,
    *,
    history: StoredTable | None = None,
    permissions: Permissions | None = None,
    exposures: pa.Table | None = None,
    forecast_errors: ForecastErrors = NO_ERRORS,
    asked: pa.Array | None = None,
) -> tuple[RankedList, ...]:
    """Make every configured list from one night's SCORES, in the order of the configuration.

    Eligible customers are ranked by probability (ties by expected value, then id) or by expected value (ties by
    probability, then id); served with a channel that has room; cut to the capacity with the control group inside;
    then marked. Nobody moves up for those in control, who also take room and keep off other lists as everybody does.
    Each row carries what the model's track record says of customers who were scored like this. Of SCORES a list reads
    the rows of its stage, and of these the columns that it needs.
    history: of the customers of SCORES, in their order, by ``contact_history_schema`` (None: nobody was contacted);
    exposures: who was listed in control on earlier nights (None: nobody); forecast_errors: of the model's recipe, from
    which the range around each expected number of moves comes; asked: of whom to say why they are not listed.
    """
    permissions, channels = permissions or Permissions(), play_channels(config.journey)
    require_permissions(permissions, channels)
    stage = scores.read(["stage"])["stage"]
    night = _Night(
        config,
        scores,
        stage,
        as_of,
        track_record,
        forecast_errors,
        history,
        HOLDOUT_EXPOSURES.empty_table() if exposures is None else exposures,
        permissions,
        str(scores.first("model_version")) if len(stage) else "",
        pa.array([], pa.string()) if asked is None else asked,
        np.zeros(len(stage), dtype=np.bool_),
        {channels.index(name): n for name, n in config.eligibility.channel_capacity.items()},
    )
    return tuple(night.next_list(spec) for spec in list_specs(config, journey))


@dataclass(slots=True)
class _Night:
    """What the lists of a night share; ``taken`` and ``room`` are what earlier lists leave to later ones."""

    config: Config
    scores: StoredTable
    stage: pa.ChunkedArray
    as_of: int
    track_record: TrackRecord
    forecast_errors: ForecastErrors
    history: StoredTable | None
    exposures: pa.Table
    permissions: Permissions
    model_version: str
    asked: pa.Array
    taken: npt.NDArray[np.bool_]
    room: dict[int, int]
    slugs: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.slugs = {stage.name: stage.slug for stage in self.config.journey.stages}

    def next_list(self, spec: ListSpec) -> RankedList:
        """Leave out, rank, serve, cut, mark: one list, and what it takes from the next ones."""
        here: npt.NDArray[np.bool_] = pc.fill_null(pc.equal(self.stage, spec.from_stage), False).to_numpy()
        reached = [self._column(name, spec) for name in self._later(spec)]
        asked = dict.fromkeys(["customer_id", self._column(spec.to_stage, spec), *reached])
        scores = self.scores.read([*asked, *columns_asked(self.config, spec)], here)
        customers = scores["customer_id"].combine_chunks()
        if pc.all(pc.less(customers[:-1], customers[1:])).as_py() is False:
            raise AssertionError("SCORES are not sorted by customer_id")
        stage = self.config.journey.stages[self.config.journey.index(spec.to_stage)]
        history = self._history(stage, here, customers)
        may = reachable(self.config, customers, history, self.permissions)
        probability, value = self._reach(spec.to_stage, spec, scores), self._value(spec, scores)
        reason = left_out(self.config, spec, scores, probability, history, may, self.taken[here], self.as_of)
        mean = float(np.nanmean(probability)) if np.isfinite(probability).any() else np.nan
        eligible = np.flatnonzero(reason < 0)
        keys = (-probability[eligible], -np.nan_to_num(value[eligible]))
        first, second = keys if spec.by == "probability" else keys[::-1]
        # What is equal stays in the order of SCORES, which is that of the ids.
        ranked = eligible[np.lexsort((second, first))]
        status, channel = self._serve(stage, ranked, history, may, spec.capacity)
        listed = ranked[status == LISTED]
        self.taken[np.flatnonzero(here)[listed]] = True
        place = reason.copy()
        place[ranked] = np.select([status == NO_ROOM, status == FULL], len(REASONS) + np.arange(2), -1)
        names = customers.take(pa.array(listed)).to_pylist()
        epoch = epoch_name(self.config.control.epoch, self.as_of, self.config.zone)
        lift = probability[listed] / mean if mean else np.full(len(listed), np.nan)
        columns: dict[str, object] = {"probability": probability[listed], "lift": lift, "expected_value": value[listed]}
        columns |= self._plays(stage, channel[status == LISTED])
        columns |= self._groups(names, epoch)
        return RankedList(
            f"{self.slugs[spec.from_stage]}__{self.slugs[spec.to_stage]}__{spec.horizon // DAY}d",
            spec,
            self._table(spec, names, columns),
            len(eligible),
            len(scores),
            {name: int((reason == i).sum()) for i, name in enumerate(REASONS)},
            {"channel_full": int((status == NO_ROOM).sum()), "list_full": int((status == FULL).sum())},
            epoch,
            self._moves(spec, probability[listed], len(scores)),
            self._moves(spec, probability[np.isfinite(probability)], len(scores)),
            self._why(customers, place),
        )

    def _why(self, customers: pa.Array, place: npt.NDArray[np.int64]) -> pa.Table:
        """Return `WHY` of those who were asked about, given each customer's place among all reasons, -1 for listed."""
        rows = pc.and_(pc.is_in(customers, value_set=self.asked), pa.array(place >= 0))
        names = pa.array([*REASONS, *NOT_LISTED]).take(pa.array(place).filter(rows))
        return pa.table([customers.filter(rows), names], schema=WHY)

    def _moves(self, spec: ListSpec, probability: npt.NDArray[np.float64], of: int) -> ExpectedMoves:
        """Return how many customers with these probabilities are expected to move, among ``of`` in the stage."""
        return self.forecast_errors.forecast(spec.from_stage, spec.to_stage, spec.horizon // DAY, probability, of)

    def _history(self, stage: Stage, rows: npt.NDArray[np.bool_], customers: pa.Array) -> ContactHistory:
        """Return the history of some rows of SCORES, of channels as far as the stage's plays go through them.

        Among the contacts are the nights on which customers were spared.
        """
        channels, caps = play_channels(self.config.journey), self.config.eligibility.contact_caps
        if self.history is None:
            history = no_contact_history(len(customers), channels, caps)
        else:
            asked = sorted({channels.index(name) for play in stage.plays for name in play.channels})
            columns = contact_history_columns(asked, len(caps))
            history = ContactHistory.of(self.history.read(columns, rows), channels, len(caps))
        if not len(self.exposures):
            return history
        exposures = holdout_exposures(customers, self.exposures, self.as_of, caps)
        return replace(history, contacts=history.contacts + exposures)

    def _serve(
        self, stage: Stage, ranked: npt.NDArray[np.int64], history: ContactHistory, may: Reachable, capacity: int | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Serve the ranked customers until the list is full; return what becomes of each, and the channel."""
        left = len(ranked) if capacity is None else capacity
        status, channel = np.full(len(ranked), FULL), np.full(len(ranked), -1)
        for begin in range(0, len(ranked), _TOGETHER):
            if not left:
                break
            some = slice(begin, begin + _TOGETHER)
            preferred = preferred_channels(stage, history.take(ranked[some]))
            status[some], channel[some], self.room = serve(preferred, may.allowed[ranked[some]], self.room, left)
            left -= int((status[some] == LISTED).sum())
        return status, channel

    def _plays(self, stage: Stage, channel: npt.NDArray[np.int64]) -> dict[str, object]:
        """Return what to do and through which channel."""
        names = play_channels(self.config.journey)
        channels = [names[i] if i >= 0 else None for i in channel]
        plays = {name: play_for(stage, name) for name in set(channels)}
        return {"play": [play.text if (play := plays[name]) else None for name in channels], "channel": channels}

    def _groups(self, customers: Sequence[str], epoch: str) -> dict[str, object]:
        """Mark who is in control."""
        spec = self.config.control
        control = in_control(customers, spec.salt or self.config.name, epoch, spec.share)
        return {"group": np.where(control, "control", "target"), "control_share": np.full(len(customers), spec.share)}

    def _table(self, spec: ListSpec, customers: Sequence[str], columns: dict[str, object]) -> pa.Table:
        """Return TARGETS of the listed customers, in their order."""
        size, days = len(customers), spec.horizon // DAY
        columns = {
            **columns,
            "rank": np.arange(1, size + 1),
            "customer_id": customers,
            "from_stage": [spec.from_stage] * size,
            "to_stage": [spec.to_stage] * size,
            "horizon_days": np.full(size, days),
            "as_of": np.full(size, self.as_of).astype("datetime64[us]"),
            "model_version": [self.model_version] * size,
        }
        if bands := self.track_record.find(spec.from_stage, spec.to_stage, days):
            band = bands.of(np.asarray(columns["probability"]))
            columns |= {
                f"track_record_{name}": np.array(getattr(bands, name))[band] for name in ("n", "k", "low", "high")
            }
        table = pa.table(
            {
                name: pa.array(columns[name], kind, from_pandas=True) if name in columns else pa.nulls(size, kind)
                for name, kind in TARGETS.columns.items()
            }
        )
        TARGETS.check(table)
        return table

    def _column(self, stage: str, spec: ListSpec) -> str:
        return f"p_reach_{self.slugs[stage]}_{spec.horizon // DAY}d"

    def _reach(self, stage: str, spec: ListSpec, scores: pa.Table) -> npt.NDArray[np.float64]:
        """Return the probability of reaching a stage within the list's horizon, NaN where it is not predicted."""
        probability: npt.NDArray[np.float64] = scores[self._column(stage, spec)].to_numpy()
        return probability

    def _later(self, spec: ListSpec) -> list[str]:
        """Return the list's stage and the later ones that are worth something and predicted."""
        later = self.config.journey.names[self.config.journey.index(spec.to_stage) :]
        predicted = self.scores.column_names
        return [name for name in later if name in self.config.stage_value and self._column(name, spec) in predicted]

    def _value(self, spec: ListSpec, scores: pa.Table) -> npt.NDArray[np.float64]:
        """Return the worth of the list's stage and of the later ones, each times its probability; NaN without any."""
        parts = [
            self.config.stage_value[name] * np.nan_to_num(self._reach(name, spec, scores)) for name in self._later(spec)
        ]
        return np.sum(parts, axis=0) if parts else np.full(len(scores), np.nan)


NOT_LISTED = {
    "channel_full": "the channels of the plays are full tonight",
    "list_full": "ranked below the list's capacity",
}
"""Why an eligible customer is not listed."""


def _moves_columns(name: str) -> dict[str, pa.DataType]:
    """Return the columns of `ExpectedMoves.columns`."""
    bounds = [f"{name}_{side}_{level}" for level in LEVELS for side in CountRange._fields]
    return {name: pa.float64(), **dict.fromkeys(bounds, pa.int64())}


SUMMARY = Contract(
    "SUMMARY",
    {
        "list": pa.string(),
        "from_stage": pa.string(),
        "to_stage": pa.string(),
        "horizon_days": pa.int64(),
        "by": pa.string(),
        "epoch": pa.string(),
        "in_stage": pa.int64(),
        **dict.fromkeys(REASONS, pa.int64()),
        "eligible": pa.int64(),
        **dict.fromkeys(NOT_LISTED, pa.int64()),
        "listed": pa.int64(),
        "target": pa.int64(),
        "control": pa.int64(),
        **_moves_columns("expected_moves"),
        **_moves_columns("stage_expected_moves"),
        "expected_moves_spread": pa.float64(),
        "past_folds": pa.int64(),
    },
    ("list",),
)


def summarise(lists: Sequence[RankedList]) -> pa.Table:
    """Return the counts of lists: in_stage is the sum of the reasons and eligible, eligible that of the rest."""
    rows = [
        {
            "list": one.name,
            "from_stage": one.spec.from_stage,
            "to_stage": one.spec.to_stage,
            "horizon_days": one.spec.horizon // DAY,
            "by": one.spec.by,
            "epoch": one.epoch,
            "in_stage": one.in_stage,
            **one.left_out,
            "eligible": one.eligible,
            **one.not_listed,
            "listed": len(one.rows),
            "target": len(one.rows) - one.control,
            "control": one.control,
            **one.moves.columns("expected_moves"),
            **one.stage_moves.columns("stage_expected_moves"),
            "expected_moves_spread": one.moves.spread,
            "past_folds": one.moves.folds,
        }
        for one in lists
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema(SUMMARY.columns.items()))
    SUMMARY.check(table)
    return table
