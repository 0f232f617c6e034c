"""What a file is, by its content: Parquet, text, JSON, an archive or workbook, or what it really is instead.

Nothing of a file's content is ever part of a message, except the names of columns.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, Literal, TextIO, cast

from cvj_ml.config import Encoding
from cvj_ml.errors import DataError

FileKind = Literal["parquet", "text", "json", "zip", "workbook"]
"""What a file is read as; text is delimited."""

UNREADABLE_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)

_HEAD = 1 << 16
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_ZIP = b"PK\x03\x04"
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_WORKBOOKS = {"an Excel workbook": (".xlsx", ".xlsm", ".xlsb"), "an OpenDocument spreadsheet": (".ods",)}
"""What an archive can be that is read as a workbook, and how it is named."""

_UNPACK = "unpack it and name the files that are in it"
_EXPORT = "export the table as CSV or Parquet"
_CONVERT = "convert it to Parquet or CSV"
_SAVE = "save the sheet as CSV in UTF-8"

# Offset, first bytes, what the file is, what to do.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (0, b"PK\x05\x06", "an empty ZIP archive", "is the export complete?"),
    (0, _OLD_OFFICE, "an old Excel or other Office file", _SAVE),
    (0, b"BZh", "compressed with bzip2", "unpack it, or compress it with gzip"),
    (0, b"\xfd7zXZ\x00", "compressed with xz", "unpack it, or compress it with gzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unpack it, or compress it with gzip"),
    (0, b"\x04\x22\x4d\x18", "compressed with LZ4", "unpack it, or compress it with gzip"),
    (0, b"\x1f\x9d", "compressed with compress", "unpack it, or compress it with gzip"),
    (0, b"\xff\x06\x00\x00sNaPpY", "compressed with Snappy", "unpack it, or compress it with gzip"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"ORC", "an ORC file", _CONVERT),
    (0, b"Obj\x01", "an Avro file", _CONVERT),
    (0, b"ARROW1", "an Arrow (Feather) file", _CONVERT),
    (0, b"FEA1", "an old Feather file", _CONVERT),
    (0, b"\xff\xff\xff\xff", "an Arrow stream", _CONVERT),
    (0, b"\x89HDF", "an HDF5 file", _CONVERT),
    (0, b"\x93NUMPY", "a NumPy array", _CONVERT),
    (0, b"\x80\x03", "a Python pickle", _CONVERT),
    (0, b"\x80\x04", "a Python pickle", _CONVERT),
    (0, b"\x80\x05", "a Python pickle", _CONVERT),
    (0, b"$FL", "an SPSS file", _CONVERT),
    (0, b"<stata_dta>", "a Stata file", _CONVERT),
    (0, b"RDX", "an R data file", _CONVERT),
    (0, b"X\n\x00", "an R data file", _CONVERT),
    (84, b"SAS FILE", "a SAS file", _CONVERT),
    (0, b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (8, b"DUCK", "a DuckDB database", _EXPORT),
    (0, b"PGDMP", "a dump of a PostgreSQL database", _EXPORT),
    (4, b"Standard Jet DB", "an Access database", _EXPORT),
    (4, b"Standard ACE DB", "an Access database", _EXPORT),
    (0, b"%PDF", "a PDF", _EXPORT),
    (0, b"{\\rtf", "a text document (RTF)", _EXPORT),
    (0, b"\x89PNG", "an image", _EXPORT),
    (0, b"\xff\xd8\xff", "an image", _EXPORT),
    (0, b"GIF8", "an image", _EXPORT),
    (0, b"-----BEGIN PGP", "encrypted (PGP)", "decrypt it"),
    (0, b"version https://git-lfs", "only a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (0, b"-- PostgreSQL database dump", "a dump of a PostgreSQL database", _EXPORT),
    (0, b"--\n-- PostgreSQL database dump", "a dump of a PostgreSQL database", _EXPORT),
    (0, b"-- MySQL dump", "a dump of a MySQL database", _EXPORT),
)

_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)

_DELIMITED_NAMES = (".csv", ".tsv", ".tab", ".psv")
_TEXT_NAMES, _PARQUET_NAMES = (*_DELIMITED_NAMES, ".txt", ".json", ".jsonl", ".ndjson"), (".parquet", ".pq", ".parq")

_MARKUP = re.compile(r"<(!doctype|!--|\?xml|html|head|body|table|script|meta|div)\b|<\w[^,;\t|]*>\s*<", re.IGNORECASE)


def kind_of_file(path: Path) -> FileKind:
    """Return what a file is that ``require_table`` let pass, compressed or not."""
    with path.open("rb") as stream:
        head = stream.read(len(_OLD_OFFICE))
        if head.startswith(_PARQUET):
            return "parquet"
        if head.startswith(_ZIP):
            return "workbook" if _in_archive(stream) in _WORKBOOKS else "zip"
        if head == _OLD_OFFICE:
            return "workbook"
    with gzip.open(path) if is_packed(path) else path.open("rb") as unpacked:
        head = unpacked.read(_HEAD)
    return "json" if _json(_stripped(_decoded(head, _encoded(head) or "utf-8"))) else "text"


def is_text(path: Path) -> bool:
    """Return whether a file that ``require_table`` let pass is delimited text, compressed or not."""
    return kind_of_file(path) == "text"


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed with gzip."""
    with path.open("rb") as stream:
        return stream.read(len(_GZIP)) == _GZIP


