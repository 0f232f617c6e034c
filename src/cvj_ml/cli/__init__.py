"""The command line."""

from __future__ import annotations

import os
import sys

from cvj_ml.cli.commands import app
from cvj_ml.cli.failures import HANDLED, in_words, stoppable
from cvj_ml.cli.output import err, unfailing
from cvj_ml.errors import exit_code_of

__all__ = ["app", "main"]


def main() -> None:
    """Run a command; handled failures become one message on stderr and the exit code of their kind."""
    # Stores, nights, models and registries are for their owner: whatever a command makes, no one else can read.
    before = os.umask(0)
    os.umask(before | 0o077)
    try:
        with unfailing():
            try:
                with stoppable():
                    app(prog_name="cvj-ml")  # Typer itself ends on a wrong call with 2
            except HANDLED as error:
                err.print(f"error: {in_words(error)}", soft_wrap=True)
                sys.exit(exit_code_of(error))
    finally:
        os.umask(before)
