"""Files that are cut, empty, damaged or gone: the night says which one, and is not published."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.faults.ground import CANARY, LAST, Ground, copy, lay
from tests.faults.warmed import Warmed
from tests.trained import AS_OF, CUSTOMERS, Outcome, Trained

pytest_plugins = ["tests.fixtures"]

TIMES = ("occurred_at", "known_at")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage(file: Path) -> None:
    """Overwrite a kilobyte of the first column's pages, as a bad disk does."""
    content = bytearray(file.read_bytes())
    content[100:1124] = b"\xff" * 1024
    file.write_bytes(content)


def no_rows(file: Path) -> None:
    pq.write_table(pq.read_table(file, partitioning=None).slice(0, 0), file)


PARQUET: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "cut in half": (cut, ("is a Parquet file without its end: the copy is not complete",)),
    "without a byte": (lambda file: file.write_bytes(b""), ("is empty: 0 bytes", "is the export complete?")),
    "damaged": (damage, ("parquet is damaged: not all of it can be read", "copy it again")),
    "another format": (lambda file: file.write_text("a,b\n1,2\n"), ("is text, not a readable Parquet file",)),
    "without rows": (no_rows, ("0 rows came in and none is left; is the export complete?",)),
    "gone": (lambda file: file.unlink(), ("there is no such file.",)),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), ("a folder is there; name its files",)),
}


@pytest.mark.parametrize("table", ["touchpoints", "customers"])
@pytest.mark.parametrize("fault", PARQUET)
def test_a_parquet_file(ground: Ground, fault: str, table: str) -> None:
    strike, words = PARQUET[fault]
    file = ground.folder / f"{table}.parquet"
    strike(file)
    label = {"touchpoints": "sources.touchpoints", "customers": "attributes"}[table]
    ground.refuses(3, label, *words)


