"""Folders that are ours: what marks them, and removing what lies below them.

Everything that this package ever removes lies below a folder that carries its marker, which is written before anything
else there. Whose a folder is never follows from its name, nor from the names in it: others use `store` and `work`, too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cvj_ml.errors import ConfigError, CvjError, raise_all
from cvj_ml.io import sync

MARKER = ".cvj-ml-output"
"""The file that makes a folder ours. Its name alone counts, so it is there whole as soon as it is there."""

FOLDERS = ("store", "work", "models", "quarantine", "measure", "backtest")
"""Folders in an output folder, beside those of the nights: whole ones are made and removed there."""

_TOLD = """This folder belongs to cvj-ml: it makes, replaces and removes files and folders here, but for mlflow.db and
mlartifacts. Keep files of your own elsewhere. Without this file cvj-ml does not work here any more.
"""
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_REGISTRY = re.compile(r"mlflow\.db.*|mlartifacts")
_SHOWN = 5


def claim(out: Path, *, adopt: bool = False) -> None:
    """Make a folder ours before anything else is written to it, or find that it is.

    Raises ConfigError where that would be a guess: for a folder with content but without the marker, and for links,
    behind which anything may lie. With ``adopt`` a folder of an earlier version gets its marker, if it holds nothing
    but what such a version wrote.
    """
    _refuse_links(out)
    out.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
    if _is_marked(out):
        return
    # Another process may be claiming it, too; its marker is older than all else that it writes.
    if any(out.iterdir()) and not _is_marked(out):
        if not adopt:
            raise ConfigError(
                f"{out}: this folder holds something and has no {MARKER}, so nothing says that it is cvj-ml's, which"
                " removes in its folder what it needs no more. Nothing was changed. Name a folder of its own, one that"
                " is empty or does not exist yet. If an earlier version of cvj-ml made this one, let it be taken over"
                " once: `cvj-ml check CONFIG --as-of DATE --adopt-out`, or any other command that writes there."
            )
        _require_adoptable(out)
    handle = os.open(out / MARKER, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, _PRIVATE_FILE)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_TOLD)
    sync(out / MARKER)
    sync(out)


def owner_of(path: Path) -> Path | None:
    """Return the nearest marked folder that really holds a path, None where there is none.

    Links on the way to the path are followed, the path itself is not: a link in our folder is ours, what it points to
    is not.
    """
    folder = Path(os.path.realpath(path.parent))
    return next((one for one in (folder, *folder.parents) if _is_marked(one)), None)


def remove(path: Path, *, strict: bool = False) -> None:
    """Remove a file or a folder below a marked folder; of a link the link alone. CvjError for anything else.

    What cannot be removed now is left for a later run, unless ``strict``: then it is an OSError.
    """
    if not os.path.lexists(path):
        return
    owner = owner_of(path)
    inside = Path(os.path.realpath(path.parent), path.name).relative_to(owner).parts if owner else ("..",)
    if inside[0] == ".." or _REGISTRY.fullmatch(inside[0]):
        raise CvjError(
            f"{path}: this lies in no folder that carries {MARKER}, or belongs to MLflow, so it is not removed. If the"
            " marker was taken away while this command ran, run it again."
        )
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=not strict)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        if strict:
            raise


@contextmanager
def scratch(out: Path, prefix: str) -> Iterator[Path]:
    """Make a folder in a marked one, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=out))
    try:
        yield folder
    finally:
        remove(folder)


