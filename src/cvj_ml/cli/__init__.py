"""The command line."""

from __future__ import annotations

import sys

from cvj_ml.cli.commands import app
from cvj_ml.cli.stopping import stoppable
from cvj_ml.cli.terminal import err
from cvj_ml.errors import CvjError, Stopped, exit_code_of

__all__ = ["app", "main"]


def main() -> None:
    """Run a command; handled failures become one message on stderr and the exit code of their kind."""
    try:
        with stoppable():
            # Typer itself ends on a wrong call with 2, and quietly when nobody reads on.
            app(prog_name="cvj-ml")
    except (CvjError, OSError, Stopped) as error:
        err.print(f"error: {in_words(error)}", soft_wrap=True)
        sys.exit(exit_code_of(error))


def in_words(error: BaseException) -> str:
    """Return what a person is told about a failure that ends a command."""
    if isinstance(error, Stopped):
        return f"stopped by {error.signal}; what was half-done is removed."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}. Check the path, its rights and the free space."
    return str(error)
