"""What all configuration sections share: frozen, strict, and helpful about misspelt keys.

Durations such as ``30d``: integer microseconds inside, text in YAML.

What pydantic finds wrong with a document, in words that say where and what to write instead.
"""

from __future__ import annotations

import glob
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from cvj_ml.errors import ConfigError, nearest, raise_all


@cache
def zone_names() -> frozenset[str]:
    """Return the names of all time zones; they stand in files, which are many."""
    return frozenset(available_timezones())


class Section(BaseModel):
    """A frozen part of the configuration that names the nearest right key for a wrong one."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()} | set(cls.model_fields)
            unknown = [str(key) for key in data if key not in known]
            if unknown:
                raise ValueError("\n".join(f"unknown key {key!r}.{nearest(key, known)}" for key in unknown))
        return data

    @model_validator(mode="before")
    @classmethod
    def _refuse_switches_for_numbers(cls, data: Any) -> Any:
        """To Python true is 1: ``refused_share: true`` would let every row be refused."""
        if isinstance(data, dict):
            kinds = {field.alias or name: field.annotation for name, field in cls.model_fields.items()}
            wrong = [key for key, value in data.items() if _holds_switch(value) and _is_number(kinds.get(key))]
            if wrong:
                raise ValueError("\n".join(f"{key}: true and false are no value here; write a number" for key in wrong))
        return data


def _holds_switch(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(map(_holds_switch, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool)


def _is_number(kind: Any) -> bool:
    """Return whether a type is of numbers alone, one or many of them."""
    parts = [part for part in get_args(kind) if part not in (type(None), Ellipsis)]
    if get_origin(kind) in (dict, Annotated):
        parts = parts[1:] if get_origin(kind) is dict else parts[:1]
    return all(map(_is_number, parts)) if parts else kind in (int, float)


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ADDRESSES = {
    "s3": "s3://bucket/name",
    "gs": "gs://bucket/name",
    "abfss": "abfss://container@account.dfs.core.windows.net/name",
}


def is_object(path: str) -> bool:
    """Return whether a path is the address of an object, or a pattern of such, and no file."""
    return path.startswith(tuple(f"{scheme}://" for scheme in _ADDRESSES))


def _resolve(path: str, info: ValidationInfo) -> str:
    if scheme := _SCHEME.match(path):
        raise ValueError(f"{scheme[0]} is no folder of this machine; only tables may lie in an object store")
    return str(Path(_folder(info), _expanded(path)))


def _resolve_pattern(path: str, info: ValidationInfo) -> str:
    if scheme := _SCHEME.match(path):
        _check_address(path, scheme[1])
        return path
    # The folder of the file is no pattern, whatever it is called.
    expanded = _expanded(path)
    folder = str(_folder(info))
    return str(Path(glob.escape(folder) if glob.has_magic(path) else folder, expanded))


def _check_address(path: str, scheme: str) -> None:
    """Raise ValueError for what is no address of an object; what may hold a key or a password is not shown."""
    if scheme not in _ADDRESSES:
        raise ValueError(f"{scheme}:// is not read; write a file, or one of {', '.join(_ADDRESSES.values())}")
    host, _, key = path.partition("://")[2].partition("/")
    wanted = f"write {_ADDRESSES[scheme]}"
    container, at, account = host.partition("@")
    secret = ":" in container or "@" in account or (bool(at) and scheme != "abfss")
    if secret or re.search(r"[?&][\w.-]+=", path):
        raise ValueError(
            f"{scheme}://…: it holds more than a place, such as a key or a signature, which is not shown here."
            f" Credentials come from the environment alone (docs/object-stores.md); {wanted}"
        )
    if scheme == "abfss" and not re.fullmatch(r"[a-z0-9$-]+@[a-z0-9]+\.dfs\.[a-z0-9.]+", host):
        raise ValueError(f"{path}: the host is no container of an account; {wanted}")
    if not host or glob.has_magic(host):
        raise ValueError(f"{path}: the bucket is named in full, without * or ?; {wanted}")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{path}: after the bucket comes the name of an object, without empty parts; {wanted}")


def _folder(info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", Path()))


def _expanded(path: str) -> Path:
    if not path.strip():
        raise ValueError("it is empty; write a path")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such user here; write the whole path") from error


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) or value is None else [value]


ResolvedPath = Annotated[str, AfterValidator(_resolve)]
"""A path, relative to the folder of the configuration file."""

ResolvedPattern = Annotated[str, AfterValidator(_resolve_pattern)]
"""A path or a pattern, relative to the folder of the configuration file; or the address of objects, as it is."""


SECOND = 1_000_000
DAY = 86_400 * SECOND
YEAR = 365 * DAY
_UNITS = {"w": 7 * DAY, "d": DAY, "h": 3_600 * SECOND, "min": 60 * SECOND, "s": SECOND}

_LONGEST = 36_500 * DAY


def parse_duration(text: Any) -> int:
    """Read ``30d``, ``12h``, ``30min``, ``45s`` or ``2w`` as microseconds (``1d`` is 86,400 s)."""
    found = re.fullmatch(r"([0-9]{1,15})\s*(w|d|h|min|s)", text.strip()) if isinstance(text, str) else None
    if not found or int(found[1]) == 0:
        raise ValueError(
            f"{text!r} is not a duration; write a positive whole number and a unit: 30d, 12h, 30min, 45s, 2w"
        )
    if (length := int(found[1]) * _UNITS[found[2]]) > _LONGEST:
        raise ValueError(f"{text!r} is longer than any history; write at most 36500d")
    return length


def read_duration(text: str, name: str) -> int:
    """Return a duration such as ``90d`` in microseconds; ConfigError, which names the option, for what is none."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}.") from None


