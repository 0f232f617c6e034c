"""Where everybody stood in a night: the stage of each customer, and the lists that they are on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.customers import Identities
from cvj_ml.scoring.scores_table import StoredTable

BETWEEN = "; "
"""Stands between the names of lists, where `one_list` is off and somebody is on several."""

PLAN = pa.schema([("customer_id", pa.string()), ("list", pa.string()), ("group", pa.string())])


@dataclass(frozen=True, slots=True)
class Standing:
    """Where everybody stood in a night.

    people: ``customer_id``, each once, ``stage`` (null before any) and, unless the night is of an earlier version,
    ``segment``; plan: `PLAN`, a row a customer and list; lists:
    the names of all lists, in order; erased: how many customers were erased from the night since it was published;
    joined: ids of people who stand there under another id, too.
    """

    as_of: int
    people: pa.Table
    plan: pa.Table
    lists: tuple[str, ...]
    erased: int = 0
    joined: frozenset[str] = frozenset()

    def under(self, identities: Identities) -> Standing:
        """Return the standing with everybody under the id that they have now.

        Of several ids of a person in it one alone is told as that person; the others stay what they were, as `joined`.
        """
        names, taken = self.customers.to_pylist(), dict[str, str]()
        for name in sorted(names, key=lambda one: (identities.person.get(one, one) != one, one)):
            taken.setdefault(identities.person.get(name, name), name)
        now = {name: person for person, name in taken.items() if name != person}
        if not identities.person:
            return self
        renamed = Identities(now)
        joined = frozenset(name for name in names if name in identities.person and name not in now)
        return replace(self, people=renamed.by_person(self.people), plan=renamed.by_person(self.plan), joined=joined)

    @classmethod
    def of(cls, as_of: int, scores: StoredTable, lists: Mapping[str, pa.Table], erased: int = 0) -> Standing:
        """Return the standing of a night with these SCORES and TARGETS by list."""
        parts = [
            pa.table([one["customer_id"], pa.repeat(name, len(one)), one["group"]], schema=PLAN)
            for name, one in lists.items()
        ]
        plan = pa.concat_tables([PLAN.empty_table(), *parts])
        told = [name for name in ("customer_id", "stage", "segment") if name in scores.column_names]
        return cls(as_of, scores.read(told), plan, tuple(lists), erased)

    @property
    def customers(self) -> pa.Array:
        """Everybody's id, in the order of ``people``."""
        return self.people["customer_id"].combine_chunks()

    @property
    def stage(self) -> pa.Array:
        """Everybody's stage."""
        return self.people["stage"].combine_chunks()

    @property
    def segment(self) -> pa.Array | None:
        """Everybody's ready segment; None where the night knows of none."""
        known = "segment" in self.people.column_names and self.people["segment"].null_count == 0
        return self.people["segment"].combine_chunks() if known else None

    def on(self, name: str) -> npt.NDArray[np.bool_]:
        """Return who of ``people`` is on a list."""
        return is_in(self.customers, self.plan.filter(pc.equal(self.plan["list"], name))["customer_id"])

    def lists_of_each(self) -> pa.Array:
        """Return for everybody the lists that they are on, by name; null for none."""
        found = pa.nulls(len(self.people), pa.string())
        for name in sorted(self.lists):
            longer = pc.fill_null(pc.binary_join_element_wise(found, name, BETWEEN), name)
            found = pc.if_else(pa.array(self.on(name)), longer, found)
        return found


def on_plan(standings: Iterable[Standing]) -> pa.Array:
    """Return the customers who were on the plan of any of these nights, each once."""
    plans = [PLAN.empty_table(), *(one.plan for one in standings)]
    return pa.concat_tables(plans)["customer_id"].combine_chunks().unique()


def is_in(customers: pa.Array, of: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which customers are among others."""
    found = pc.is_in(customers, value_set=of.combine_chunks() if isinstance(of, pa.ChunkedArray) else of)
    mask: npt.NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return mask
