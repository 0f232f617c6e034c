"""``cvj-ml init``: its options, its questions, and what is left to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvj_ml.cli.arguments import Json, read_columns, read_time_formats
from cvj_ml.cli.output import Terminal, ask_person, command, out, print_json


def init(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Parquet or CSV files of your customers.")],
    config_file: Annotated[Path, typer.Option("--config", help="The configuration to write.")] = Path("cvj.yaml"),
    time_zone: Annotated[str, typer.Option("--time-zone", help="Of the business, such as Europe/London.")] = "UTC",
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", help="What a column is, as in customer_id=cust, or orders.csv:value=total. Repeatable."
        ),
    ] = None,
    time_format: Annotated[
        list[str] | None,
        typer.Option(
            "--time-format",
            help="How occurred_at is written where no file tells, as in '%d.%m.%Y', or"
            " orders.csv:'days since 2017-01-01'. Repeatable.",
        ),
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option("--accept", help="The name of a doubt that you have looked at. Repeatable.")
    ] = None,
    tool: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TOOL",
            help="The tool whose exports the files are, such as shopify; none: guess whatever they look like."
            " Without it, exports are told by their columns.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept every doubt; they stand in the file as comments.")] = False,
    as_json: Json = False,
) -> None:
    """Look at your files, tell every doubt, and write a first configuration, for you to correct."""
    from cvj_ml.errors import ConfigError, DataError, nearest, raise_all
    from cvj_ml.setup import look, write_config

    told = read_columns(column or []) | read_time_formats(time_format or [])
    with Terminal().step("Looking at the files"):
        found = look(files, config_file, time_zone, told, tool)
    blocking = {one.name: one for one in found.doubts if one.blocking}
    unknown = sorted(set(accept or ()) - {one.name for one in found.doubts})
    raise_all(
        ConfigError,
        "--accept names what is no doubt about these files:",
        [f"{name!r}.{nearest(name, blocking)} Open are: {', '.join(blocking) or 'none'}" for name in unknown],
    )
    asks = not as_json and sys.stdin.isatty() and sys.stderr.isatty()
    left = [
        one
        for name, one in blocking.items()
        if not yes and name not in (accept or ()) and not (asks and ask_person(str(one)))
    ]
    if not left:
        write_config(found, config_file)
    if as_json:
        doubts = [one.as_document() for one in found.doubts]
        written = None if left else str(config_file)
        print_json(
            {"config": written, "as_of": found.as_of.isoformat(), "doubts": doubts, "open": [one.name for one in left]}
        )
    notes = [str(one) for one in found.doubts if not one.blocking]
    raise_all(
        DataError,
        f"{config_file} is not written: what follows changes who is a customer, what is a purchase or what it was"
        f" worth."
        " Name the right columns with --column, correct the files, or accept each by its name (--yes accepts all;"
        " they stand"
        " in the file as comments):",
        [f"{one}\n      --accept {one.name}" + (f"\n      query: {one.query}" if one.query else "") for one in left],
    )
    if as_json:
        return
    out.print(f"Wrote {config_file}. Read it line by line; then:", soft_wrap=True)
    for line in [*(f"accepted: {one}" for one in blocking.values()), *notes]:
        out.print(f"  - {line}", soft_wrap=True)
    out.print(f"  {command('cvj-ml')} check {config_file} --as-of {found.as_of}", soft_wrap=True)
