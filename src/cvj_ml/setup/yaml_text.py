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
    folder, names = paths[0].parent, [path.name for path in paths]
    start = re.sub(r"\d[\d\W_]*$", "", _start(names))
    end = "".join(paths[0].suffixes[-2:] if paths[0].name.endswith(".gz") else paths[0].suffixes[-1:])
    pattern = folder.resolve() / f"{glob.escape(start)}*{end}"
    if {Path(one) for one in glob.glob(str(pattern))} == {folder.resolve() / name for name in names}:
        return scalar(os.path.relpath(pattern, beside))
    return inline([os.path.relpath(path.resolve(), beside) for path in paths])


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
