"""The command line: every command by its name, and how a process ends."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cvj_ml.cli.audit import audit
from cvj_ml.cli.backtest import backtest
from cvj_ml.cli.check import check
from cvj_ml.cli.demonstration import demo
from cvj_ml.cli.failures import HANDLED, in_words, stoppable
from cvj_ml.cli.init import init
from cvj_ml.cli.mcp import mcp
from cvj_ml.cli.measure import measure
from cvj_ml.cli.models import models
from cvj_ml.cli.monitor import monitor
from cvj_ml.cli.nightly import nightly, score, targets
from cvj_ml.cli.output import err, out, unfailing
from cvj_ml.cli.published import forget, report, verify, worksheet
from cvj_ml.cli.train import train
from cvj_ml.errors import exit_code_of

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Where every customer stands in the value journey, what comes next, and whom to contact.",
)
# In the order of the help, which is that of their use.
used = (
    *(demo, init, check, audit, backtest, train, nightly, targets, score),
    *(report, worksheet, verify, measure, monitor, mcp, forget),
)
for command in used:
    app.command()(command)
app.add_typer(models, name="models")


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        out.print(f"cvj-ml {metadata.version('cvj-ml')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Tell the version and end.")
    ] = False,
) -> None:
    """Options of the program itself; each acts on its own."""


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
