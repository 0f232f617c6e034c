"""What pydantic finds wrong with a document, in words that say where and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cvj_ml.errors import ConfigError, raise_all

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


def check(kind: type[Checked], document: Any, file: Path) -> Checked:
    """Return the document of a file as a section; ConfigError with every fault at once."""
    if not isinstance(document, dict):
        found = "nothing" if document is None else "a list" if isinstance(document, list) else "one value"
        raise ConfigError(f"{file}: expected a mapping of settings (key: value), found {found}; see the README.")
    try:
        return kind.model_validate(document, context={"folder": file.resolve().parent})
    except ValidationError as error:
        faults = _faults(error, document)
        number = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise_all(ConfigError, f"{file}: the configuration has {number}:", faults)
        raise AssertionError("a validation error names at least one fault") from error


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
