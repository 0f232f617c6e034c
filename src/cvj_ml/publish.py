"""A published night: written beside, checked, renamed, then made current in one step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cvj_ml.errors import CvjError

MANIFEST = "MANIFEST.json"
SUCCESS = "_SUCCESS"
CURRENT = "CURRENT.json"
LISTS = "targets"


def digest_of(*parts: object) -> str:
    """Return the sha256 of plain data: the name of what follows from exactly these inputs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def publish(
    out: Path,
    as_of: str,
    digest: str,
    facts: Mapping[str, Any],
    run: Mapping[str, Any],
    write: Callable[[Path], Mapping[str, int]],
) -> Path:
    """Publish one night as ``<out>/as_of=<as_of>/<digest>`` and return that folder.

    ``write`` fills a staged folder and returns the rows of each file. ``facts`` go into the manifest and hold no
    clock; ``run`` (timings, host) goes into run.json, outside the manifest. A night that is there already is left
    as it is: the same inputs give the same bytes.
    """
    final = out / f"as_of={as_of}" / digest[:12]
    try:
        if not (final / SUCCESS).is_file():
            _stage(out, final, facts, run, write)
        _make_current(out, as_of, final)
    except OSError as error:
        raise CvjError(
            f"{final}: cannot publish: {error.strerror}. Free some space, or check the folder's rights."
        ) from error
    return final


def published_lists(out: Path) -> list[Path]:
    """Return the folders of the nights with lists, in order of their dates; of several for one date the youngest."""
    found = []
    for night in sorted(out.glob("as_of=*")):
        runs = [
            (json.loads((folder / "run.json").read_text(encoding="utf-8"))["started"], folder)
            for folder in sorted(night.iterdir())
            if (folder / SUCCESS).is_file() and (folder / LISTS / "summary.parquet").is_file()
        ]
        found += [max(runs)[1]] if runs else []
    return found


def _stage(
    out: Path,
    final: Path,
    facts: Mapping[str, Any],
    run: Mapping[str, Any],
    write: Callable[[Path], Mapping[str, int]],
) -> None:
    """Write a night beside, then rename it into its place."""
    out.mkdir(parents=True, exist_ok=True)
    staged = out / f".staged-{uuid.uuid4().hex[:12]}"
    staged.mkdir()
    try:
        _fill(staged, facts, run, write(staged))
        final.parent.mkdir(exist_ok=True)
        try:
            os.replace(staged, final)
        except OSError:
            # Another run may have been faster with the same night.
            if not (final / SUCCESS).is_file():
                raise
        _sync(final.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _fill(staged: Path, facts: Mapping[str, Any], run: Mapping[str, Any], rows: Mapping[str, int]) -> None:
    names = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
    files = {
        name: {"sha256": hashlib.sha256((staged / name).read_bytes()).hexdigest(), "rows": rows[name]} for name in names
    }
    _write(staged / MANIFEST, {**facts, "files": files})
    _write(staged / "run.json", run)
    (staged / SUCCESS).touch()
    for path in (*staged.rglob("*"), staged):
        _sync(path)


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_current(out: Path, date: str, night: Path) -> None:
    """Point CURRENT.json at a night, in one step: never back in time, nor from a date's lists to its scores alone."""
    pointer = out / CURRENT
    if pointer.exists():
        try:
            shown = json.loads(pointer.read_text(encoding="utf-8"))
            newest, has_lists = str(shown["as_of"]), (out / str(shown["night"]) / LISTS).is_dir()
        except (ValueError, KeyError, TypeError) as error:
            raise CvjError(
                f"{pointer}: the pointer to the current night is damaged. The night of {date} is whole in {night};"
                " remove the pointer and run again."
            ) from error
        if newest > date or (newest == date and has_lists and not (night / LISTS).is_dir()):
            return
    staged = out / f".{CURRENT}-{os.getpid()}"
    _write(staged, {"as_of": date, "night": night.relative_to(out).as_posix()})
    _sync(staged)
    os.replace(staged, pointer)
    _sync(out)
