"""The nights that nobody watches, and looking after what they published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cvj_ml.cli.arguments import Accept, AdoptOut, ConfigFile, Json, read
from cvj_ml.cli.failures import HANDLED, in_words
from cvj_ml.cli.output import JsonLines, Terminal, err, out, print_json
from cvj_ml.errors import exit_code_of

if TYPE_CHECKING:
    from cvj_ml.config import Config


def nightly(
    config_file: ConfigFile,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The instant asked about: a date (its local midnight) or an instant.")
    ] = None,
    backfill: Annotated[
        str | None,
        typer.Option(metavar="FROM..TO", help="Every day of these instead, the first and the last one included."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the blocks that a run before finished.")] = False,
    accept: Accept = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything but publish, and say what would be.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option("--log-format", help="Of what is told on stderr; json: an object a line.")
    ] = "text",
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Score, rank and publish unwatched: the night is right, or it is not published and the last one stays."""
    from cvj_ml import commands

    watcher = JsonLines() if log_format == "json" else Terminal()
    with _told_to(watcher):
        config, _ = read(config_file, adopt_out=adopt_out)
        nights = commands.nightly(
            config,
            _instants(config, as_of, backfill),
            watcher,
            accepted=accept or (),
            resume=resume,
            dry_run=dry_run,
        )
    if as_json:
        print_json({"dry_run": dry_run, "nights": nights})
        return
    for night in nights:
        _show_night(night)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="NIGHT", help="A night's folder, or <out> for its current night.")],
    as_json: Json = False,
) -> None:
    """Check every file, row and count of a published night."""
    from cvj_ml.night import verify_night

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


@contextmanager
def _told_to(watcher: JsonLines | Terminal) -> Iterator[None]:
    """Tell a failure in the words and the form of the log, and end with the exit code of its kind."""
    try:
        yield
    except (*HANDLED, Exception) as error:
        if isinstance(watcher, JsonLines):
            watcher.write("error", in_words(error), exit_code=exit_code_of(error))
        elif isinstance(error, HANDLED):
            raise
        else:
            err.print(f"error: {in_words(error)}", soft_wrap=True)
        raise typer.Exit(exit_code_of(error)) from None


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

    from cvj_ml import commands

    config, _ = read(config_file, adopt_out=adopt_out)
    done = commands.forget(config, customers, Terminal(), allow_unknown=allow_unknown)
    if as_json:
        print_json(asdict(done))
        return
    removed = ", ".join(f"{number} {kind}" for kind, number in done.leftovers.items())
    unknown = f" ({done.unknown} of them known nowhere)" if done.unknown else ""
    out.print(
        f"Forgotten: {done.customers} customer(s){unknown}. Removed of earlier readings: {removed}.", soft_wrap=True
    )
    out.print(
        f"Published nights rewritten: {done.nights}; {done.scores} row(s) of scores, {done.listed} of lists and"
        f" {done.files} page(s), worksheet(s) and workbook(s) are gone.",
        soft_wrap=True,
    )
    if done.delivered:
        rows = ", ".join(f"{number} of {table}" for table, number in done.delivered.items())
        out.print(f"PostgreSQL: rows deleted: {rows}.", soft_wrap=True)


def _instants(config: Config, as_of: str | None, backfill: str | None) -> list[int]:
    """Return the instants of the nights, the oldest first."""
    from cvj_ml.errors import ConfigError
    from cvj_ml.windows import parse_as_of

    match as_of, backfill:
        case str(instant), None:
            return [parse_as_of(instant, config.zone)]
        case None, str(days):
            return _days(days, config)
    raise ConfigError("Give --as-of DATE for one night, or --backfill FROM..TO for the nights of several days.")


def _days(span: str, config: Config) -> list[int]:
    from datetime import date, timedelta

    from cvj_ml.errors import ConfigError
    from cvj_ml.windows import midnight

    first, dots, last = span.partition("..")
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        start, end = date.max, date.min
    if not dots or start > end:
        raise ConfigError(
            f"--backfill: {span!r} is no span of days. Write two dates, the earlier first: 2024-06-01..2024-06-30."
        )
    return [midnight(start + timedelta(days), config.zone) for days in range((end - start).days + 1)]


def show_people(people: Mapping[str, Mapping[str, int]]) -> None:
    """Say of each table of people how many of its rows name nobody."""
    for name, one in people.items():
        out.print(f"  {name}: {one['nobody']:,} of {one['rows']:,} rows name nobody in the log", soft_wrap=True)


def _show_night(night: dict[str, Any]) -> None:
    words = {
        "published": "Published",
        "unchanged": "Was published already, and is whole:",
        "repaired": "Was damaged, and is published anew:",
        "tried": "Would publish",
    }
    out.print(f"{words[night['outcome']]} {night['night']}", soft_wrap=True)
    for name, count in night["lists"].items():
        out.print(f"  {name}: {count:,} listed")
    show_people(night["people"])
    would = "would become" if night["outcome"] == "tried" else "is"
    out.print(f"  it {would} the current night" if night["current"] else "  a later night stays the current one")
