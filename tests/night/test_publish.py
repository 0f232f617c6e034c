"""A published night: whole or not there, the same bytes again, and never back in time."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from cvj_ml.errors import CvjError, NightError
from cvj_ml.night import layout, writing
from cvj_ml.night.layout import nights
from cvj_ml.night.verifying import verify_night
from cvj_ml.night.writing import Published, digest_of, digest_of_table, find_night, publish
from cvj_ml.ownership import MARKER, claim

DIGEST = "0123456789abcdef" * 4
FACTS = {"model": "m", "as_of": "2024-11-01T00:00:00+00:00"}


def write(staged: Path) -> Mapping[str, int]:
    (staged / "scores").mkdir()
    (staged / "scores" / "scores.txt").write_text("one\ntwo\n")
    (staged / "list.txt").write_text("")
    return {"scores/scores.txt": 2, "list.txt": 0}


def night(
    out: Path,
    as_of: str = "2024-11-01",
    digest: str = DIGEST,
    writer: Callable[[Path], Mapping[str, int]] = write,
    seconds: float = 1.0,
) -> Path:
    return publish_it(out, as_of, digest, writer, seconds).folder


def publish_it(
    out: Path,
    as_of: str = "2024-11-01",
    digest: str = DIGEST,
    writer: Callable[[Path], Mapping[str, int]] = write,
    seconds: float = 1.0,
    dry_run: bool = False,
) -> Published:
    return publish(out, as_of, digest, FACTS, lambda: {"seconds": seconds}, writer, dry_run=dry_run)


def current(out: Path) -> dict[str, str]:
    document: dict[str, str] = json.loads((out / "CURRENT.json").read_text())
    return document


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_night_has_its_files_a_manifest_and_a_pointer(tmp_path: Path) -> None:
    folder = night(tmp_path)
    assert folder == tmp_path / "as_of=2024-11-01" / DIGEST[:12]
    assert everything(folder).keys() == {"scores/scores.txt", "list.txt", "MANIFEST.json", "run.json", "_SUCCESS"}
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest == {
        **FACTS,
        "files": {
            "list.txt": {"rows": 0, "sha256": hashlib.sha256(b"").hexdigest()},
            "scores/scores.txt": {"rows": 2, "sha256": hashlib.sha256(b"one\ntwo\n").hexdigest()},
        },
    }
    assert json.loads((folder / "run.json").read_text()) == {"seconds": 1.0}
    assert current(tmp_path) == {"as_of": "2024-11-01", "night": f"as_of=2024-11-01/{DIGEST[:12]}"}
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, "as_of=2024-11-01", "CURRENT.json"}


def test_the_walk_goes_by_date_and_leaves_it_to_others_what_to_pass_over(tmp_path: Path) -> None:
    assert list(nights(tmp_path / "nowhere")) == []
    newer, older = night(tmp_path, "2024-11-02"), night(tmp_path, "2024-11-01", "f" * 64)
    unfinished = tmp_path / "as_of=2024-11-02" / "aa"
    unfinished.mkdir()
    (unfinished / "run.json").write_text("{")
    for stray in (tmp_path / "as_of=2024-11-03", tmp_path / "as_of=2024-11-01" / "notes.txt"):
        stray.touch()
    found = list(nights(tmp_path))
    assert [[one.path for one in of_date] for of_date in found] == [[older], [newer, unfinished]]
    assert [one.finished for of_date in found for one in of_date] == [True, True, False]
    assert list(nights(tmp_path, newest_first=True)) == found[::-1]
    assert list(nights(tmp_path, "2024-11-02")) == found[1:]
    assert found[0][0].manifest()["model"] == "m" and found[0][0].run() == {"seconds": 1.0}
    for read in (found[1][1].manifest, found[1][1].run):
        with pytest.raises((OSError, ValueError)):
            read()


def test_a_second_run_of_a_night_touches_nothing(tmp_path: Path) -> None:
    """Silent error 31: the clock is in run.json, which stays that of the first run, too."""
    first = night(tmp_path)
    before = everything(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in first.rglob("*")}

    def never(staged: Path) -> Mapping[str, int]:
        raise AssertionError("the night is there already")

    assert night(tmp_path, writer=never, seconds=9.0) == first
    assert everything(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == times


def test_the_manifest_holds_no_clock(tmp_path: Path) -> None:
    """Silent error 31."""
    one, other = night(tmp_path / "a", seconds=1.0), night(tmp_path / "b", seconds=2.0)
    assert (one / "MANIFEST.json").read_bytes() == (other / "MANIFEST.json").read_bytes()
    assert (one / "run.json").read_bytes() != (other / "run.json").read_bytes()


def test_the_pointer_never_goes_back(tmp_path: Path) -> None:
    newest = night(tmp_path, "2024-11-02")
    backfill = night(tmp_path, "2024-11-01")
    assert backfill.is_dir()
    assert current(tmp_path)["night"] == str(newest.relative_to(tmp_path))
    within_the_day = night(tmp_path, "2024-11-02T060000")
    assert current(tmp_path)["night"] == str(within_the_day.relative_to(tmp_path))
    night(tmp_path, "2024-11-02")
    assert current(tmp_path)["as_of"] == "2024-11-02T060000"


def test_the_pointer_follows_a_new_digest_of_the_same_night(tmp_path: Path) -> None:
    night(tmp_path)
    again = night(tmp_path, digest="f" * 64)
    assert current(tmp_path)["night"] == str(again.relative_to(tmp_path))


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_night_that_fails_leaves_the_last_one_and_no_trace(tmp_path: Path, failure: BaseException) -> None:
    night(tmp_path)
    before = everything(tmp_path)

    def fail(staged: Path) -> Mapping[str, int]:
        write(staged)
        raise failure

    expected = CvjError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as caught:
        night(tmp_path, "2024-11-02", writer=fail)
    if isinstance(failure, OSError):
        assert str(caught.value) == (
            f"{tmp_path}/as_of=2024-11-02/{DIGEST[:12]}: cannot publish: No space left on device. Free some space, or"
            " check the folder's rights."
        )
    assert everything(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, "as_of=2024-11-01", "CURRENT.json"}


def test_nothing_shows_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is on the disk before the rename, and the pointer comes last."""
    order: list[str] = []
    sync, replace = layout.sync, os.replace
    for module in (layout, writing):
        monkeypatch.setattr(module, "sync", lambda path: (order.append(f"sync {path.name}"), sync(path))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(f"rename to {Path(b).name}"), replace(a, b))[1])
    night(tmp_path)
    first, last = order.index(f"rename to {DIGEST[:12]}"), order.index("rename to CURRENT.json")
    mark = order.index("rename to _SUCCESS")
    assert {"sync scores.txt", "sync list.txt", "sync scores", "sync MANIFEST.json", "sync run.json"} <= set(
        order[:mark]
    )
    assert mark < first < order.index("sync as_of=2024-11-01") < last


