"""The pieces of a configuration as YAML text: paths, and values on one line."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_YAML_VALUES = ("true", "false", "null", "yes", "no", "on", "off")


def path_of(paths: Sequence[Path], beside: Path) -> str:
    """Return the paths of a source: one, or a pattern that today matches these files and no other, or all of them."""
    if len(paths) == 1:
        return scalar(os.path.relpath(paths[0].resolve(), beside))
    whole = [path.resolve() for path in paths]
    pattern = _pattern([path.parts for path in whole])
    if pattern is not None and {Path(one) for one in glob.glob(pattern)} == {*whole}:
        return scalar(os.path.relpath(pattern, beside))
    return inline([os.path.relpath(path, beside) for path in whole])


def _pattern(paths: Sequence[Sequence[str]]) -> str | None:
    """Return a pattern for paths (as parts) of one folder, or of folders that differ by what stands behind a ``=``."""
    if len({len(parts) for parts in paths}) > 1:
        return None
    found = []
    for place, parts in enumerate(zip(*paths, strict=True)):
        keys = {part.partition("=")[0] for part in parts if "=" in part}
        if place + 1 == len(paths[0]) and len(set(parts)) > 1:
            start = re.sub(r"\d[\d\W_]*$", "", _start(parts))
            name = Path(parts[0])
            end = "".join(name.suffixes[-2:] if name.name.endswith(".gz") else name.suffixes[-1:])
            found.append(f"{glob.escape(start)}*{end}")
        elif len(set(parts)) == 1:
            found.append(glob.escape(parts[0]))
        elif len(keys) == 1 and all("=" in part for part in parts):
            found.append(f"{glob.escape(keys.pop())}=*")
        else:
            return None
    return str(Path(*found))


def _start(names: Sequence[str]) -> str:
    """Return what all names begin with."""
    first, last = min(names), max(names)
    return next((first[:i] for i, sign in enumerate(first) if i >= len(last) or last[i] != sign), first)


def scalar(text: str) -> str:
    """Return a text as YAML; what YAML could read as anything else is quoted."""
    plain = re.fullmatch(r"[A-Za-z_./][\w./*-]*", text) and text.lower() not in _YAML_VALUES
    return text if plain else json.dumps(text, ensure_ascii=False)


def quoted(names: Iterable[str]) -> str:
    """Return texts as a list of which every one is quoted."""
    return f"[{', '.join(json.dumps(name, ensure_ascii=False) for name in names)}]"


def one_line(text: str) -> str:
    """Return a text without line breaks, as a comment needs it."""
    return " ".join(text.split())


def inline(value: Any) -> str:
    """Return a value of the grammar, however nested, as YAML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(str(name))}: {inline(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return scalar(value) if isinstance(value, str) else str(value)
