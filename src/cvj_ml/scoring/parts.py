"""The tables of finished blocks, one file each, so that a night that was cut off goes on where it stopped.

A file's name holds the sha256 of what is in it, and it is written under another name and renamed. So a file either is
what was computed or is seen not to be, whatever happened to the process or to the machine in between.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cvj_ml.engines import Engine
from cvj_ml.errors import CvjError
from cvj_ml.histories import Block
from cvj_ml.io import sha256_of
from cvj_ml.ownership import remove
from cvj_ml.store import bucket_of

BATCH = 1000
"""Rows that are read together; each batch of a part but the last has so many."""

_NAME = re.compile(r"(\d{4})-([0-9a-f]{64})\.arrow")


@dataclass(frozen=True, slots=True)
class Parts:
    """Finished blocks in a folder, as uncompressed Arrow files, whose rows can be read without the others."""

    folder: Path

    def finished(self) -> dict[int, Path]:
        """Return the whole files by bucket; anything else in the folder is removed."""
        found: dict[int, Path] = {}
        for path in sorted(self.folder.iterdir()):
            named = _NAME.fullmatch(path.name)
            if named and named[2] == sha256_of(path):
                found[int(named[1])] = path
            else:
                remove(path)
        return found

    def write(self, bucket: int, table: pa.Table) -> None:
        """Write the table of a bucket in one step."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks(), max_chunksize=BATCH)
        content = sink.getvalue()
        path = self.folder / f"{bucket:04d}-{hashlib.sha256(content).hexdigest()}.arrow"
        beside = path.with_suffix(f".{uuid.uuid4().hex}")  # two workers may try the same block at once
        try:
            with beside.open("wb") as file:
                file.write(content)
            os.replace(beside, path)
        except OSError:
            remove(beside)
            raise


def work_off(
    engine: Engine, folder: Path, function: Callable[[Block], pa.Table], *, resume: bool = False
) -> list[Path]:
    """Write the function's table of every block into a folder and return the files, in the order of the buckets.

    With ``resume`` blocks whose files are whole are not worked on again. The folder has to belong to these blocks and
    this function alone. CvjError where there is no room.
    """
    parts, buckets = Parts(folder), engine.store.buckets

    def work(block: Block) -> None:
        if len(block):
            parts.write(bucket_of(block.customers[0], buckets), function(block))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        finished = parts.finished()
        if not resume:
            for path in finished.values():
                remove(path)
        engine.without(finished if resume else ()).map(work)
        found = parts.finished()
    except OSError as error:
        raise CvjError(
            f"{folder}: cannot write: {error.strerror}. Free some space, or check the folder's rights; --resume goes on"
            " from the blocks that are finished."
        ) from error
    if missing := set(engine.store.buckets_of(None)) - found.keys():
        raise CvjError(
            f"{folder}: {len(missing)} of {len(found) + len(missing)} finished blocks cannot be read here. A folder"
            " on a network may show files late: try again with --resume, which goes on from those that can."
        )
    return [path for _, path in sorted(found.items())]


def read_part(path: Path, start: int, stop: int) -> pa.Table:
    """Return some neighbouring rows of a part; other batches of it are not read."""
    first = start // BATCH
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        batches = [reader.get_batch(i) for i in range(first, -(-stop // BATCH))]
    return pa.Table.from_batches(batches).slice(start - first * BATCH, stop - start).combine_chunks()


def metadata_of(path: Path) -> dict[bytes, bytes]:
    """Return what a function put into the metadata of a block's schema."""
    with pa.OSFile(str(path)) as file:
        return dict(pa.ipc.open_file(file).schema.metadata or {})
