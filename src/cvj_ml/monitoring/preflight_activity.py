"""What each source brought lately: its rows by the day on which they became known, up to an instant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY
from cvj_ml.sources import Store, arrivals
from cvj_ml.windows import Instants, before, time_until

LOOKBACK = 400
"""Days that are looked at: a year and a month, so that a silence of every winter is known."""

RECENT = 90
"""Days that say what is usual now."""

_SPARSE = 20
_ORDINARY = 0.05
_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Activity:
    """Rows of one source: ``days`` counts those that became known in the last 24 hours, the 24 before, and so on.

    ``visible`` is how many were known at the instant in all, ``seen`` how many of them at an earlier one.
    """

    days: _I64
    visible: int
    seen: int

    def __add__(self, other: Activity) -> Activity:
        return Activity(self.days + other.days, self.visible + other.visible, self.seen + other.seen)

    @property
    def silence(self) -> int | None:
        """Whole days since the last ordinary day, None where there was none.

        A day with less than a twentieth of the usual rows does not count: a stray row with a date of its own invention
        must not make a dead source look alive.
        """
        days = self._ordinary()
        return int(days[0]) if len(days) else None

    def usual_silence(self, lookback: int) -> int | None:
        """Return the longest silence (days) between ordinary days of the time before; None where they are too few."""
        days = self._ordinary()
        days = days[days < lookback + days[0]] if len(days) else days
        return int(np.diff(days).max()) - 1 if len(days) >= _SPARSE else None

    def _ordinary(self) -> _I64:
        busy = self.days[self.days > 0]
        return np.flatnonzero(self.days >= max(1.0, _ORDINARY * float(np.median(busy)))) if len(busy) else busy


def activity(store: Store, as_of: int, earlier: int | None) -> dict[str, Activity]:
    """Return what each touchpoint source brought, as known at an instant and at an earlier one."""
    found = {name: Activity(np.zeros(LOOKBACK, dtype=np.int64), 0, 0) for name in store.counts}
    for bucket, customers in enumerate(store.bucket_customers):
        if customers:
            rows = arrivals(store, bucket)
            sources = rows["source"].combine_chunks().dictionary_encode()
            codes = sources.indices.to_numpy(zero_copy_only=False)
            instants = rows["visible_at"].to_numpy()
            for code, name in enumerate(sources.dictionary.to_pylist()):
                found[name] += _count(instants[codes == code], as_of, earlier)
    return found


def _count(visible_at: Instants, as_of: int, earlier: int | None) -> Activity:
    known = visible_at[before(visible_at, as_of)]
    # A row of the last microsecond is 0 days old, one of exactly a day before is, too.
    days = (-time_until(known, as_of) - 1) // DAY
    return Activity(
        np.bincount(days[days < LOOKBACK], minlength=LOOKBACK),
        len(known),
        0 if earlier is None else int(np.count_nonzero(before(known, earlier))),
    )