def open_lock(path: Path) -> int:
    """Open a file that is only locked, and make it where there is none; ConfigError where a link is in its place."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _PRIVATE_FILE)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ConfigError(
            f"{path}: a link is in the place of the lock, and what it points to is not cvj-ml's to write. Nothing was"
            " changed; remove the link."
        ) from None


def _is_marked(folder: Path) -> bool:
    marker = folder / MARKER
    return marker.is_file() and not marker.is_symlink()


def _refuse_links(out: Path) -> None:
    """Raise for an output folder that is a link, or whose own folders are: what is removed there lies elsewhere."""
    if os.path.islink(os.path.normpath(out)):
        raise ConfigError(
            f"{out}: the output folder is a link, which can point elsewhere by the next run. Nothing was changed; name"
            f" the folder itself: {os.path.realpath(out)}"
        )
    links = [path for path in (*(out / name for name in FOLDERS), *out.glob("as_of=*")) if path.is_symlink()]
    raise_all(
        ConfigError,
        f"{out}: links are in the place of folders of cvj-ml, and what they point to is not its to remove. Nothing was"
        " changed; put the folders themselves there, or remove the links:",
        [path.name for path in links],
    )


def _require_adoptable(out: Path) -> None:
    """Raise ConfigError unless a folder holds what an earlier version wrote, a whole store or night, and no more."""
    known = [re.compile(pattern) for pattern in _PATTERNS]
    nights = {night: listed for night in out.glob("as_of=*/*") if (listed := _files_of_night(night)) is not None}
    stores = {folder for folder in out.glob("store/*") if _is_store(folder)}

    def is_ours(name: str) -> bool:
        parts = name.split("/", 2)
        folder, inside = out.joinpath(*parts[:2]), parts[-1]
        if folder in stores:
            return _OF_A_STORE.fullmatch(inside) is not None
        return inside in nights.get(folder, ()) or any(pattern.fullmatch(name) for pattern in known)

    foreign = [name for name in _contents(out) if not is_ours(name)]
    heading = f"{out}: --adopt-out takes over what an earlier version of cvj-ml wrote and nothing else."
    if foreign:
        more = [f"and {len(foreign) - _SHOWN} more"] if len(foreign) > _SHOWN else []
        raise_all(
            ConfigError,
            f"{heading} Nothing was changed; name a folder of its own, or move these away (what begins with a point was"
            " left by a run that was killed, and can be deleted):",
            [*foreign[:_SHOWN], *more],
        )
    if not nights and not stores:
        raise ConfigError(
            f"{heading} There is neither a whole store (store.json) nor a whole night (MANIFEST.json) in this folder,"
            " so nothing says that it is one. Nothing was changed; name a folder of its own."
        )


_HEX = "[0-9a-f]"
_PATTERNS = (
    r"\.lock|CURRENT\.json|metrics\.prom",
    r"(store|work|models|quarantine|measure|backtest)/",
    r"store/\.lock",
    rf"work/{_HEX}{{12}}/(scores\.parquet|history\.parquet|blocks/\d{{4}}-{_HEX}{{64}}\.arrow)",
    r"models/champion\.json",
    rf"models/{_HEX}{{64}}/([a-z_]+\.(json|yaml|md)|(reach|stage_\d+)\.txt)",
    rf"models/{_HEX}{{64}}/outcome_[a-z0-9_]+/([a-z_]+\.json|reach\.txt)",
    rf"models/{_HEX}{{64}}/canary/(touchpoints|attributes|scores)\.parquet",
    rf"quarantine/{_HEX}{{12}}\.parquet",
    r"measure/history\.(parquet|csv)",
    r"backtest/until=[0-9T-]+/(tables/[\w-]+\.(csv|parquet)|plots/[\w-]+\.svg)",
)
"""What earlier versions have written besides stores and nights; an empty folder ends in a slash."""

_OF_A_STORE = re.compile(
    r"store\.json|quarantine\.parquet|identities\.parquet|unassigned\.parquet|bucket-\d{4}/(touchpoints|attributes|stage_labels|members)\.parquet"
)


def _contents(out: Path) -> Iterator[str]:
    """Yield every file, link and empty folder below a folder, but for what belongs to MLflow."""
    for place, folders, files in os.walk(out):
        if Path(place) == out:
            # A link in the place of MLflow's files is left to MLflow: nothing here ever removes them.
            folders[:] = [name for name in folders if not _REGISTRY.fullmatch(name)]
            files = [name for name in files if not _REGISTRY.fullmatch(name)]
        here = Path(place).relative_to(out)
        links = [name for name in folders if Path(place, name).is_symlink()]
        yield from (f"{here / name} (a link)" for name in links)
        for name in files:
            path = Path(place, name)
            yield f"{here / name} (a link)" if path.is_symlink() else str(here / name)
        if not folders and not files and Path(place) != out:
            yield f"{here}/"


def _is_store(folder: Path) -> bool:
    found = _json(folder / "store.json")
    return isinstance(found.get("key"), str) and found["key"][:12] == folder.name and "fingerprints" in found


def _files_of_night(folder: Path) -> set[str] | None:
    """Return the files of a published night, by its manifest; None where that is not whole."""
    found = _json(folder / "MANIFEST.json")
    try:
        digest = hashlib.sha256((folder / "MANIFEST.json").read_bytes()).hexdigest()
        vouched = (folder / "_SUCCESS").read_text(encoding="utf-8").strip() == digest
    except (OSError, ValueError):
        return None
    listed = found.get("files")
    return {*listed, "MANIFEST.json", "run.json", "_SUCCESS"} if vouched and isinstance(listed, dict) else None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