@pytest.fixture(scope="session")
def laid_csv(trained: Trained, parent: Warmed, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The same data as CSV, and a good night of it."""
    folder = tmp_path_factory.mktemp("csv")
    frame = pd.read_parquet(trained.folder / "touchpoints.parquet")
    for name in TIMES:
        frame[name] = frame[name].dt.strftime("%Y-%m-%d %H:%M:%S.%f")
    frame.to_csv(folder / "touchpoints.csv", index=False)
    sources = {"touchpoints": {**trained.config().model_dump(mode="json")["sources"]["touchpoints"]}}
    sources["touchpoints"] = {
        "path": "touchpoints.csv", "times": "utc", "arrival_delay": "2d", "columns": sources["touchpoints"]["columns"],
    }  # fmt: skip
    return lay(folder, trained, parent, sources=sources)


@pytest.fixture
def csv(laid_csv: Ground, tmp_path: Path) -> Ground:
    return copy(laid_csv, tmp_path / "ground")


def no_header(file: Path) -> None:
    file.write_text(file.read_text().partition("\n")[2])


def header_alone(file: Path) -> None:
    file.write_text(file.read_text().partition("\n")[0] + "\n")


def other_delimiter(file: Path) -> None:
    file.write_text(file.read_text().replace(",", "#"))


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 200)


def open_quote(file: Path) -> None:
    """From the hundredth line on all is one field that never ends."""
    lines = file.read_text().splitlines(keepends=True)
    lines[100] = f'"{CANARY},' + lines[100]
    file.write_text("".join(lines))


def compressed(file: Path) -> None:
    file.write_bytes(gzip.compress(file.read_bytes()))


CSV: dict[str, tuple[Callable[[Path], Any], int, tuple[str, ...]]] = {
    "cut in half": (cut, 5, ("rows:touchpoints", "Rows are missing: is the export complete")),
    "without a byte": (lambda file: file.write_bytes(b""), 3, ("header",)),
    "a header alone": (header_alone, 3, ("0 rows came in and none is left; is the export complete?",)),
    "without its header": (no_header, 3, ("touchpoints.csv", "has no header: its first line holds data")),
    "another delimiter": (other_delimiter, 3, ("there is no column 'customer_id'",)),
    "binary": (binary, 3, ("touchpoints.csv", "is neither text nor Parquet")),
    "a quote that never ends": (open_quote, 3, ("touchpoints.csv, line 101: a quotation mark opens a field",)),
    "compressed under a plain name": (compressed, 3, ("touchpoints.csv is compressed with gzip; add .gz to its name",)),
    "gone": (lambda file: file.unlink(), 3, ("there is no such file.",)),
}


@pytest.mark.parametrize("fault", CSV)
def test_a_csv_file(csv: Ground, fault: str) -> None:
    strike, code, words = CSV[fault]
    strike(csv.touchpoints)
    csv.refuses(code, *words)


def test_a_damaged_line_is_refused_and_counted(csv: Ground) -> None:
    with csv.touchpoints.open("a") as file:
        file.write(f"{CANARY},no time at all,,,,,,\n" * 3)
    night = csv.publishes()
    assert night["rows"]["refused"] == 3


def test_lines_that_an_open_quote_takes_with_it_are_counted(csv: Ground) -> None:
    lines = csv.touchpoints.read_text().splitlines(keepends=True)
    lines[-3] = f'"{CANARY},' + lines[-3]
    csv.touchpoints.write_text("".join(lines))
    rows = csv.publishes()["rows"]
    assert (rows["refused"], rows["rows_in"]) == (3, len(lines) - 1)


@pytest.mark.parametrize("table", ["suppression", "consent", "contact"])
@pytest.mark.parametrize("fault", ["gone", "without a byte", "cut in half"])
def test_a_file_of_permissions(ground: Ground, table: str, fault: str) -> None:
    """A list that cannot be told from one that names nobody would contact people who must not be."""
    ids = pd.read_parquet(ground.folder / "customers.parquet")["customer_id"].unique()
    frame = pd.DataFrame({"customer_id": ids, "channel": "email", "granted": True, "email": CANARY})
    file = ground.folder / "people.parquet"
    frame.to_parquet(file)
    columns: Any = {"suppression": None, "consent": None, "contact": ["email"]}[table]
    ground.settings[table] = {"path": file.name} | ({"columns": columns} if columns else {})
    strike = {"gone": Path.unlink, "without a byte": lambda one: one.write_bytes(b""), "cut in half": cut}[fault]
    strike(file)
    ground.refuses(3, "people.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("station", ["Reading sources", "Scoring", "Making the page"])
def test_a_stop_list_that_is_rewritten_during_the_run(ground: Ground, station: str) -> None:
    """Lists are made of what was read, so what was read has to be what stands there when they are published."""
    file = ground.folder / "stop.csv"
    pd.read_parquet(ground.folder / "customers.parquet")[["customer_id"]].drop_duplicates().to_csv(file, index=False)
    ground.settings["suppression"] = {"path": file.name}
    running = ground.start("--log-format", "json", "--json")
    while f'"station": "{station}"' not in running.told():
        time.sleep(0.001)
    running.kill(signal.SIGSTOP)
    whole = file.read_text()
    file.write_text("customer_id\n")
    running.kill(signal.SIGCONT)
    ran = running.wait()
    assert ran.code == 3 and "suppression: a file changed after this run had begun to read it" in ran.err
    ground.stands()
    file.write_text(whole)
    night = ground.publishes(ground.night("--resume"))
    assert night["people"] == {"suppression": {"rows": CUSTOMERS, "nobody": 0}} and not any(night["lists"].values())


@pytest.mark.slow
def test_how_many_rows_name_nobody_is_told_everywhere_and_compared_with_the_night_before(ground: Ground) -> None:
    file = ground.folder / "stop.csv"
    ids = pd.read_parquet(ground.folder / "customers.parquet")["customer_id"].unique()[:60]
    ground.settings["suppression"] = {"path": file.name}

    def night(as_of: str, strangers: int) -> Outcome:
        pd.DataFrame({"customer_id": [*ids, *(f"stranger{n}" for n in range(strangers))]}).to_csv(file, index=False)
        return ground.night(as_of=as_of)

    assert night(LAST, 2).code == 0
    ran = night(AS_OF, 40)
    told = "matched:suppression: 40 of 100 rows name nobody in the log; on 2025-06-23 it was 2 of 62"
    assert f"warning: {told}" in ran.err
    published = ground.publishes(ran)
    assert published["people"] == {"suppression": {"rows": 100, "nobody": 40}}
    folder = Path(published["night"])
    assert json.loads((folder / "MANIFEST.json").read_text())["observed"]["people"] == published["people"]
    gates = {one["name"]: one for one in json.loads((folder / "run.json").read_text())["gates"]}
    assert gates["matched:suppression"]["level"] == "warn"
    assert "Suppression: 40 of 100 rows name nobody in the log." in (folder / "report" / "index.html").read_text()
    metrics = (ground.out / "metrics.prom").read_text()
    assert 'cvj_ml_night_people_rows{use="tiny",table="suppression",names="nobody"} 40.0' in metrics
    assert 'cvj_ml_night_people_rows{use="tiny",table="suppression",names="customer"} 60.0' in metrics
    shown = ground.start(as_of=AS_OF).wait()
    assert "suppression: 40 of 100 rows name nobody in the log" in shown.out
    # A global stop list holds strangers, so it fails only where that is asked for.
    ground.settings["gates"] = {"matched": {"fail": 0.2}}
    failed = night("2025-06-25", 200)
    assert failed.code == 5 and "--accept matched:suppression" in failed.err


def test_an_input_that_is_still_being_written_is_seen(ground: Ground) -> None:
    """Half of a file in the place of the whole, then the whole: the second run is right."""
    whole = ground.folder / "whole"
    shutil.move(ground.touchpoints, whole)
    ground.touchpoints.write_bytes(whole.read_bytes()[:5000])
    ground.refuses(3, "touchpoints.parquet is a Parquet file without its end: the copy is not complete")
    shutil.move(whole, ground.touchpoints)
    assert ground.publishes()["outcome"] == "published"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["store.json", "quarantine.parquet", "bucket-*/touchpoints.parquet"])
def test_a_bit_of_the_store_that_changed_changes_no_score(ground: Ground, name: str) -> None:
    """Silent error 53: the store is made anew from the sources, which is told; the night has the same bytes."""
    undisturbed = copy(ground, ground.folder.with_name("undisturbed"))
    path = sorted(ground.out.glob(f"store/*/{name}"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    ran = ground.night()
    assert "warning: the store " in ran.err and "is damaged and is made anew from the sources: " in ran.err
    night, expected = ground.publishes(ran), undisturbed.publishes()
    for file in sorted(Path(expected["night"]).rglob("*")):
        if file.is_file() and file.name != "run.json":
            assert Path(night["night"], file.relative_to(expected["night"])).read_bytes() == file.read_bytes(), file
