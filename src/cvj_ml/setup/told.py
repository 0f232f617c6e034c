"""What a person said of the columns of files: which one is the customer, and how times are written."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from cvj_ml.errors import nearest
from cvj_ml.setup.profile import Table

Told = Mapping[tuple[str | None, str], str]
"""What a person said: (file or None for all, role) to the column; of the customer also several, parted by commas.

The role `TIME_FORMAT` is how the column of ``occurred_at`` is written.
"""

TIME_FORMAT = "time_format"


def told_of(table: Table, told: Told, *, formats: bool = False) -> dict[str, list[str]]:
    """Return what a person said of a table: role to the columns that it has, of which only customers have several.

    With ``formats`` also how its times are written.
    """
    names = {one.name for one in table.file.columns}
    files = {path.name for path in table.file.paths} | {str(path) for path in table.file.paths}
    found = {
        role: [said] if role == TIME_FORMAT else [one for one in _columns_of(role, said, names) if one in names]
        for (file, role), said in told.items()
        if (file is None or file in files or str(Path(file).absolute()) in files) and (formats or role != TIME_FORMAT)
    }
    return {role: columns for role, columns in found.items() if columns}


def _columns_of(role: str, said: str, names: Container[str]) -> list[str]:
    """Return the columns that a text names: one, or several ids of the customer, unless one column is called so."""
    if role != "customer_id" or said in names:
        return [said]
    return list(dict.fromkeys(one.strip() for one in said.split(",") if one.strip())) or [said]


def told_nowhere(told: Told, tables: Sequence[Table]) -> list[str]:
    """Return the columns that a person named and no file has, and those that cannot be what was said."""
    faults = []
    for (file, role), said in told.items():
        of = [
            table
            for table in tables
            if file is None
            or any(file in (path.name, str(path)) or Path(file).absolute() == path for path in table.file.paths)
        ]
        where = f"{file}:" if file else ""
        if not of:
            known_files = [path.name for table in tables for path in table.file.paths]
            faults.append(f"{where}{role}={said}: there is no file {file!r}.{nearest(file or '', known_files)}")
            continue
        if role == TIME_FORMAT:
            continue
        known = [one.name for table in of for one in table.file.columns]
        unknown = [one for one in _columns_of(role, said, known) if one not in known]
        faults += [f"{where}{role}={said}: no file has a column {one!r}.{nearest(one, known)}" for one in unknown]
        if not unknown and role in ("occurred_at", "known_at"):
            wrong = [one for table in of for one in table.file.columns if one.name == said and one.kind != "time"]
            faults += [
                f"{where}{role}={said}: it holds no times that can be read; say how they are written, as in"
                ' --time-format "%d.%m.%Y %H:%M" or "days since 2017-01-01"'
                for _ in wrong[:1]
            ]
    return faults
