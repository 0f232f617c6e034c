"""Which ids are one person, and from when on that was known.

A pair says that an alias is a customer, and since when that could be known. From then on the alias is no customer:
its touchpoints stand in the history of the id that survives, visible from the merge on, so that what was answered
for an older instant stays as it was. The alias's own history goes on as the person's, for the outcomes of its earlier
snapshots. Pairs are taken in the order in which they were known, and none of them changes what was before it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from cvj_ml.config import Config, IdentitiesSpec
from cvj_ml.histories import ALWAYS
from cvj_ml.schemas import INSTANT
from cvj_ml.store.mapping import read_customer_id, read_roles, reason
from cvj_ml.store.source_location import Relation, SourceLocation, read_rows
from cvj_ml.store.sql import literal
from cvj_ml.store.staging import Mapped, Staged, id_family, owned_fields
from cvj_ml.windows import NEVER

IDENTITIES = "identities"

_MOST_IDS: int = IdentitiesSpec.model_fields["most_ids"].default

_ROLES = ("alias", "customer", "known_at", "until")

LINKS = pa.schema(
    [("origin", pa.string()), ("low", pa.int64()), ("high", pa.int64()), ("opened", pa.int64()), ("closed", pa.int64()),
     ("target", pa.string()), ("since", pa.int64()), ("home", pa.bool_()), ("told", pa.int64())]
)  # fmt: skip
"""Rows of the id ``origin`` that occurred in [low, high) and became visible in [opened, closed) stand in the history
of ``target``, visible from ``since`` on; at ``home`` they are counted, elsewhere they are copies. What was visible
before ``told`` stands there whenever it occurred: the end, ``high``, was known from then on only."""


ROWS = pa.schema(
    [("customer_id", pa.string()), ("into", pa.string()), ("merged_at", INSTANT), ("first_known", INSTANT)]
)
"""What the store keeps of a joined id: which it merged into and when, if it did, and when it was first seen itself."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An alias and its customer, known at an instant, of touchpoints before ``until``.

    ``places`` are the kinds of both ids where a log told the pair, the strongest first; None where a table did.
    """

    alias: str
    customer: str
    known_at: int
    until: int = NEVER
    places: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Persons:
    """The ids that are joined: ``links`` as LINKS says, ``merges`` the id that each alias merged into, and when.

    ``later`` are further merges of an alias, after ``until``: the alias, the id and the instant.
    ``pairs`` counts what became of the pairs: merged, redundant, shared (their alias had another customer already) or
    too many (the person would have had more ids than the limit).
    """

    links: pa.Table
    merges: Mapping[str, tuple[str, int]]
    later: Sequence[tuple[str, str, int]]
    ids: frozenset[str]
    pairs: Mapping[str, int]
    contradictions: int

    def person_of(self, name: str) -> str:
        """Return the id that stays in the end."""
        while name in self.merges:
            name = self.merges[name][0]
        return name

    def faults(self) -> list[str]:
        """Return the fault of pairs that contradict each other."""
        if not self.contradictions:
            return []
        return [
            f"{IDENTITIES}: {self.contradictions} pair(s) make an id the alias of its own alias, so nobody can say"
            " which one stays. Keep one direction: the alias is the id that is given up"
        ]


NOBODY = Persons(LINKS.empty_table(), {}, (), frozenset(), {}, 0)
"""Persons where every id is one of its own."""


def map_identities(location: SourceLocation, spec: IdentitiesSpec, config: Config, faults: list[str]) -> Mapped:
    """Map the columns of the table of identities, adding what is wrong to the faults."""
    fields, readings = read_roles(
        location, spec, ("identities", _ROLES, _ROLES[:3]), {"customer_id": "customer", "alias": "alias"},
        ("known_at", "until"), config, faults,
    )  # fmt: skip
    ids = tuple(fields[role] for role in ("customer", "alias") if role in fields)
    family, owned = id_family(ids, faults, location.label, config), owned_fields(fields.values())
    return Mapped(location, readings, ("customer_id", "alias", "known_at"), {}, owned, ids, family, True)


def table_pairs(staged: Staged, connection: duckdb.DuckDBPyConnection) -> list[Pair]:
    """Return the pairs of a staged table of identities, each once, since the first instant at which it was known."""
    if not staged.has_rows:
        return []
    rows = connection.execute(
        f"SELECT alias, customer_id, min(known_at), coalesce(until, {NEVER}) AS until"
        f" FROM read_parquet({literal(staged.pattern())}, hive_partitioning=false) GROUP BY ALL"
    ).fetchall()
    return [Pair(*row) for row in rows]


def log_pairs(mapped: Mapped, relation: Relation, config: Config, connection: duckdb.DuckDBPyConnection) -> list[Pair]:
    """Return the pairs that rows with several ids tell, each once: a weaker id beside the first that is filled.

    A row that is refused tells none: what is not known to have happened, or when, joins nobody.
    """
    if len(mapped.id_fields) < 2:
        return []
    label, names = mapped.location.label, [f"id_{place}" for place in range(len(mapped.id_fields))]
    ids = [
        f"({read_customer_id(label, own, config, []).value}) AS {name}"
        for name, own in zip(names, mapped.id_fields, strict=True)
    ]
    told = (
        f"SELECT {', '.join(names)}, {mapped.visible_at} AS first_known FROM (SELECT *, {mapped.local_day} AS local_day"
        f" FROM ({mapped.read(relation, ids)}) WHERE {reason(mapped.readings, mapped.required, {})} IS NULL)"
    )
    parts = [
        f"SELECT {name} AS alias, coalesce({', '.join(names[:place])}) AS customer, min(first_known), {place},"
        f" CASE {' '.join(f'WHEN {one} IS NOT NULL THEN {i}' for i, one in enumerate(names[:place]))} END AS kind"
        f" FROM told WHERE {name} IS NOT NULL AND customer IS NOT NULL AND first_known IS NOT NULL GROUP BY ALL"
        for place, name in enumerate(names)
        if place
    ]
    rows = connection.execute(f"WITH told AS MATERIALIZED ({told}) {' UNION ALL '.join(parts)}").fetchall()
    return [Pair(alias, customer, at, NEVER, (place, kind)) for alias, customer, at, place, kind in rows]


def tells_identities(config: Config) -> bool:
    """Return whether anything says that several ids are one person: a table, or rows with several ids."""
    return config.identities is not None or any(len(one.ids) > 1 for one in config.sources.values())


def find_persons(
    config: Config,
    tables: Mapping[str, Mapped],
    landed: Mapping[str, Relation | None],
    staged: Mapping[str, Staged],
    connection: duckdb.DuckDBPyConnection,
    place: Path,
) -> Persons:
    """Return who is whom, by the table of identities and by rows that have several ids."""
    pairs = table_pairs(staged[IDENTITIES], connection) if IDENTITIES in staged else []
    for label, mapped in tables.items():
        if label != IDENTITIES and (relation := landed[label]) and len(mapped.id_fields) > 1:
            read = partial(log_pairs, mapped, config=config, connection=connection)
            owned = [one.own for one in mapped.owns if one.own is not None]
            pairs += read_rows(mapped.location, relation, owned, place / "pairs" / mapped.location.slot, read)
    return join_ids(pairs, config.identities.most_ids if config.identities else _MOST_IDS)


def join_ids(pairs: Iterable[Pair], most_ids: int) -> Persons:
    """Return the persons that pairs make, taken in the order in which they were known.

    An alias that turns out to be a second customer's was one person's until then: what becomes visible of it later is
    nobody's. Of two pairs that are known at one instant neither is preferred. ``contradictions`` counts pairs that say
    an id is the alias of its own alias.
    """
    ordered = sorted(pairs, key=lambda one: (one.known_at, one.alias, one.customer, one.until))
    return _Joining(ordered, most_ids).result()


_Node = tuple[str, int]
"""An id, and which of the times in which it was somebody's: 0 is the first, in which it is a customer of its own."""