def test_what_lies_in_a_nights_place_without_its_mark_is_replaced(tmp_path: Path) -> None:
    claim(tmp_path)
    torn = tmp_path / "as_of=2024-11-01" / DIGEST[:12]
    torn.mkdir(parents=True)
    (torn / "scores.txt").write_text("half")
    assert publish_it(tmp_path) == Published(torn, "repaired", True)
    assert "scores.txt" not in everything(torn)
    verify_night(torn)
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, "as_of=2024-11-01", "CURRENT.json"}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"as_of": "2024-11-01", "night": "../elsewhere"}'])
def test_a_damaged_pointer_is_told_and_left(tmp_path: Path, content: str) -> None:
    claim(tmp_path)
    (tmp_path / "CURRENT.json").write_text(content)
    with pytest.raises(NightError) as caught:
        night(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/CURRENT.json: the pointer to the current night is damaged. The nights themselves are not: remove"
        " this file and run the newest night again, which finds itself published and writes the pointer anew."
    )
    verify_night(tmp_path / "as_of=2024-11-01" / DIGEST[:12])
    assert (tmp_path / "CURRENT.json").read_text() == content


def test_nobody_else_may_read_a_night(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        folder = night(tmp_path)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*")) if path.is_dir()}
    assert modes == {0o700}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}


def test_a_digest_depends_on_content_and_not_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2}) != digest_of([{"a": 2}])


@pytest.mark.parametrize("row", [0, 65_535, 65_536, 70_000, 131_072, 140_000 - 1])
def test_a_tables_digest_sees_every_row_however_many(row: int) -> None:
    """Rows are taken 65,536 at a time."""
    values = [str(i) for i in range(140_000)]
    table = pa.table({"customer_id": values})
    other = [*values[:row], "other", *values[row + 1 :]]
    assert digest_of_table(pa.table({"customer_id": other})) != digest_of_table(table)
    assert digest_of_table(pa.table({"customer_id": values[:row] + values[row + 1 :]})) != digest_of_table(table)


def test_a_tables_digest_is_of_names_content_and_order_and_not_of_chunks() -> None:
    table = pa.table({"a": ["x", None], "b": ["1", "2"]})
    same = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert digest_of_table(same) == digest_of_table(table)
    for other in (
        table.rename_columns(["a", "c"]),
        table.select(["b", "a"]),
        table.take([1, 0]),
        table.slice(0, 1),
        pa.table({"a": ["x", ""], "b": ["1", "2"]}),
    ):
        assert digest_of_table(other) != digest_of_table(table)


def test_scores_alone_do_not_hide_the_lists_of_their_date(tmp_path: Path) -> None:
    ranked = night(tmp_path, writer=with_lists)
    night(tmp_path, digest="b" * 64)
    assert current(tmp_path)["night"] == ranked.relative_to(tmp_path).as_posix()
    later = night(tmp_path, as_of="2024-11-02", digest="c" * 64)
    assert current(tmp_path)["night"] == later.relative_to(tmp_path).as_posix()


