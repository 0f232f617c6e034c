"""Personas: people who came the same way and spend alike, or share a segment, with their journey and their best play.

A row a customer is gathered block by block, since what most spend is known only once all are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import Config
from cvj_ml.histories import Block
from cvj_ml.journey import net_values
from cvj_ml.journey_analytics.dwell_times import BEFORE_ANY, UNKNOWN, DwellTimes, Question, segments_of
from cvj_ml.journey_analytics.precursors import NO_CHANNEL, SEVERAL_CHANNELS, first_channels, present
from cvj_ml.windows import NEVER, before

MOST = 5
"""Personas that are told apart; everybody else is one of the others."""

LEAST = 100
"""People a persona has at least."""

OTHERS = "others"
EVERYBODY = "everybody"

NO_PURCHASE = "no purchases yet"
_SPENDING = (
    ("has bought",),
    ("spends less", "spends more"),
    ("spends least", "spends in between", "spends most"),
)
"""What groups of people who bought are called, where there are one, two or three."""

_KNOWN = pa.schema(
    {
        "customer_id": pa.string(),
        "group": pa.dictionary(pa.int32(), pa.string()),
        "value": pa.int64(),
        "bought": pa.bool_(),
        "stage": pa.int8(),
        "arrived": pa.int8(),
    }
)
_MOVES = pa.schema({"row": pa.int64(), "origin": pa.int8(), "to": pa.int8()})
_NOT_NEW = -2


@dataclass(frozen=True, slots=True)
class KnownCustomers:
    """Customers who are known at the instant, of any number of blocks, and their moves of the last period.

    ``rows``: ``group`` is the segment, or the channel of the first touchpoint; ``value`` what all touchpoints until
    then add up to, in minor units, ``bought`` whether one of them is above 0; ``stage`` where they stand; ``arrived``
    the stage of their first stay, if that began in the period, else -2. ``moves``: a row a move, of the customer at
    ``row``.
    """

    rows: pa.Table
    moves: pa.Table


def known_customers(question: Question, block: Block, found: DwellTimes) -> KnownCustomers:
    """Return the customers of a block whose stays are ``found``."""
    points, as_of, size = block.touchpoints, question.as_of, len(block)
    owner, since = points.owners(), question.as_of - question.period
    known = points.live(as_of)
    stage, _ = present(found, size)
    there = np.flatnonzero(stage >= BEFORE_ANY)
    row = np.full(size, -1, dtype=np.int64)
    row[there] = np.arange(len(there))
    if question.segment is None:
        channel = first_channels(points, owner, known)
        group = pa.DictionaryArray.from_arrays(pa.array(channel.codes[there]), pa.array(channel.values, pa.string()))
    else:
        names = segments_of(block, question.segment, as_of)[there]
        group = pa.array(names, pa.string()).dictionary_encode()
    value, paid = np.zeros(size, dtype=np.int64), known & points.has_value
    net = net_values(question.journey.spec, points)
    np.add.at(value, owner[paid], net[paid])
    bought = np.bincount(owner[paid & (net > 0)], minlength=size) > 0
    arrived = np.full(size, _NOT_NEW, dtype=np.int8)
    new = found.first & ~before(found.start, since)
    arrived[found.customer[new]] = found.stage[new]
    moved = (found.end != NEVER) & ~before(found.end, since)
    rows = [
        pa.array([block.customers[i] for i in there], pa.string()),
        group,
        *(values[there] for values in (value, bought, stage.astype(np.int8), arrived)),
    ]
    moves = np.stack([row[found.customer[moved]], found.stage[moved], found.next[moved]])
    # Where stages can be left somebody may pass from one to another several times, and is one person all the same.
    moves = np.unique(moves, axis=1)
    return KnownCustomers(
        pa.table(rows, schema=_KNOWN),
        pa.table([pa.array(one).cast(t) for one, t in zip(moves, _MOVES.types, strict=True)], schema=_MOVES),
    )


def add_customers(parts: Iterable[KnownCustomers]) -> KnownCustomers:
    """Put the customers of all blocks one after the other."""
    gathered = list(parts)
    starts = np.cumsum([0, *(len(one.rows) for one in gathered)])
    moves = [
        one.moves.set_column(0, "row", pc.add(one.moves["row"], int(start)))
        for one, start in zip(gathered, starts, strict=False)
    ]
    rows = pa.concat_tables([one.rows for one in gathered]).unify_dictionaries()
    return KnownCustomers(rows.combine_chunks(), pa.concat_tables(moves).combine_chunks())


@dataclass(frozen=True, slots=True)
class OfferedPlay:
    """The play that most of a persona's people are offered tonight, mostly through ``channel``, and to how many."""

    text: str
    channel: str | None
    people: int


