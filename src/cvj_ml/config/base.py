"""What all configuration sections share: frozen, strict, and helpful about misspelt keys."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, model_validator

from cvj_ml.errors import nearest


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


def _resolve(path: str, info: ValidationInfo) -> str:
    return str(Path(_folder(info), _expanded(path)))


def _resolve_pattern(path: str, info: ValidationInfo) -> str:
    # The folder of the file is no pattern, whatever it is called.
    expanded = _expanded(path)
    folder = str(_folder(info))
    return str(Path(glob.escape(folder) if glob.has_magic(path) else folder, expanded))


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
"""A path or a pattern, relative to the folder of the configuration file."""
