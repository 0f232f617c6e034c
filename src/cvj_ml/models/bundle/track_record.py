"""What happened before to customers scored like this: kept beside a model, shown beside its probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

NEAREST = 100
"""Past customers whom a probability is compared with: of 100, Wilson's 95 % interval is at most 19.3 points wide."""

FEWEST = 50
"""Past customers without whom nothing is said of a probability."""

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]


class Nearby(NamedTuple):
    """Past customers near some probabilities (rows,): how many, how many of them moved, their mean prediction.

    Where too few lie near enough n and k are 0 and predicted is NaN.
    """

    n: _I64
    k: _I64
    predicted: _F64


@dataclass(frozen=True, slots=True)
class PastScores:
    """What became of the customers who were scored for one transition and horizon, in cells from the lowest score up.

    A cell is at least `min_customers` customers with neighbouring scores: predicted is the mean of their probabilities
    (three digits), n how many they are, k how many of them moved. No score of a single customer is kept.
    """

    origin: str
    target: str
    horizon_days: int
    predicted: tuple[float, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]

    def near(self, probability: _F64, within: float) -> Nearby:
        """Return the past customers nearest to each probability (rows,), whole cells at a time.

        Of all runs of neighbouring cells that just hold `NEAREST` customers, the one whose mean prediction is nearest
        is taken, less the cells whose mean lies farther than ``within`` from the probability; `FEWEST` must remain.
        """
        predicted, n, k = np.array(self.predicted), np.array(self.n), np.array(self.k)
        # Differences of these are sums over runs.
        sizes, moved, sums = (np.concatenate([[0], np.cumsum(one)]) for one in (n, k, n * predicted))
        ends = np.searchsorted(sizes, sizes[:-1] + NEAREST, side="left")
        # The last run begins where hardly as many are left; with fewer in all, it is everybody.
        begins = np.arange(max(int((ends < len(sizes)).sum()), 1))
        ends = np.minimum(ends[begins], len(n))
        centres = (sums[ends] - sums[begins]) / (sizes[ends] - sizes[begins])
        run = np.searchsorted((centres[1:] + centres[:-1]) / 2, probability, side="left")
        # A hair's breadth: 0.3 + 0.1 is not 0.4.
        first = np.maximum(begins[run], np.searchsorted(predicted, probability - within - 1e-9, side="left"))
        end = np.minimum(ends[run], np.searchsorted(predicted, probability + within + 1e-9, side="right"))
        end = np.maximum(first, end)
        found = sizes[end] - sizes[first]
        enough = found >= FEWEST
        return Nearby(
            np.where(enough, found, 0),
            np.where(enough, moved[end] - moved[first], 0),
            np.where(enough, (sums[end] - sums[first]) / np.maximum(found, 1), np.nan),
        )


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """The past scores of every transition and horizon with enough customers.

    cut: ISO instant of the model that was evaluated, which is the registered one's recipe; instants: of the snapshots.
    """

    cut: str
    instants: tuple[str, ...]
    scores: tuple[PastScores, ...]

    def find(self, origin: str, target: str, horizon_days: int) -> PastScores | None:
        """Return the past scores of a transition and horizon, None where there is no record."""
        wanted = (origin, target, horizon_days)
        return next((one for one in self.scores if (one.origin, one.target, one.horizon_days) == wanted), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the record of ``as_dict``."""
        scores: list[dict[str, Any]] = [
            {name: tuple(value) if isinstance(value, list) else value for name, value in one.items()}
            for one in document["scores"]
        ]
        return cls(document["cut"], tuple(document["instants"]), tuple(PastScores(**one) for one in scores))


NO_RECORD = TrackRecord("", (), ())
