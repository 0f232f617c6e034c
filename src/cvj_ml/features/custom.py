"""Features of one's own: a function of what was visible of each customer strictly before an instant.

The function is named, never stored: every process imports it, and takes it only with the source that it had when the
model was trained. It is called once for each instant of a block, so nothing later than that instant is in its hands.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvj_ml.config.model import CustomFeature
from cvj_ml.errors import ConfigError, ModelError, raise_all
from cvj_ml.features.vocabulary import NUMBERS, TEXTS
from cvj_ml.histories import Column, Text, TouchpointColumns
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import Instants

CUSTOM = "custom"
"""The group of features of one's own, the last columns of X."""

_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PastTouchpoints:
    """What was visible of some customers strictly before ``as_of``, as it stood then; all that a function is given.

    Customer i has the rows ``offsets[i]:offsets[i + 1]`` of every other array, in the order of occurrence; ``offsets``
    is (customers + 1,). Who they are is not told. Instants (``as_of``, ``occurred_at``) are int64 microseconds since
    1970 UTC, ``day`` is the local calendar day since 1970. ``value`` is NaN where there is none, and negative for
    refunds that the journey names. ``event``, ``channel`` and properties of text hold str, None where nothing is
    known. ``inbound`` marks what the customer did. ``properties`` are those that the configuration names for the
    function. No array can be written to.
    """

    as_of: int
    offsets: npt.NDArray[np.int64]
    occurred_at: Instants
    day: npt.NDArray[np.int32]
    event: npt.NDArray[np.object_]
    channel: npt.NDArray[np.object_]
    value: _F64
    inbound: npt.NDArray[np.bool_]
    properties: Mapping[str, _F64 | npt.NDArray[np.object_]]

    def __len__(self) -> int:
        """Return the number of customers."""
        return len(self.offsets) - 1

    def owners(self) -> npt.NDArray[np.int64]:
        """Return each row's customer: (rows,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


Function = Callable[[PastTouchpoints], Any]


@dataclass(frozen=True, slots=True)
class CustomColumns:
    """A function by name, the columns that it fills, the properties it reads, and the sha256 of its module's source."""

    spec: CustomFeature
    digest: str

    @classmethod
    def of(cls, specs: Sequence[CustomFeature]) -> tuple[CustomColumns, ...]:
        """Return the functions as they are now; ConfigError, with every fault, for those that cannot be had."""
        found, faults = list[CustomColumns](), list[str]()
        for spec in specs:
            fault = _fault(spec.function)
            if fault is None:
                found.append(cls(spec, _digest(spec.function)))
            else:
                faults.append(f"{spec.name}: {fault}")
        raise_all(ConfigError, "features.custom cannot be used:", faults)
        return tuple(found)


def require_functions(functions: Sequence[CustomColumns], allowed: Collection[str] | None, place: str) -> None:
    """Raise ModelError unless every function of a model is named by the configuration, there, and unchanged.

    ``allowed`` are the functions that a configuration names (None: whatever the model names), so that a bundle alone
    cannot have anything imported.
    """
    faults = []
    for one in functions:
        name, function = one.spec.name, one.spec.function
        if allowed is not None and function not in allowed:
            faults.append(
                f"{name}: {function} is not named by the configuration, so it is not imported. Name it under"
                " features.custom, or where a model is loaded by Model.load(folder, functions=[…])"
            )
        elif (fault := _fault(function)) is not None:
            faults.append(f"{name}: {fault}")
        elif _digest(function) != one.digest:
            faults.append(
                f"{name}: {function} is not the one that the model was trained with (its module's source has the sha256"
                f" {_digest(function)[:12]}…, then it had {one.digest[:12]}…). Restore that source, or train anew"
            )
    raise_all(ModelError, f"{place}: the model uses features of your own that cannot be had here:", faults)


def custom_columns(
    functions: Sequence[CustomColumns],
    points: TouchpointColumns,
    kinds: Mapping[str, str],
    minor_units: float,
    snapshots: Snapshots,
) -> _F64:
    """Return the numbers of each function for each snapshot: (snapshots, columns).

    ``kinds`` are those of properties that a model learned from, for a block that has none of them. ConfigError where a
    function fails, or returns what is no number a customer; ModelError where it is another one than it was.
    """
    require_functions(functions, None, "features.custom")
    out = np.full((len(snapshots), sum(len(one.spec.feature_names) for one in functions)), np.nan)
    properties = sorted({name for one in functions for name in one.spec.properties})
    moments, which = np.unique(snapshots.as_of, return_inverse=True)
    for i, moment in enumerate(moments.tolist()):
        rows = np.flatnonzero(which == i)
        # What is cut here is all that a function of one's own ever sees: rows, texts and numbers of the past.
        mine = points.take(snapshots.customer[rows])
        past = _past(mine.keep(mine.live(moment)), moment, properties, kinds, minor_units)
        out[rows] = np.column_stack([_answers(one.spec, _for(one.spec, past)) for one in functions])
    return out


