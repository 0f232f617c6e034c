"""TARGETS: whom to contact next, ranked lists of moves, of those who are leaving and of those who left.

Each person is on one list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, Config, ListSpec, play_channels, plays_of
from cvj_ml.customers import EACH_ONE, Identities, Permissions
from cvj_ml.evaluation.metrics import wilson_interval
from cvj_ml.journey import Journey
from cvj_ml.lists.chances import Chances
from cvj_ml.lists.contact_history import ContactHistory, contact_history_columns, no_contact_history
from cvj_ml.lists.control import (
    HOLDOUT_EXPOSURES,
    drawn_plays,
    drawn_tonight,
    epoch_name,
    holdout_exposures,
    spared_lately,
)
from cvj_ml.lists.eligibility import (
    OUTSIDE,
    POSITION,
    REASONS,
    WHY,
    columns_asked,
    left_out,
    reachable,
    require_permissions,
    unasked,
)
from cvj_ml.lists.kinds import name_of
from cvj_ml.lists.next_action import (
    FULL,
    LISTED,
    NO_ROOM,
    Offer,
    help_alone,
    meant_for,
    offers_of,
    open_to,
    preferred_offers,
    serve,
)
from cvj_ml.lists.rank_order import rank_order
from cvj_ml.lists.ranked_list import NOT_LISTED, ListSize, RankedList, list_specs, require_columns
from cvj_ml.models.bundle.bundle import ModelEvidence
from cvj_ml.models.bundle.forecast_errors import ExpectedMoves, ForecastErrors, expected_moves
from cvj_ml.models.bundle.track_record import TrackRecord
from cvj_ml.schemas import TARGETS
from cvj_ml.scoring.scores_table import StoredTable

_TOGETHER = 100_000
"""Customers who are served at a time: most lists are full long before everybody was looked at."""


NOTHING_KNOWN = ModelEvidence()


def rank(
    config: Config,
    scores: StoredTable,
    journey: Journey,
    as_of: int,
    model: ModelEvidence = NOTHING_KNOWN,
    *,
    history: StoredTable | None = None,
    permissions: Permissions | None = None,
    exposures: pa.Table | None = None,
    asked: pa.Array | None = None,
    identities: Identities = EACH_ONE,
) -> tuple[RankedList, ...]:
    """Make every configured list from one night's SCORES, in the order of the configuration.

    Whoever is held back or has no play is left out; everybody else is assigned to one list. Eligible customers are
    ranked by probability (ties by worth, then id), by worth (ties by probability, then id), or by what a contact
    changes where that is known to find more (`rank_order`); served
    with a play and a channel that has room; cut to the capacity, or else the recommended size, with the control group
    inside; then marked. Nobody moves up for those in control, who also take room and keep off other lists as everybody
    does.
    Each row carries what the model's track record says of customers who were scored like this. Of SCORES a list reads
    the rows of its stage, and of these the columns that it needs.
    history: of the customers of SCORES, in their order, by ``contact_history_schema`` (None: only scores are known);
    exposures: who was listed in control on earlier nights (None: nobody); asked: of whom to say why they are not
    listed; identities: as known at ``as_of``, the other tables name customers by them already.
    """
    permissions, channels = permissions or Permissions(), play_channels(config.journey)
    specs = list_specs(config, journey)
    require_columns(config, specs, scores.column_names)
    require_permissions(permissions, channels)
    stage = scores.read(["stage"])["stage"]
    night = _Night(
        config,
        scores,
        stage,
        as_of,
        model.track_record,
        model.forecast_errors,
        history,
        HOLDOUT_EXPOSURES.empty_table() if exposures is None else exposures,
        permissions,
        identities,
        str(scores.first("model_version")) if len(stage) else "",
        pa.array([], pa.string()) if asked is None else asked,
        specs,
        {channels.index(name): n for name, n in config.eligibility.channel_capacity.items()},
        Chances(config, scores.column_names, model.amounts_rank, model.effects),
    )
    return tuple(night.next_list(i) for i in range(len(night.specs)))


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The customers of a list's stage, with what decides about each; arrays over them.

    ``rows`` are their places in SCORES; ``reason``: position in REASONS, -1 for eligible; ``possible`` (customers,
    offers): whether a play is meant for them and can reach them.
    """

    scores: pa.Table
    rows: npt.NDArray[np.int64]
    customers: pa.Array
    history: ContactHistory
    offers: tuple[Offer, ...]
    possible: npt.NDArray[np.bool_]
    probability: npt.NDArray[np.float64]
    reason: npt.NDArray[np.int64]

    @property
    def cost(self) -> npt.NDArray[np.float64]:
        """What a contact costs: of the first play that is meant for them and can reach them."""
        if not self.offers:
            return np.zeros(len(self.reason))
        costs: npt.NDArray[np.float64] = np.array([one.play.cost for one in self.offers])[self.possible.argmax(axis=1)]
        return costs