def open_text(path: Path, encoding: str, errors: str = "strict") -> TextIO:
    """Open a text file, compressed or not, with its line ends as they are."""
    opener = gzip.open if is_packed(path) else open
    return cast("TextIO", opener(path, "rt", encoding=encoding, errors=errors, newline=""))


def require_table(label: str, path: Path, encoding: Encoding, called: str | None = None) -> None:
    """Raise DataError unless a file is one of the kinds that are read, whole at its ends, as its name says.

    ``called`` is the name of what a copy is of.
    """
    where, name = f"{label}: {called or path}", (called or path.name).lower()
    try:
        with path.open("rb") as stream:
            head, packed = stream.read(_HEAD), False
            if not head:
                raise DataError(f"{where} is empty: 0 bytes, not even a header; is the export complete?")
            if head.startswith(_PARQUET):
                _require_parquet(where, name, stream)
                return
            if head.startswith(_ZIP):
                _require_archive(where, name, stream)
                return
            if head.startswith(_OLD_OFFICE) and name.endswith(".xls"):
                return
        if head.startswith(_GZIP):
            packed = True
            with gzip.open(path) as unpacked:
                head = unpacked.read(_HEAD)
    except UNREADABLE_GZIP:
        raise DataError(f"{where} is a gzip file that is cut or damaged; copy it again.") from None
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or type(error).__name__}.") from None
    inside = "compressed with gzip, and inside it is " if packed else ""
    if packed and not head:
        raise DataError(f"{where} is compressed with gzip and empty inside; is the export complete?")
    if packed and head.startswith((_PARQUET, _ZIP)):
        what = "a Parquet file" if head.startswith(_PARQUET) else "a ZIP archive or a workbook"
        raise DataError(f"{where} is {inside}{what}; unpack it.")
    kind = _require_text(f"{where} is {inside}", head, encoding)
    if kind and name.removesuffix(".gz").endswith(_DELIMITED_NAMES):
        raise DataError(f"{where} is {inside}{kind}; rename it to .jsonl or .json.")
    _require_name(where, name, packed)


def encoding_of(path: Path) -> Encoding:
    """Return how a text file is encoded: UTF-16 says so by its first bytes; else the first that can be."""
    with open_text(path, "latin-1") as text:  # any bytes are Latin-1
        if _encoded(text.read(_HEAD).encode("latin-1")) == "utf-16":
            return "utf-16"
    likely: tuple[Encoding, ...] = ("utf-8", "windows-1252")
    for encoding in likely:
        try:
            with open_text(path, encoding) as text:
                while text.read(1 << 20):
                    pass
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _require_parquet(where: str, name: str, stream: IO[bytes]) -> None:
    if name.endswith((".gz", *_TEXT_NAMES)):
        raise DataError(f"{where} is a Parquet file; rename it to .parquet.")
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - len(_PARQUET)))
    end = stream.read()
    if end == b"PARE":
        raise DataError(f"{where} is an encrypted Parquet file; write it without encryption.")
    if size < 12 or end != _PARQUET:
        raise DataError(f"{where} is a Parquet file without its end: the copy is not complete.")


def _require_archive(where: str, name: str, stream: IO[bytes]) -> None:
    what = _in_archive(stream)
    if what is None:
        raise DataError(f"{where} is a ZIP archive (or a workbook) that is cut or damaged; copy it again.")
    if what == "a Word document":
        raise DataError(f"{where} is {what}; {_EXPORT}.")
    names = _WORKBOOKS.get(what, (".zip",))
    if not name.endswith(names):
        raise DataError(f"{where} is {what}; rename it to {names[0]}.")