def _for(spec: CustomFeature, past: PastTouchpoints) -> PastTouchpoints:
    """Return what is given to one function: of the properties those that it names."""
    return replace(past, properties={name: past.properties[name] for name in spec.properties})


def _past(
    seen: TouchpointColumns, as_of: int, properties: Sequence[str], kinds: Mapping[str, str], minor_units: float
) -> PastTouchpoints:
    found = PastTouchpoints(
        as_of,
        seen.offsets.copy(),
        seen.occurred_at,
        seen.day,
        _texts(seen.event),
        _texts(seen.channel),
        np.where(seen.has_value, seen.value / minor_units, np.nan),
        seen.inbound,
        {name: _property(seen.properties.get(name), kinds.get(name, NUMBERS), len(seen)) for name in properties},
    )
    arrays = (found.offsets, found.occurred_at, found.day, found.event, found.channel, found.value, found.inbound)
    for array in (*arrays, *found.properties.values()):
        array.setflags(write=False)
    return found


def _texts(column: Text) -> npt.NDArray[np.object_]:
    # The names of the whole block would tell which ones come later.
    words: npt.NDArray[np.object_] = np.array([*column.values, None], dtype=object)[column.codes]
    return words


def _property(column: Column | None, kind: str, rows: int) -> _F64 | npt.NDArray[np.object_]:
    if isinstance(column, Text):
        return _texts(column)
    if column is not None:
        return column.copy()
    return np.full(rows, None, dtype=object) if kind == TEXTS else np.full(rows, np.nan)


def _answers(spec: CustomFeature, past: PastTouchpoints) -> _F64:
    try:
        answer = _function(spec.function)(past)
    except Exception as error:
        # Its words may quote what a customer did, so only its kind is told.
        raise ConfigError(
            f"features.custom: {spec.function} failed with {type(error).__name__}{_where(error)}; call it yourself with"
            " the cvj_ml.PastTouchpoints that it has to take."
        ) from None
    if not spec.columns:
        return _numbers(spec.function, "it", answer, len(past))[:, None]
    if not isinstance(answer, Mapping) or set(answer) != set(spec.columns):
        got = sorted(map(str, answer)) if isinstance(answer, Mapping) else type(answer).__name__
        raise ConfigError(
            f"features.custom: {spec.function} has to return an array for each of {', '.join(spec.columns)}, by name;"
            f" it returned {got}."
        )
    return np.column_stack([_numbers(spec.function, name, answer[name], len(past)) for name in spec.columns])


def _numbers(function: str, name: str, answer: Any, customers: int) -> _F64:
    found = np.asarray(answer)
    if found.shape != (customers,) or found.dtype.kind not in "biuf":
        raise ConfigError(
            f"features.custom: {function}: {name} has to be an array of {customers} numbers, one a customer; found"
            f" {found.dtype} of the shape {found.shape}."
        )
    numbers = found.astype(np.float64)
    if bad := int(np.isinf(numbers).sum()):
        raise ConfigError(
            f"features.custom: {function}: {name} is infinite for {bad} of {customers} customers; return NaN"
            " for what is not known."
        )
    return numbers


def _where(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" in line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name}" if trace else ""


def _fault(function: str) -> str | None:
    """Return why a function cannot be had here, None where it can."""
    module, name = function.split(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        # The module that is missing may be another one, which the function's own asks for.
        missing = f" (no module {error.name!r})" if isinstance(error, ModuleNotFoundError) else _where(error)
        return (
            f"{module} cannot be imported: {type(error).__name__}{missing}. Install it where this runs, or put its"
            " folder into PYTHONPATH"
        )
    if not callable(found):
        return f"{module} has no function {name!r}"
    return None if _source(module) else f"{module} has no file, so nobody can tell whether it has changed"


@cache
def _function(function: str) -> Function:
    module, name = function.split(":")
    found: Function = getattr(importlib.import_module(module), name)
    return found


@cache  # of the source that this process has imported; a later one is the next process's
def _digest(function: str) -> str:
    source = _source(function.split(":")[0])
    return hashlib.sha256(source.read_bytes()).hexdigest() if source else ""


def _source(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None
