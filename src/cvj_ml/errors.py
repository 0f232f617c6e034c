"""Errors that a person can act on; each class carries the exit code of its kind."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path


class CvjError(Exception):
    """A handled failure: the message says what, where, what was found and what to do next."""

    exit_code = 1


class RegistryError(CvjError):
    """The model registry fails or does not answer."""


class StoreError(CvjError):
    """A file of the store in ``folder`` is not what was written."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message, folder)  # all of it, so that it can travel from a worker
        self.folder = folder

    def __str__(self) -> str:
        return str(self.args[0])


class ConfigError(CvjError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class DataError(CvjError):
    """A source, a table or its freshness breaks the data contract."""

    exit_code = 3


class ModelError(CvjError):
    """A model is absent, damaged or made for another journey."""

    exit_code = 4


class NoRegistryError(ModelError):
    """There is no registry where the configuration says."""


class NightError(CvjError):
    """A published night is damaged, or there is none."""

    exit_code = 4


class GateError(CvjError):
    """A quality or drift gate stopped the run."""

    exit_code = 5


class LockedError(CvjError):
    """Another run holds the lock."""

    exit_code = 75


class Stopped(SystemExit):
    """A signal asks the process to end; what is half-done is removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


def exit_code_of(error: BaseException | None) -> int:
    """Return the exit code of a command that ends with this error, or with none."""
    if error is None:
        return 0
    if isinstance(error, CvjError):
        return error.exit_code
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else CvjError.exit_code


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def raise_all(kind: type[CvjError], heading: str, faults: Sequence[str]) -> None:
    """Raise one error that lists every fault; do nothing when there is none."""
    if faults:
        raise kind(heading + "".join(f"\n  - {fault}" for fault in faults))
