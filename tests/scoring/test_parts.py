"""Finished blocks on disk: whole or not there, merged into the same bytes however spread, never done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.trained import AS_OF, Trained, call

from cvj_ml.commands.nightly import nightly
from cvj_ml.errors import CvjError
from cvj_ml.inputs import Histories, open_histories
from cvj_ml.models.bundle.bundle import load
from cvj_ml.night import scores as scoring
from cvj_ml.night.scores import score as run_score
from cvj_ml.ownership import claim
from cvj_ml.run import Silent
from cvj_ml.scoring import parts as parts_module
from cvj_ml.scoring import scores_table
from cvj_ml.scoring.parts import Parts
from cvj_ml.scoring.scores_table import StoredTable, merge

pytest_plugins = ["tests.fixtures"]

SCHEMA = pa.schema(
    [("customer_id", pa.string()), ("p", pa.float64()), ("low", pa.list_(pa.string())), ("seen", pa.int32())]
)


def rows(ids: list[str]) -> pa.Table:
    """Rows of which each tells its own id in every column."""
    numbers = [sum(map(ord, name)) for name in ids]
    low = [[name] * (number % 3) if number % 4 else None for name, number in zip(ids, numbers, strict=True)]
    return pa.table([ids, [n / 7 if n % 5 else None for n in numbers], low, numbers], schema=SCHEMA)


def spread(folder: Path, ids: list[str], where: list[int], buckets: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    parts = Parts(folder)
    for bucket in range(buckets):
        mine = sorted(name for name, at in zip(ids, where, strict=True) if at % buckets == bucket)
        parts.write(bucket, rows(mine))
    return [path for _, path in sorted(parts.finished().items())]


texts = st.text(st.sampled_from("aAz09é\U0001f642\uffff"), min_size=1, max_size=3)


@given(
    ids=st.sets(texts, max_size=40),
    buckets=st.integers(1, 7),
    group=st.integers(1, 9),
    batch=st.integers(1, 9),
    data=st.data(),
)
def test_parts_are_merged_in_the_order_of_code_points_into_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, ids: set[str], buckets: int, group: int, batch: int, data: st.DataObject
) -> None:
    names = sorted(ids)
    where = data.draw(st.lists(st.integers(0, 6), min_size=len(names), max_size=len(names)))
    folder = tmp_path_factory.mktemp("merge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores_table, "ROW_GROUP", group)
        patch.setattr(parts_module, "BATCH", batch)
        for name, parts in (
            ("spread", spread(folder / "several", names, where, buckets)),
            ("whole", spread(folder / "one", names, where, 1)),
        ):
            files = {
                folder / f"{name}-p": pa.schema([SCHEMA.field(i) for i in (0, 1, 2)]),
                folder / f"{name}-seen": pa.schema([SCHEMA.field("seen")]),
            }
            assert merge(parts, files) == len(names)
    found, expected = pq.read_table(folder / "spread-p", partitioning=None), rows(names)
    assert found.to_pylist() == expected.select(["customer_id", "p", "low"]).to_pylist()
    assert pq.read_table(folder / "spread-seen", partitioning=None).to_pylist() == expected.select(["seen"]).to_pylist()
    for kind in ("p", "seen"):
        assert (folder / f"spread-{kind}").read_bytes() == (folder / f"whole-{kind}").read_bytes()
    groups = pq.ParquetFile(folder / "spread-p").metadata
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert sizes == [min(group, len(names) - start) for start in range(0, len(names), group)]


def test_a_customer_in_two_parts_is_an_error(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.write(0, rows(["a", "b"]))
    parts.write(1, rows(["b", "c"]))
    with pytest.raises(AssertionError, match="customer_id occurs in two rows"):
        merge(list(parts.finished().values()), {tmp_path / "out": SCHEMA})


@given(mask=st.lists(st.booleans(), min_size=23, max_size=23), group=st.integers(1, 30))
def test_a_stored_table_is_read_by_column_and_row(
    tmp_path_factory: pytest.TempPathFactory, mask: list[bool], group: int
) -> None:
    table = rows([f"c{i:02d}" for i in range(23)])
    file = tmp_path_factory.mktemp("stored") / "table.parquet"
    pq.write_table(table, file, row_group_size=group)
    for stored in (StoredTable.at(file), StoredTable.of(table)):
        found = stored.read(["low", "customer_id"], np.array(mask))
        assert found.to_pylist() == table.filter(pa.array(mask)).select(["low", "customer_id"]).to_pylist()
        assert stored.read().equals(table) and len(stored) == 23 and stored.first("customer_id") == "c00"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "renamed", "beside"])
def test_what_is_not_whole_is_not_used(tmp_path: Path, damage: str) -> None:
    claim(tmp_path)
    parts = Parts(tmp_path / "blocks")
    parts.folder.mkdir()
    parts.write(3, rows(["a", "b"]))
    parts.write(4, rows(["c"]))
    path = parts.finished()[3]
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "renamed":
        path.rename(path.with_name(path.name.replace("a", "b").replace("0003", "0005")))
        path = path.with_name(path.name.replace("a", "b").replace("0003", "0005"))
    else:
        path.rename(path.with_suffix(".123"))
    assert list(parts.finished()) == [4]
    assert [one.name[:4] for one in parts.folder.iterdir()] == ["0004"], "and it is gone"


def test_a_block_that_two_workers_finish_is_there_once(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    for _ in range(2):
        parts.write(3, rows(["a", "b"]))
    assert [path.name[:4] for path in tmp_path.iterdir()] == ["0003"]


# Nights.


@pytest.fixture
def histories(trained: Trained, tmp_path: Path) -> Histories:
    return open_histories(trained.config(trained.variant(tmp_path / "night")), Silent())


def test_finished_blocks_are_not_scored_again(
    trained: Trained, histories: Histories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(tmp_path / "work")
    predictor, work = load(trained.bundle).predictor, tmp_path / "work"
    scored: list[int] = []
    whole = scoring.as_table
    monkeypatch.setattr(scoring, "as_table", lambda *given: (scored.append(len(given[1])), whole(*given))[1])

    def score(resume: bool) -> bytes:
        scored.clear()
        found = run_score(histories, predictor, "v", trained.as_of, work, history=True, resume=resume)
        assert found.history is not None
        assert found.counts.customers == pq.read_metadata(found.scores).num_rows
        assert found.counts.bins.sum() == found.counts.customers * len(found.counts.bins), "of all blocks, done or not"
        return found.scores.read_bytes() + found.history.read_bytes()

    expected = score(resume=False)
    assert len(scored) == 4
    (lost, *_) = sorted((work / "blocks").iterdir())
    lost.write_bytes(lost.read_bytes()[:-1])
    assert score(resume=True) == expected
    assert len(scored) == 1
    assert score(resume=True) == expected
    assert not scored
    assert score(resume=False) == expected, "without resume everything is done anew"
    assert len(scored) == 4


def test_a_night_is_never_made_of_some_blocks(
    trained: Trained, histories: Histories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder on a network may hide what a worker wrote: then there are no scores, and --resume is the next step."""
    whole = Parts.write
    monkeypatch.setattr(Parts, "write", lambda self, bucket, table: bucket == 1 or whole(self, bucket, table))
    with pytest.raises(CvjError, match=r"1 of 4 finished blocks cannot be read here\..*--resume"):
        run_score(histories, load(trained.bundle).predictor, "v", trained.as_of, tmp_path / "work")
    assert not (tmp_path / "work" / "scores.parquet").exists()


