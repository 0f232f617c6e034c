"""What a file is, by its content: read rightly, or told what it really is, and no byte of it is quoted.

Silent error 63: a first line that is no header, and a first column that is no column, are taken for them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pytest

from cvj_ml.config import Config, SourceSpec
from cvj_ml.errors import DataError
from cvj_ml.store.source_location import land, locate
from cvj_ml.store.sql import connect_duckdb

CANARY = "canary-4711"
ROWS = [(f"{CANARY}-{i}", f"2024-03-0{i} 10:00:00", "purchase") for i in range(1, 8)]
HEADER = ("customer_id", "occurred_at", "event")


def text(delimiter: str = ",", end: str = "\n", header: tuple[str, ...] | None = HEADER) -> str:
    return end.join(delimiter.join(row) for row in [*([header] if header else []), *ROWS]) + end


CSV = text().encode()


def csv_of(first: int, last: int) -> bytes:
    lines = CSV.splitlines(keepends=True)
    return lines[0] + b"".join(lines[first + 1 : last + 1])


LINES = "\n".join(json.dumps(dict(zip(HEADER, row, strict=True))) for row in ROWS)
ARRAY = f"[{LINES.replace(chr(10), chr(44))}]"


@pytest.fixture
def read(tmp_path: Path, configure: Callable[..., Config]) -> Callable[..., list[tuple[Any, ...]]]:
    """Return a function that writes a file and reads it as a source, or raises."""
    number = iter(range(1000))

    def reading(name: str, content: bytes, **settings: Any) -> list[tuple[Any, ...]]:
        (tmp_path / name).write_bytes(content)
        spec = {"path": str(tmp_path / name), **settings}
        config = configure(sources={"log": spec})
        folder = tmp_path / f"read-{next(number)}"
        location = locate("sources.log", SourceSpec.model_validate(spec), config, folder / "spill")
        with connect_duckdb(config, folder / "spill") as connection:
            relation = land(location, connection, config, folder / "landed")
            assert relation.unreadable == 0
            return connection.execute(f"SELECT * FROM {relation.sql} ORDER BY ALL").fetchall()

    return reading


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=list(HEADER))


def parquet() -> bytes:
    buffer = io.BytesIO()
    frame().to_parquet(buffer)
    return buffer.getvalue()


def zipped(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def workbook(before: bool = False) -> bytes:
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="xlsxwriter") as writer:
        if before:
            pd.DataFrame({"x": [1]}).to_excel(writer, sheet_name="first")
        frame().to_excel(writer, sheet_name="log")
    return buffer.getvalue()


READ: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "tab": ("log.tsv", text("\t").encode(), {}),
    "tab under a name of commas": ("log.csv", text("\t").encode(), {}),
    "semicolon in .txt": ("log.txt", text(";").encode(), {}),
    "pipe without an ending": ("log", text("|").encode(), {}),
    "a name in capitals": ("LOG.CSV", CSV, {}),
    "line ends of Windows": ("log.csv", text(end="\r\n").encode(), {}),
    "line ends of old": ("log.csv", text(end="\r").encode(), {}),
    "without a last line end": ("log.csv", CSV.rstrip(), {}),
    "byte order mark": ("log.csv", b"\xef\xbb\xbf" + CSV, {}),
    "UTF-16": ("log.csv", text("\t").encode("utf-16"), {"encoding": "utf-16"}),
    "gzip": ("log.csv.gz", gzip.compress(CSV), {}),
    "gzip of tabs": ("log.tsv.gz", gzip.compress(text("\t").encode()), {}),
    "gzip in two parts": ("log.csv.gz", gzip.compress(CSV[:100]) + gzip.compress(CSV[100:]), {}),
    "Parquet": ("log.parquet", parquet(), {}),
    "Parquet without an ending": ("log", parquet(), {}),
    "sep": ("log.csv", b"sep=;\n" + text(";").encode(), {}),
    "sep in capitals, quoted, of Windows, with a mark": (
        "log.csv", b'\xef\xbb\xbf"SEP=;"\r\n' + text(";", "\r\n").encode(), {},
    ),
    "a title with quotes": ("log.csv", b'"Orders, all shops"\n"of\n2024"\n' + CSV, {}),
    "a title and a rare mark, in another encoding": (
        "log.csv", "sep=^\n".encode("utf-16") + text("^").encode("utf-16-le"), {"encoding": "utf-16"},
    ),
    "a header of two lines": (
        "log.csv", b"\xef\xbb\xbf" + text(header=('"customer\n,id"', *HEADER[1:])).encode(), {},
    ),
    "sep of tabs": ("log.csv", b"sep=\t\n" + text("\t").encode(), {}),
    "sep of a rare mark": ("log.csv", b"sep=^\n" + text("^").encode(), {}),
    "a title": ("log.csv", b"Orders report\n" + CSV, {}),
    "a title and a blank line": ("log.csv", b"Orders report 2024, all shops\n\n" + CSV, {}),
    "a title and its dates": ("log.csv", b"Orders report\r\nfrom 2024-01-01\r\n\r\n" + text(end="\r\n").encode(), {}),
    "a title as wide as the table": ("log.csv", b"Orders report,,\n,,\n" + CSV, {}),
    "a title in a table of semicolons": ("log.csv", b"Orders, all shops\n" + text(";").encode(), {}),
    "a title above, in gzip": ("log.csv.gz", gzip.compress(b"Orders\n\n" + CSV), {}),
    "blank lines above": ("log.csv", b"\n\n" + CSV, {}),
    "row numbers of pandas": ("log.csv", frame().to_csv().encode(), {}),
    "JSON lines": ("log.jsonl", LINES.encode(), {}),
    "JSON lines of Windows, with a mark": (
        "log.txt", b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n\r\n").encode(), {},
    ),
    "JSON lines, one": ("log.json", LINES.encode(), {}),
    "JSON lines in gzip": ("log.json.gz", gzip.compress(LINES.encode()), {}),
    "JSON lines in UTF-16": ("log.jsonl", LINES.encode("utf-16"), {"encoding": "utf-16"}),
    "JSON, an array": ("log.json", ARRAY.encode(), {}),
    "JSON, an array over lines, in gzip": (
        "log.json.gz", gzip.compress(json.dumps(json.loads(ARRAY), indent=2).encode()), {},
    ),
    "JSON, objects over lines": (
        "log", "\n".join(json.dumps(one, indent=1) for one in json.loads(ARRAY)).encode(), {},
    ),
    "zip": ("log.zip", zipped(("log.csv", CSV)), {}),
    "zip named .csv.zip, of two files": (
        "log.csv.zip", zipped(("a/log.csv", csv_of(0, 4)), ("b/log.csv", csv_of(4, 7)), ("a/.DS_Store", b"x")), {},
    ),
    "zip of gzip": ("log.zip", zipped(("log.csv.gz", gzip.compress(CSV))), {}),
    "zip of a title, in another encoding": (
        "log.zip", zipped(("../../log.csv", ("Orders\n\n" + text()).encode("utf-16"))), {"encoding": "utf-16"},
    ),
    "zip of Parquet": ("log.zip", zipped(("log.parquet", parquet())), {}),
    "zip of JSON lines": ("log.zip", zipped(("/etc/log.jsonl", LINES.encode())), {}),
    "zip of a workbook": ("log.zip", zipped(("log.xlsx", workbook())), {}),
    "zip of several tables": ("log.zip", zipped(("a/log.csv", CSV), ("b.csv", b"x,y\n1,2\n")), {"member": "log*"}),
    "workbook": ("log.xlsx", workbook(), {}),
    "workbook, a sheet of it": ("log.xlsx", workbook(before=True), {"sheet": "log"}),
    "delimiters at the ends of lines": ("log.csv", CSV.replace(b"\n", b",\n"), {}),
    "two of them": ("log.csv", CSV.replace(b"\n", b",,\n"), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_is_read_as_written(read: Callable[..., list[tuple[Any, ...]]], case: str) -> None:
    name, content, settings = READ[case]
    assert read(name, content, **settings) == ROWS


def database(folder: Path) -> bytes:
    with sqlite3.connect(folder / "made.db") as connection:
        frame().to_sql("log", connection)
    return (folder / "made.db").read_bytes()


def written(write: Callable[[pa.Table, Any], None]) -> bytes:
    buffer = io.BytesIO()
    write(pa.Table.from_pandas(frame()), buffer)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        item = tarfile.TarInfo("log.csv")
        item.size = len(CSV)
        archive.addfile(item, io.BytesIO(CSV))
    return buffer.getvalue()


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "zip named .csv": ("log.csv", zipped(("log.csv", CSV)), "is a ZIP archive; rename it to .zip"),
    "zip in a zip": ("log.zip", zipped(("log.zip", zipped(("log.csv", CSV)))), "is a ZIP archive within a ZIP archive"),
    "zip of two tables": (
        "log.zip", zipped(("a.csv", CSV), ("b.csv", b"x,y\n1,2\n")), "have different columns",
    ),
    "zip of two kinds": ("log.zip", zipped(("a.csv", CSV), ("b.json", LINES.encode())), "say which under member"),
    "zip of folders": ("log.zip", zipped(("__MACOSX/._a.csv", CSV), ("b/", b"")), "is a ZIP archive without a file"),
    "zip of a misnamed file": ("log.zip", zipped(("a.csv", parquet())), "a.csv is a Parquet file; rename it"),
    "zip, damaged": (
        "log.zip", zipped(("log.csv", CSV)).replace(CANARY.encode(), CANARY.upper().encode(), 1),
        "is a ZIP archive that is damaged",
    ),
    "zip with a password": (
        "log.zip", zipped(("log.csv", CSV)).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"),
        "is a ZIP archive with a password",
    ),
    "zip, cut": ("log.zip", zipped(("log.csv", CSV))[:-30], "is a ZIP archive (or a workbook) that is cut or damaged"),
    "zip without files": ("log.zip", zipped(), "is an empty ZIP archive"),
    "workbook named .csv": ("log.csv", workbook(), "is an Excel workbook; rename it to .xlsx"),
    "workbook of old, damaged": (
        "log.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is a workbook that cannot be read",
    ),
    "workbook of old, named .csv": ("log.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is an old Excel"),
    "OpenDocument, damaged": (
        "log.ods", zipped(("mimetype", b"application/vnd.oasis.opendocument.spreadsheet")),
        "is a workbook that cannot be read",
    ),
    "text named .csv.gz": ("log.csv.gz", CSV, "is not compressed, though its name ends in .gz"),
    "gzip named .csv": ("log.csv", gzip.compress(CSV), "is compressed with gzip; add .gz to its name"),
    "gzip, cut in its head": ("log.csv.gz", gzip.compress(CSV)[:20], "is a gzip file that is cut or damaged"),
    "gzip, cut": ("log.csv.gz", gzip.compress(CSV)[:-4], "is a gzip file that is cut or damaged"),
    "gzip, damaged": ("log.csv.gz", gzip.compress(CSV)[:30] + bytes(99), "is a gzip file that is cut or damaged"),
    "gzip of nothing": ("log.csv.gz", gzip.compress(b""), "compressed with gzip and empty inside"),
    "gzip of a zip": ("log.csv.gz", gzip.compress(zipped(("a", CSV))), "inside it is a ZIP archive"),
    "gzip of Parquet": ("log.parquet.gz", gzip.compress(parquet()), "inside it is a Parquet file; unpack it"),
    "gzip of a tar": ("log.tar.gz", gzip.compress(tarred()), "inside it is a tar archive"),
    "tar": ("log.tar", tarred(), "is a tar archive"),
    "bzip2": ("log.csv.bz2", bz2.compress(CSV), "is compressed with bzip2"),
    "xz": ("log.csv.xz", lzma.compress(CSV), "is compressed with xz"),
    "Zstandard": ("log.csv.zst", pa.compress(CSV, "zstd", asbytes=True), "is compressed with Zstandard"),
    "JSON lines named .csv": ("log.csv", LINES.encode(), "is JSON lines; rename it to .jsonl or .json"),
    "JSON, a list within an object": (
        "log.json", json.dumps({"rows": ROWS, "more": False}, indent=1).encode(),
        "is one JSON object that holds its rows as a list, under 'rows'",
    ),
    "JSON, an array that is cut": ("log.json", ARRAY[:-9].encode(), "is JSON that is broken or cut, in its value"),
    "JSON, an array with a fault": ("log.json", ARRAY.replace('"event"', "event", 3).encode(), "is JSON that is"),
    "JSON, an array of numbers": ("log.json", b"[4711, 4712]", "holds no JSON object"),
    "JSON, an empty array": ("log.json", b"[]", "holds no JSON object"),
    "JSON, objects without keys": ("log.json", b"[{}, {}]", "its JSON objects have no keys"),
    "JSON, keys that differ by case": (
        "log.jsonl", LINES.replace('"event"', '"EVENT"', 2).encode(), "have the keys 'EVENT' and 'event'",
    ),
    "JSON, too deep": ("log.json", b'[{"a": ' + b"[" * 500 + b"]" * 500 + b"}]", "more than 128 levels deep"),
    "JSON, cut in gzip": ("log.json.gz", gzip.compress(LINES.encode())[:-9], "is a gzip file that is cut or damaged"),
    "Parquet named .csv": ("log.csv", parquet(), "is a Parquet file; rename it to .parquet"),
    "Parquet named .csv.gz": ("log.csv.gz", parquet(), "is a Parquet file; rename it to .parquet"),
    "text named .parquet": ("log.parquet", CSV, "is text, not a readable Parquet file"),
    "Parquet, cut": ("log.parquet", parquet()[:-9], "is a Parquet file without its end: the copy is not complete"),
    "Parquet, damaged at its end": ("log.parquet", parquet()[:-60] + bytes(52) + parquet()[-8:], "end is damaged"),
    "Feather": ("log.feather", written(feather.write_feather), "is an Arrow (Feather) file; convert it"),
    "ORC": ("log.orc", written(lambda table, to: orc.write_table(table, to)), "is an ORC file; convert it"),
    "Avro": ("log.avro", b"Obj\x01" + bytes(99), "is an Avro file; convert it"),
    "PDF": ("log.csv", b"%PDF-1.7\n" + CSV, "is a PDF"),
    "a web page": ("log.csv", f"<!DOCTYPE html><p>{CANARY}".encode(), "is a web page (HTML)"),
    "a table as Excel reads it": ("log.xls", f"\n<table><tr><td>{CANARY}".encode(), "is a web page (HTML)"),
    "XML": ("log.csv", f'<?xml version="1.0"?><rows>{CANARY}'.encode(), "is XML"),
    "a pickle": ("log.csv", b"\x80\x04\x95" + CSV, "is a Python pickle"),
    "a pointer": ("log.csv", b"version https://git-lfs.github.com/spec/v1\n", "is only a pointer of Git LFS"),
    "encrypted": ("log.csv", b"-----BEGIN PGP MESSAGE-----\n" + CSV, "is encrypted (PGP)"),
    "bytes": ("log.csv", bytes(range(256)) * 20, "is neither text nor Parquet"),
    "zeros": ("log.csv", bytes(5000), "is neither text nor Parquet"),
    "UTF-16 that nobody told": ("log.csv", text().encode("utf-16"), "is UTF-16 text; say so: encoding: utf-16"),
    "UTF-16 without a mark": ("log.csv", text().encode("utf-16-le"), "is UTF-16 text; say so: encoding: utf-16"),
    "UTF-16 the other way": ("log.csv", text().encode("utf-16-be"), "is UTF-16 text without a byte order mark"),
    "UTF-32": ("log.csv", text().encode("utf-32"), "is UTF-32 text; save it as UTF-8"),
    "UTF-32 without a mark": ("log.csv", text().encode("utf-32-be"), "is UTF-32 text; save it as UTF-8"),
    "another header than UTF-8": ("log.csv", "Größe".encode("latin-1") + CSV, "the header is not UTF-8 text"),
    "without a byte": ("log.csv", b"", "is empty: 0 bytes, not even a header"),
    "without a byte, named Parquet": ("log.parquet", b"", "is empty: 0 bytes"),
    "a mark alone": ("log.csv", b"\xef\xbb\xbf", "it holds no header, only blanks"),
    "blank lines": ("log.csv", b"\n \n\r\n", "it holds no header, only blanks"),
    "sep alone": ("log.csv", b"sep=;\n", "holds no header"),
    "without a header": ("log.csv", text(header=None).encode(), "has no header: its first line holds data"),
    "without a header, ids alone": ("log.csv", b"4711\n4712\n4713\n", "has no header"),
    "without a header, addresses": ("log.csv", b"a.b@example.com\nc@example.org\nd@x.y\n", "has no header"),
    "without a header, epochs": ("log.csv", b"a,1710003907,b\nc,1710003999,d\ne,1710004000,f\n", "has no header"),
    "without a header under a title": ("log.csv", b"Report\n\n" + text(header=None).encode(), "has no header"),
    "a header without the row numbers": (
        "log.csv", CSV.splitlines()[0] + b"\n" + b"".join(b"7," + row + b"\n" for row in CSV.splitlines()[1:]),
        "the header names 3 columns and the rows have 4 fields",
    ),
    "a name missing in the middle": ("log.csv", CSV.replace(b"occurred_at", b"", 1), "names no column in place 2"),
    "a name twice": ("log.csv", CSV.replace(b"occurred_at", b"EVENT", 1), "the header names 'EVENT' twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_is_told_what_it_really_is(read: Callable[..., list[tuple[Any, ...]]], case: str) -> None:
    name, content, words = REFUSED[case]
    with pytest.raises(DataError) as caught:
        read(name, content)
    assert words in str(caught.value) and name in str(caught.value)
    assert CANARY not in str(caught.value) and "4711" not in str(caught.value)
    assert "disk" not in str(caught.value)


def test_a_database(read: Callable[..., list[tuple[Any, ...]]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is an SQLite database; export the table"):
        read("log.db", database(tmp_path))


@pytest.mark.parametrize(
    ("content", "encoding", "words"),
    [
        (CSV, "utf-16", "is no UTF-16 text"),
        (b"\xef\xbb\xbf" + CSV, "windows-1252", "is UTF-8 text; say so: encoding: utf-8"),
        (text().encode("utf-16"), "latin-1", "is UTF-16 text; say so: encoding: utf-16"),
    ],
)
def test_an_encoding_that_it_is_not(
    read: Callable[..., list[tuple[Any, ...]]], content: bytes, encoding: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read("log.csv", content, encoding=encoding)


@pytest.mark.parametrize(
    "header",
    ["customer_id,2023,2024", "id,q1,q2", "name,2024-01,2024-02", "<DATE>,<TIME>,<CLOSE>", "[id],[name],[at]", "note"],
)
def test_a_header_stays_one(read: Callable[..., list[tuple[Any, ...]]], header: str) -> None:
    row = ",".join(["c1", "12.5", "19"][: header.count(",") + 1])
    assert len(read("log.csv", f"{header}\n{row}\n{row}\n".encode())) == 2


def test_two_kinds_in_one_path(tmp_path: Path, configure: Callable[..., Config]) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b").write_bytes(parquet())
    spec = SourceSpec(path=(str(tmp_path / "a.csv"), str(tmp_path / "b")))
    with pytest.raises(DataError, match="path mixes text and Parquet"):
        locate("sources.log", spec, configure(sources={"log": {"path": "a.csv"}}), tmp_path / "spill")
