"""Which customers are asked about, and when."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, Config
from cvj_ml.histories import TouchpointColumns
from cvj_ml.windows import Instants, before, grid, is_customer, midnight


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Rows (customer, as_of), sorted by customer then instant; ``customer`` is the position in its block."""

    customer: npt.NDArray[np.int64]
    as_of: Instants

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, keep: npt.NDArray[np.bool_]) -> Snapshots:
        """Return the rows marked by a mask."""
        return Snapshots(self.customer[keep], self.as_of[keep])


def training_grid(config: Config, cut: int) -> Instants:
    """Return the instants that training asks about: from ``history_from + burn_in`` on, ``snapshots.back`` at most."""
    first = midnight(config.history_from, config.zone) + config.burn_in
    day = config.history_from
    instants = grid(day, 1, config.zone, earliest=first, until=cut)
    every = config.snapshots.every // DAY
    chosen = instants[::every]
    return chosen[~before(chosen, cut - config.snapshots.back)]


def eligible(points: TouchpointColumns, instants: Instants) -> Snapshots:
    """Return every customer with a visible touchpoint, at every instant; the same rule trains and scores."""
    seen, merged = points.first_visible()[:, None], points.merged_at[:, None]
    customer, moment = np.nonzero(is_customer(seen, merged, instants[None, :]))
    return Snapshots(customer.astype(np.int64), instants[moment])


def are_eligible(points: TouchpointColumns, snapshots: Snapshots) -> npt.NDArray[np.bool_]:
    """Return which snapshots `eligible` would return."""
    customer = snapshots.customer
    return is_customer(points.first_visible()[customer], points.merged_at[customer], snapshots.as_of)


def sampling_keys(customers: Sequence[str], snapshots: Snapshots, seed: int) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each snapshot: a hash of (customer_id, as_of, seed), whatever else is asked."""
    digests = [hashlib.blake2b(name.encode(), digest_size=8, key=str(seed).encode()).digest() for name in customers]
    base = np.frombuffer(b"".join(digests), dtype="<u8")[snapshots.customer]
    with np.errstate(over="ignore"):
        # splitmix64 (Steele, Lea and Flood 2014): consecutive instants must not give neighbouring numbers.
        z = base + snapshots.as_of.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    numbers: npt.NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
