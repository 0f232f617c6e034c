"""A ranked list of a night, the numbers behind it, and SUMMARY: what became of every customer of each list's stage."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import DAY, Config, ListSizeSpec, ListSpec, format_duration
from cvj_ml.errors import ConfigError, raise_all
from cvj_ml.journey import Journey
from cvj_ml.lists.chances import loss_columns
from cvj_ml.lists.eligibility import HELD_BACK, OUTSIDE, POSITION, REASONS, WHY
from cvj_ml.lists.kinds import Verb, heading_of, said_of, title_of
from cvj_ml.models.bundle.forecast_errors import LEVELS, CountRange, ExpectedMoves
from cvj_ml.models.uplift.list_effect import ListEffect
from cvj_ml.schemas import Contract


def without_evidence(listed: int, expected: float) -> bool:
    """Return whether the moves that are expected of all who are listed round to none, and of each as good as none."""
    return expected < 0.5 and expected < 0.01 * listed


@dataclass(frozen=True, slots=True)
class ListSize:
    """What a list holds at its length: moves expected of its first customers, and of the next ones if it went on.

    ``step`` customers are compared, ``following`` of them stand below the list (fewer at the end), and of all who stand
    below it ``below_moves`` are expected; ``recommended`` is whether this is why the list ends where it does: it has no
    capacity of its own.
    """

    step: int
    first_moves: float
    following: int
    following_moves: float
    below_moves: float
    recommended: bool

    @classmethod
    def of(cls, ranked: npt.NDArray[np.float64], end: int, step: int, recommended: bool) -> ListSize:
        """Return the size of a list that ends after so many ranked customers, from the probabilities of all."""
        below = ranked[end : end + step]
        left = float(ranked[end:].sum())
        return cls(step, float(ranked[:step].sum()), len(below), float(below.sum()), left, recommended)


def recommended_size(ranked: npt.NDArray[np.float64], spec: ListSizeSpec) -> int:
    """Return how many ranked customers to contact, from their probabilities, best first.

    The smallest multiple n of ``step`` for which the next ``step`` ranks hold less than ``least`` times the moves that
    the first ``step`` ranks hold; all, if no more than that are left.
    """
    steps = -(-len(ranked) // spec.step)
    held = np.add.reduceat(ranked, np.arange(steps) * spec.step) if steps else ranked
    short = np.flatnonzero(held[1:] < spec.least * held[0]) if steps else held
    return min(spec.step * (int(short[0]) + 1) if len(short) else len(ranked), len(ranked))


def confirmations(rows: pa.Table) -> dict[str, int]:
    """Return of how many rows of TARGETS past scores confirm the probability, do not confirm it, or say nothing."""
    known, confirmed = (rows[f"track_record_{name}"].is_valid() for name in ("n", "low"))
    told, inside = (pc.sum(one).as_py() or 0 for one in (known, confirmed))
    return {"confirmed": inside, "not_confirmed": told - inside, "no_record": len(rows) - told}


@dataclass(frozen=True, slots=True)
class RankedList:
    """One list, with the name of its files and the numbers behind it.

    ``in_stage`` customers stand in the list's stages; those ``left_out`` by reason and the ``eligible`` add up to
    them, the ``not_listed`` by reason and the rows add up to the eligible. ``moves`` are expected of the listed, in
    control or not, ``stage_moves`` of everybody whom the list is of: moves, returns or losses, as ``outcome`` says,
    the name of what the probability is of (``reach``, ``purchase``, ``leave``, ``kept``; at risk, the contrary of it);
    ``size`` tells why the list is no longer;
    ``reason`` (by stage, everybody in it, in the order of SCORES) is the position in REASONS, -1 for the eligible;
    ``why`` has who was asked about and is not listed, ``unasked`` which
    permissions are not configured, ``effect`` what a contact changes (None: nobody knows),
    ``details`` more about the first customers, in sentences by id.
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
    size: ListSize
    reason: Mapping[str, npt.NDArray[np.int8]]
    outcome: str = "reach"
    why: pa.Table = field(default_factory=WHY.empty_table)
    unasked: str = ""
    effect: ListEffect | None = None
    details: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = self.in_stage, self.eligible, len(self.rows)
        if self.in_stage != self.eligible + sum(self.left_out.values()):
            raise AssertionError(f"{self.name}: in the stage, eligible, listed: {found}; left out: {self.left_out}")
        if self.eligible != len(self.rows) + sum(self.not_listed.values()):
            raise AssertionError(f"{self.name}: in the stage, eligible, listed: {found}; {self.not_listed}")

    def of_group(self, group: str) -> pa.Table:
        """Return the rows of a group, ``target`` or ``control``, in their order."""
        return self.rows.filter(pc.equal(self.rows["group"], group))

    @property
    def control(self) -> int:
        """How many rows are in the control group."""
        return len(self.of_group("control"))

    @property
    def without_evidence(self) -> bool:
        """Whether next to no move is expected of those who are listed: their order says nothing."""
        return without_evidence(len(self.rows), self.moves.expected)

    @property
    def ranked_by(self) -> str:
        """By what the list was ranked tonight: as configured, or by what a contact changes."""
        return "incremental" if self.effect is not None and self.effect.ranks else self.spec.by

    @property
    def explored(self) -> int:
        """How many rows chance put on the list."""
        return int(pc.sum(pc.less(self.rows["selection_probability"], 1)).as_py() or 0)

    @property
    def incremental_moves(self) -> float | None:
        """What contacting the target group is expected to bring beyond what happens anyway; None: nobody knows."""
        told = self.of_group("target")["incremental_probability"].drop_null()
        return float(pc.sum(told).as_py()) if len(told) else None

    @property
    def title(self) -> str:
        """What the list is of, in words."""
        return title_of(self.heading, self.spec.horizon // DAY)

    @property
    def heading(self) -> tuple[str, str]:
        """Whom it is of, and the stage that it leads to, empty where it leads to none."""
        return heading_of(self.spec.kind, self.outcome, self.origin, self.spec.to_stage)

    @property
    def said(self) -> Verb:
        """How what the probability is of is said."""
        return said_of(self.spec.kind, self.outcome)

    @property
    def origin(self) -> str:
        """The stages whose customers it is of."""
        return ", ".join(self.spec.origins)


def held_back(lists: Sequence[RankedList]) -> dict[str, int]:
    """Return how many people no list has because each holds them back, by the first reason of these.

    Several lists from one stage hold the same people back, who count once. A list that is not of somebody says nothing
    about them.
    """
    found = dict.fromkeys(HELD_BACK, 0)
    holding, outside = ([POSITION[name] for name in names] for names in (HELD_BACK, OUTSIDE))
    for stage in dict.fromkeys(name for one in lists for name in one.reason):
        reasons = np.stack([one.reason[stage] for one in lists if stage in one.reason])
        held = np.isin(reasons, holding)
        theirs = (held | np.isin(reasons, outside)).all(axis=0) & held.any(axis=0)
        first = np.where(held, reasons, len(POSITION)).min(axis=0)[theirs]
        for name, number in zip(HELD_BACK, np.bincount(first, minlength=len(POSITION))[holding].tolist(), strict=True):
            found[name] += number
    return found


def people_of_group(lists: Sequence[RankedList], group: str) -> int:
    """Return how many people the lists have in a group, ``target`` or ``control``, each once."""
    columns = [one.of_group(group)["customer_id"] for one in lists]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return len(pa.chunked_array(chunks, pa.string()).unique())


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
        place = f"lists[{i}] ({one.words})"
        stages = [name for _, name in one.stages_by_place]
        hidden = [name for name in stages if name in journey.unobserved]
        faults += [f"{place}: nothing in the data shows {name}; map its events, or drop this list" for name in hidden]
        if not hidden and one.kind == "move" and config.targets != "all":
            ahead = observable.index(stages[1]) - observable.index(stages[0])
            if ahead > config.targets.next:
                faults.append(
                    f"{place}: {one.to_stage} is {ahead} stages ahead, but only the next {config.targets.next} are"
                    " predicted; raise targets.next, or drop this list"
                )
    raise_all(ConfigError, "These lists cannot be made:", faults)
    return config.lists


def require_columns(config: Config, specs: Sequence[ListSpec], columns: Collection[str]) -> None:
    """Raise ConfigError where lists rank by what SCORES with these columns do not tell."""
    faults = []
    for spec in specs:
        days = spec.horizon // DAY
        needed = loss_columns(config.journey, spec) if spec.kind != "move" else []
        if spec.by == "lost_value":
            needed += [f"value_{days}d", f"p_purchase_{days}d"]
        faults += [
            f"{spec.words}, {format_duration(spec.horizon)}: the scores have no column {name}, which `by: {spec.by}`"
            " ranks by. Let what it is of occur in the data (kept:, value: and leave: of the journey file), and train"
            " anew; or drop this list, or rank it otherwise"
            for name in needed
            if name not in columns
        ]
    raise_all(ConfigError, "These lists cannot be made:", faults)


NOT_LISTED = {
    "channel_full": "the channels of the plays are full tonight",
    "list_full": "ranked below the size of the list",
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
        "unasked": pa.string(),
        "kind": pa.string(),
        "outcome": pa.string(),
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
        "confirmed": pa.int64(),
        "not_confirmed": pa.int64(),
        "no_record": pa.int64(),
        "ranked_by": pa.string(),
        "explored": pa.int64(),
        "incremental_moves": pa.float64(),
        "size_recommended": pa.bool_(),
        "size_step": pa.int64(),
        "first_step_moves": pa.float64(),
        "next_step_customers": pa.int64(),
        "next_step_moves": pa.float64(),
        "list_full_moves": pa.float64(),
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
            "unasked": one.unasked,
            "kind": one.spec.kind,
            "outcome": one.outcome,
            "from_stage": one.origin,
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
            **confirmations(one.rows),
            "ranked_by": one.ranked_by,
            "explored": one.explored,
            "incremental_moves": one.incremental_moves,
            "size_recommended": one.size.recommended,
            "size_step": one.size.step,
            "first_step_moves": one.size.first_moves,
            "next_step_customers": one.size.following,
            "next_step_moves": one.size.following_moves,
            "list_full_moves": one.size.below_moves,
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
