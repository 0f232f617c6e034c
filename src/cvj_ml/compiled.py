"""One way to compile a function: serial, without the GIL, cached on disk where that is possible."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _cache_folder() -> Path | None:
    """Return a writable folder for machine code, or None.

    numba notices a change in a function's own file only, so the folder's name carries a stamp of the whole package:
    a changed definition in one module can never meet stale code of another.
    """
    chosen = os.environ.get("CVJ_ML_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cvj_ml"
    package = Path(__file__).parent
    stats = [(str(file.relative_to(package)), file.stat()) for file in sorted(package.rglob("*.py"))]
    stamp = hashlib.sha256(repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]).encode())
    folder = base / stamp.hexdigest()[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError:
        return None
    return folder


_FOLDER = _cache_folder()
if _FOLDER is not None:
    setattr(numba.config, "CACHE_DIR", str(_FOLDER))  # noqa: B010 - numba makes its settings at run time


def compiled(function: _Function) -> _Function:
    """Compile a function of arrays and numbers; never ``parallel``, since callers run it under threads."""
    return cast(_Function, numba.njit(nogil=True, cache=_FOLDER is not None)(function))
