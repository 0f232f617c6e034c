"""Whether tonight's sources can be trusted: fresh, whole, and of the same columns as on the night before.

What each source brought lately: its rows by the day on which they became known, up to an instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, GatesSpec, Silence
from cvj_ml.customers import Naming
from cvj_ml.errors import DataError, GateError
from cvj_ml.gates.verdicts import Earlier, GateVerdict, graded, passed
from cvj_ml.store import Store, arrivals
from cvj_ml.windows import Instants, before, time_until

WARN_DAYS, FAIL_DAYS = 2, 7
"""Below so many days no silence of a source warns, or fails, by what is usual."""

FEW_ROWS = 100
"""A source is compared with the night before from so many rows on."""

USUAL_WEEKS, FEW_A_WEEK = 12, 20
"""The last week of a source is compared with the median of so many before, from so many rows in it on."""

_DATA, _QUALITY = DataError.exit_code, GateError.exit_code


def preflight(
    spec: GatesSpec, store: Store, found: Mapping[str, Activity], earlier: Earlier | None, cut: int | None, as_of: int
) -> list[GateVerdict]:
    """Evaluate the sources against themselves and the last published night before, and the model's age.

    found: what `activity` says of each source at ``as_of``; cut: where the model's training ended.
    """
    verdicts = [fresh(spec, name, one) for name, one in found.items()]
    verdicts += [volume(spec, name, one) for name, one in found.items()]
    verdicts += [rows(spec, name, one, earlier) for name, one in found.items()]
    return [*verdicts, *columns(spec, store, earlier), model_age(spec, cut, as_of)]


def fresh(spec: GatesSpec, name: str, found: Activity) -> GateVerdict:
    """Evaluate how long ago a source last brought an ordinary day's rows."""
    gate, asked = f"freshness:{name}", spec.freshness_of(name)
    longest, recent = found.usual_silence(LOOKBACK), found.usual_silence(RECENT)
    warn = _limit(asked.warn, None if recent is None else max(WARN_DAYS, recent))
    fail = _limit(asked.fail, None if longest is None else max(FAIL_DAYS, 2 * longest))
    silence = LOOKBACK if found.silence is None else found.silence
    before = "too few days with rows to know its rhythm" if longest is None else f"at most {longest} before"
    told = f"silent for {silence} day(s) up to this night ({before})"
    advice = (
        f"Check that its export ran; if it has ended for good, set gates.sources.{name}: {{warn: null, fail: null}}"
    )
    return graded(gate, float(silence), warn, fail, told, advice, _DATA)


def _limit(asked: Silence, usual: int | None) -> float | None:
    """Return a limit in days: what is configured, or what is usual where that is known."""
    if asked == "usual":
        return usual if usual is None else float(usual)
    return None if asked is None else asked / DAY


def volume(spec: GatesSpec, name: str, found: Activity) -> GateVerdict:
    """Evaluate whether the last 7 days brought about as many rows as a usual week: the middle one of 12 before."""
    gate = f"volume:{name}"
    weeks = found.days[: 7 * (1 + USUAL_WEEKS)].reshape(-1, 7).sum(axis=1)
    usual = float(np.median(weeks[1:]))
    if usual < FEW_A_WEEK:
        return passed(gate, f"fewer than {FEW_A_WEEK} rows in a usual week, too few to compare", _DATA)
    told = f"{weeks[0]:,} rows became known in the last 7 days, {usual:,.0f} are usual"
    advice = "Has everything arrived? A part of an export looks fresh, and its customers look as if they were leaving"
    return graded(gate, max(1 - weeks[0] / usual, 0.0), spec.volume.warn, spec.volume.fail, told, advice, _DATA)


def rows(spec: GatesSpec, name: str, found: Activity, earlier: Earlier | None) -> GateVerdict:
    """Evaluate whether the rows that the night before had seen are still there, and no more of them."""
    gate = f"rows:{name}"
    then = earlier.rows.get(name) if earlier else None
    if earlier is None or then is None:
        return passed(gate, "no published night before to compare with", _QUALITY)
    if max(then, found.seen) < FEW_ROWS:
        return passed(gate, f"fewer than {FEW_ROWS} rows, too few to compare", _QUALITY)
    change = abs(found.seen - then) / max(then, 1)
    told = (
        f"{found.seen} rows were known by {earlier.name}, that night had {then} ({found.seen / max(then, 1) - 1:+.0%})"
    )
    missing = "Rows are missing: is the export complete, or was it cut to a shorter time?"
    more = "Rows were added to the past: was a file read twice, or older history delivered?"
    return graded(gate, change, spec.rows.warn, spec.rows.fail, told, missing if found.seen < then else more, _QUALITY)


