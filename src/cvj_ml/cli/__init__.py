"""The command line."""

from __future__ import annotations

import sys

from cvj_ml.cli.commands import app
from cvj_ml.cli.terminal import err
from cvj_ml.errors import CvjError

__all__ = ["app", "main"]


def main() -> None:
    """Run a command; handled failures become one message on stderr and the exit code of their kind."""
    try:
        # Typer itself ends on a wrong call with 2, on an interruption with 130, and quietly when nobody reads on.
        app(prog_name="cvj-ml")
    except CvjError as error:
        err.print(f"error: {error}", soft_wrap=True)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        err.print(
            f"error: {where}{error.strerror or error}. Check the path, its rights and the free space.", soft_wrap=True
        )
        sys.exit(CvjError.exit_code)
