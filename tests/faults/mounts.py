"""Disks that are small or cannot be written: real mounts, since root may write whatever modes say."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """Mount a disk of this size; without the right to, skip the test, or fail where CVJ_ML_REQUIRE names mount."""
    place.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        reason = "mounting a small disk is not permitted here (it needs root, in a container also CAP_SYS_ADMIN)"
        if "mount" in [word.strip() for word in os.environ.get("CVJ_ML_REQUIRE", "").split(",")]:
            pytest.fail(f"{reason} (CVJ_ML_REQUIRE names mount, so this is no skip)")
        pytest.skip(reason)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def read_only(place: Path) -> None:
    """Let nobody write to a mounted disk any more."""
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
