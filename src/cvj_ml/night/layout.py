"""The names in an output folder, and writing that survives a power cut."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

from cvj_ml.io import sync
from cvj_ml.ownership import remove

MANIFEST = "MANIFEST.json"
RUN = "run.json"
SUCCESS = "_SUCCESS"
CURRENT = "CURRENT.json"
LOCK = ".lock"
FORGOTTEN = "forgotten.json"
STAGED = ".staged-"
LISTS = "targets"

# Of Linux: paths are relative to the working folder; the two names change places.
_HERE, _EXCHANGE = -100, 2

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


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
