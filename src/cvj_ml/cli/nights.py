"""The nights that nobody watches, and looking after what they published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvj_ml.cli.arguments import ConfigFile, Json, read
from cvj_ml.cli.terminal import Terminal, out, print_json

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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything but publish, and say what would be.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score, rank and publish unwatched: the night is right, or it is not published and the last one stays."""
    from cvj_ml import pipeline

    config, _ = read(config_file)
    nights = pipeline.nightly(config, _instants(config, as_of, backfill), Terminal(), dry_run=dry_run)
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
    from dataclasses import asdict

    from cvj_ml.publish import verify_night

    found = verify_night(folder)
    if as_json:
        print_json({**asdict(found), "folder": str(found.folder)})
        return
    out.print(
        f"{found.folder}: whole. {found.files} files, {found.rows_in:,} rows accounted for, as of {found.as_of}, model"
        f" {found.model[:12]}",
        soft_wrap=True,
    )


def _instants(config: Config, as_of: str | None, backfill: str | None) -> list[int]:
    """Return the instants of the nights, the oldest first."""
    from datetime import date, timedelta

    from cvj_ml.errors import ConfigError
    from cvj_ml.windows import midnight, parse_as_of

    if (as_of is None) == (backfill is None):
        raise ConfigError("Give --as-of DATE for one night, or --backfill FROM..TO for the nights of several days.")
    if as_of is not None:
        return [parse_as_of(as_of, config.zone)]
    first, dots, last = str(backfill).partition("..")
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        start, end = date.max, date.min
    if not dots or start > end:
        raise ConfigError(
            f"--backfill: {backfill!r} is no span of days. Write two dates, the earlier first: 2024-06-01..2024-06-30."
        )
    return [midnight(start + timedelta(days), config.zone) for days in range((end - start).days + 1)]


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
    would = "would become" if night["outcome"] == "tried" else "is"
    out.print(f"  it {would} the current night" if night["current"] else "  a later night stays the current one")
