"""Looking after what is published, ``report``, ``worksheet``, ``verify`` and ``forget``: options, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cvj_ml.cli.arguments import AdoptOut, AsOf, ConfigFile, Json, read
from cvj_ml.cli.output import Terminal, out, print_json


def report(config_file: ConfigFile, as_of: AsOf, as_json: Json = False) -> None:
    """Find the published night and say where its page and worksheet are; nothing is made or published."""
    from cvj_ml.commands.report import show_night

    config, instant = read(config_file, as_of)
    found = show_night(config, instant)
    if as_json:
        print_json(found)
        return
    out.print(f"Page:      {found['page']}", soft_wrap=True)
    out.print(f"Worksheet: {found['worksheet']}", soft_wrap=True)


def worksheet(
    config_file: ConfigFile,
    as_of: AsOf,
    form: Annotated[
        Literal["md", "html", "pdf"],
        typer.Option("--format", help="html, pdf: one page a persona; md: all that the night knows of each stage."),
    ] = "html",
    target: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file to write. Default: stdout, but for pdf.")
    ] = None,
) -> None:
    """Write the Value Journey worksheet of a published night for a meeting; no night is made."""
    from cvj_ml.commands.report import write_worksheet

    config, instant = read(config_file, as_of)
    text = write_worksheet(config, instant, form, target)
    if text is not None:
        print(text)
    else:
        out.print(f"Worksheet: {target}", soft_wrap=True)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="NIGHT", help="A night's folder, or <out> for its current night.")],
    as_json: Json = False,
) -> None:
    """Check every file, row and count of a published night."""
    from cvj_ml.night.verifying import verify_night

    found = verify_night(folder)
    if as_json:
        told = {"as_of": found.as_of, "model": found.model, "files": found.files, "rows_in": found.rows_in}
        print_json({"folder": str(found.folder), **told})
        return
    out.print(
        f"{found.folder}: whole. {found.files} files, {found.rows_in:,} rows accounted for, as of {found.as_of}, model"
        f" {found.model[:12]}",
        soft_wrap=True,
    )


def forget(
    config_file: ConfigFile,
    customers: Annotated[Path, typer.Option("--customers", metavar="FILE", help="Their ids, one a line.")],
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Forget the others where nothing knows some of the ids.")
    ] = False,
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Erase customers from the store, published nights and PostgreSQL, once the sources hold them no more."""
    from dataclasses import asdict

    from cvj_ml.commands.forget import forget as run_forget

    config, _ = read(config_file, adopt_out=adopt_out)
    done = run_forget(config, customers, Terminal(), allow_unknown=allow_unknown)
    if as_json:
        print_json(asdict(done))
        return
    removed = ", ".join(f"{number} {kind}" for kind, number in done.leftovers.items())
    unknown = f" ({done.unknown} of them known nowhere)" if done.unknown else ""
    others = f", and {done.other_ids} other id(s) of the same people" if done.other_ids else ""
    out.print(
        f"Forgotten: {done.customers} customer(s){unknown}{others}. Removed of earlier readings: {removed}.",
        soft_wrap=True,
    )
    out.print(
        f"Published nights rewritten: {done.nights}; {done.scores} row(s) of scores, {done.listed} of lists and"
        f" {done.files} page(s), worksheet(s) and workbook(s) are gone.",
        soft_wrap=True,
    )
    if done.delivered:
        rows = ", ".join(f"{number} of {table}" for table, number in done.delivered.items())
        out.print(f"PostgreSQL: rows deleted: {rows}.", soft_wrap=True)