@dataclass(frozen=True, slots=True)
class PersonaStage:
    """How many of a persona stand in a stage, and how many arrived there anew, came from another, or left, lately."""

    stage: int
    here: int
    new: int
    came: int
    left: int


@dataclass(frozen=True, slots=True)
class PersonaMove:
    """How many of a persona moved between two stages in the last period."""

    origin: int
    to: int
    people: int


@dataclass(frozen=True, slots=True)
class Persona:
    """A group of people; of OTHERS only that they are in none of the named ones is known.

    ``above`` and ``up_to`` bound what each of them spent until tonight, None where there is no bound; ``value`` is
    what all of them spent together. Amounts are in the unit of the log. ``play`` is None where nobody is offered any.
    """

    name: str
    people: int
    above: float | None
    up_to: float | None
    value: float
    stages: tuple[PersonaStage, ...]
    moves: tuple[PersonaMove, ...]
    play: OfferedPlay | None


@dataclass(frozen=True, slots=True)
class Personas:
    """Every persona, the largest first and the others last, and which one each customer is.

    ``of``: ``customer_id`` and ``persona``, a dictionary of the names, which takes a byte a customer.
    """

    groups: tuple[Persona, ...]
    of: pa.Table


def personas(config: Config, known: KnownCustomers, lists: Sequence[pa.Table] = ()) -> Personas:
    """Return the personas of tonight's customers; ``lists`` have ``customer_id``, ``play``, ``channel`` and ``group``.

    A persona is a group with at least LEAST people, of the MOST largest; whose segment is not known is one of the
    others. Nobody in control is offered anything.
    """
    rows = known.rows
    code, names, bounds = _assigned(config, rows)
    unit = 10**config.value_decimals
    value = np.bincount(code, weights=rows["value"].to_numpy(), minlength=len(names))
    people = np.bincount(code, minlength=len(names))
    stages = _stages(known, code, len(names), len(config.journey.stages))
    moves, plays = _moves(known, code), _offered(rows["customer_id"], code, lists)
    groups = tuple(
        Persona(
            name,
            int(people[i]),
            _amount(bounds[i][0], unit),
            _amount(bounds[i][1], unit),
            float(value[i]) / unit,
            stages[i],
            moves.get(i, ()),
            plays.get(i),
        )
        for i, name in enumerate(names)
        if people[i]
    )
    persona = pa.DictionaryArray.from_arrays(pa.array(code.astype(np.int8)), pa.array(names, pa.string()))
    return Personas(groups, pa.table({"customer_id": rows["customer_id"], "persona": persona}))


_Bounds = tuple[int | None, int | None]


