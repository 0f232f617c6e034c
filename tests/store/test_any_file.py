"""Two hundred files of random columns, types, containers and damage: every command ends in an answer.

Silent error 64, by chance instead of by enumeration: combinations that nobody thought of.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
import yaml
from tests.store.conftest import JOURNEY, ROLES
from tests.store.test_types import kinds
from tests.trained import call

FILES = 200
GROUPS = 20

NAMES = (
    "customer_id", "user_id", "id", "Contact ID", "occurred_at", "created_at", "date", "time", "event", "event_name",
    "type", "value", "amount", "Total ($)", "channel", "order_id", "touchpoint_id", "known_at", "status", "email", "",
    "a\nb", "x;y", 'quo"te', "Größe", "select", "__index_level_0__", "rowid", "filename", "CUSTOMER_ID", "value ", "%s",
    "{0}", "a.b", "[0]",
)  # fmt: skip
"""Of columns: some that mean something, and some that a query or a format could trip over."""

TIMES = ("epoch s", "epoch ms", "epoch us", "epoch ns", "%Y-%m-%d", "%d/%m/%Y %H:%M", "%Y%m%d")
PLAIN = [pair for pair in kinds() if not pa.types.is_nested(pair[0]) and not isinstance(pair[0], pa.ExtensionType)]
CELLS = (
    "a", "7", "007", "1e5", "1,234.50", "1.234,50", "-3", "€ 12", "12 USD", "NaN", "null", "", " ", "2024-03-09",
    "09/03/2024 17:05", "2024-03-09T17:05:07-05:00", "1709999999", "17:05", "true",
    "purchase", "refund", "Zoë", "=1+1", "\t", "'", '"', "\u200b", "2024-02-30", "24:00", "inf", "0x1f", "[1, 2]",
    '{"a": 1}',
)  # fmt: skip


def hostile(random: Random, size: int) -> pa.Array:
    """Return a column of cells as programs write them, or of some type."""
    if random.random() < 0.5:
        return pa.array([random.choice(CELLS) for _ in range(size)], pa.string())
    kind, values = random.choice(PLAIN if random.random() < 0.8 else list(kinds()))
    held = [random.choice([*values, None]) for _ in range(size)]
    storage = kind.storage_type if isinstance(kind, pa.ExtensionType) else kind
    array = pa.array(held, storage)
    return pa.ExtensionArray.from_storage(kind, array) if storage is not kind else array


def good(name: str, random: Random, size: int) -> pa.Array:
    """Return a column as it should be for a role."""
    moments = [datetime(2024, 3, 1) + i * timedelta(hours=5, seconds=7) for i in range(size)]
    if name == "occurred_at":
        texts = random.choice(("%Y-%m-%d %H:%M:%S", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%d/%m/%Y %H:%M"))
        kinds_ = (pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.timestamp("s", "Asia/Tokyo"), pa.date32())
        if random.random() < 0.5:
            return pa.array([one.strftime(texts) for one in moments])
        return pa.array(moments, pa.timestamp("us")).cast(random.choice(kinds_), safe=False)
    if name == "event":
        return pa.array([random.choice(("visit", "signup", "purchase")) for _ in range(size)])
    ids = [random.randrange(10**6, 10**6 + 15) for _ in range(size)]
    return pa.array(ids) if random.random() < 0.5 else pa.array([f"C{one}" for one in ids])


def drawn(random: Random) -> pa.Table:
    """Return a table of a log's three columns, most as they should be, and up to six others; or of others alone."""
    size = random.choice((0, 1, 40, 40, 40, 300))
    names = random.sample(NAMES, random.randint(1, 6))
    if random.random() < 0.9:
        names = list(dict.fromkeys([*ROLES, *names]))
    faulty = random.choice((0.0, 0.0, 0.5))
    arrays = [
        good(name, random, size) if name in ROLES and random.random() >= faulty else hostile(random, size)
        for name in names
    ]
    return pa.Table.from_arrays(arrays, names=names)


def as_cells(table: pa.Table) -> list[list[str]]:
    """Return the table as lines of text, as a program would print its values."""

    def cell(column: pa.ChunkedArray, row: int) -> str:
        try:
            value = column[row].as_py()
        except (ValueError, OverflowError):  # a time that Python cannot say
            return str(column[row])
        return "" if value is None else str(value)

    return [table.column_names, *([cell(column, i) for column in table.columns] for i in range(len(table)))]


