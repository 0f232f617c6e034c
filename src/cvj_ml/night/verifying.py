"""Whether a published night is what was published: every file, every row, every count."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.errors import NightError, raise_all
from cvj_ml.exports import EXPORTS, LEFT_OUT
from cvj_ml.io import read_csv, sha256_of
from cvj_ml.lists import BASES
from cvj_ml.night.layout import CURRENT, LISTS, MANIFEST, RUN, SUCCESS, NightFolder, is_plain_file
from cvj_ml.night.reading import current_night
from cvj_ml.store.refusals import accounted_for

_OWN = {MANIFEST, RUN, SUCCESS}


@dataclass(frozen=True, slots=True)
class Verified:
    """A night that is whole: where it is, for which instant, and how much was checked."""

    folder: Path
    as_of: str
    model: str
    files: int
    rows_in: int
    manifest: Mapping[str, Any] = field(repr=False)


def verify_night(folder: Path) -> Verified:
    """Check a night's folder, or the current night of an output folder; NightError with every fault at once."""
    night = folder
    if not (folder / MANIFEST).is_file() and (folder / CURRENT).is_file():
        night = current_night(folder) or folder
    if not night.is_dir():
        raise NightError(
            f"{night}: there is no such night. Name the folder of a night, <out>/as_of=<date>/<digest>, or the output"
            " folder for its current one."
        )
    raise_all(NightError, _heading(night), night_faults(night))
    manifest = NightFolder(night).manifest()
    rows_in = sum(counts["rows_in"] for counts in manifest.get("counts", {}).values())
    return Verified(night, manifest["as_of"], manifest["model"], len(manifest["files"]), rows_in, manifest)


def verified_manifest(night: Path) -> dict[str, Any]:
    """Return the manifest of a published night, which its mark still names; NightError where that is not so."""
    faults = _own_faults(night)
    try:
        manifest = {} if faults else NightFolder(night).manifest()
    except ValueError:
        faults, manifest = [f"{MANIFEST} cannot be read"], {}
    raise_all(NightError, _heading(night), faults)
    return manifest


def verified_file(night: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """Return one file of a published night, which is as the verified manifest says; NightError where it is not.

    No other file is read, so this costs less than `verify_night`.
    """
    file, files = night / name, manifest.get("files", {})
    if name not in files:
        fault = f"{name} does not belong to the night"
    elif not file.exists():
        fault = f"{name} is missing"
    else:
        fault = _difference(file, name, files[name]["sha256"])
    raise_all(NightError, _heading(night), [fault] if fault else [])
    return file


def _heading(night: Path) -> str:
    return f"{night}: this is not what was published. Run the night again, which replaces it, or go back to a copy:"


def night_faults(night: Path) -> list[str]:
    """Return everything in which a folder differs from the night that was published there."""
    faults = _own_faults(night)
    if not (night / MANIFEST).is_file():
        return faults
    try:
        manifest = NightFolder(night).manifest()
        files = {str(name): (str(item["sha256"]), int(item["rows"])) for name, item in manifest["files"].items()}
        return [*faults, *_file_faults(night, files), *_count_faults(manifest, files)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [*faults, f"{MANIFEST} cannot be read"]


def _own_faults(night: Path) -> list[str]:
    """Return what is wrong with the files that a night is told by, but for what stands in them."""
    if not (night / MANIFEST).is_file():
        return [f"there is no {MANIFEST}, so this is no published night"]
    faults = [f"{name} is missing" for name in (SUCCESS, RUN) if not (night / name).is_file()]
    if not faults and (night / SUCCESS).read_text(encoding="utf-8", errors="replace").strip() != sha256_of(
        night / MANIFEST
    ):
        faults.append(f"{MANIFEST} was changed ({SUCCESS} names another sha256)")
    return faults


def _file_faults(night: Path, files: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    found = {path.relative_to(night).as_posix(): path for path in sorted(night.rglob("*"))}
    for name in sorted(files.keys() - found.keys()):
        yield f"{name} is missing"
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    for name, path in found.items():
        if name in files:
            digest, rows = files[name]
            if fault := _difference(path, name, digest):
                yield fault
            elif (counted := _rows_of(path)) not in (None, rows):
                yield f"{name} has {counted:,} rows, the manifest says {rows:,}"
        elif name not in _OWN and not (name in folders and path.is_dir() and not path.is_symlink()):
            yield f"{name} does not belong to the night"


def _difference(path: Path, name: str, digest: str) -> str:
    """Return how a file that is there differs from the one that was published, "" where it does not."""
    if not is_plain_file(path):
        return f"{name} is no plain file"
    return "" if sha256_of(path) == digest else f"{name} was changed (its sha256 differs from the manifest's)"


def _rows_of(path: Path) -> int | None:
    """Return the rows of a table, -1 where it is damaged; None for what is none."""
    try:
        if path.suffix == ".parquet":
            rows: int = pq.read_metadata(path).num_rows
            return rows
        if path.suffix == ".csv":
            # A line of another length is a cell that broke in two.
            lengths = Counter(map(len, read_csv(path)))
            return lengths.total() - 1 if len(lengths) == 1 else -1
    except (pa.ArrowException, csv.Error, UnicodeDecodeError):
        return -1
    return None


def _count_faults(manifest: Mapping[str, Any], files: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    """Yield where what came in, was used, exported or listed does not add up."""
    stored = 0
    for name, counts in manifest.get("counts", {}).items():
        accounted = accounted_for(counts)
        stored += counts["stored"]
        if counts["rows_in"] != accounted:
            yield f"{name}: {counts['rows_in']:,} rows came in, {accounted:,} are accounted for"
    if "rows" in manifest and (accounted := sum(manifest["rows"].values())) != stored:
        yield f"{stored:,} rows were stored, {accounted:,} are used, not yet visible or replaced"
    for one in manifest.get("exports", ()):
        accounted = one["written"] + sum(one[reason] for reason in LEFT_OUT)
        if one["looked_at"] != accounted:
            yield f"{one['export']}: {one['looked_at']:,} were looked at, {accounted:,} are accounted for"
        file = f"{EXPORTS}/{one['export']}.csv"
        if file in files and files[file][1] != one["written"]:
            yield f"{file}: {one['written']:,} are told, in {files[file][1]:,} rows"
    for one in manifest.get("lists", ()):
        file = f"{LISTS}/{one['list']}.parquet"
        listed = files.get(file, ("", -1))[1]
        if not one["listed"] == one["target"] + one["control"] == listed:
            yield (
                f"{file}: {one['listed']:,} are listed, {one['target']:,} to contact and {one['control']:,} in"
                f" control, in {listed:,} rows"
            )
        for base in BASES:
            yield from _change_faults(file, one, base)


def _change_faults(file: str, one: Mapping[str, Any], base: str) -> Iterator[str]:
    """Yield where a list, or its stage, is not what it was in a base night plus who came minus who left."""
    for now, came, left in (("listed", "new", "dropped"), ("in_stage", "entered", "left")):
        before = one.get(f"{now}_{base}")
        if before is not None and before + one[f"{came}_{base}"] - one[f"{left}_{base}"] != one[now]:
            yield (
                f"{file}: {now}_{base} {before:,} + {one[f'{came}_{base}']:,} − {one[f'{left}_{base}']:,} is not"
                f" {now} {one[now]:,}"
            )
