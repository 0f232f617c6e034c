"""The ids of each person, as they could be known at an instant: whatever id a table uses, they are one customer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.store import Store
from cvj_ml.windows import NEVER, before

_INSTANTS = ("merged_at", "first_known")


@dataclass(frozen=True, slots=True)
class Identities:
    """Which id each alias had merged into by an instant, and under which id each person was first seen."""

    person: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, store: Store, as_of: int) -> Identities:
        """Return the identities that were known before ``as_of``; none where the configuration tells none."""
        table = store.identities()
        if table is None:
            return cls()
        names, into = (table[name].to_pylist() for name in ("customer_id", "into"))
        merged, first = (pc.fill_null(table[name].cast(pa.int64()), NEVER).to_numpy() for name in _INSTANTS)
        known = before(merged, as_of).tolist()
        parents = {name: other for name, other, there in zip(names, into, known, strict=True) if there}
        person: dict[str, str] = {}
        for name in parents:
            top = name
            while top in parents:
                top = parents[top]
            person[name] = top
        earliest: dict[str, tuple[int, str]] = {}
        for name, seen in zip(names, first.tolist(), strict=True):
            top = person.get(name, name)
            earliest[top] = min(earliest.get(top, (NEVER, top)), (seen, name))
        return cls(person, {top: name for top, (_, name) in earliest.items() if name != top})

    def persons(self, ids: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return for each id the customer that it stands for."""
        whole = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        if not self.person:
            return whole
        aliases = pa.array(self.person, pa.string())
        found = pa.array(self.person.values(), pa.string()).take(pc.index_in(whole, value_set=aliases))
        return pc.coalesce(found, whole)

    def by_person(self, table: pa.Table) -> pa.Table:
        """Return a table with ``customer_id`` as the customers that the ids stand for."""
        place = table.schema.get_field_index("customer_id")
        return table.set_column(place, "customer_id", self.persons(table["customer_id"]))

    def one_row_each(self, table: pa.Table) -> pa.Table:
        """Return a table of one row an id as one of one row a customer: their own, else the first alias's by its id."""
        if not self.person:
            return table
        renamed = self.by_person(table)
        alias = pc.not_equal(renamed["customer_id"], table["customer_id"])
        order = pc.sort_indices(
            pa.table({"person": renamed["customer_id"], "alias": alias, "id": table["customer_id"]}),
            sort_keys=[("person", "ascending"), ("alias", "ascending"), ("id", "ascending")],
        )
        ordered = renamed.take(order)
        names = ordered["customer_id"].to_pylist()
        return ordered.filter(pa.array([i == 0 or name != names[i - 1] for i, name in enumerate(names)], pa.bool_()))

    def first_ids(self, customers: Iterable[str]) -> Sequence[str]:
        """Return the id under which each customer was first seen."""
        return [self.first.get(name, name) for name in customers]


EACH_ONE = Identities()
"""Every id is a person of its own."""