def as_text(table: pa.Table, random: Random) -> bytes:
    separator, quote, end = random.choice(",;\t|"), random.choice(('"', '"', "")), random.choice(("\n", "\r\n", "\r"))
    text = end.join(
        separator.join(f"{quote}{one.replace(quote, quote * 2) if quote else one}{quote}" for one in line)
        for line in as_cells(table)
    )
    title = random.choice(("", "", "", f"sep={separator}{end}", f"Report of 2024{end}{end}"))
    encoding = random.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
    return (title + text + random.choice(("", end))).encode(encoding, errors="replace")


def written(table: pa.Table, folder: Path, random: Random) -> Path:
    """Write the table as a file of some kind, perhaps damaged or under another kind's name, and return its path."""
    kind = random.choice(
        ("csv", "csv", "csv.gz", "parquet", "parquet", "parquet", "json", "xlsx", "zip", "feather", "orc")
    )
    file = folder / f"log.{kind}"
    try:
        match kind:
            case "csv":
                file.write_bytes(as_text(table, random))
            case "csv.gz":
                file.write_bytes(gzip.compress(as_text(table, random)))
            case "parquet":
                pq.write_table(table, file, compression=random.choice(("snappy", "zstd", "gzip", "none")))
            case "json":
                names, *lines = as_cells(table)
                rows = [dict(zip(names, line, strict=True)) for line in lines]
                file.write_text(json.dumps(rows) if random.random() < 0.5 else "\n".join(map(json.dumps, rows)))
            case "xlsx":
                book = openpyxl.Workbook()
                for line in as_cells(table):
                    book.worksheets[0].append([re.sub(r"[\x00-\x08\x0b-\x1f]", "", one) for one in line])
                book.save(file)
            case "zip":
                with zipfile.ZipFile(file, "w") as archive:
                    archive.writestr("log.csv", as_text(table, random))
            case "feather":
                pyarrow.feather.write_feather(table, str(file))
            case "orc":
                pyarrow.orc.write_table(table, str(file))
    except (pa.ArrowException, NotImplementedError):  # the container has no such type
        file = folder / "log.csv"
        file.write_bytes(as_text(table, random))
    whole = file.read_bytes()
    match random.randrange(20):
        case 0:
            file.write_bytes(whole[: random.randrange(len(whole) + 1)])
        case 1:
            at = random.randrange(len(whole) + 1)
            file.write_bytes(whole[:at] + random.randbytes(random.randint(1, 8)) + whole[at:])
        case 2:
            file = file.rename(folder / random.choice(("log.csv", "log.parquet", "log.csv.gz", "log.tsv")))
    return file


def settings(table: pa.Table, file: Path, random: Random) -> dict[str, Any]:
    """Return a configuration that takes some of the columns for roles, not always with sense."""
    others = [name for name in table.column_names if name not in ROLES] or table.column_names
    roles = {role: role if role in table.column_names else random.choice(others) for role in ROLES}
    for role in ("value", "channel", "touchpoint_id", "known_at", "plan"):
        if random.random() < 0.25:
            roles[role] = random.choice(others)
    source: dict[str, Any] = {"path": file.name, "columns": roles}
    if random.random() < 0.1:
        source["time_format"] = random.choice(TIMES)
    return {
        "name": "any", "time_zone": "Europe/Berlin", "history_from": "2024-01-01", "sources": {"log": source},
        "journey": JOURNEY, "refused_share": random.choice((0.0, 0.5, 0.999, 0.999)), "out": "out",
    }  # fmt: skip


def answered(what: str, ran: Any, codes: tuple[int, ...]) -> None:
    said = f"{what}: exit {ran.code}\n{ran.out[-1500:]}\n{ran.err[-1500:]}"
    assert ran.code in codes, said
    assert "Traceback" not in ran.out + ran.err, said
    assert ran.code == 0 or ran.err.strip(), said


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_any_file_ends_in_an_answer(group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(group, FILES, GROUPS):
        random = Random(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        table = drawn(random)
        file = written(table, folder, random)
        answered(f"{number} init {file.name}", call("init", file, "--config", "drafted.yaml"), (0, 3))
        (folder / "any.yaml").write_text(yaml.safe_dump(settings(table, file, random)))
        ran = call("check", "any.yaml", "--as-of", "2024-11-01", "--json")
        answered(f"{number} check {file.name}", ran, (0, 2, 3))
        if ran.code == 0:
            for counts in json.loads(ran.out)["sources"]:
                accounted = sum(counts["refused"].values()) + sum(
                    map(counts.get, ("stored", "duplicates", "unmatched"))
                )
                assert counts["rows_in"] == accounted, f"{number}: {counts}"
