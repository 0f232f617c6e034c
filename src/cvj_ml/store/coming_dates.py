"""Attributes that are dates: read as local days, so that "in 60 days" counts days of the business's own calendar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cvj_ml.config import DAY, AttributesSpec, Config
from cvj_ml.store.fields import Field, Reading
from cvj_ml.store.instants import local_day, read_instant, tells_day_only


@dataclass(frozen=True, slots=True)
class DateReading:
    """SQL of an instant on the day that is meant, and of its local day since 1970, given the column of the instant.

    In two steps, since each looks up the offsets of a zone: one inside the other is more than a database can plan.
    """

    instant: Reading
    config: Config

    def day(self, column: str) -> str:
        """Return SQL of the local day, as a number."""
        return f"CAST({local_day(column, self.config)} // {DAY} AS DOUBLE)"


def read_dates(
    label: str, fields: Mapping[str, Field], spec: AttributesSpec, config: Config, faults: list[str]
) -> dict[str, DateReading]:
    """Return the readings of the attributes that are dates; nothing where none is declared.

    Dates are read as other times are: ``times`` says in which zone hours are, and one that is written without any is a
    day of the business's own calendar. What is there and is no date refuses its row.
    """
    found: dict[str, DateReading] = {}
    for number, name in enumerate(spec.dates):
        if name not in fields:
            continue
        field = fields[name]
        if field.family not in ("text", "date", "naive", "zoned", "null") and spec.time_format is None:
            faults.append(
                f"{label}: dates: {name} is {field.type}; give a date, a timestamp or ISO 8601 text, or say how it is"
                " written: time_format"
            )
            continue
        # By number, since the name of an attribute need not be one of a column in SQL.
        alias = f"date_{number}"
        read = read_instant(label, alias, field, spec, config, faults)
        instant = read.value
        if spec.times not in ("local", config.time_zone):
            local = read_instant(label, alias, field, spec.model_copy(update={"times": "local"}), config, [])
            instant = f"CASE WHEN {tells_day_only(field, spec)} THEN {local.value} ELSE {instant} END"
        found[name] = DateReading(Reading(instant, f"({read.there} AND ({instant}) IS NULL)", read.wall), config)
    return found
