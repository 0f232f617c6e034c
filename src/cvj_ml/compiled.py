"""One way to compile a function: serial, without the GIL, cached on disk where that is possible.

numba would cache by a file's name and time of change, which misses what a function calls in another file and compiles
anew after a comment was edited. Here the key is the content: the bytecode of the function, of every compiled function
that it calls, and the values of the globals that they read.
"""

from __future__ import annotations

import builtins
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dis import get_instructions
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.dispatcher import Dispatcher

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _cache_folder() -> Path | None:
    """Return a writable folder for machine code, or None."""
    chosen = os.environ.get("CVJ_ML_CACHE")
    folder = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cvj_ml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return None
    return folder


_FOLDER = _cache_folder()


def compiled(function: _Function) -> _Function:
    """Compile a function of arrays and numbers; never ``parallel``, since callers run it under threads.

    What the function calls and the globals that it reads have to be defined before it.
    """
    dispatcher: Any = numba.njit(nogil=True)(function)
    if _FOLDER is not None and dispatcher is not function:  # NUMBA_DISABLE_JIT returns the function itself
        dispatcher._cache = _ContentCache(function)
    return cast(_Function, dispatcher)


def content_digest(function: Callable[..., Any]) -> str:
    """Return a digest of what decides a function's machine code: no line number, no comment, no docstring is in it."""
    return hashlib.sha256(repr(_content(function)).encode()).hexdigest()


def _content(function: Any) -> tuple[object, ...]:
    codes = list(_nested(function.__code__))
    names = sorted({one.argval for code in codes for one in get_instructions(code) if one.opname == "LOAD_GLOBAL"})
    return (
        # Machine code names the module of each function in it, and that is imported when the code is loaded.
        function.__module__,
        function.__qualname__,
        function.__defaults__,
        [
            (
                code.co_code,
                code.co_exceptiontable,
                code.co_varnames,
                code.co_names,
                [one for one in code.co_consts if not isinstance(one, CodeType) and one is not function.__doc__],
            )
            for code in codes
        ],
        [(name, _value(function, name)) for name in names],
    )


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _value(function: Any, name: str) -> object:
    """Return the content of a global; one whose content is not looked at would be a stale kernel one day."""
    try:
        value = function.__globals__[name]
    except KeyError:
        if hasattr(builtins, name):
            return name
        raise TypeError(f"{function.__qualname__} reads {name}, which has to be defined above it.") from None
    match value:
        case Dispatcher():
            return _content(value.py_func)
        case ModuleType() if value.__name__.partition(".")[0] != __name__.partition(".")[0]:
            return value.__name__, getattr(value, "__version__", None)
        case type():
            return f"{value.__module__}.{value.__qualname__}"
        case bool() | int() | float() | str() | np.generic():
            return type(value).__name__, repr(value)
        case np.ndarray():
            return value.dtype.str, value.shape, value.tobytes()
    raise TypeError(f"{function.__qualname__} reads {name}, a {type(value).__name__}, whose content has no digest.")


class _ContentLocator(_CacheLocator):
    """Where numba looks for a function's machine code: a file whose name holds the digest of the content."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file  # numba names it in a warning
        self._digest = content_digest(function)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _ContentLocator:
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(_FOLDER)

    def get_source_stamp(self) -> str:
        return self._digest

    def get_disambiguator(self) -> str:
        return self._digest[:16]


class _ContentCacheImpl(CompileResultCacheImpl):
    def __init__(self, function: Callable[..., Any]) -> None:
        self._locator_classes = [_ContentLocator]
        super().__init__(function)  # type: ignore[no-untyped-call]


class _ContentCache(FunctionCache):
    _impl_class = _ContentCacheImpl

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