def _assigned(config: Config, rows: pa.Table) -> tuple[npt.NDArray[np.int64], list[str], list[_Bounds]]:
    """Return each customer's persona as a position, and the names and bounds of all; the others are last."""
    column = rows["group"].combine_chunks()
    ways, way = column.dictionary.to_pylist(), column.indices.to_numpy().astype(np.int64)
    segment, spending = config.report.segment, _Spending.of(rows)
    level = spending.levels(rows) if segment is None else np.zeros(len(rows), dtype=np.int64)
    width = len(spending.names)
    size = np.bincount(way * width + level, minlength=len(ways) * width)
    # That nobody's channel was recorded tells no group from another.
    told = len(np.unique(way)) > 1 or ways[way[0]] not in (NO_CHANNEL, SEVERAL_CHANNELS)
    named = []
    for place in np.flatnonzero(size >= LEAST).tolist():
        origin, group = ways[place // width], place % width
        if segment is None:
            words = [_came(origin)] * told + [spending.names[group]] * (width > 1)
            named.append((-int(size[place]), ", ".join(words) or EVERYBODY, place, spending.bounds[group]))
        elif origin != UNKNOWN:
            named.append((-int(size[place]), f"{segment}: {origin}", place, (None, None)))
    named = sorted(named)[:MOST]
    code = np.full(len(size), len(named), dtype=np.int64)
    code[[place for _, _, place, _ in named]] = np.arange(len(named))
    names = [*(name for _, name, _, _ in named), OTHERS]
    return code[way * width + level], names, [*(bounds for *_, bounds in named), (None, None)]


@dataclass(frozen=True, slots=True)
class _Spending:
    """Groups of people by what they spent: those who never bought, then thirds of the others, as far as they differ.

    ``edges`` are upper bounds in minor units, rounded up to two digits, of all groups of buyers but the last.
    """

    names: tuple[str, ...]
    bounds: tuple[_Bounds, ...]
    edges: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: pa.Table) -> _Spending:
        spent = np.sort(rows["value"].to_numpy()[rows["bought"].to_numpy(zero_copy_only=False)])
        if not len(spent):
            # Where nothing has a value, it would be untrue that nobody has bought.
            return cls(("",), ((None, None),), spent)
        thirds = (rounded_up(int(spent[-(-len(spent) * k // 3) - 1])) for k in (1, 2))
        edges = sorted({one for one in thirds if one < spent[-1]})
        bounds = zip([None, *edges], [*edges, None], strict=True)
        names = (NO_PURCHASE, *_SPENDING[len(edges)])
        return cls(names, ((None, None), *bounds), np.array(edges, dtype=np.int64))

    def levels(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        if len(self.names) == 1:
            return np.zeros(len(rows), dtype=np.int64)
        bought = rows["bought"].to_numpy(zero_copy_only=False)
        return np.where(bought, 1 + np.searchsorted(self.edges, rows["value"].to_numpy(), side="left"), 0)


def rounded_up(amount: int) -> int:
    """Return the smallest whole number with at most two digits before its zeros that is no smaller; 0 for less than 0.

    >>> rounded_up(1_234), rounded_up(99), rounded_up(9_950)
    (1300, 99, 10000)
    """
    step = int(10 ** max(len(str(amount)) - 2, 0))
    return max(-(-amount // step) * step, 0)


def _amount(minor: int | None, unit: int) -> float | None:
    return None if minor is None else minor / unit


def _came(channel: str) -> str:
    unnamed = {NO_CHANNEL: "first channel not recorded", SEVERAL_CHANNELS: "came through several channels at once"}
    return unnamed.get(channel, f"came through {channel}")


def _stages(
    known: KnownCustomers, code: npt.NDArray[np.int64], number: int, stages: int
) -> list[tuple[PersonaStage, ...]]:
    """Return the stages of each of so many personas, those before any stage first."""
    width = stages - BEFORE_ANY

    def count(persona: npt.NDArray[np.int64], stage: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
        cells = persona * width + stage.astype(np.int64) - BEFORE_ANY
        return np.bincount(cells, minlength=number * width).reshape(number, width)

    rows, moves = known.rows, known.moves
    arrived, mover = rows["arrived"].to_numpy(), code[moves["row"].to_numpy()]
    new = arrived != _NOT_NEW
    here, came_new = count(code, rows["stage"].to_numpy()), count(code[new], arrived[new])
    to, origin = moves["to"].to_numpy(), moves["origin"].to_numpy()
    came, left = (count(mover[to > origin], one[to > origin]) for one in (to, origin))
    tables = np.stack([here, came_new, came, left], axis=2).tolist()
    return [tuple(PersonaStage(BEFORE_ANY + k, *cells) for k, cells in enumerate(table)) for table in tables]


def _moves(known: KnownCustomers, code: npt.NDArray[np.int64]) -> dict[int, tuple[PersonaMove, ...]]:
    moves = known.moves
    keys = np.stack([code[moves["row"].to_numpy()], moves["origin"].to_numpy(), moves["to"].to_numpy()], axis=1)
    found: dict[int, tuple[PersonaMove, ...]] = {}
    # Each person's passing from one stage to another is there once, so moves are people.
    for (persona, origin, to), people in zip(*np.unique(keys, axis=0, return_counts=True), strict=True):
        found[int(persona)] = (*found.get(int(persona), ()), PersonaMove(int(origin), int(to), int(people)))
    return found


def _offered(
    customers: pa.ChunkedArray, code: npt.NDArray[np.int64], lists: Sequence[pa.Table]
) -> dict[int, OfferedPlay]:
    """Return each persona's play; of equally many people the first by the alphabet, so for its channel."""
    columns = ["customer_id", "play", "channel"]
    shown = [one.filter(pc.equal(one["group"], "target")).select(columns) for one in lists]
    offers = pa.concat_tables(shown).to_pandas() if shown else None
    if offers is None or offers["play"].isna().all():
        return {}
    offers = offers[offers["play"].notna()].drop_duplicates(["customer_id", "play"])
    # Lists are shorter than the customers, so these are looked for among the listed and not the other way round.
    listed = offers["customer_id"].unique()
    place = pc.index_in(customers, pa.array(listed, pa.string()))
    there = place.is_valid().to_numpy()
    persona = np.full(len(listed), -1, dtype=np.int64)
    persona[place.drop_null().to_numpy()] = code[there]
    offers["persona"] = persona[offers["customer_id"].map(dict(zip(listed, range(len(listed)), strict=True)))]
    found = {}
    for (who, play), rows in sorted(offers.groupby(["persona", "play"]), key=lambda one: (-len(one[1]), one[0][1])):
        if who >= 0 and who not in found:
            channels = rows["channel"].dropna().value_counts()
            channel = min(channels[channels == channels.max()].index) if len(channels) else None
            found[int(who)] = OfferedPlay(str(play), channel, len(rows))
    return found