def columns(spec: GatesSpec, store: Store, earlier: Earlier | None) -> list[GateVerdict]:
    """Evaluate the columns of all tables: new and unread lost ones warn, lost or retyped ones that are read fail."""
    if spec.columns is None:
        return []
    verdicts = []
    for table, now in store.columns.items():
        then = earlier.columns.get(table) if earlier else None
        if then is None:
            verdicts.append(passed(f"columns:{table}", "no published night before to compare with", _DATA))
            continue
        lost = [f"{name!r} is gone" for name, one in then.items() if one["read"] and name not in now]
        lost += [
            f"{name!r} was {then[name]['kind']} and is {one['kind']}"
            for name, one in now.items()
            if name in then and one["kind"] != then[name]["kind"] and (one["read"] or then[name]["read"])
        ]
        new = [f"{name!r} is new" for name in now if name not in then]
        new += [
            f"{name!r}, which nothing reads, is gone"
            for name, one in then.items()
            if not one["read"] and name not in now
        ]
        verdicts.append(_columns(f"columns:{table}", lost, new, spec.columns))
    return verdicts


def _columns(gate: str, lost: list[str], new: list[str], severity: Literal["fail", "warn"]) -> GateVerdict:
    if not lost and not new:
        return GateVerdict(gate, "pass", 0.0, 0.0, "the same columns as on the night before", _DATA)
    told = "; ".join([*lost, *new])
    if lost:
        advice = "Ask who delivers it what has changed, and map the column anew"
        return GateVerdict(gate, severity, float(len(lost)), 0.0, f"{told}. {advice}", _DATA)
    return GateVerdict(gate, "warn", float(len(new)), 0.0, told, _DATA)


def matched(spec: GatesSpec, table: str, found: Naming, earlier: Earlier | None) -> GateVerdict:
    """Evaluate whether a table of people still names as large a share of customers as on the night before."""
    gate, then = f"matched:{table}", earlier.naming.get(table) if earlier else None
    if earlier is None or then is None or not then.share or not found.rows:
        return passed(gate, f"{found}; no published night before to compare with", _QUALITY)
    lost = 1 - found.share / then.share
    told = f"{found}; on {earlier.name} it was {then.nobody:,} of {then.rows:,}"
    advice = "Are ids written otherwise since, or did rows of strangers come?"
    return graded(gate, max(lost, 0.0), spec.matched.warn, spec.matched.fail, told, advice, _QUALITY)


def model_age(spec: GatesSpec, cut: int | None, as_of: int) -> GateVerdict:
    """Evaluate how long before the night the model's knowledge ends, and that it does not end after it."""
    gate = "model_age"
    if cut is None:
        return passed(gate, "the model does not say where its training ended", _QUALITY)
    age = -int(time_until(np.array([cut]), as_of)[0]) / DAY
    if age < 0:
        told = f"the model was trained on {-age:g} day(s) after this night: it has seen what it is to predict"
        return GateVerdict(gate, "warn", age, 0.0, f"{told}. Do not judge the model by such nights", _QUALITY)
    warn, fail = (None if one is None else one / DAY for one in (spec.model_age.warn, spec.model_age.fail))
    told = f"the model's training ended {age:g} day(s) before this night"
    return graded(gate, age, warn, fail, told, "Train anew", _QUALITY)


def cohort(spec: GatesSpec, customers: int, earlier: Earlier | None) -> GateVerdict:
    """Evaluate how many customers were scored, alone and against the night before."""
    gate, levels = "customers", spec.customers
    if customers < levels.fewest:
        told = f"{customers} customer(s) to score, fewer than gates.customers.fewest {levels.fewest}"
        advice = "Check --as-of and that the sources hold whole histories"
        return GateVerdict(
            gate, "fail", float(customers), float(levels.fewest), f"{told}. {advice}", _QUALITY, small=True
        )
    if earlier is None or not earlier.customers:
        return passed(gate, f"{customers} customers, no published night before to compare with", _QUALITY)
    lost = (earlier.customers - customers) / earlier.customers
    told = f"{customers} customers, {earlier.customers} on {earlier.name} ({-lost:+.0%})"
    # A business may grow as it likes in the time between two nights; it does not lose its customers.
    missing = "Customers are missing: is an export incomplete, or are ids written otherwise?"
    return graded(gate, max(lost, 0.0), levels.warn, levels.fail, told, missing, _QUALITY)


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