@dataclass(slots=True)
class _Night:
    """What the lists of a night share; ``room`` is what earlier lists leave to later ones.

    ``assigned`` tells by stage on which list of moves each of its customers belongs, by its position; -1: on none.
    ``listed`` marks the rows of SCORES whom earlier lists have. ``found`` keeps the candidates that were read for an
    assignment until their lists are made.
    """

    config: Config
    scores: StoredTable
    stage: pa.ChunkedArray
    as_of: int
    track_record: TrackRecord
    forecast_errors: ForecastErrors
    history: StoredTable | None
    exposures: pa.Table
    permissions: Permissions
    identities: Identities
    model_version: str
    asked: pa.Array
    specs: tuple[ListSpec, ...]
    room: dict[int, int]
    chances: Chances
    assigned: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    found: dict[int, _Candidates] = field(default_factory=dict)
    listed: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.listed = np.zeros(len(self.stage), dtype=np.bool_)

    def next_list(self, position: int) -> RankedList:
        """Leave out, rank, serve, cut, mark: one list, and the room that it takes from the next ones."""
        spec = self.specs[position]
        elsewhere = self._is_elsewhere(position)
        found = self.found.pop(position) if position in self.found else self._candidates(spec)
        if self.config.eligibility.one_list:
            elsewhere = elsewhere | self.listed[found.rows]
        scores, probability, value = found.scores, found.probability, self.chances.value(spec, found.scores)
        effect = self.chances.effect(spec)
        change = self.chances.change(spec, scores, probability)
        reason = np.where((found.reason < 0) & elsewhere, POSITION["other_list"], found.reason)
        everybody = np.isfinite(probability) & ~np.isin(reason, [POSITION[name] for name in OUTSIDE])
        mean = float(np.nanmean(np.where(everybody, probability, np.nan))) if everybody.any() else np.nan
        order = rank_order(
            *(self.config, spec, np.flatnonzero(reason < 0), probability, value, change, effect),
            *(found.customers, self.as_of, self.identities),
        )
        reason[order.disturbed] = POSITION["do_not_disturb"]
        eligible, ranked = np.flatnonzero(reason < 0), order.rows
        status, offer, chance = self._serve(found, ranked, spec, order.size)
        listed = ranked[status == LISTED]
        self.listed[found.rows[listed]] = True
        end = int(np.flatnonzero(status != FULL)[-1]) + 1 if (status != FULL).any() else 0
        names = found.customers.take(pa.array(listed)).to_pylist()
        place = reason.copy()
        place[ranked] = np.select([status == NO_ROOM, status == FULL], len(REASONS) + np.arange(2), -1)
        epoch = epoch_name(self.config.control.epoch, self.as_of, self.config.zone)
        lift = probability[listed] / mean if mean else np.full(len(listed), np.nan)
        columns: dict[str, object] = {"probability": probability[listed], "lift": lift, "expected_value": value[listed]}
        columns["selection_probability"] = order.chance(listed, len(scores))
        if effect is not None:
            columns |= effect.told(change[listed], self.chances.happens(spec, probability[listed]))
        columns |= self._plays(found.offers, offer[status == LISTED])
        columns |= {"play_probability": chance[status == LISTED], **self._groups(names)}
        stages = scores["stage"].combine_chunks()
        return RankedList(
            name_of(self.config.journey, spec),
            spec,
            self._table(spec, names, {**columns, "from_stage": stages.take(pa.array(listed))}),
            len(eligible),
            len(scores),
            {name: int((reason == i).sum()) for i, name in enumerate(REASONS)},
            {"channel_full": int((status == NO_ROOM).sum()), "list_full": int((status == FULL).sum())},
            epoch,
            self._moves(spec, probability[listed], len(scores)),
            self._moves(spec, probability[everybody], len(scores)),
            ListSize.of(order.worth[ranked], end, self.config.list_size.step, spec.capacity is None),
            {one: reason[pc.equal(stages, one).to_numpy(zero_copy_only=False)].astype(np.int8) for one in spec.origins},
            self.chances.outcome(spec),
            self._why(found.customers, place),
            unasked(self.config),
            effect=effect,
        )

    def _candidates(self, spec: ListSpec, others: Sequence[str] = ()) -> _Candidates:
        """Return the customers of a list's stages and who of them is eligible; ``others`` of SCORES are read, too."""
        here: npt.NDArray[np.bool_] = pc.is_in(self.stage, value_set=pa.array(spec.origins)).to_numpy()
        asked = ["customer_id", "stage", *self.chances.columns(spec), *others]
        scores = self.scores.read(list(dict.fromkeys([*asked, *columns_asked(self.config, spec)])), here)
        customers = scores["customer_id"].combine_chunks()
        self.chances.require_known(spec, scores)
        if pc.all(pc.less(customers[:-1], customers[1:])).as_py() is False:
            raise AssertionError("SCORES are not sorted by customer_id")
        offers = offers_of(self.config.journey, plays_of(self.config.journey, spec))
        history = self._history(offers, here, customers)
        may = reachable(self.config, customers, history, self.permissions)
        meant = meant_for(offers, history)
        if spec.kind != "move":
            meant = help_alone(offers, self.config.journey, meant, history.unhappy)
        possible = meant & open_to(offers, may.allowed)
        probability, evidence = self.chances.probability(spec, scores), self.chances.evidence(spec)
        reason = left_out(self.config, spec, scores, probability, history, may, meant, possible, self.as_of, evidence)
        return _Candidates(scores, np.flatnonzero(here), customers, history, offers, possible, probability, reason)

    def _is_elsewhere(self, position: int) -> npt.NDArray[np.bool_] | np.bool_:
        """Return which customers of a list of moves belong to another one; of other lists the order alone decides."""
        stage = self.specs[position].from_stage
        rivals = [i for i, one in enumerate(self.specs) if one.kind == "move" and one.from_stage == stage]
        if stage is None:
            return np.False_
        if not self.config.eligibility.one_list or len(rivals) == 1:
            return np.False_
        if stage not in self.assigned:
            self.assigned[stage] = self._assign(rivals)
        elsewhere: npt.NDArray[np.bool_] = self.assigned[stage] != position
        return elsewhere

    def _assign(self, rivals: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the list of each customer of a stage from which several lists of moves start, -1 for none.

        The one with the largest worth of its stage × probability to reach it, within the shortest horizon of the lists
        that could have the customer, minus the play's cost; ties by that probability, then in the order of the lists.
        That order alone decides where one of these stages has no worth.
        """
        specs = [self.specs[i] for i in rivals]
        horizons = sorted({one.horizon for one in specs})
        columns = [self.chances.reach_column(one.target, horizon) for one in specs for horizon in horizons]
        predicted = [name for name in columns if name in self.scores.column_names]
        found = [self._candidates(one, predicted) for one in specs]
        eligible = np.stack([one.reason < 0 for one in found], axis=1)
        lengths = np.array([one.horizon for one in specs])
        shortest = np.where(eligible, lengths, max(horizons)).min(axis=1)
        worth, probability = np.full((2, *eligible.shape), -np.inf)
        for k, (spec, one) in enumerate(zip(specs, found, strict=True)):
            for horizon in horizons:
                rows = eligible[:, k] & (shortest == horizon)
                if rows.any():
                    probability[rows, k] = self.chances.reach(spec.target, horizon, one.scores)[rows]
            value = self.config.stage_value.get(spec.target, np.nan)
            worth[:, k] = np.where(eligible[:, k], value * probability[:, k] - one.cost, -np.inf)
        unknown = np.isnan(worth).any(axis=1)
        # lexsort orders by its last key first; rows that are no rivals come last, and ties stay in the lists' order.
        order = np.lexsort((np.broadcast_to(np.arange(len(rivals)), worth.shape), -probability, -worth), axis=1)
        best = np.where(unknown, eligible.argmax(axis=1), order[:, 0])
        self.found |= dict(zip(rivals, found, strict=True))
        return np.where(eligible.any(axis=1), np.array(rivals)[best], -1)

    def _why(self, customers: pa.Array, place: npt.NDArray[np.int64]) -> pa.Table:
        """Return `WHY` of those who were asked about, given each customer's place among all reasons, -1 for listed."""
        rows = pc.and_(pc.is_in(customers, value_set=self.asked), pa.array(place >= 0))
        names = pa.array([*REASONS, *NOT_LISTED]).take(pa.array(place).filter(rows))
        return pa.table([customers.filter(rows), names], schema=WHY)

    def _moves(self, spec: ListSpec, probability: npt.NDArray[np.float64], of: int) -> ExpectedMoves:
        """Return how many customers with these probabilities are expected to move, among ``of`` in the stage.

        Past forecasts were of moves: of any other list they tell no range.
        """
        if spec.from_stage is None or spec.to_stage is None:
            return expected_moves(probability, 0, None)
        return self.forecast_errors.forecast(spec.from_stage, spec.to_stage, spec.horizon // DAY, probability, of)

    def _history(self, offers: Sequence[Offer], rows: npt.NDArray[np.bool_], customers: pa.Array) -> ContactHistory:
        """Return the history of some rows of SCORES, of channels and plays as far as the offers need it.

        Among the contacts are the nights on which customers were spared.
        """
        if self.history is None:
            history = no_contact_history(len(customers), self.config, self.as_of)
        else:
            channels = sorted({one.channel for one in offers} - {-1})
            plays = sorted({one.condition for one in offers if one.condition is not None})
            columns = contact_history_columns(self.config, channels, plays)
            history = ContactHistory.of(self.history.read(columns, rows), self.config)
        if not len(self.exposures):
            return history
        exposures = holdout_exposures(customers, self.exposures, self.as_of, self.config.eligibility.contact_caps)
        recent = history.recent | spared_lately(customers, self.exposures, self.as_of, self.config.eligibility)
        return replace(history, contacts=history.contacts + exposures, recent=recent)

    def _serve(
        self, found: _Candidates, ranked: npt.NDArray[np.int64], spec: ListSpec, size: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Serve the ranked customers until the list is full; return what becomes of each, the offer, its chance.

        A capacity is filled from below where channels are full; the recommended size is not, since those below are not
        worth it.
        """
        left, asked = (size, size) if spec.capacity is None else (spec.capacity, len(ranked))
        status, offer, chance = np.full(len(ranked), FULL), np.full(len(ranked), -1), np.ones(len(ranked))
        for begin in range(0, asked, _TOGETHER):
            if not left:
                break
            some = slice(begin, min(begin + _TOGETHER, asked))
            rows = ranked[some]
            preferred = preferred_offers(found.offers, found.history.take(rows))
            names = found.customers.take(pa.array(rows)).to_pylist() if self.config.control.explore_how else []
            order = drawn_plays(self.config, names, preferred, self.as_of, self.identities)
            served = serve(order, preferred, found.possible[rows], found.offers, self.room, left)
            status[some], offer[some], self.room = served.status, served.offer, served.room
            chance[some] = served.chance(self.config.control.explore_how)
            left -= int((status[some] == LISTED).sum())
        return status, offer, chance

    def _plays(self, offers: Sequence[Offer], chosen: npt.NDArray[np.int64]) -> dict[str, object]:
        """Return what to do and through which channel."""
        names = play_channels(self.config.journey)
        texts = [one.play.text for one in offers]
        channels = [names[one.channel] if one.channel >= 0 else None for one in offers]
        picked = chosen.tolist()
        return {
            "play": [texts[i] if i >= 0 else None for i in picked],
            "channel": [channels[i] if i >= 0 else None for i in picked],
        }

    def _groups(self, customers: Sequence[str]) -> dict[str, object]:
        """Mark who is in control."""
        control = drawn_tonight(self.config, customers, self.as_of, self.identities)
        share = self.config.control.share
        return {"group": np.where(control, "control", "target"), "control_share": np.full(len(customers), share)}

    def _table(self, spec: ListSpec, customers: Sequence[str], columns: dict[str, object]) -> pa.Table:
        """Return TARGETS of the listed customers, in their order."""
        size, days = len(customers), spec.horizon // DAY
        columns = {
            **columns,
            "rank": np.arange(1, size + 1),
            "customer_id": customers,
            "to_stage": [spec.to_stage] * size,
            "horizon_days": np.full(size, days),
            "as_of": np.full(size, self.as_of).astype("datetime64[us]"),
            "model_version": [self.model_version] * size,
        }
        if scores := self.track_record.find(spec.from_stage or "", spec.to_stage or "", days):
            probability = np.asarray(columns["probability"])
            near = scores.near(probability, self.config.report.track_record_within)
            low, high = wilson_interval(near.k, near.n)
            # An interval beside a probability that it excludes would be read as the probability's own.
            confirmed = (near.n > 0) & (low <= probability) & (probability <= high)
            told = {name: (values, near.n > 0) for name, values in near._asdict().items()}
            told |= {"low": (low, confirmed), "high": (high, confirmed)}
            columns |= {f"track_record_{name}": np.ma.array(one, mask=~there) for name, (one, there) in told.items()}
        table = pa.table(
            {
                name: pa.array(columns[name], kind, from_pandas=True) if name in columns else pa.nulls(size, kind)
                for name, kind in TARGETS.columns.items()
            }
        )
        TARGETS.check(table)
        return table
