"""The names in an output folder, the one walk over its nights, and writing that survives a power cut."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cvj_ml.exports import EXPORTS, MEMBERS
from cvj_ml.io import sync
from cvj_ml.ownership import remove
from cvj_ml.scoring import SCORES
from cvj_ml.windows import to_microseconds

MANIFEST = "MANIFEST.json"
RUN = "run.json"
SUCCESS = "_SUCCESS"
CURRENT = "CURRENT.json"
LOCK = ".lock"
FORGOTTEN = "forgotten.json"
POSTED = "POSTED.json"
STAGED = ".staged-"
LISTS = "targets"
SUMMARY = "summary"
CHANGES = "changes"

# Of Linux: paths are relative to the working folder; the two names change places.
_HERE, _EXCHANGE = -100, 2

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


@dataclass(frozen=True, slots=True)
class NightFolder:
    """A folder in the place of a night, finished or not; nothing of it is read before it is asked for."""

    path: Path

    @property
    def date(self) -> str:
        """The date, or the instant, of the night as its folder's folder is named."""
        return self.path.parent.name.removeprefix("as_of=")

    @property
    def finished(self) -> bool:
        """Whether the mark is there that is set last."""
        return (self.path / SUCCESS).is_file()

    @property
    def scores(self) -> Path:
        """The file of SCORES."""
        return self.path / SCORES

    @property
    def summary(self) -> Path:
        """The file with a row for each list."""
        return self.path / LISTS / f"{SUMMARY}.parquet"

    @property
    def changes(self) -> Path:
        """The file of what changed since the base nights."""
        return self.path / LISTS / f"{CHANGES}.parquet"

    def list_file(self, name: str) -> Path:
        """Return the file of a list."""
        return self.path / LISTS / f"{name}.parquet"

    def list_files(self) -> dict[str, Path]:
        """Return the files of the lists that are there, by the lists' names."""
        files = sorted((self.path / LISTS).glob("*.parquet"))
        return {file.stem: file for file in files if file.stem not in (SUMMARY, CHANGES)}

    @property
    def members(self) -> Path:
        """The file that says who is in which export, or has left one."""
        return self.path / EXPORTS / f"{MEMBERS}.parquet"

    def manifest(self) -> dict[str, Any]:
        """Return the manifest; OSError or ValueError where it cannot be read."""
        return _document(self.path / MANIFEST)

    def run(self) -> dict[str, Any]:
        """Return what the run said of itself; OSError or ValueError where it cannot be read."""
        return _document(self.path / RUN)


def instant_of(manifest: Mapping[str, Any]) -> int:
    """Return the instant of a night, which its manifest writes with the zone; ValueError, KeyError or TypeError."""
    return to_microseconds(datetime.fromisoformat(manifest["as_of"]))


def nights(out: Path, as_of: str = "*", *, newest_first: bool = False) -> Iterator[list[NightFolder]]:
    """Yield the folders in the place of nights, those of one date together, by date and then by name.

    Whether a folder is a finished night, and a whole one, is not asked: what to pass over is for each caller to say.
    """
    for date in sorted(out.glob(f"as_of={as_of}"), reverse=newest_first):
        if date.is_dir():
            yield [NightFolder(path) for path in sorted(date.iterdir()) if path.is_dir()]


def _document(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def replace_file(path: Path, text: str, mode: int = PRIVATE_FILE) -> None:
    """Write a file whole or not at all: beside it, onto the disk, then renamed over it."""
    beside = path.with_name(f"{STAGED}{path.name}-{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.chmod(mode)
        sync(beside)
        os.replace(beside, path)
    finally:
        remove(beside)
    sync(path.parent)


def exchange(one: Path, other: Path) -> None:
    """Let two folders change places, in one step where the system can: at no moment is either place empty."""
    system = ctypes.CDLL(None, use_errno=True)
    if hasattr(system, "renameat2"):
        failed = system.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
        if not failed:
            return
        if (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(other))
    beside = one.with_name(f"{one.name}-old")
    os.replace(other, beside)
    os.replace(one, other)
    os.replace(beside, one)


def is_plain_file(path: Path) -> bool:
    """Return whether a path is a file itself: no link, no pipe, no device."""
    return stat.S_ISREG(path.lstat().st_mode)