@pytest.mark.slow
def test_a_night_killed_while_it_scores_goes_on_where_it_stopped(trained: Trained, tmp_path: Path) -> None:
    """Kill -9 in the second block: what is published after --resume is what an undisturbed night publishes."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cvj_ml.commands.nightly import nightly\n"
        "from cvj_ml.config import load_config\n"
        "from cvj_ml.run import Silent\n"
        "from cvj_ml.scoring.parts import Parts\n"
        "whole = Parts.write\n"
        "def write(self, bucket, table):\n"
        "    if bucket == 2:\n"
        "        (self.folder / '0002-beside.99').write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    whole(self, bucket, table)\n"
        "Parts.write = write\n"
        "nightly(load_config(Path(sys.argv[1])), [int(sys.argv[2])], Silent())\n"
    )
    file = trained.variant(tmp_path / "killed")
    done = subprocess.run([sys.executable, "-c", code, str(file), str(trained.as_of)], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "CURRENT.json").exists()
    (work,) = (tmp_path / "killed" / "work").iterdir()
    stamps = {path.name: path.stat().st_mtime_ns for path in (work / "blocks").glob("*.arrow")}
    assert len(stamps) == 2
    seen: dict[str, int] = {}
    whole = scoring.merge

    def merged(parts: list[Path], files: dict[Path, pa.Schema]) -> int:
        seen.update({path.name: path.stat().st_mtime_ns for path in parts})
        return whole(parts, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "merge", merged)
        config = trained.config(file)
        (night,) = nightly(config, [trained.as_of], Silent(), resume=True)
    assert len(seen) == 4 and {name: seen[name] for name in stamps} == stamps, "two blocks were as the kill left them"
    assert not (tmp_path / "killed" / "work").exists()
    reference = call("targets", trained.variant(tmp_path / "quiet"), "--as-of", AS_OF, "--json")
    expected = Path(json.loads(reference.out)["night"])
    assert night.folder.name == expected.name
    for path in expected.rglob("*"):
        if path.is_file() and path.name != "run.json":
            assert (night.folder / path.relative_to(expected)).read_bytes() == path.read_bytes(), path


def test_without_resume_what_other_nights_left_is_removed(
    trained: Trained, histories: Histories, tmp_path: Path
) -> None:
    def folder(as_of: int, *, resume: bool) -> Path:
        return scoring.work_folder(histories, "model", "settings", as_of, with_lists=True, resume=resume)

    mine, other = folder(trained.as_of, resume=False), folder(trained.as_of + 1, resume=False)
    for one in (mine, other):
        one.mkdir(parents=True)
        (one / "x").touch()
    assert folder(trained.as_of, resume=True) == mine
    assert mine.exists() and not other.exists()
    folder(trained.as_of, resume=False)
    assert not mine.exists()


def test_a_full_disk_ends_with_what_to_do(
    trained: Trained, histories: Histories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, os.strerror(28))

    claim(tmp_path / "work")
    monkeypatch.setattr("cvj_ml.scoring.parts.os.replace", full)
    with pytest.raises(CvjError, match=r"No space left on device\. Free some space.*--resume goes on") as told:
        run_score(histories, load(trained.bundle).predictor, "v", trained.as_of, tmp_path / "work")
    assert told.value.exit_code == 1
    assert not list((tmp_path / "work" / "blocks").iterdir())
