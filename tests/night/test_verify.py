"""``cvj-ml verify``: a night in which anything has changed is told so, and one that would be is never published."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.trained import call

from cvj_ml.errors import CvjError, NightError
from cvj_ml.night.verifying import verify_night
from cvj_ml.night.writing import publish, seal

FACTS: dict[str, Any] = {
    "as_of": "2024-11-01T00:00:00+00:00",
    "model": "ab" * 32,
    "counts": {
        "orders": {"rows_in": 12, "stored": 8, "refused": {"no event": 1}, "duplicates": 2, "unmatched": 1},
        "visits": {"rows_in": 5, "stored": 5, "refused": {}, "duplicates": 0, "unmatched": 0},
    },
    "rows": {"used": 10, "not_yet_visible": 2, "superseded": 1},
    "lists": [{"list": "a__b__30d", "listed": 3, "target": 2, "control": 1}],
}
NAMES = ("scores/scores.parquet", "targets/a__b__30d.parquet", "targets/a__b__30d.csv", "report/index.html")


def write(staged: Path) -> Mapping[str, int]:
    for folder in ("scores", "targets", "report"):
        (staged / folder).mkdir()
    listed = pd.DataFrame({"rank": [1, 2, 3], "name": ["a", "b, c", "d\ne"]})
    pd.DataFrame({"customer_id": list("abcd")}).to_parquet(staged / NAMES[0])
    listed.to_parquet(staged / NAMES[1])
    listed.to_csv(staged / NAMES[2], index=False)
    (staged / NAMES[3]).write_text("<p>page</p>\n")
    return dict(zip(NAMES, (4, 3, 3, 3), strict=True))


def make(out: Path, facts: Mapping[str, Any] = FACTS, writer: Callable[[Path], Mapping[str, int]] = write) -> Path:
    return publish(out, "2024-11-01", "0123456789abcdef", facts, lambda: {"started": 1.0, "gates": []}, writer).folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("out"))


@pytest.fixture
def night(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "as_of=2024-11-01" / whole.name))


def faults(night: Path) -> list[str]:
    with pytest.raises(NightError) as caught:
        verify_night(night)
    heading, *lines = str(caught.value).splitlines()
    assert heading == (
        f"{night}: this is not what was published. Run the night again, which replaces it, or go back to a copy:"
    )
    return [line.removeprefix("  - ") for line in lines]


def test_a_whole_night_is_whole_by_its_folder_and_as_the_current_one(whole: Path) -> None:
    out = whole.parents[1]
    assert verify_night(whole) == verify_night(out)
    found = call("verify", out, "--json")
    assert json.loads(found.out) == {
        "folder": str(whole), "as_of": FACTS["as_of"], "model": FACTS["model"], "files": 4, "rows_in": 17
    }  # fmt: skip
    told = call("verify", whole)
    assert told.out == (
        f"{whole}: whole. 4 files, 17 rows accounted for, as of 2024-11-01T00:00:00+00:00, model abababababab\n"
    )


@given(data=st.data())
def test_one_changed_bit_is_seen_wherever_it_is(whole: Path, data: st.DataObject) -> None:
    """run.json alone stands outside the manifest: it holds the clock."""
    name = data.draw(st.sampled_from([*NAMES, "MANIFEST.json", "_SUCCESS"]))
    content = (whole / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
    try:
        (whole / name).write_bytes(changed)
        # White space at the end of the mark says nothing.
        if not (name == "_SUCCESS" and changed.decode("latin-1").strip() == content.decode().strip()):
            with pytest.raises(NightError):
                verify_night(whole)
    finally:
        (whole / name).write_bytes(content)
    verify_night(whole)


def test_all_faults_come_at_once(night: Path) -> None:
    (night / "scores" / "scores.parquet").write_bytes(b"")
    (night / "report" / "index.html").unlink()
    (night / "targets" / "extra.csv").write_text("customer_id\n")
    (night / "empty").mkdir()
    (night / "run.json").unlink()
    assert faults(night) == [
        "run.json is missing",
        "report/index.html is missing",
        "empty does not belong to the night",
        "scores/scores.parquet was changed (its sha256 differs from the manifest's)",
        "targets/extra.csv does not belong to the night",
    ]
    found = call("verify", night)
    assert (found.code, found.out) == (4, "")


def test_links_and_pipes_are_no_files_of_a_night(night: Path) -> None:
    """A link may point at the right bytes today."""
    original = night.parent / "elsewhere.parquet"
    os.replace(night / NAMES[0], original)
    (night / NAMES[0]).symlink_to(original)
    (night / NAMES[3]).unlink()
    os.mkfifo(night / NAMES[3])
    os.replace(night / "targets", night.parent / "targets")
    (night / "targets").symlink_to(night.parent / "targets", target_is_directory=True)
    found = faults(night)
    assert {
        "scores/scores.parquet is no plain file",
        "report/index.html is no plain file",
        "targets does not belong to the night",
    } <= set(found)


def sealed(out: Path, facts: Mapping[str, Any] = FACTS, **rows: int) -> Path:
    """Return a night whose manifest is whole, whatever it says: `publish` would refuse it."""
    night = out / "night"
    night.mkdir()
    seal(night, facts, {}, {**write(night), **rows})
    return night


def test_rows_are_counted_and_not_believed(tmp_path: Path) -> None:
    night = sealed(tmp_path, **{NAMES[0]: 5, NAMES[2]: 4})
    assert faults(night) == [
        "scores/scores.parquet has 4 rows, the manifest says 5",
        "targets/a__b__30d.csv has 3 rows, the manifest says 4",
    ]


def test_counts_that_do_not_add_up_are_told(tmp_path: Path) -> None:
    counts = {**FACTS["counts"], "orders": {**FACTS["counts"]["orders"], "rows_in": 13}}
    lists = [{"list": "a__b__30d", "listed": 3, "target": 3, "control": 1}]
    rows = {**FACTS["rows"], "used": 9}
    assert faults(sealed(tmp_path, {**FACTS, "counts": counts, "rows": rows, "lists": lists})) == [
        "orders: 13 rows came in, 12 are accounted for",
        "13 rows were stored, 12 are used, not yet visible or replaced",
        "targets/a__b__30d.parquet: 3 are listed, 3 to contact and 1 in control, in 3 rows",
    ]


@pytest.mark.parametrize("used", [9, 11, 1_000_009])
@pytest.mark.parametrize("rows_in", [11, 13, 1_000_012])
def test_counts_are_compared_both_ways(tmp_path: Path, used: int, rows_in: int) -> None:
    counts = {**FACTS["counts"], "orders": {**FACTS["counts"]["orders"], "rows_in": rows_in}}
    night = sealed(tmp_path, {**FACTS, "counts": counts, "rows": {**FACTS["rows"], "used": used}})
    assert faults(night) == [
        f"orders: {rows_in:,} rows came in, 12 are accounted for",
        f"13 rows were stored, {used + 3:,} are used, not yet visible or replaced",
    ]


def test_counts_of_many_rows_add_up(tmp_path: Path) -> None:
    """Numbers beyond those of which Python keeps one copy, and in which no bit is shared."""
    counts = {
        "log": {"rows_in": 4_098, "stored": 3_003, "refused": {"a": 1_001, "b": 3}, "duplicates": 60, "unmatched": 31}
    }
    facts = {**FACTS, "counts": counts, "rows": {"used": 2_000, "not_yet_visible": 1_000, "superseded": 3}}
    assert verify_night(sealed(tmp_path, facts)).rows_in == 4_098


@pytest.mark.parametrize(
    ("listed", "target", "control"), [(3, 3, 1), (3, 1, 1), (4, 2, 1), (2, 2, 1), (4, 3, 1), (2, 1, 1)]
)
def test_a_list_holds_whom_it_says(tmp_path: Path, listed: int, target: int, control: int) -> None:
    lists = [{"list": "a__b__30d", "listed": listed, "target": target, "control": control}]
    assert faults(sealed(tmp_path, {**FACTS, "lists": lists})) == [
        f"targets/a__b__30d.parquet: {listed} are listed, {target} to contact and {control} in control, in 3 rows"
    ]


def broken_in_two(staged: Path) -> Mapping[str, int]:
    """As a writer would that leaves a carriage return bare."""
    rows = write(staged)
    (staged / NAMES[2]).write_text("rank,name\n1,a\n2,b\r=1+1\n", newline="")
    return rows


def writer_of(**rows: int) -> Callable[[Path], Mapping[str, int]]:
    return lambda staged: {**write(staged), **rows}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("writer", [broken_in_two, writer_of(**{NAMES[0]: 5})])
def test_what_would_not_verify_is_not_published(
    tmp_path: Path, writer: Callable[[Path], Mapping[str, int]], dry_run: bool
) -> None:
    """Silent error 51: a night is verified before it is moved and before the pointer is."""
    make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CvjError, match="does not read back as it was, so it is not published; the last night"):
        publish(tmp_path, "2024-11-02", "f" * 64, FACTS, lambda: {}, writer, dry_run=dry_run)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {"a": {}}}'])
def test_a_manifest_that_says_nothing_is_told(night: Path, text: str) -> None:
    (night / "MANIFEST.json").write_text(text)
    assert faults(night) == [
        "MANIFEST.json was changed (_SUCCESS names another sha256)",
        "MANIFEST.json cannot be read",
    ]


def test_what_is_no_night_is_told(tmp_path: Path) -> None:
    assert faults(tmp_path) == ["there is no MANIFEST.json, so this is no published night"]
    absent = call("verify", tmp_path / "absent")
    assert (absent.code, absent.err) == (
        4,
        f"error: {tmp_path}/absent: there is no such night. Name the folder of a night, <out>/as_of=<date>/<digest>, or"
        " the output folder for its current one.\n",
    )


def test_a_pointer_to_a_night_that_is_gone_is_told(tmp_path: Path) -> None:
    shutil.rmtree(make(tmp_path))
    with pytest.raises(NightError, match="there is no such night"):
        verify_night(tmp_path)


def test_a_damaged_night_is_replaced_when_it_is_run_again(tmp_path: Path) -> None:
    night = make(tmp_path)
    before = {path: path.read_bytes() for path in night.rglob("*") if path.is_file()}
    (night / NAMES[1]).write_bytes(b"damaged")
    (night / "extra.txt").write_text("")
    again = publish(tmp_path, "2024-11-01", "0123456789abcdef", FACTS, lambda: {"started": 1.0, "gates": []}, write)
    assert (again.folder, again.outcome) == (night, "repaired")
    assert {path: path.read_bytes() for path in night.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".staged-*"))
