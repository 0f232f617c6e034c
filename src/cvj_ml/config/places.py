"""Which places are whose: nothing that a person owns may lie below the folder in which things are removed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from cvj_ml.config.base import is_object
from cvj_ml.config.tables import TableSpec
from cvj_ml.ownership import FOLDERS

_ELSEWHERE = "put it elsewhere, or name another folder under out"


def lies_below(path: str, folder: str) -> bool:
    """Return whether a path lies in a folder, or is it: as it is written, or where links lead."""
    written, real = (os.path.abspath(path), os.path.abspath(folder)), (os.path.realpath(path), os.path.realpath(folder))
    return any(Path(one).is_relative_to(other) for one, other in (written, real))


def out_faults(out: str, tables: Mapping[str, TableSpec], tracking_uri: str, beside: Path | None) -> list[str]:
    """Return what lies below an output folder, or may come to lie there, and is not its own.

    tables: by label; beside: the folder of the configuration file, if it has one.
    """
    faults = []
    if beside is not None and lies_below(str(beside), out):
        faults.append(
            f"out: {out} is the folder of this configuration, or one above it. Files are removed in out, so it has to"
            " be a folder of its own, such as out: out"
        )
    for label, pattern in _patterns(tables):
        if lies_below(pattern, out):
            faults.append(f"{label}: {pattern} lies below out ({out}), where files are removed; {_ELSEWHERE}")
        elif glob.has_magic(pattern) and _can_match_below(pattern, out):
            faults.append(
                f"{label}: {pattern} also matches files below out ({out}), which are made of the sources; write a"
                " narrower pattern, or name another folder under out"
            )
    return [*faults, *_registry_faults(out, tracking_uri)]


def _patterns(tables: Mapping[str, TableSpec]) -> Iterator[tuple[str, str]]:
    """Return the paths of files on this machine, each with its place in the configuration."""
    for label, spec in tables.items():
        named = {"path": spec.path or (), **{f"files.{name}": patterns for name, patterns in spec.files.items()}}
        for place, patterns in named.items():
            yield from ((f"{label}.{place}", pattern) for pattern in patterns if not is_object(pattern))


def _can_match_below(pattern: str, out: str) -> bool:
    """Return whether a pattern can match a file in a folder, now or later."""
    parts = Path(os.path.abspath(pattern)).parts
    plain = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    start, rest = os.path.realpath(Path(*parts[:plain])), parts[plain:]
    folder = os.path.realpath(out)
    if not Path(folder).is_relative_to(start):
        return False
    return _goes_through(rest, Path(folder).relative_to(start).parts)


def _goes_through(pattern: tuple[str, ...], folders: tuple[str, ...]) -> bool:
    """Return whether the folders can be the first parts of what a pattern matches, with more parts after them."""
    if not pattern:
        return False
    if pattern[0] == "**":
        return True
    if not folders:
        return True
    hidden = folders[0].startswith(".") and not pattern[0].startswith(".")
    return not hidden and fnmatchcase(folders[0], pattern[0]) and _goes_through(pattern[1:], folders[1:])


def _registry_faults(out: str, tracking_uri: str) -> list[str]:
    """Return that a registry's file lies in a folder that is removed; in out itself, or beside it, it is safe."""
    scheme, _, path = tracking_uri.partition(":///")
    database = os.path.realpath(path.partition("?")[0])
    if scheme != "sqlite" or not lies_below(database, out):
        return []
    inside = Path(database).relative_to(os.path.realpath(out)).parts
    first = inside[0] if len(inside) > 1 else ""
    if first in FOLDERS or first.startswith((".", "as_of=")):
        return [
            f"mlflow.tracking_uri: {database} lies in {first}, a folder of out in which files are removed; {_ELSEWHERE}"
        ]
    return []
