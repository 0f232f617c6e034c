"""Files within files: what a ZIP archive holds, and a sheet of a workbook as delimited text.

Copies lie in a private folder, under names of their own: a name within an archive is never a path.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from cvj_ml.config import TableSpec
from cvj_ml.errors import DataError, nearest
from cvj_ml.store.formats import kind_of_file, require_table

_MOST_FILES = 10_000
_MOST_BYTES = 64 << 30
_MOST_TIMES, _FROM_BYTES = 300, 256 << 20
"""How many times its size an archive may hold, once that is so much."""

_SHOWN = 8
_UNREADABLE_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A file to read: itself one of a table's files, or a copy of what one holds; and what messages call it.

    ``is_sheet`` says that it was a sheet, so that it is text in UTF-8 whatever the table's other files are.
    """

    path: Path
    name: str
    origin: Path
    is_sheet: bool = False


def unpacked(label: str, paths: Sequence[Path], spec: TableSpec, folder: Path) -> list[Unpacked]:
    """Return the files of a table with those that archives and workbooks hold in their place.

    Raises DataError for what cannot be unpacked or is too large, and for a sheet or member that is not there.
    """
    found, kinds = list[Unpacked](), set[str]()
    for path in paths:
        kinds.add(kind := kind_of_file(path))
        whole = Unpacked(path, str(path), path)
        for one in _members(label, path, spec, folder) if kind == "zip" else [whole]:
            kinds.add(kind := kind_of_file(one.path))
            found.append(_sheet(label, one, spec.sheet, folder) if kind == "workbook" else one)
    for setting, told, kind in (("sheet", spec.sheet, "workbook"), ("member", spec.member, "zip")):
        if told is not None and kind not in kinds:
            what = "workbook of Excel or LibreOffice" if kind == "workbook" else "ZIP archive"
            raise DataError(f"{label}: {setting}: {told!r} is of a {what}, and {paths[0]} is none; leave it out.")
    return found


