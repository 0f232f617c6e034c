"""The known calendar: public holidays by country, and campaigns and sales with the day on which each became known."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationInfo, model_validator

from cvj_ml.config.base import Section, validated
from cvj_ml.config.documents import read_yaml
from cvj_ml.config.places import lies_below
from cvj_ml.errors import nearest

PUBLIC_HOLIDAY = "public holiday"
"""The kind of all public holidays. One a year of each name teaches little; eight days a year of one kind do."""


class AudienceSpec(Section):
    """Whom a period concerns: customers whose attribute has this value when they are asked about."""

    attribute: str
    eq: bool | int | float | str


class PeriodSpec(Section):
    """A period of whole local days, the last one included, of a kind that repeats; known from the end of a day on."""

    kind: str = Field(min_length=1, max_length=100, description="what repeats, such as summer sale")
    start: date
    end: date
    known_at: date = Field(description="the day on which the business knew of it: used from that day's end on")
    audience: AudienceSpec | None = Field(default=None, description="default: everybody")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"{self.kind}: it ends on {self.end}, before it starts on {self.start}; mend the dates")
        return self


class HolidaysSpec(Section):
    """Whose public holidays count: a country by its two letters (ISO 3166-1), and a part of it."""

    country: str
    subdivision: str | None = None

    @model_validator(mode="after")
    def _known_country(self) -> Self:
        try:
            from holidays import list_supported_countries  # a second that only calendars cost
        except ImportError:
            raise ValueError(
                "public holidays by country need a package that is not installed: pip install 'cvj-ml[calendar]'; or"
                " name the days in periods"
            ) from None
        known: dict[str, list[str]] = list_supported_countries()
        if self.country not in known:
            raise ValueError(
                f"country: no holidays are known of {self.country!r}.{nearest(self.country, known)} Write two capital"
                " letters as of ISO 3166-1, such as GB; or name the days in periods"
            )
        parts = known[self.country]
        if self.subdivision is not None and self.subdivision not in parts:
            choice = f"one of {', '.join(parts)}" if parts else "nothing, this country has no parts"
            raise ValueError(f"subdivision: {self.subdivision!r} is none of {self.country}'s; write {choice}")
        return self


class _PeriodsFile(Section):
    """What a file of periods holds: the list alone."""

    periods: tuple[PeriodSpec, ...]


class CalendarSpec(Section):
    """What the business knows of days to come; ``periods`` is a list, or a YAML file with one."""

    holidays: HolidaysSpec | None = None
    periods: tuple[PeriodSpec, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_periods(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("periods"), str):
            return data
        file = Path((info.context or {}).get("folder", Path()), data["periods"])
        listed = validated(_PeriodsFile, {"periods": read_yaml(file)}, file)  # its faults are told with its name
        return {**data, "periods": listed.periods}

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.holidays is None and not self.periods:
            raise ValueError("name holidays, periods, or both; or leave calendar out")
        return self


def calendar_below_out(document: dict[str, Any], folder: Path) -> str | None:
    """Return what is wrong where the file of periods lies below ``out``, None where nothing is."""
    section = document.get("calendar")
    file = section.get("periods") if isinstance(section, dict) else None
    out = str(Path(folder, str(document.get("out", "out"))))
    if isinstance(file, str) and lies_below(str(Path(folder, file)), out):
        return f"calendar.periods: {file} lies below out, where files are removed; put it elsewhere"
    return None


def audience_faults(calendar: CalendarSpec | None, attributes: Collection[str]) -> list[str]:
    """Return the audiences whose attribute is none of those that are mapped."""
    return [
        f"calendar.periods[{i}].audience: there is no attribute {name!r}.{nearest(name, attributes)} It is one of those"
        f" that attributes.columns maps: {', '.join(sorted(attributes)) or 'none yet'}"
        for i, one in enumerate(calendar.periods if calendar else ())
        if one.audience is not None and (name := one.audience.attribute) not in attributes
    ]


def public_holidays(spec: HolidaysSpec, first_year: int, last_year: int) -> list[date]:
    """Return the public holidays of some years, in order: those that a rule gives years ahead.

    Days that a government proclaimed once (a royal wedding, a day of mourning, a working day moved) are left out:
    when they became known nobody says, so a training row would know the future. With ``known_at`` they can be
    named in ``periods``. Dates: the package ``holidays``.
    """
    from holidays import country_holidays

    found = country_holidays(spec.country, subdiv=spec.subdivision)
    found.has_special_holidays = False  # it fills in a year when a day of it is asked for
    for year in range(first_year, last_year + 1):
        found.get(date(year, 1, 1))
    return sorted(day for day in found if first_year <= day.year <= last_year)
