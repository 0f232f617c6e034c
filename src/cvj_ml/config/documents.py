"""Reading YAML strictly: duplicate keys are refused, ``${ENV}`` is filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from cvj_ml.errors import ConfigError, raise_all

_MOST_NODES = 100_000
"""Far more than any configuration has; a few aliases of aliases have billions."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_LARGEST = 2**63 - 1

# What the constructors of PyYAML raise for values such as `!!int x`, month 13, or more digits than Python reads.
_NO_VALUE = (ValueError, LookupError, TypeError, AttributeError, OverflowError)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, and aliases that repeat without an end."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and self._size(node, {}) > _MOST_NODES:
            raise ConfigError(f"{self.name}: its aliases (*name) repeat too much; write out what is meant.")
        return node

    def _size(self, node: yaml.Node, known: dict[yaml.Node, int]) -> int:
        """Return how many nodes there are when every alias is written out."""
        if node in known:
            if not known[node]:
                raise ConfigError(
                    f"{self.name}, line {node.start_mark.line + 1}: an alias (*name) stands inside of what it repeats;"
                    " write out what is meant."
                )
            return known[node]
        known[node] = 0  # until it is known, it is being looked at
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inside = [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            inside = node.value
        known[node] = 1 + sum(self._size(one, known) for one in inside)
        return known[node]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            mark = key_node.start_mark
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise ConfigError(
                    f"{mark.name}, line {mark.line + 1}: `<<` is not read here; write out the keys that it would add."
                )
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ConfigError(
                    f"{mark.name}, line {mark.line + 1}: a key is a list or a mapping; put quotes around text that"
                    " begins with a brace or a bracket."
                )
            if key in seen:
                raise ConfigError(
                    f"{mark.name}, line {mark.line + 1}: the key {key!r} is given twice; keep one of them."
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads a bare `on`, `no` or `yes` as a truth value; country codes and event names are text.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> Any:
    """Read one YAML document from a file, with environment variables filled in."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the file: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the file is not UTF-8 text. Save it as UTF-8.") from error
    try:
        loader = _StrictLoader(text)
        loader.name = str(path)
        document = loader.get_single_data()
    except yaml.YAMLError as error:
        told = str(error).replace("<unicode string>", str(path))
        raise ConfigError(f"{path}: this is not valid YAML: {told}") from error
    except RecursionError:
        raise ConfigError(f"{path}: it is nested too deeply to be meant; see docs/configuration.md.") from None
    except _NO_VALUE as error:
        raise ConfigError(
            f"{path}: a value in it is none that YAML can read ({type(error).__name__}): a date that does not exist, a"
            " number of thousands of digits or a wrong tag (!!). Put quotes around what is meant as text."
        ) from None
    document = _fill_environment(document, path)
    raise_all(ConfigError, f"{path}: values that no setting can have:", list(_impossible(document, "")))
    return document


def _impossible(node: Any, place: str) -> Iterator[str]:
    """Yield what is wrong with values wherever they stand."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _impossible(key, f"a key in {place}" if place else "a key")
            yield from _impossible(value, f"{place}.{key}".removeprefix("."))
    elif isinstance(node, list | tuple | set):
        for number, value in enumerate(node):
            yield from _impossible(value, f"{place}[{number}]")
    elif isinstance(node, str) and _CONTROL.search(node):
        yield f"{_CONTROL.sub('?', place)}: it holds a control character; leave it out"
    elif isinstance(node, int) and abs(node) > _LARGEST:
        yield f"{place}: a number of {len(str(abs(node)))} digits; write a smaller one"
    elif isinstance(node, bytes):
        yield f"{place}: bytes (!!binary); write text"


def _fill_environment(node: Any, path: Path) -> Any:
    if isinstance(node, dict):
        return {key: _fill_environment(value, path) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill_environment(value, path) for value in node]
    if isinstance(node, str):
        return re.sub(r"\$\{(\w+)\}", lambda found: _variable(found[1], path), node)
    return node


def _variable(name: str, path: Path) -> str:
    if name not in os.environ:
        raise ConfigError(f"{path}: the environment variable {name} is not set; export it before the run.")
    if not os.environ[name].strip():
        # Half a path, or half a secret, is another one: `${CVJ_OUT}` would be the folder of the configuration.
        raise ConfigError(f"{path}: the environment variable {name} is empty; give it a value before the run.")
    return os.environ[name]
