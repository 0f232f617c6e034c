"""The reference of the Python interface, made from the docstrings of what the package exports."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

MODULES = ("cvj_ml", "cvj_ml.sklearn")
"""Whose ``__all__`` is public."""

HEAD = """# The Python interface

Made from the docstrings. [Python](python.md) and [scikit-learn](sklearn.md) show how the parts go together, the
[glossary](glossary.md) explains the words.
"""


def reference() -> str:
    """Return the page."""
    parts = [HEAD]
    told: set[Any] = set()
    for name in MODULES:
        module = importlib.import_module(name)
        parts.append(f"## {name}\n")
        for exported in module.__all__:
            thing = getattr(module, exported)
            if thing in told:
                parts.append(f"### {name}.{exported}\n\nAbove, in `{MODULES[0]}`.\n")
                continue
            told.add(thing)
            parts.append("\n".join(_described(f"{name}.{exported}", thing, "###")))
            if inspect.isclass(thing):
                for member, value in _members(thing):
                    parts.append("\n".join(_described(f"{exported}.{member}", value, "####")))
    return "\n".join(parts)


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class of ours tells of, base classes of ours included."""
    ours = [one for one in owner.__mro__ if one.__module__.startswith("cvj_ml")]
    seen: set[str] = set()
    for one in ours:
        for name, value in vars(one).items():
            function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            # pydantic wraps its validators in objects of its own, which are no functions.
            if name.startswith("_") or name in seen or not inspect.isfunction(function) or not function.__doc__:
                continue
            seen.add(name)
            yield name, value


def _described(name: str, thing: Any, level: str) -> Iterator[str]:
    yield f"{level} {name}\n"
    signature = _signature(thing)
    if signature is not None:
        yield f"```python\n{name.rpartition('.')[2]}{signature}\n```\n"
    yield _as_markdown(inspect.getdoc(getattr(thing, "fget", None) or thing) or "") + "\n"


def _signature(thing: Any) -> str | None:
    """Return how something is called, a parameter a line where it is long; None for what is not called."""
    function = getattr(thing, "__func__", thing)
    if isinstance(thing, property) or not callable(function):
        return None
    if inspect.isclass(thing) and (issubclass(thing, Exception) or "__init__" not in vars(thing)):
        return None  # an error is caught and a configuration is loaded, neither is called
    found = inspect.signature(function)
    parameters = [one for one in found.parameters.values() if one.name not in ("self", "cls")]
    returned = found.empty if inspect.isclass(thing) else found.return_annotation
    found = found.replace(parameters=parameters, return_annotation=returned)
    text = str(found)
    if len(text) > 90:  # a parameter a line; Signature.format does so from Python 3.13 on
        lines = ",\n    ".join(_with_stars(parameters))
        rest = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
        text = f"(\n    {lines},\n){rest}"
    return text.replace("'", "")


def _with_stars(parameters: list[inspect.Parameter]) -> Iterator[str]:
    """Yield the parameters as text, with the star that the keyword-only ones follow."""
    starred = False
    for one in parameters:
        if one.kind is one.VAR_POSITIONAL:
            starred = True
        elif one.kind is one.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield str(one)


def _as_markdown(doc: str) -> str:
    """Return a docstring as Markdown: examples become blocks, a line ``name: what it is`` an item of a list."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", doc):
        if paragraph.startswith(">>>"):
            parts.append(f"```pycon\n{paragraph}\n```")
        else:
            named = re.sub(r"^((?:\w+, )*\w+): (?=\S)", r"- `\1`: ", paragraph, flags=re.M)
            # What follows an item in the same paragraph belongs to it.
            parts.append(re.sub(r"\n(?!- )", "\n  ", named) if named.startswith("- `") else named)
    return re.sub(r"\bdocs/([\w-]+)\.md", r"[\1](\1.md)", "\n\n".join(parts))