def format_duration(microseconds: int) -> str:
    """Write microseconds in the largest unit, weeks apart, that divides them."""
    for unit in ("d", "h", "min", "s"):
        if microseconds % _UNITS[unit] == 0:
            return f"{microseconds // _UNITS[unit]}{unit}"
    raise ValueError(f"{microseconds} microseconds are not whole seconds")


Duration = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(format_duration)]


Checked = TypeVar("Checked", bound=BaseModel)

_WORDS = {
    "missing": "it is missing; add it",
    "too_short": "name at least one",
    "tuple_type": "write a list, such as [a, b]",
    "list_type": "write a list, such as [a, b]",
    "dict_type": "write a mapping, such as {key: value}",
    "model_type": "write a mapping, such as {key: value}",
    "string_type": "write text; put quotes around a number that is meant as text",
    "string_pattern_mismatch": "use letters, digits, _ and - only, and begin with a letter or a digit",
    "date_from_datetime_parsing": "write a date, such as 2024-01-31",
    "date_type": "write a date, such as 2024-01-31",
}


def validated(kind: type[Checked], document: Any, file: Path | None) -> Checked:
    """Return the document of a file as a section; ConfigError with every fault at once.

    Without a file, the settings are those of a program, and paths in them are taken as they are.
    """
    place = f"{file}: " if file else ""
    if not isinstance(document, dict):
        found = "nothing" if document is None else "a list" if isinstance(document, list) else "one value"
        raise ConfigError(f"{place}expected a mapping of settings (key: value), found {found}; see the README.")
    try:
        return kind.model_validate(document, context={"folder": file.resolve().parent} if file else None)
    except ValidationError as error:
        faults = _faults(error, document)
    # Outside of its handling, so that a traceback does not show pydantic's own words, which quote what was found.
    number = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise_all(ConfigError, f"{place}the configuration has {number}:", faults)
    raise AssertionError("a validation error names at least one fault")


def _faults(error: ValidationError, document: Any) -> list[str]:
    """Return one line a fault; the alternatives of one place are told together."""
    by_place: dict[str, list[str]] = {}
    found = error.errors(include_url=False, include_input=False)
    for fault in found:
        inside = len(fault["loc"])
        if fault["type"] == "too_short" and any(
            other["loc"][:inside] == fault["loc"] and len(other["loc"]) > inside for other in found
        ):
            continue  # pydantic counts only the items that are right
        place = _place(fault["loc"], document, missing=fault["type"] == "missing")
        text = fault["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
        words = by_place.setdefault(place, [])
        if (told := _WORDS.get(fault["type"], text)) not in words:
            words.append(told)
    return [
        f"{place}: {line}" if place else line
        for place, words in by_place.items()
        for line in "; or ".join(words).split("\n")
    ]


def _place(location: tuple[int | str, ...], document: Any, *, missing: bool) -> str:
    """Return where in the document a fault is: pydantic's location without its own names for alternatives."""
    place, node = "", document
    for part in location[:-1] if missing else location:
        if isinstance(node, dict) and part in node:
            place, node = f"{place}.{part}", node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            place, node = f"{place}[{part}]", node[part]
    return (f"{place}.{location[-1]}" if missing else place).removeprefix(".")
