"""Reading YAML strictly: duplicate keys are refused, ``${ENV}`` is filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from cvj_ml.errors import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key, mark = self.construct_object(key_node, deep=True), key_node.start_mark
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
    return _fill_environment(document, path)


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
