"""What the machine does to a night: no room, no right to write, too little memory."""

from __future__ import annotations

import shutil

import pytest
from tests.faults.ground import LAST, Ground, discreet
from tests.faults.mounts import read_only, small_disk

pytest_plugins = ["tests.fixtures"]


def move_out(ground: Ground) -> None:
    """Let the output folder be one on the mounted disk."""
    shutil.copytree(ground.out, ground.folder / "disk" / "out")
    ground.settings["out"] = "disk/out"


@pytest.mark.slow
@pytest.mark.parametrize("room", [8, 100, 250, 320, 400, 440])
def test_a_full_disk(ground: Ground, room: int) -> None:
    """With so many kilobytes left; where they run out is told, and with more room the same night is published."""
    with small_disk(ground.folder / "disk", "20m"):
        move_out(ground)
        # Of a changed log the store is written anew, so that reading the sources can run out of room, too.
        ground.settings["drop_duplicates"] = True
        disk = ground.folder / "disk"
        ballast = disk / "ballast"
        free = shutil.disk_usage(disk).free
        ballast.write_bytes(b"\0" * (free - room * 1024))
        ground.refuses(1, "space")
        ballast.unlink()
        assert ground.publishes()["outcome"] == "published"


def test_an_output_folder_that_cannot_be_written(ground: Ground) -> None:
    with small_disk(ground.folder / "disk", "20m"):
        move_out(ground)
        before = ground.standing()
        read_only(ground.folder / "disk")
        ran = ground.night()
        assert ran.code == 1 and ran.out == ""
        assert "Read-only file system" in discreet(ran)
        assert "Check the path, its rights and the free space." in ran.err
        assert ground.standing() == before
        ground.stands(LAST)


def test_sources_that_cannot_be_written_are_enough(ground: Ground) -> None:
    with small_disk(ground.folder / "disk", "20m"):
        for name in ("touchpoints", "customers"):
            shutil.move(ground.folder / f"{name}.parquet", ground.folder / "disk")
        ground.settings["sources"]["touchpoints"]["path"] = "disk/touchpoints.parquet"
        ground.settings["attributes"]["path"] = "disk/customers.parquet"
        read_only(ground.folder / "disk")
        ground.publishes()


@pytest.mark.parametrize("limit", ["100KB", "1MB"])
def test_too_little_memory_for_the_sources(ground: Ground, limit: str) -> None:
    ground.settings["engine"]["memory_limit"] = limit
    ground.settings["drop_duplicates"] = True
    ground.refuses(1, f"engine.memory_limit: {limit} is too little to read the sources", "Raise it")