def _question(pair: Pair) -> tuple[str, int, int]:
    """Return what has one answer: which customer of a kind an alias belongs to, as known at an instant."""
    return pair.alias, pair.known_at, pair.places[1] if pair.places else -1


@dataclass(slots=True)
class _Joining:
    pairs: Sequence[Pair]
    most_ids: int
    person: dict[_Node, _Node] = field(default_factory=dict)
    members: dict[_Node, list[_Node]] = field(default_factory=dict)
    merges: dict[_Node, tuple[_Node, int]] = field(default_factory=dict)
    current: dict[str, _Node] = field(default_factory=dict)
    high: dict[_Node, int] = field(default_factory=dict)
    told: dict[_Node, int] = field(default_factory=dict)
    of: dict[_Node, str] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    place: dict[str, int] = field(default_factory=dict)
    joined: list[tuple[_Node, _Node, int]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    contradictions: int = 0

    def result(self) -> Persons:
        rivals: defaultdict[tuple[str, int, int], set[str]] = defaultdict(set)
        for one in self.pairs:
            for name, place in zip((one.alias, one.customer), one.places or (), strict=False):
                self.place[name] = min(place, self.place.get(name, place))
            rivals[_question(one)].add(one.customer)
        for one in self.pairs:
            if one.alias == one.customer:
                self.counts["redundant"] += 1
            elif len(rivals[_question(one)]) > 1:
                self._share(one)
            else:
                self._take(one)
        return self._persons()

    def _take(self, pair: Pair) -> None:
        alias, customer = self._node(pair.alias), self._node(pair.customer)
        again = alias in self.high and pair.known_at >= self.high[alias]
        if again:
            alias = alias[0], alias[1] + 1
        own, other = self.person.get(alias, alias), self.person[customer]
        if own == other:
            self.contradictions += self._is_below(customer, alias)
            if pair.until != NEVER and self.of.get(alias) == pair.customer and alias not in self.high:
                self.high[alias], self.told[alias] = pair.until, pair.known_at
            self.counts["redundant"] += 1
            return
        if own != alias:
            # It is an alias already: a stronger kind of id may take its person over, a weaker one may join it.
            mine, theirs = self.place.get(own[0]), self.place.get(other[0])
            if pair.places is None or mine is None or theirs is None or mine == theirs:
                self._share(pair)
                return
            own, other = (own, other) if theirs < mine else (other, own)
        if len(self.members.get(own, [own])) + len(self.members[other]) > self.most_ids:
            self.counts["too many"] += 1
            return
        if again:
            self.current[pair.alias] = alias
            self._node(pair.alias)
        self.of[alias] = pair.customer
        if pair.until != NEVER:
            self.high[alias], self.told[alias] = pair.until, pair.known_at
        self._merge(own, other, pair.known_at)
        self.counts["merged"] += 1

    def _share(self, pair: Pair) -> None:
        self.counts["shared"] += 1
        if self.person.get(self.current.get(pair.alias, (pair.alias, 0))) not in (None, (pair.alias, 0)):
            self.closed.setdefault(pair.alias, pair.known_at)

    def _merge(self, own: _Node, other: _Node, at: int) -> None:
        for one in self.members[own]:
            for another in self.members[other]:
                self.joined += [(one, another, at), (another, one, at)]
            self.person[one] = other
        self.members[other] += self.members.pop(own)
        self.merges[own] = other, at

    def _node(self, name: str) -> _Node:
        node = self.current.setdefault(name, (name, 0))
        if node not in self.person:
            self.person[node], self.members[node] = node, [node]
        return node

    def _is_below(self, node: _Node, other: _Node) -> bool:
        while node in self.merges:
            node = self.merges[node][0]
            if node == other:
                return True
        return False

    def _told_since(self, node: _Node, target: str) -> int:
        """Return until when rows after an end stand in a history: the end may have been told later than the pair."""
        told = self.told.get(node, ALWAYS)
        return told if target == node[0] or told > self.merges.get(node, (node, told))[1] else ALWAYS

    def _persons(self) -> Persons:
        joined = {node for one, another, _ in self.joined for node in (one, another)}
        rows = [(one, another[0], since) for one, another, since in self.joined if another[1] == 0]
        rows += [(node, node[0], ALWAYS) for node in joined if node[1] == 0]
        origins, targets = [node[0] for node, _, _ in rows], [target for _, target, _ in rows]
        low, high, opened, told = (np.full(len(rows), one) for one in (ALWAYS, NEVER, ALWAYS, ALWAYS))
        closed = np.array([self.closed.get(origin, NEVER) for origin in origins], dtype=np.int64)
        home = np.array([target == origin for origin, target in zip(origins, targets, strict=True)], dtype=np.bool_)
        # Hardly any id stops to be an alias, or becomes one again.
        ended = {name for name, _ in self.high}
        for i, (node, target, _) in enumerate(rows):
            if node[0] in ended:
                before = node[0], node[1] - 1
                low[i], opened[i] = self.high.get(before, ALWAYS), self.told.get(before, ALWAYS)
                high[i], told[i] = self.high.get(node, NEVER), self._told_since(node, target)
                # What an id did in its second time as an alias is not in its own history.
                home[i] = target == (node[0] if node[1] == 0 else self.person[node][0])
        columns = [origins, low, high, opened, closed, targets, [since for _, _, since in rows], home, told]
        arrays = [pa.array(one, kind.type) for one, kind in zip(columns, LINKS, strict=True)]
        return Persons(
            pa.Table.from_arrays(arrays, schema=LINKS),
            {node[0]: (into[0], at) for node, (into, at) in self.merges.items() if node[1] == 0},
            [(node[0], into[0], at) for node, (into, at) in self.merges.items() if node[1] > 0],
            frozenset(node[0] for node in joined),
            dict(sorted(self.counts.items())),
            self.contradictions,
        )
