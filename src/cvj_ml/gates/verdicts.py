"""What a night has to pass before it is published: verdicts, and the error that says which of them failed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from cvj_ml.customers import Naming
from cvj_ml.errors import CvjError, DataError, GateError

Level = Literal["pass", "warn", "fail"]

_DATA = DataError.exit_code
_QUALITY = GateError.exit_code


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What a gate says: what was found, what the limit of this level is, and in words what moved and what to do.

    ``name`` is the gate, and after a colon what it looked at: ``rows:invoices``. ``limit`` is the one that was passed
    over, or of a verdict ``pass`` the next one; None where there is none. ``small`` is a failure for little data alone.
    ``waived`` says why a failure only warns: a person has accepted it for this night, or a person watches the run and
    the data is small.
    """

    name: str
    level: Level
    value: float | None
    limit: float | None
    message: str
    exit_code: int
    small: bool = False
    waived: Literal["accepted", "watched"] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain data; what is no finite number is null."""
        found = asdict(self)
        for name in ("value", "limit"):
            number = found[name]
            found[name] = None if number is None or not math.isfinite(number) else float(number)
        return found


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the last published night before this one had: rows known by source, columns by table, customers.

    ``name`` is its date, ``as_of`` its instant; ``naming`` says how its people's tables named the log's customers.
    """

    name: str
    as_of: int
    rows: Mapping[str, int]
    columns: Mapping[str, Mapping[str, Mapping[str, Any]]]
    customers: int
    naming: Mapping[str, Naming] = field(default_factory=dict)


def graded(
    name: str, value: float, warn: float | None, fail: float | None, told: str, advice: str, exit_code: int
) -> GateVerdict:
    """Return the verdict on a value that should not go above its limits; advice goes with what went above."""
    if fail is not None and value > fail:
        return GateVerdict(name, "fail", value, fail, f"{told}. {advice}", exit_code)
    if warn is not None and value > warn:
        return GateVerdict(name, "warn", value, warn, f"{told}. {advice}", exit_code)
    return GateVerdict(name, "pass", value, fail if warn is None else warn, told, exit_code)


def passed(name: str, message: str, exit_code: int) -> GateVerdict:
    """Return a verdict that had nothing to compare."""
    return GateVerdict(name, "pass", None, None, message, exit_code)


def accept(verdicts: Iterable[GateVerdict], names: Collection[str], *, watched: bool = False) -> list[GateVerdict]:
    """Return the verdicts with those failures as warnings that a person accepts by their name for this night.

    Where a person watches the run, little data is no failure either: a first try of few customers must stay possible.
    """
    return [_waived(one, names, watched) if one.level == "fail" else one for one in verdicts]


def _waived(failed: GateVerdict, names: Collection[str], watched: bool) -> GateVerdict:
    if failed.name in names:
        told = f"{failed.message} (accepted for this night)"
        return replace(failed, level="warn", message=told, waived="accepted")
    if watched and failed.small:
        told = f"{failed.message}. `cvj-ml nightly` would not publish this night unwatched"
        return replace(failed, level="warn", message=told, waived="watched")
    return failed


def require(verdicts: Iterable[GateVerdict]) -> None:
    """Raise one error that lists every failed gate; DataError where any of them is about the data."""
    failed = [one for one in verdicts if one.level == "fail"]
    if not failed:
        return
    kind: type[CvjError] = DataError if any(one.exit_code == _DATA for one in failed) else GateError
    lines = [f"{one.name}: {one.message}" for one in failed]
    names = " ".join(f"--accept {one.name}" for one in failed)
    raise kind(
        "The night is not published; the last one stays current. What did not pass:"
        + "".join(f"\n  - {line}" for line in lines)
        + f"\nIf this is as it should be, publish this one night with {names}; docs/gates.md tells of each gate."
    )
