"""Disks that are small or cannot be written: real mounts, since root may write whatever modes say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.required import absent


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """Mount a disk of this size; without the right to, skip the test, or fail where CVJ_ML_REQUIRE names mount."""
    place.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        absent("mount", "mounting a small disk is not permitted (it needs root, in a container also CAP_SYS_ADMIN)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def read_only(place: Path) -> None:
    """Let nobody write to a mounted disk any more."""
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
