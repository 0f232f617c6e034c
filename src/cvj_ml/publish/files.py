"""The names in an output folder, and writing that survives a power cut."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"
RUN = "run.json"
SUCCESS = "_SUCCESS"
CURRENT = "CURRENT.json"
LOCK = ".lock"
STAGED = ".staged-"
LISTS = "targets"

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def as_json(document: Any) -> str:
    """Return a document as text: the same content gives the same bytes."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def replace_file(path: Path, text: str, mode: int = PRIVATE_FILE) -> None:
    """Write a file whole or not at all: beside it, onto the disk, then renamed over it."""
    beside = path.with_name(f"{STAGED}{path.name}-{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.chmod(mode)
        sync(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_plain_file(path: Path) -> bool:
    """Return whether a path is a file itself: no link, no pipe, no device."""
    return stat.S_ISREG(path.lstat().st_mode)