def with_lists(staged: Path) -> Mapping[str, int]:
    (staged / "targets").mkdir()
    (staged / "targets" / "list.txt").write_text("one\n")
    return {**write(staged), "targets/list.txt": 1}


def gated(
    out: Path,
    *waived: str | None,
    as_of: str = "2024-11-01",
    digest: str = DIGEST,
    lists: bool = False,
    facts: Mapping[str, object] = FACTS,
) -> Path:
    """Publish a night with one gate for each of these, waived by whom."""
    gates = [{"gate": f"g{i}", "waived": one} for i, one in enumerate(waived)]
    night_facts = {**facts, "lists": []} if lists else facts
    return publish(
        out, as_of, digest, night_facts, lambda: {"gates": gates}, with_lists if lists else write
    ).folder  # fmt: skip


def found(out: Path, facts: Mapping[str, object] = FACTS, *, lists: bool = False, watched: bool = True) -> Path | None:
    night = find_night(out, "2024-11-01", facts, with_lists=lists, watched=watched)
    if night is None:
        return None
    assert night[0].outcome == "unchanged"
    assert night[1] == json.loads((night[0].folder / "MANIFEST.json").read_text())
    return night[0].folder


def test_a_night_of_the_same_facts_is_found(tmp_path: Path) -> None:
    folder = gated(tmp_path, None)
    assert found(tmp_path) == folder
    assert found(tmp_path, {**FACTS, "model": "another"}) is None
    assert found(tmp_path, {**FACTS, "unheard_of": 1}) is None
    assert found(tmp_path, lists=True) is None
    assert find_night(tmp_path, "2024-11-02", FACTS, with_lists=False, watched=True) is None


def test_a_night_with_lists_is_not_one_of_scores_alone(tmp_path: Path) -> None:
    folder = gated(tmp_path, None, lists=True)
    assert found(tmp_path, lists=True) == folder
    assert found(tmp_path) is None


@pytest.mark.parametrize(
    ("waived", "watched", "is_found"),
    [
        ((), True, False),  # no gate was asked
        ((None, None), False, True),
        ((None, "accepted"), False, True),
        (("watched", None), False, False),
        ((None, "watched"), False, False),
        ((None, "watched"), True, True),
    ],
)
def test_a_night_is_found_only_if_it_passed_its_gates(
    tmp_path: Path, waived: tuple[str | None, ...], watched: bool, is_found: bool
) -> None:
    folder = gated(tmp_path, *waived)
    assert found(tmp_path, watched=watched) == (folder if is_found else None)


def test_what_cannot_be_used_is_passed_over_for_what_can(tmp_path: Path) -> None:
    for digest in ("1" * 64, "2" * 64, "3" * 64, "4" * 64):
        gated(tmp_path, None, digest=digest)
    good = gated(tmp_path, None, digest="5" * 64)
    date = tmp_path / "as_of=2024-11-01"
    (date / ("1" * 12) / "MANIFEST.json").unlink()
    (date / ("2" * 12) / "run.json").write_text("no JSON")
    (date / ("3" * 12) / "run.json").write_text("{}")
    (date / ("4" * 12) / "list.txt").write_text("changed since")
    assert found(tmp_path) == good


def test_a_night_that_is_found_becomes_the_current_one(tmp_path: Path) -> None:
    first = gated(tmp_path, None)
    gated(tmp_path, None, digest="e" * 64, facts={**FACTS, "model": "later"})
    pointer = current(tmp_path)
    tried = find_night(tmp_path, "2024-11-01", FACTS, with_lists=False, watched=True, dry_run=True)
    assert tried is not None and tried[0].current and current(tmp_path) == pointer
    assert found(tmp_path) == first
    assert current(tmp_path)["night"] == first.relative_to(tmp_path).as_posix()
    later = gated(tmp_path, None, as_of="2024-11-02", digest="f" * 64)
    older = find_night(tmp_path, "2024-11-01", FACTS, with_lists=False, watched=True)
    assert older is not None and not older[0].current
    assert current(tmp_path)["night"] == later.relative_to(tmp_path).as_posix()


def test_a_dry_run_checks_everything_and_leaves_nothing(tmp_path: Path) -> None:
    night(tmp_path)
    before = everything(tmp_path)
    tried = publish_it(tmp_path, as_of="2024-11-02", dry_run=True)
    assert (tried.outcome, tried.current) == ("tried", True)
    assert everything(tmp_path) == before and not tried.folder.exists()
    assert publish_it(tmp_path, as_of="2024-10-31", dry_run=True).current is False
    assert publish_it(tmp_path, dry_run=True).outcome == "unchanged"


def test_a_disk_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    def full(staged: Path) -> Mapping[str, int]:
        raise OSError(28, "No space left on device")

    with pytest.raises(CvjError, match=rf"{DIGEST[:12]}: cannot publish: No space left on device\. Free some space"):
        night(tmp_path, writer=full)
    assert {path.name for path in tmp_path.iterdir()} == {MARKER}
