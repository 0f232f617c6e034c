"""In which order the eligible customers of a list are served, how many of them, and whom chance adds.

By probability or worth; by what a contact changes where past control groups have shown that this finds more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cvj_ml.config import Config, ListSpec
from cvj_ml.customers import EACH_ONE, Identities
from cvj_ml.lists.control import explored
from cvj_ml.lists.ranked_list import recommended_size
from cvj_ml.models.uplift.list_effect import ListEffect

_F64 = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RankOrder:
    """``rows`` are positions of the eligible, best first, up to ``size`` places, and then those who follow.

    ``selection`` is each row's probability to stand among the first ``size``: 1 for whom their rank brings there, less
    for the ``explored``, whom chance does. ``worth`` is what the list is as long as: moves, or moves that contacts
    bring; ``disturbed`` are the eligible whom a contact harms, and none of the rows.
    """

    rows: _Rows
    size: int
    selection: _F64
    worth: _F64
    disturbed: _Rows

    def chance(self, rows: _Rows, customers: int) -> _F64:
        """Return the selection probability of some rows, given how many customers the positions are among."""
        found = np.ones(customers)
        found[self.rows] = self.selection
        chances: _F64 = found[rows]
        return chances


def rank_order(
    config: Config,
    spec: ListSpec,
    eligible: _Rows,
    probability: _F64,
    value: _F64,
    change: _F64,
    effect: ListEffect | None,
    customers: pa.Array,
    as_of: int,
    identities: Identities = EACH_ONE,
) -> RankOrder:
    """Return the order of the eligible customers (positions), and how many of them are contacted.

    customers, probability, value and change: of all of the stage; ``effect`` is where the change comes from. Where it
    may rank, customers whose change is known come first, by it (ties by probability); the others, whose like was never
    listed, follow by probability. Of ``size`` places the share ``control.explore_who``
    goes to customers drawn from all who would not have one, the disturbed included.
    """
    ranks = effect is not None and effect.ranks
    disturbed = np.zeros(len(eligible), dtype=np.bool_)
    if effect is not None and ranks:
        known = ~np.isnan(change[eligible])
        disturbed = known & effect.disturbs(change[eligible])
        keys = (~known, -np.where(known, change[eligible], 0.0), -probability[eligible])
    else:
        by_worth = spec.by not in ("probability", "churn")
        two = (-np.nan_to_num(value[eligible]), -probability[eligible])
        keys = (np.zeros(len(eligible), dtype=np.bool_), *(two if by_worth else two[::-1]))
    # What is equal stays in the order of SCORES, which is that of the ids.
    order = np.lexsort(keys[::-1])
    rows, harmed = eligible[order[~disturbed[order]]], eligible[order[disturbed[order]]]
    worth = np.maximum(np.nan_to_num(change), 0.0) if ranks else probability
    if spec.capacity is not None:
        size = spec.capacity
    elif ranks and not worth[rows[: config.list_size.step]].any():
        size = 0  # a contact brings nothing, whoever gets it
    else:
        size = recommended_size(worth[rows], config.list_size)
    size = min(size, len(rows) + len(harmed))
    tried = int(config.control.explore_who * size)
    first = min(size - tried, len(rows))
    pool = np.concatenate([rows[first:], harmed])
    if not tried or len(pool) <= tried:  # nothing to draw, or room for everybody
        return RankOrder(rows, size, np.ones(len(rows)), worth, harmed)
    drawn = np.zeros(len(pool), dtype=np.bool_)
    drawn[explored(config, customers.take(pa.array(pool)).to_pylist(), tried, as_of, identities)] = True
    welcome = np.arange(len(pool)) < len(rows) - first
    following, left = pool[~drawn & welcome], pool[~drawn & ~welcome]
    selection = np.ones(first + tried + len(following))
    selection[first : first + tried] = tried / len(pool)
    served = np.concatenate([rows[:first], pool[drawn], following])
    return RankOrder(served, first + tried, selection, worth, left)
