"""The command line: arguments in, one pipeline story, words and exit codes out."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cvj_ml.errors import CvjError

if TYPE_CHECKING:
    import pandas as pd

    from cvj_ml.config import Config
    from cvj_ml.pipeline import Night
    from cvj_ml.tracking import ModelVersion

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Where every customer stands in the value journey, what comes next, and whom to contact.",
)
models = typer.Typer(no_args_is_help=True, help="The registered models.")
app.add_typer(models, name="models")

# Stage names, ids and paths are shown as they are: `[x]` is no markup and `:x:` no picture.
err = Console(stderr=True, highlight=False, markup=False, emoji=False)
out = Console(highlight=False, markup=False, emoji=False)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of this use.")]
AsOf = Annotated[
    str, typer.Option("--as-of", help="The instant asked about: a date (its local midnight) or an instant.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Version = Annotated[int, typer.Argument(min=1, help="The number of a registered version.")]
BundleFolder = Annotated[Path, typer.Argument(help="The folder of an exported model bundle.")]


class Terminal:
    """Tells a person at a terminal; a log file gets plain lines and no bars."""

    def say(self, message: str) -> None:
        """Show a line on stderr."""
        err.print(message, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar while a person is watching, otherwise one line at the start."""
        # FORCE_COLOR makes rich take a log file for a terminal, so the stream itself is asked, too.
        if err.is_dumb_terminal or not (err.is_terminal and sys.stderr.isatty()):
            self.say(title)
            yield lambda done, of: None
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=err) as progress:
            task = progress.add_task(title, total=None)

            def report(done: int, of: int) -> None:
                progress.update(task, completed=done, total=of)

            yield report
            progress.update(task, completed=1, total=1)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where data, models and lists are written.")] = Path("out/demo"),
    customers: Annotated[int, typer.Option(min=100, help="How many customers to simulate.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = 1,
    as_json: Json = False,
) -> None:
    """Simulate customers, train, register, score and rank: the whole job on data of a known process."""
    from cvj_ml.demonstration import run_demo

    terminal = Terminal()
    result = run_demo(folder, customers, seed, terminal)
    if as_json:
        print_json(
            {
                **_night_as_json(result.night),
                "log_loss": result.comparison.to_dict("records"),
                "tracking_uri": result.tracking_uri,
            }
        )
        return
    out.print(f"\nRanked lists: {result.night.folder / 'targets'}\n", soft_wrap=True)
    for one in result.night.lists:
        if (one.spec.from_stage, one.spec.to_stage) in (("Convert", "Ascend"), ("Advocate", "Promote")):
            show(one.rows.slice(0, 5).to_pandas(), f"{one.title}: the first of {len(one.rows)}", SHOWN)
    show(result.comparison, "Log loss on the last matured fold: the model, base rates and the simulator's own hazards")
    out.print("Regret is how much worse than the true hazards, which know each customer's hidden state.\n")
    out.print("Look at the training in MLflow:")
    out.print(f"  {command('mlflow')} ui --host 127.0.0.1 --backend-store-uri {result.tracking_uri}", soft_wrap=True)


SHOWN = ["rank", "customer_id", "probability", "lift", "expected_value", "group"]


def command(name: str) -> str:
    """Return how to call a command of this environment, wherever it was called from."""
    beside = Path(sys.executable).parent / name
    try:
        return os.path.relpath(beside) if beside.exists() else name
    except ValueError:
        return str(beside)


@app.command()
def check(config_file: ConfigFile, as_of: AsOf, as_json: Json = False) -> None:
    """Read everything and show what the configuration makes of it, without training."""
    from cvj_ml import pipeline

    config, instant = read(config_file, as_of)
    found = pipeline.check(config, instant, Terminal())
    store = found.histories.store
    sources = [
        {
            "source": name,
            "rows_in": counts.rows_in,
            "stored": counts.stored,
            "refused": sum(counts.refused.values()),
            "duplicates": counts.duplicates,
        }
        for name, counts in store.counts.items()
    ]
    if as_json:
        usage = found.usage
        print_json(
            {
                "customers": store.customers,
                "sources": [{**one, "refused": dict(store.counts[str(one["source"])].refused)} for one in sources],
                "used": usage.used,
                "not_yet_visible": usage.not_yet_visible,
                "superseded": usage.superseded,
                "events": dict(store.events),
                "stages": found.stages.to_dict("records"),
                "warnings": list(found.histories.visible.warnings),
            }
        )
        return
    import pandas as pd

    show(pd.DataFrame(sources), f"{store.customers:,} customers")
    usage = found.usage
    out.print(
        f"Of the stored rows {usage.used:,} are used at {as_of}, {usage.not_yet_visible:,} are not visible yet,"
        f" {usage.superseded:,} were replaced by a newer version.\n",
        soft_wrap=True,
    )
    events = sorted(store.events.items(), key=lambda item: (-item[1], item[0]))
    show(pd.DataFrame(events, columns=["event", "rows"]).head(30), "Events")
    show(found.stages, f"Observed stages at {as_of}")


@app.command()
def train(config_file: ConfigFile, as_of: AsOf, as_json: Json = False) -> None:
    """Choose settings and report the last matured fold, refit at AS_OF, register in MLflow."""
    from cvj_ml import pipeline
    from cvj_ml.evaluation.backtest import summary

    config, instant = read(config_file, as_of)
    done = pipeline.train(config, instant, Terminal())
    version, table = done.version, summary(done.fold.rows)
    if as_json:
        print_json(
            {
                "model": version.name,
                "version": version.version,
                "digest": version.digest,
                "aliases": list(version.aliases),
                "run_id": version.run_id,
                "summary": table.to_dict("records"),
            }
        )
        return
    show_metrics(table, f"On the last matured fold ({pipeline.as_of_name(config, done.fold.fold.cut)})")
    out.print(
        f"Registered {version.name} version {version.version} ({', '.join(version.aliases)}), {version.digest[:12]}"
    )


@app.command()
def backtest(
    config_file: ConfigFile,
    until: Annotated[str, typer.Option("--until", help="Where observation ends: a date or an instant.")],
    folds: Annotated[int, typer.Option(min=1, help="At most so many folds, the longest horizon apart.")] = 1,
    as_json: Json = False,
) -> None:
    """Refit at past instants and judge by what came after, beside the baselines."""
    from cvj_ml import pipeline
    from cvj_ml.evaluation.backtest import summary

    config, instant = read(config_file, until)
    results = pipeline.backtest(config, instant, folds, Terminal())
    if as_json:
        days = [pipeline.as_of_name(config, result.fold.cut) for result in results]
        judged = [
            {"cut": day, "rows": result.rows.to_dict("records")} for day, result in zip(days, results, strict=True)
        ]
        print_json({"folds": judged})
        return
    for result in results:
        show_metrics(summary(result.rows), f"Fold {pipeline.as_of_name(config, result.fold.cut)}")


@app.command()
def score(config_file: ConfigFile, as_of: AsOf, as_json: Json = False) -> None:
    """Score every customer with the champion and publish the night."""
    _night(config_file, as_of, as_json, with_lists=False)


@app.command()
def targets(config_file: ConfigFile, as_of: AsOf, as_json: Json = False) -> None:
    """Score every customer, rank the lists and publish both as one night."""
    _night(config_file, as_of, as_json, with_lists=True)


def _night(config_file: Path, as_of: str, as_json: bool, *, with_lists: bool) -> None:
    from cvj_ml import pipeline

    config, instant = read(config_file, as_of)
    night = pipeline.publish_night(config, instant, Terminal(), with_lists=with_lists)
    if as_json:
        print_json(_night_as_json(night))
        return
    out.print(
        f"Scored {len(night.scores):,} customers with model {night.model_version}: {night.folder}", soft_wrap=True
    )
    for one in night.lists:
        control = one.rows["group"].to_pylist().count("control")
        out.print(f"  {one.title}: {len(one.rows):,} listed of {one.eligible:,}, {control:,} of them in control")


def _night_as_json(night: Night) -> dict[str, Any]:
    return {
        "night": str(night.folder),
        "customers": len(night.scores),
        "model_version": night.model_version,
        "lists": {one.name: len(one.rows) for one in night.lists},
        "used": night.usage.used,
        "not_yet_visible": night.usage.not_yet_visible,
        "superseded": night.usage.superseded,
    }


@models.command("list")
def models_list(config_file: ConfigFile, as_json: Json = False) -> None:
    """List the registered versions, the newest first."""
    from dataclasses import asdict

    from cvj_ml import tracking

    versions = [asdict(one) for one in tracking.list_versions(read(config_file)[0])]
    if as_json:
        print_json({"versions": versions})
        return
    import pandas as pd

    rows = [
        {**version, "digest": version["digest"][:12], "aliases": " ".join(version["aliases"])} for version in versions
    ]
    show(pd.DataFrame(rows, columns=["version", "aliases", "cut", "created", "digest"]), "Registered versions")


@models.command("promote")
def models_promote(config_file: ConfigFile, version: Version, as_json: Json = False) -> None:
    """Make a version the champion."""
    from cvj_ml import tracking

    promoted = tracking.promote(read(config_file)[0], version)
    _tell_version(promoted, f"{promoted.name} version {promoted.version} is the champion.", as_json)


@models.command("rollback")
def models_rollback(config_file: ConfigFile, as_json: Json = False) -> None:
    """Make the champion before this one the champion again."""
    from cvj_ml import tracking

    restored = tracking.rollback(read(config_file)[0])
    _tell_version(restored, f"{restored.name} version {restored.version} is the champion again.", as_json)


@models.command("export")
def models_export(config_file: ConfigFile, version: Version, folder: BundleFolder, as_json: Json = False) -> None:
    """Write the bundle of a version into a new folder."""
    from cvj_ml import tracking
    from cvj_ml.models.bundle import verify

    verify(tracking.export(read(config_file)[0], version, folder))
    if as_json:
        print_json({"version": version, "folder": str(folder)})
        return
    out.print(f"Version {version}: {folder}", soft_wrap=True)


@models.command("import")
def models_import(config_file: ConfigFile, folder: BundleFolder, as_json: Json = False) -> None:
    """Verify an exported bundle and register it as a new version."""
    from cvj_ml import tracking
    from cvj_ml.scoring import open_bundle

    imported = tracking.import_bundle(read(config_file)[0], folder, open_bundle(folder).digest)
    _tell_version(imported, f"Registered {imported.name} version {imported.version}.", as_json)


@models.command("verify")
def models_verify(folder: BundleFolder, as_json: Json = False) -> None:
    """Check every digest of a bundle and score its canary."""
    from cvj_ml.scoring import open_bundle

    digest = open_bundle(folder).digest
    if as_json:
        print_json({"folder": str(folder), "digest": digest})
        return
    out.print(f"{folder}: whole, digest {digest}", soft_wrap=True)


def _tell_version(version: ModelVersion, words: str, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json(asdict(version))
    else:
        out.print(words)


def read(config_file: Path, instant: str | None = None) -> tuple[Config, int]:
    """Return the configuration and the instant (0 where a command has none)."""
    from cvj_ml.config import load_config
    from cvj_ml.windows import parse_as_of

    config = load_config(config_file)
    return config, 0 if instant is None else parse_as_of(instant, config.zone)


def print_json(document: Any) -> None:
    """Print one JSON object; what is no number there (NaN, infinity) is null."""

    def plain(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [plain(value) for value in node]
        if hasattr(node, "item"):
            node = node.item()
        return None if isinstance(node, float) and not math.isfinite(node) else node

    print(json.dumps(plain(document), ensure_ascii=False, allow_nan=False), flush=True)


def show(frame: pd.DataFrame, title: str, columns: list[str] | None = None) -> None:
    """Print a table for a person."""
    frame = frame[columns] if columns else frame
    table = Table(title=title, title_justify="left", show_edge=False, header_style="bold")
    for name in frame.columns:
        is_text = frame[name].dtype.kind in "OUT"
        # Where a table is wider than the screen, the headings of numbers give way first.
        table.add_column(str(name).replace("_", " "), justify="left" if is_text else "right", no_wrap=is_text)
    for row in frame.itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    out.print(table)
    out.print()


def show_metrics(table: pd.DataFrame, title: str) -> None:
    """Print the summary of a fold, or why there is none."""
    if table.empty:
        out.print(f"{title}: too few customers moved in every transition, so nothing can be judged.\n", soft_wrap=True)
    else:
        show(table, f"{title}: means over transitions, weighted by customers")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


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
