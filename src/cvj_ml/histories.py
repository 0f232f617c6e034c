"""A block of whole customers, in time order: the unit of work.

Columns are flat arrays over all rows of the block; ``offsets`` marks where each customer's rows begin and end.
Text is held as dictionary codes. Nothing here knows about files or engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.windows import Instants


@dataclass(frozen=True, slots=True)
class Text:
    """A text column: ``codes`` index ``values``; -1 is null."""

    codes: npt.NDArray[np.int32]
    values: tuple[str, ...]

    def recode(self, vocabulary: Mapping[str, int], other: int) -> npt.NDArray[np.int32]:
        """Return codes of a frozen vocabulary; unknown text becomes ``other``, null -1."""
        table = np.array([vocabulary.get(value, other) for value in self.values] + [-1], dtype=np.int32)
        return table[self.codes]

    def isin(self, names: frozenset[str]) -> npt.NDArray[np.bool_]:
        """Return a mask of the rows whose text is one of the names; null is none of them."""
        return np.array([value in names for value in self.values] + [False])[self.codes]


Column = npt.NDArray[np.float64] | Text


@dataclass(frozen=True, slots=True)
class Touchpoints:
    """Touchpoints of a block: customer by customer, each in the total order of occurrence.

    Equal instants are ordered by event, channel, value, touchpoint_id as text, never by input order.
    ``superseded_at`` is when a newer version of the row became visible (NEVER for most rows). ``value`` is in
    minor units and valid where ``has_value``; ``day`` is the local calendar day since 1970.
    """

    offsets: npt.NDArray[np.int64]
    occurred_at: Instants
    visible_at: Instants
    superseded_at: Instants
    day: npt.NDArray[np.int32]
    event: Text
    channel: Text
    value: npt.NDArray[np.int64]
    has_value: npt.NDArray[np.bool_]
    inbound: npt.NDArray[np.bool_]
    properties: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.occurred_at)


@dataclass(frozen=True, slots=True)
class Attributes:
    """Versions of the customers' attributes, each customer's in the order in which they became known."""

    offsets: npt.NDArray[np.int64]
    known_at: Instants
    columns: Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class StageLabels:
    """What a CRM or a survey says: this customer was at ``stage`` at ``as_of``, and that was known at ``known_at``.

    Rows stand by customer, then as_of, known_at and stage.
    """

    offsets: npt.NDArray[np.int64]
    as_of: Instants
    known_at: Instants
    stage: Text


@dataclass(frozen=True, slots=True)
class Block:
    """Whole customers, sorted by id, with their tables."""

    customers: tuple[str, ...]
    touchpoints: Touchpoints
    attributes: Attributes | None = None
    stage_labels: StageLabels | None = None

    def __len__(self) -> int:
        return len(self.customers)
