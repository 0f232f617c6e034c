"""Files as DuckDB reads them: the SQL that scans them, and copies of text that has another encoding or lines above."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvj_ml.config import Encoding, TableSpec
from cvj_ml.errors import DataError
from cvj_ml.store.formats import UNREADABLE_GZIP, is_packed, is_text, open_text
from cvj_ml.store.headers import TextLayout, read_layout
from cvj_ml.store.sql import as_named, identifier, literal

# Nothing is guessed from rows: everything is text, ids keep their zeros, `#` starts no comment.
_CSV_OPTIONS = (
    "auto_detect=false, header=true, quote='\"', escape='\"', comment='', strict_mode=true, hive_partitioning=false"
)


@dataclass(frozen=True, slots=True)
class Plain:
    """A file that DuckDB reads as it is: Parquet, or text in UTF-8 with its header first."""

    path: Path
    layout: TextLayout | None = None


def plain_files(label: str, paths: tuple[Path, ...], spec: TableSpec, spill: Path) -> tuple[Plain, ...]:
    """Return the files as DuckDB reads them: beside the spill, copies of text in UTF-8 that begin with their header."""
    folder, found = spill.with_name(f"{spill.name}-plain"), []
    for path in paths:
        if not is_text(path):
            found.append(Plain(path))
            continue
        layout = read_layout(label, path, spec.encoding)
        # DuckDB miscounts lines that it has to skip where they, or a mark before them, meet quotes.
        if spec.encoding == "utf-8" and not layout.above and not layout.lines_in_header:
            found.append(Plain(path, layout))
            continue
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        copy = folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.csv"
        if not copy.exists():
            _copy_plain(label, path, spec.encoding, layout.above, copy)
        found.append(Plain(copy, layout))
    return tuple(found)


def _copy_plain(label: str, path: Path, encoding: Encoding, above: int, copy: Path) -> None:
    # What is no UTF-8 in a UTF-8 file is passed through: it is a fault of its row.
    reading = ("utf-8-sig", "surrogateescape") if encoding == "utf-8" else (encoding, "strict")
    part = copy.with_suffix(".part")
    try:
        with open_text(path, *reading) as text, part.open("w", encoding="utf-8", errors=reading[1], newline="") as to:
            for _ in range(above):
                text.readline()
            shutil.copyfileobj(text, to, 1 << 20)
        part.rename(copy)
    except UnicodeError:
        raise DataError(f"{label}: {path} is not {encoding} text; say under encoding what it is.") from None
    except UNREADABLE_GZIP:
        raise DataError(f"{label}: {path} is a gzip file that is cut or damaged; copy it again.") from None


def scan(files: Sequence[Plain], options: str = "") -> str:
    """Return the SQL that reads the files; names are escaped, for a real file name may look like a pattern."""
    scans = []
    for file in files:
        name = as_named(file.path)
        if file.layout is None:
            names = ", ".join(as_named(one.path) for one in files)
            return f"read_parquet([{names}], union_by_name=true, hive_partitioning=false)"
        columns = {one or f"unnamed {place}": one for place, one in enumerate(file.layout.columns)}
        typed = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
        settings = [f"delim={literal(file.layout.delimiter)}, columns={{{typed}}}", _CSV_OPTIONS]
        settings += [f"compression='{'gzip' if is_packed(file.path) else 'none'}'", *([options] if options else [])]
        # A column without a name cannot be meant: row numbers that pandas wrote, or delimiters at the ends of lines.
        read = ", ".join(identifier(column) for column, own in columns.items() if own)
        scans.append(f"SELECT {read} FROM read_csv({name}, {', '.join(settings)})")
    return f"({' UNION ALL BY NAME '.join(scans)})"
