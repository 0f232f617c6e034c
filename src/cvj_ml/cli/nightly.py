"""``cvj-ml nightly``, and ``targets`` and ``score``, which are short for it: their options, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cvj_ml.cli.arguments import Accept, AdoptOut, AsOf, ConfigFile, Json, read
from cvj_ml.cli.failures import HANDLED, in_words
from cvj_ml.cli.output import JsonLines, Terminal, err, out, print_json
from cvj_ml.errors import exit_code_of

if TYPE_CHECKING:
    from cvj_ml.commands.one_night import Night
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
    no_lists: Annotated[bool, typer.Option("--no-lists", help="Publish scores and page, and rank nobody.")] = False,
    watched: Annotated[
        bool,
        typer.Option(
            "--watched",
            help="A person looks at what comes out: little data only warns, and no metrics are written.",
        ),
    ] = False,
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
    """Score, rank and publish: the night is right, or it is not published and the last one stays."""
    from cvj_ml.commands.nightly import nightly as run_nightly
    from cvj_ml.ownership import claim

    watcher = JsonLines() if log_format == "json" else Terminal()
    with _told_to(watcher, watched):
        config, _ = read(config_file)
        instants = _instants(config, as_of, backfill)
        if adopt_out:
            claim(Path(config.out), adopt=True)
        nights = run_nightly(
            config,
            instants,
            watcher,
            with_lists=not no_lists,
            watched=watched,
            accepted=accept or (),
            resume=resume,
            dry_run=dry_run,
        )
    if as_json:
        print_json({"dry_run": dry_run, "nights": [night.as_document() for night in nights]})
        return
    for night in nights:
        if watched:
            _tell_person(night)
        else:
            _tell_log(night.as_document())


def targets(
    config_file: ConfigFile, as_of: AsOf, accept: Accept = None, adopt_out: AdoptOut = False, as_json: Json = False
) -> None:
    """Publish a night and look at it: short for `cvj-ml nightly CONFIG --as-of DATE --watched`."""
    _publish_watched(config_file, as_of, accept, adopt_out, as_json, with_lists=True)


def score(
    config_file: ConfigFile, as_of: AsOf, accept: Accept = None, adopt_out: AdoptOut = False, as_json: Json = False
) -> None:
    """Publish a night without lists: short for `cvj-ml nightly CONFIG --as-of DATE --watched --no-lists`."""
    _publish_watched(config_file, as_of, accept, adopt_out, as_json, with_lists=False)


def _publish_watched(
    config_file: Path, as_of: str, accept: list[str] | None, adopt_out: bool, as_json: bool, *, with_lists: bool
) -> None:
    """Do what the command does that another one is short for; as JSON its one night is not in a list of one."""
    from cvj_ml.commands.nightly import nightly as run_nightly

    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    (night,) = run_nightly(config, [instant], Terminal(), with_lists=with_lists, watched=True, accepted=accept or ())
    if as_json:
        print_json(night.as_document())
    else:
        _tell_person(night)


@contextmanager
def _told_to(watcher: JsonLines | Terminal, watched: bool) -> Iterator[None]:
    """Tell a failure in the words and the form of the log, and end with the exit code of its kind.

    A person who watches is shown a failure that nobody foresaw as Python tells it, with its text.
    """
    try:
        yield
    except (*HANDLED, Exception) as error:
        if isinstance(watcher, JsonLines):
            watcher.write("error", in_words(error), exit_code=exit_code_of(error))
        elif watched or isinstance(error, HANDLED):
            raise
        else:
            err.print(f"error: {in_words(error)}", soft_wrap=True)
        raise typer.Exit(exit_code_of(error)) from None


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


def _tell_log(night: Mapping[str, Any]) -> None:
    """Say in a few lines what became of a night."""
    words = {
        "published": "Published",
        "unchanged": "Was published already, and is whole:",
        "repaired": "Was damaged, and is published anew:",
        "tried": "Would publish",
    }
    out.print(f"{words[night['outcome']]} {night['night']}", soft_wrap=True)
    for name, count in night["lists"].items():
        out.print(f"  {name}: {count:,} listed")
    for name, count in night["exports"].items():
        out.print(f"  exports/{name}: {count:,} people")
    _tell_people(night["people"])
    would = "would become" if night["outcome"] == "tried" else "is"
    out.print(f"  it {would} the current night" if night["current"] else "  a later night stays the current one")


def _tell_person(night: Night) -> None:
    """Say what is in a night, who was left out and why, and where to look."""
    from cvj_ml.lists.eligibility import REASONS
    from cvj_ml.lists.kinds import said_of_row, title_of_row
    from cvj_ml.lists.ranked_list import NOT_LISTED, without_evidence
    from cvj_ml.models.bundle.forecast_errors import ExpectedMoves

    told = night.as_document()
    out.print(
        f"Scored {told['customers']:,} customers with model {night.model_version}: {night.folder}", soft_wrap=True
    )
    if told["outcome"] == "unchanged":
        out.print("  It was published already, and is whole.")
    if told["outcome"] == "tried":
        out.print("  It is not published: this was a dry run.")
    for one in night.lists:
        will = said_of_row(one).will
        counts = f"{one['listed']:,} listed of {one['in_stage']:,}, {one['control']:,} of them in control"
        out.print(f"  {title_of_row(one)}: {counts}")
        if one["listed"] and one.get("expected_moves") is not None:
            words = ExpectedMoves.from_columns(one, "expected_moves", one["listed"]).words
            told_as = "moves" if will == "move" else f"to {will}"
            out.print(f"    {told_as}, going on as before: {words}", soft_wrap=True)
        if without_evidence(one["listed"], one.get("expected_moves", one["listed"])):
            words = f"    without evidence: not one of them is expected to {will}, so their order says nothing"
            out.print(words, soft_wrap=True)
        for name, words in {**REASONS, **NOT_LISTED}.items():
            if one[name]:
                out.print(f"    {one[name]:,} left out: {words}", soft_wrap=True)
    _tell_people(told["people"])
    if told["exports"]:
        out.print(f"For other tools: {night.folder / 'exports'}", soft_wrap=True)
        for name, count in told["exports"].items():
            out.print(f"  {name}: {count:,} people", soft_wrap=True)
    if (workbook := night.folder / "targets" / "lists.xlsx").is_file():
        out.print(f"For people: {workbook}", soft_wrap=True)
    if night.page:
        out.print(f"In a browser: {night.page}", soft_wrap=True)


def _tell_people(people: Mapping[str, Mapping[str, int]]) -> None:
    """Say of each table of people how many of its rows name nobody."""
    for name, one in people.items():
        out.print(f"  {name}: {one['nobody']:,} of {one['rows']:,} rows name nobody in the log", soft_wrap=True)
