"""Writing a night: beside, onto the disk, renamed, then made current in one step."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from cvj_ml.errors import CvjError, raise_all
from cvj_ml.io import sha256_of, sorted_json, sync
from cvj_ml.night.layout import (
    CURRENT,
    LISTS,
    MANIFEST,
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    RUN,
    STAGED,
    SUCCESS,
    exchange,
    nights,
    replace_file,
)
from cvj_ml.night.reading import read_pointer
from cvj_ml.night.verifying import night_faults
from cvj_ml.ownership import claim, remove

_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Published:
    """Where a night is, what was done for it, and whether CURRENT.json points at it.

    ``unchanged``: it was there already; ``repaired``: it was there but damaged, and is replaced; ``tried``: everything
    was written and checked, then thrown away.
    """

    folder: Path
    outcome: Literal["published", "unchanged", "repaired", "tried"]
    current: bool


def digest_of(*parts: object) -> str:
    """Return the sha256 of plain data: the name of what follows from exactly these inputs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def digest_of_table(table: pa.Table) -> str:
    """Return the sha256 of a table's columns and rows, in their order; a few rows at a time are plain data."""
    digest = hashlib.sha256(json.dumps(table.column_names, ensure_ascii=False).encode())
    for start in range(0, len(table), _ROWS):
        rows = table.slice(start, _ROWS).to_pydict()
        digest.update(json.dumps(list(rows.values()), ensure_ascii=False).encode())
    return digest.hexdigest()


def publish(
    out: Path,
    as_of: str,
    digest: str,
    facts: Mapping[str, Any],
    run: Callable[[], Mapping[str, Any]],
    write: Callable[[Path], Mapping[str, int]],
    *,
    dry_run: bool = False,
) -> Published:
    """Publish one night as ``<out>/as_of=<as_of>/<digest>``; the caller holds the lock of ``out``.

    ``write`` fills a staged folder and returns the rows of each file. ``facts`` go into the manifest and hold no
    clock; ``run`` (timings, host), asked when the files are written, goes into run.json, outside the manifest. A night
    that is there already and whole is left as it is: the same inputs give the same bytes.
    """
    final = out / f"as_of={as_of}" / digest[:12]
    try:
        claim(out)
        there = final.is_dir()
        if there and not night_faults(final):
            return Published(final, "unchanged", _make_current(out, as_of, final, (final / LISTS).is_dir(), dry_run))
        staged = out / f"{STAGED}{uuid.uuid4().hex[:12]}"
        staged.mkdir(mode=PRIVATE_FOLDER)
        try:
            _fill(staged, facts, run, write)
            has_lists = (staged / LISTS).is_dir()
            if dry_run:
                require_whole(staged, final)
            else:
                move(out, staged, final)
            outcome: Literal["tried", "repaired", "published"] = (
                "tried" if dry_run else "repaired" if there else "published"
            )
            return Published(final, outcome, _make_current(out, as_of, final, has_lists, dry_run))
        finally:
            remove(staged)
    except OSError as error:
        raise CvjError(
            f"{final}: cannot publish: {error.strerror}. Free some space, or check the folder's rights."
        ) from error


def find_night(
    out: Path, as_of: str, facts: Mapping[str, Any], *, with_lists: bool, watched: bool, dry_run: bool = False
) -> tuple[Published, dict[str, Any]] | None:
    """Return a whole night that was made from these facts, with its manifest; None where there is none.

    It has passed gates, as its run.json says, and becomes the current one as if it had just been published. What a
    gate let pass only because somebody watched is not taken over by a run that nobody watches.
    """
    wanted = json.loads(sorted_json(facts))
    for night in itertools.chain.from_iterable(nights(out, as_of)):
        try:
            manifest, gates = night.manifest(), night.run()["gates"]
            evaluated = bool(gates) and (watched or all(one["waived"] != "watched" for one in gates))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        same = all(manifest.get(name) == value for name, value in wanted.items()) and with_lists == (
            "lists" in manifest
        )
        if evaluated and same and not night_faults(night.path):
            current = _make_current(out, as_of, night.path, with_lists, dry_run)
            return Published(night.path, "unchanged", current), manifest
    return None


def _fill(
    staged: Path,
    facts: Mapping[str, Any],
    run: Callable[[], Mapping[str, Any]],
    write: Callable[[Path], Mapping[str, int]],
) -> None:
    """Write a night's files, then all that makes them one."""
    rows = write(staged)
    seal(staged, facts, run(), rows)


def seal(staged: Path, facts: Mapping[str, Any], run: Mapping[str, Any], rows: Mapping[str, int]) -> None:
    """Add the manifest, run.json and the mark to the files of a night, each on the disk before what vouches for it."""
    names = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
    files = {name: {"sha256": sha256_of(staged / name), "rows": rows[name]} for name in names}
    (staged / MANIFEST).write_text(sorted_json({**facts, "files": files}), encoding="utf-8")
    (staged / RUN).write_text(sorted_json(run), encoding="utf-8")
    for path in staged.rglob("*"):
        path.chmod(PRIVATE_FOLDER if path.is_dir() else PRIVATE_FILE)
        sync(path)
    # The mark names the manifest, which names every file: nothing of a night can change unseen.
    replace_file(staged / SUCCESS, sha256_of(staged / MANIFEST) + "\n")


def move(out: Path, staged: Path, final: Path) -> None:
    """Put a staged night in its place; what lay there, the night as it was or a damaged one, is removed.

    CvjError, and nothing is moved, where the night would not pass `verify_night`: whoever looks later would be told
    that it is damaged, and making it again would not help.
    """
    require_whole(staged, final)
    final.parent.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
    if final.exists():
        exchange(staged, final)
    else:
        os.replace(staged, final)
    sync(final.parent)
    sync(out)
    remove(staged)


def require_whole(staged: Path, final: Path) -> None:
    """Raise CvjError with everything in which a staged night is not what its manifest says."""
    raise_all(
        CvjError,
        f"{final}: what was written does not read back as it was, so it is not published; the last night stays"
        " current. The disk or the memory of this machine may be at fault: run again. If the same comes again, it is a"
        " fault of cvj_ml:",
        night_faults(staged),
    )


def _make_current(out: Path, date: str, night: Path, has_lists: bool, dry_run: bool) -> bool:
    """Point CURRENT.json at a night, and return whether it does: in one step, and only once the night is on the disk.

    Never back in time, nor from a date's lists to its scores alone.
    """
    target = {"as_of": date, "night": night.relative_to(out).as_posix()}
    shown = read_pointer(out)
    if shown is not None:
        if shown == target:
            return True
        newest = shown["as_of"]
        if newest > date or (newest == date and not has_lists and (out / shown["night"] / LISTS).is_dir()):
            return False
    if not dry_run:
        replace_file(out / CURRENT, sorted_json(target))
    return True
