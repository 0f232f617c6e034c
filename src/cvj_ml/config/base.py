"""What all configuration sections share: frozen, strict, and helpful about misspelt keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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


def _resolve(path: str, info: ValidationInfo) -> str:
    if not path.strip():
        raise ValueError("it is empty; write a path")
    folder = (info.context or {}).get("folder", Path())
    return str(Path(folder, Path(path).expanduser()))


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) or value is None else [value]


ResolvedPath = Annotated[str, AfterValidator(_resolve)]
"""A path, relative to the folder of the configuration file; globs stay globs."""
