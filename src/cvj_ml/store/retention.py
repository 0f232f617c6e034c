"""How a store gets into its place, and which stay: those that somebody holds, the present one, the one before.

All marks are locks of the operating system, which ends them with their process, in whatever way that ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cvj_ml.config import Config
from cvj_ml.errors import CvjError, LockedError, StoreError
from cvj_ml.io import sync
from cvj_ml.ownership import open_lock, remove
from cvj_ml.store.store import MANIFEST, Store, open_store

GUARD = ".lock"
"""The file in the folder of all stores that is locked while one is looked up, put in its place or taken away."""

_NAME = re.compile("[0-9a-f]{12}")
_STAGING, _REMOVED = ".staging-", ".removed-"
_USED = "in-use"
_PRIVATE = 0o600


@contextmanager
def guarded(root: Path) -> Iterator[None]:
    """Let no other process look up, put in place or take away a store meanwhile; for short steps only."""
    handle = open_lock(root / GUARD)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def hold_store(store: Store) -> Store:
    """Hold a store, within ``guarded``, for as long as the object lives: no other run takes its files away.

    Copies of the object in other processes hold nothing; the process that gave them their work does.
    """
    handle = os.open(store.folder / MANIFEST, os.O_RDWR)  # network disks lock only what is open for writing
    weakref.finalize(store, os.close, handle)
    fcntl.flock(handle, fcntl.LOCK_SH)
    os.utime(store.folder)  # the one before is the one that was used last
    return store


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """Make a folder to build a store in, and remove it afterwards; other runs leave it alone meanwhile."""
    with guarded(root):
        folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=root))
        handle = os.open(folder / _USED, os.O_RDWR | os.O_CREAT, _PRIVATE)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        remove(folder)
        os.close(handle)


def clear(root: Path, present: Store, damaged: Collection[Path] = ()) -> None:
    """Remove the stores that nobody holds, except the present one and the one before, and what killed runs left.

    One before that is ``damaged`` goes, too.
    """
    with guarded(root):
        stores = [path for path in root.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
        others = [path for path in stores if path.name != present.folder.name]
        others.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        gone = [path for path in others if path in damaged or path != others[0]]
        set_aside(root, [path for path in gone if not _is_held(path / MANIFEST)])
        set_aside(root, [path for path in root.glob(f"{_STAGING}*") if not _is_held(path / _USED)])
    for path in root.glob(f"{_REMOVED}*"):
        remove(path)


def take_away(root: Path, present: Store) -> int:
    """Remove every store but one, whatever it was kept for, and all else that lies there; return how many went.

    Raises LockedError, and removes nothing, where another run reads one of them, or makes one.
    """
    with guarded(root):
        kept = (present.folder.name, GUARD)
        others = [path for path in root.iterdir() if path.name not in kept and not path.name.startswith(_REMOVED)]
        if any(_is_held(path / name) for path in others for name in (MANIFEST, _USED)):
            raise LockedError(
                f"{root}: another run is reading customers from here, and nothing was removed; run again when that one"
                " has ended."
            )
        set_aside(root, others)
    for path in root.glob(f"{_REMOVED}*"):
        remove(path, strict=True)
    return len(others)


def set_aside(root: Path, folders: Iterable[Path]) -> None:
    """Rename folders, within ``guarded``, so that nobody finds half of one; ``clear`` removes them."""
    for folder in folders:
        folder.rename(Path(tempfile.mkdtemp(prefix=_REMOVED, dir=root)) / folder.name)


def to_disk(folder: Path, deep: bool = True) -> None:
    """Return when the entries of a folder, and all that is in it where ``deep``, are on the disk."""
    inside = folder.rglob("*") if deep else ()
    for path in (*inside, folder):
        sync(path)


def _is_held(file: Path) -> bool:
    try:
        handle = os.open(file, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def put_in_place(built: Path, folder: Path, key: str, config: Config, damaged: Collection[Path]) -> Store:
    """Put a finished store in its place; another process may have been faster with the same content."""
    to_disk(built)
    with guarded(folder.parent):
        if store := _there(folder, key, config, damaged):
            return hold_store(store)
        if folder.exists():
            set_aside(folder.parent, [folder])
        built.rename(folder)
        to_disk(folder.parent, deep=False)
        store = open_store(folder, key, config)
        if store is None:
            raise CvjError(f"{folder}: the store cannot be read back once it is in its place; run again.")
        return hold_store(store)


def _there(folder: Path, key: str, config: Config, damaged: Collection[Path]) -> Store | None:
    """Return the store in a place unless it is damaged; one that was may have been replaced by now."""
    try:
        store = open_store(folder, key, config)
    except StoreError:
        return None
    return None if store and folder in damaged and store.faults(config.engine.threads) else store
