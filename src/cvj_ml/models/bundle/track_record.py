"""What happened before to customers scored like this: kept beside a model, shown beside its probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Bands:
    """Score bands of one transition and horizon, from the lowest to the highest.

    edges: where each band but the first begins; n: customers scored so, k: how many of them moved; low and high: the
    95 % interval (Wilson) of the share that moves.
    """

    origin: str
    target: str
    horizon_days: int
    edges: tuple[float, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def of(self, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the band of each probability."""
        return np.searchsorted(self.edges, probability, side="right").astype(np.int64)


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """The bands of every transition and horizon with enough customers.

    cut: ISO instant of the model that was evaluated, which is the registered one's recipe; instants: of the snapshots.
    """

    cut: str
    instants: tuple[str, ...]
    bands: tuple[Bands, ...]

    def find(self, origin: str, target: str, horizon_days: int) -> Bands | None:
        """Return the bands of a transition and horizon, None where there is no record."""
        wanted = (origin, target, horizon_days)
        return next((one for one in self.bands if (one.origin, one.target, one.horizon_days) == wanted), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the record of ``as_dict``."""
        bands: list[dict[str, Any]] = [
            {name: tuple(value) if isinstance(value, list) else value for name, value in one.items()}
            for one in document["bands"]
        ]
        return cls(document["cut"], tuple(document["instants"]), tuple(Bands(**one) for one in bands))


NO_RECORD = TrackRecord("", (), ())