def _copy_of(folder: Path, *parts: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _members(label: str, path: Path, spec: TableSpec, folder: Path) -> Iterator[Unpacked]:
    where = f"{label}: {path}"
    try:
        with zipfile.ZipFile(path) as archive:
            for item in _chosen(where, archive, spec.member):
                name = f"{path}: {item.filename}"
                copy = _copy_of(folder, path, item.header_offset, item.filename)
                if not copy.exists():
                    part = copy.with_suffix(".part")
                    with archive.open(item) as packed, part.open("wb") as to:
                        _copy(f"{label}: {name}", packed, to, path.stat().st_size)
                    part.rename(copy)
                require_table(label, copy, spec.encoding, name)
                if kind_of_file(copy) == "zip":
                    raise DataError(f"{label}: {name} is a ZIP archive within a ZIP archive; unpack it.")
                yield Unpacked(copy, name, path)
    except _UNREADABLE_ZIP as error:
        if isinstance(error, OSError) and not isinstance(error, zipfile.BadZipFile) and error.errno is not None:
            raise DataError(f"{where} cannot be unpacked: {error.strerror}.") from None
        raise DataError(f"{where} is a ZIP archive that is damaged, or packed in an unusual way; unpack it.") from None


def _chosen(where: str, archive: zipfile.ZipFile, member: str | None) -> list[zipfile.ZipInfo]:
    items = [one for one in archive.infolist() if not one.is_dir() and not _is_hidden(one.filename)]
    if len(items) > _MOST_FILES:
        raise DataError(f"{where} is a ZIP archive of {len(items):,} files, more than {_MOST_FILES:,}; unpack it.")
    chosen = [one for one in items if member is None or _is_named(one.filename, member)]
    if not chosen:
        names = [one.filename for one in items]
        told = f"{', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}" or "nothing"
        asked = f" {member!r}.{nearest(member, names)}" if member else "."
        raise DataError(f"{where} is a ZIP archive without a file{asked} It holds {told}.")
    if any(one.flag_bits & 1 for one in chosen):
        raise DataError(f"{where} is a ZIP archive with a password; unpack it.")
    whole = sum(one.file_size for one in chosen)
    _require_size(where, whole, sum(one.compress_size for one in chosen))
    return chosen


def _is_hidden(name: str) -> bool:
    """Return whether a file is none of the tables: put in by a system such as macOS, or there for people to read."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "__MACOSX" or parts[-1].startswith("."):
        return True
    return parts[-1].lower().split(".")[0] in ("readme", "license", "thumbs")


def _is_named(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(PurePosixPath(name).name, pattern)


def _require_size(where: str, size: int, packed: int) -> None:
    if size > _MOST_BYTES or (size > _FROM_BYTES and size > _MOST_TIMES * max(1, packed)):
        raise DataError(
            f"{where} would be {size:,} bytes unpacked, of {packed:,} packed: more than {_MOST_BYTES >> 30} GB or"
            f" {_MOST_TIMES} times as much is not unpacked. If that is right, unpack it yourself."
        )


def _copy(where: str, packed: IO[bytes], to: IO[bytes], size: int) -> None:
    """Copy what is packed; an archive can tell less than it holds."""
    written = 0
    while block := packed.read(1 << 20):
        written += len(block)
        _require_size(where, written, size)
        to.write(block)


def _sheet(label: str, file: Unpacked, wanted: str | None, folder: Path) -> Unpacked:
    """Return a sheet of a workbook as delimited text: that of a name, or the first that is shown."""
    where = f"{label}: {file.name}"
    try:
        from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum
    except ImportError:
        raise DataError(
            f"{where} is a workbook: pip install 'cvj-ml[excel]' to read it, or save the sheet as CSV in UTF-8."
        ) from None
    copy = _copy_of(folder, file.path, "sheet", wanted)
    try:
        with file.path.open("rb") as stream:
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as archive:
                    size = sum(one.file_size for one in archive.infolist())
                    _require_size(where, size, sum(one.compress_size for one in archive.infolist()))
            stream.seek(0)
            workbook = CalamineWorkbook.from_filelike(stream)
        sheets = [one for one in workbook.sheets_metadata if one.typ == SheetTypeEnum.WorkSheet]
        shown = [one.name for one in sheets if one.visible == SheetVisibleEnum.Visible]
        if wanted is not None and wanted not in [one.name for one in sheets]:
            raise DataError(
                f"{where} has no sheet {wanted!r}.{nearest(wanted, shown)} Its sheets are {', '.join(shown)}."
            )
        if not shown and wanted is None:
            raise DataError(f"{where} is a workbook without a sheet that is shown; name one under sheet.")
        name = wanted or shown[0]
        if not copy.exists():
            rows = workbook.get_sheet_by_name(name)
            _require_one_table(f"{where}, sheet {name}", rows.iter_rows())
            part = copy.with_suffix(".part")
            with part.open("w", encoding="utf-8", newline="") as to:
                timed = _timed(rows.iter_rows())
                csv.writer(to).writerows(
                    [_cell(value, place in timed) for place, value in enumerate(row)]
                    for row in rows.iter_rows()
                    if any(value not in ("", None) for value in row)  # as a blank line is none
                )
            part.rename(copy)
    except (CalamineError, *_UNREADABLE_ZIP) as error:
        told = "has a password" if type(error).__name__ == "PasswordError" else "is a workbook that cannot be read"
        raise DataError(f"{where} {told}; save the sheet as CSV in UTF-8.") from None
    if not copy.stat().st_size:
        raise DataError(f"{where}: the sheet {name!r} is empty; name another one under sheet.")
    return Unpacked(copy, f"{file.name}, sheet {name}", file.origin, is_sheet=True)


def _require_one_table(where: str, rows: Iterator[Sequence[Any]]) -> None:
    """Raise DataError where a second table stands below the first: its rows would be read under the first one's names.

    Its header stands below a blank row, is all text and not the first one's over again; it shares half of its names
    with that, or stands in columns that have numbers or dates both above it and right below.
    """
    headers, typed, parted = list[list[str]](), set[int](), False
    below: tuple[int, list[str], set[int]] | None = None
    for number, row in enumerate(rows, 1):
        cells = {place: one for place, one in enumerate(row) if one not in ("", None)}
        numbers = {place for place, one in cells.items() if not isinstance(one, str)}
        texts = [one.strip().casefold() for one in cells.values() if isinstance(one, str)]
        parted = parted or (not cells and bool(typed))
        if len(cells) > 1 and not numbers and not typed:
            headers.append(texts)
        elif len(cells) > 1 and not numbers and parted and texts not in headers:
            shared = set(texts) & {name for header in headers for name in header}
            if len(shared) > 1 and 2 * len(shared) >= len(texts):
                _raise_below(where, number, texts)
            below = (number, texts, typed & set(cells)) if below is None else below
        elif numbers:
            if below is not None and numbers & below[2]:
                _raise_below(where, *below[:2])
            typed, parted, below = typed | numbers, False, None


def _raise_below(where: str, number: int, names: Sequence[str]) -> NoReturn:
    raise DataError(
        f"{where}, row {number}: another table begins below the first ({', '.join(names[:_SHOWN])}). Put it on a sheet,"
        " or in a file, of its own."
    )


def _timed(rows: Iterator[Sequence[Any]]) -> set[int]:
    """Return the columns with hours: in those a date is a midnight, and no day of which the hours are not known."""
    found = set[int]()
    for row in rows:
        found |= {place for place, one in enumerate(row) if isinstance(one, datetime) and one.time() != time()}
    return found


def _cell(value: Any, timed: bool) -> str:
    """Return a cell as text: a workbook keeps every number as a float, and every date as one."""
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case datetime():
            return value.isoformat(" ") if timed or value.time() != time() else value.date().isoformat()
        case date():
            return f"{value.isoformat()} 00:00:00" if timed else value.isoformat()
    return "" if value is None else str(value)
