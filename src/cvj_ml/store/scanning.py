"""Files as DuckDB reads them: the SQL that scans them, and copies of what it cannot read as it is."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import Config, Encoding, TableSpec
from cvj_ml.errors import DataError
from cvj_ml.store.containers import unpacked
from cvj_ml.store.formats import UNREADABLE_GZIP, FileKind, is_packed, kind_of_file, open_text
from cvj_ml.store.headers import TextLayout, read_layout
from cvj_ml.store.json_files import JsonLayout, scan_json, with_shape
from cvj_ml.store.sql import as_named, identifier, literal

# Nothing is guessed from rows: everything is text, ids keep their zeros, `#` starts no comment.
_CSV_OPTIONS = (
    "auto_detect=false, header=true, quote='\"', escape='\"', comment='', strict_mode=true, hive_partitioning=false"
)
_KINDS: dict[FileKind, str] = {"text": "text", "parquet": "Parquet files", "json": "JSON"}
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Plain:
    """A file that DuckDB reads as it is: Parquet, text in UTF-8 with its header first, or JSON in UTF-8.

    ``origin`` is the file of the table that it is or comes from, ``name`` what it is called in messages, ``source`` it
    as it was before it was written in UTF-8 without what stands above its header, in ``encoding``.
    """

    path: Path
    layout: TextLayout | JsonLayout | None = None
    origin: Path = Path()
    name: str = ""
    source: Path = Path()
    encoding: Encoding = "utf-8"

    @property
    def kind(self) -> FileKind:
        """Return what the file is read as."""
        if self.layout is None:
            return "parquet"
        return "json" if isinstance(self.layout, JsonLayout) else "text"


def plain_files(label: str, paths: tuple[Path, ...], spec: TableSpec, config: Config, spill: Path) -> tuple[Plain, ...]:
    """Return the files as DuckDB reads them, all of one kind: as they are, or copies in a folder beside the spill.

    Raises DataError for files of several kinds, and for what is wrong with the columns.
    """
    folder = spill.with_name(f"{spill.name}-plain")
    files = [
        Plain(one.path, None, one.origin, one.name, one.path, "utf-8" if one.is_sheet else spec.encoding)
        for one in unpacked(label, paths, spec, folder)
    ]
    kinds = [kind_of_file(one.path) for one in files]
    if len(set(kinds)) > 1:
        mixed = " and ".join(_KINDS[one] for one in _KINDS if one in kinds)
        if len({one.origin for one in files}) == 1:
            raise DataError(f"{label}: {files[0].origin} holds {mixed}; say which under member.")
        raise DataError(f"{label}: path mixes {mixed}; make them two sources.")
    if kinds[0] == "parquet":
        _check_types(label, files)
        _require_one_table(label, files, [pq.read_schema(one.path).names for one in files], spec)
        return tuple(files)
    if kinds[0] == "json":
        if spec.encoding != "utf-8":
            files = [_copy_plain(label, one, 0, folder) for one in files]
        shaped = with_shape(label, [(one.name, one.path) for one in files], config, spill)
        return tuple(replace(one, layout=layout) for one, layout in zip(files, shaped, strict=True))
    layouts = [read_layout(label, one.path, one.encoding, one.name) for one in files]
    _require_one_table(label, files, [layout.columns for layout in layouts], spec)
    return tuple(_plain_text(label, one, layout, folder) for one, layout in zip(files, layouts, strict=True))


def _plain_text(label: str, file: Plain, layout: TextLayout, folder: Path) -> Plain:
    # DuckDB miscounts lines that it has to skip where they, or a mark before them, meet quotes.
    if file.encoding == "utf-8" and not layout.above and not layout.lines_in_header:
        return replace(file, layout=layout)
    return replace(_copy_plain(label, file, layout.above, folder), layout=layout)


def _require_one_table(label: str, files: Sequence[Plain], columns: Sequence[Sequence[str]], spec: TableSpec) -> None:
    """Raise DataError where files of one archive that nobody chose have different columns: they are several tables.

    Files whose names differ by numbers alone are one table in parts, some of which may have a column more.
    """
    firsts: dict[Path, tuple[Plain, set[str]]] = {}
    for one, names in zip(files, columns, strict=True):
        first, held = firsts.setdefault(one.origin, (one, set(names)))
        mostly = 2 * len(held & set(names)) >= len(held | set(names))
        if spec.member is not None or held == set(names) or (mostly and _stem(one) == _stem(first)):
            continue
        more, less = sorted(set(names) - held), sorted(held - set(names))
        told = "; ".join(
            f"{what} {', '.join(map(repr, some[:_SHOWN]))}{' …' if len(some) > _SHOWN else ''}"
            for what, some in (("it lacks", less), ("it has besides", more))
            if some
        )
        raise DataError(
            f"{label}: files of one archive have different columns: {one.name} is another table than"
            f" {_member(first)} ({told}); say which under member, as in member:"
            rf" {re.sub(r'[0-9][0-9_.-]*(?=[.])', '*', _member(first))}."
        )


def _member(file: Plain) -> str:
    """Return what a file is called in its archive, without folders."""
    return PurePosixPath(file.name.rpartition(": ")[2].partition(", sheet ")[0]).name


def _stem(file: Plain) -> str:
    return re.sub("[0-9]+", "", _member(file)).lower()


def _copy_plain(label: str, file: Plain, above: int, folder: Path) -> Plain:
    encoding = file.encoding
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    copy = folder / f"{hashlib.sha256(str(file.path).encode()).hexdigest()[:16]}.csv"
    if copy.exists():
        return replace(file, path=copy)
    # What is no UTF-8 in a UTF-8 file is passed through: it is a fault of its row.
    reading = ("utf-8-sig", "surrogateescape") if encoding == "utf-8" else (encoding, "strict")
    part = copy.with_suffix(".part")
    try:
        with (
            open_text(file.path, *reading) as text,
            part.open("w", encoding="utf-8", errors=reading[1], newline="") as to,
        ):
            for _ in range(above):
                text.readline()
            shutil.copyfileobj(text, to, 1 << 20)
        part.rename(copy)
    except UnicodeError:
        raise DataError(f"{label}: {file.name} is not {encoding} text; say under encoding what it is.") from None
    except UNREADABLE_GZIP:
        raise DataError(f"{label}: {file.name} is a gzip file that is cut or damaged; copy it again.") from None
    return replace(file, path=copy)


def scan(files: Sequence[Plain], *, lenient: bool = False) -> str:
    """Return the SQL that reads the files; names are escaped, for a real file name may look like a pattern.

    Leniently, what is no row is left out, and can be asked for; else it is an error.
    """
    if files[0].layout is None:
        names = ", ".join(as_named(one.path) for one in files)
        return f"read_parquet([{names}], union_by_name=true, hive_partitioning=false)"
    return f"({' UNION ALL BY NAME '.join(_scan_one(one, lenient) for one in files)})"


def _scan_one(file: Plain, lenient: bool) -> str:
    if isinstance(file.layout, JsonLayout):
        return scan_json(file.path, file.layout, lenient=lenient)
    assert file.layout is not None
    columns = {one or f"unnamed {place}": one for place, one in enumerate(file.layout.columns)}
    typed = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
    settings = [f"delim={literal(file.layout.delimiter)}, columns={{{typed}}}", _CSV_OPTIONS]
    settings += [f"compression='{'gzip' if is_packed(file.path) else 'none'}'"]
    settings += ["ignore_errors=true, store_rejects=true, rejects_limit=0"] if lenient else []
    # A column without a name cannot be meant: row numbers that pandas wrote, or delimiters at the ends of lines.
    read = ", ".join(identifier(column) for column, own in columns.items() if own)
    return f"SELECT {read} FROM read_csv({as_named(file.path)}, {', '.join(settings)})"


def told_types(files: Sequence[Plain]) -> dict[str, str]:
    """Return the columns of Parquet files that are more than the numbers that they are kept as."""
    columns = [column for one in files if one.layout is None for column in pq.read_schema(one.path)]
    told = {column.name: "DURATION" for column in columns if pa.types.is_duration(column.type)}
    return told | {column.name: "HALF" for column in columns if pa.types.is_float16(column.type)}


def _check_types(label: str, files: Sequence[Plain]) -> None:
    """Refuse a column that is a number in one file and text in another: reading them as one would guess."""
    seen: dict[str, tuple[str, Path]] = {}
    faults = []
    for one in files:
        path = Path(one.name)
        try:
            schema = pq.read_schema(one.path)
        except (pa.ArrowException, OSError):
            raise DataError(f"{label}: {path} is a Parquet file whose end is damaged; copy it again.") from None
        for column in schema:
            family = _family(column.type)
            first, before = seen.setdefault(column.name, (family, path))
            if family == "null" or first == family:
                continue
            if first == "null":
                seen[column.name] = (family, path)
            else:
                faults.append(
                    f"{label}: the column {column.name!r} is {first} in {before.name} and {family} in {path.name}"
                )
    if faults:
        raise DataError("\n  - ".join(faults) + "; write the files with one type, or cast in a query.")


def _family(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for name, test in (
        ("null", pa.types.is_null),
        ("a number", lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)),
        ("text", lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)),
        ("bytes", lambda t: "binary" in str(t)),
        ("a date", pa.types.is_date),
        ("a time with zone", lambda t: pa.types.is_timestamp(t) and t.tz is not None),
        ("a time without zone", pa.types.is_timestamp),
    ):
        if test(kind):
            return name
    return str(kind)