def _in_archive(stream: IO[bytes]) -> str | None:
    """Return what kind of archive a file is; None where it cannot be read."""
    try:
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            names = set(archive.namelist())
            if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
                return "an Excel workbook"
            if "word/document.xml" in names:
                return "a Word document"
            if "mimetype" in names and b"spreadsheet" in archive.read("mimetype"):
                return "an OpenDocument spreadsheet"
            return "a ZIP archive"
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return None


def _decoded(head: bytes, encoding: str) -> str:
    return head.decode("utf-16" if encoding == "utf-16" else "utf-8-sig", errors="replace")


def _stripped(text: str) -> str:
    return text.strip("\ufeff \t\r\n\x1a")


def _require_text(what: str, head: bytes, encoding: Encoding) -> str | None:
    """Raise DataError for what is neither delimited text nor JSON; return what kind of JSON it is, None for none."""
    for offset, magic, name, advice in _SIGNATURES:
        if head.startswith(magic, offset):
            raise DataError(f"{what}{name}; {advice}.")
    found = _encoded(head)
    if found == "utf-32":
        raise DataError(f"{what}UTF-32 text; save it as UTF-8.")
    if found == "utf-16-be":
        raise DataError(f"{what}UTF-16 text without a byte order mark; save it as UTF-8.")
    if found is not None and found != encoding:
        raise DataError(f"{what}{found.upper()} text; say so: encoding: {found}")
    if encoding == "utf-16" and found is None:
        raise DataError(f"{what}no UTF-16 text; leave encoding out, or say what it is.")
    text = _decoded(head, encoding)
    stripped = _stripped(text)
    if not stripped:
        raise DataError(f"{what}empty: it holds no header, only blanks; is the export complete?")
    if re.match(r"<\?xml|<\w+:", stripped) and "<html" not in stripped[:2000].lower():
        raise DataError(f"{what}XML; {_CONVERT}.")
    if _MARKUP.match(stripped):
        raise DataError(
            f"{what}a web page (HTML), as servers answer with instead of a file, and as some systems name .xls:"
            " open it in a browser to see which, and export the table as CSV."
        )
    if kind := _json(stripped):
        return kind
    first = stripped.splitlines()[0]
    odd = sum(sign < " " and sign not in "\t\r\n\x0b\x0c\x1a\x1b" for sign in text)
    if any(sign < " " and sign != "\t" for sign in first) or odd > len(text) / 50:
        raise DataError(f"{what}neither text nor Parquet, nor any other format that is known here; {_EXPORT}.")
    return None


def _encoded(head: bytes) -> str | None:
    """Return the encoding that first bytes tell, by a byte order mark or by where the zeros are; None for neither."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    whole = head[: len(head) // 4 * 4]
    if len(whole) < 8:
        return None
    zeros = [whole[place::4].count(0) / (len(whole) / 4) for place in range(4)]
    if (min(zeros[1:]) > 0.9 and zeros[0] < 0.3) or (min(zeros[:3]) > 0.9 and zeros[3] < 0.3):
        return "utf-32"
    if min(zeros[1], zeros[3]) > 0.7 and max(zeros[0], zeros[2]) < 0.3:
        return "utf-16"
    return "utf-16-be" if min(zeros[0], zeros[2]) > 0.7 and max(zeros[1], zeros[3]) < 0.3 else None


def _json(text: str) -> str | None:
    """Return what kind of JSON a text begins as; None for none."""
    if not text:
        return None
    if text[0] == "{":
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return "JSON" if re.match(r'\{\s*("|\})', text) else None
        return "JSON lines" if text[end:].lstrip().startswith("{") or end == len(text) else "JSON"
    return "JSON (one array)" if re.match(r"\[\s*([{\[\]]|\"[^\"]*\"\s*[,\]]\s*$|-?\d)", text) else None


def _require_name(where: str, name: str, packed: bool) -> None:
    if name.endswith(".gz") != packed:
        told = "is not compressed, though its name ends in .gz; rename it, or compress it with gzip"
        raise DataError(f"{where} {'is compressed with gzip; add .gz to its name' if packed else told}.")
    if name.endswith(_PARQUET_NAMES):
        raise DataError(f"{where} is text, not a readable Parquet file; rename it to .csv if it is delimited text.")
