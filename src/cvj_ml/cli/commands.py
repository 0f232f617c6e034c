"""The commands: arguments in, one pipeline story, words out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cvj_ml.cli.arguments import Accept, AdoptOut, AsOf, ConfigFile, Json, Promotion, read, read_columns, read_duration
from cvj_ml.cli.models import models
from cvj_ml.cli.nights import forget, nightly, show_people, verify
from cvj_ml.cli.output import Terminal, ask_person, out, print_json, show, show_metrics

if TYPE_CHECKING:
    from cvj_ml.config import Config
    from cvj_ml.evaluation.promotion import Verdict

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Where every customer stands in the value journey, what comes next, and whom to contact.",
)
app.add_typer(models, name="models")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where data, models and lists are written.")] = Path("out/demo"),
    customers: Annotated[int, typer.Option(min=100, help="How many customers to simulate.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = 1,
    as_json: Json = False,
) -> None:
    """Simulate customers, train, register, score and rank: the whole job on data of a known process."""
    from cvj_ml.demo import run_demo
    from cvj_ml.lists import title_of

    terminal = Terminal()
    result = run_demo(folder, customers, seed, terminal)
    if as_json:
        print_json(
            {
                **result.night.as_document(),
                "log_loss": result.comparison.to_dict("records"),
                "tracking_uri": result.tracking_uri,
            }
        )
        return
    out.print(f"\nRanked lists: {result.night.folder / 'targets'}", soft_wrap=True)
    out.print(f"The same as a page for your browser: {result.night.page}\n", soft_wrap=True)
    for one in result.night.lists:
        if (one["from_stage"], one["to_stage"]) in (("Convert", "Ascend"), ("Advocate", "Promote")):
            title = title_of(one["from_stage"], one["to_stage"], one["horizon_days"])
            first = result.night.rows(one["list"]).slice(0, 5)
            show(first.to_pandas(), f"{title}: the first of {one['listed']}", SHOWN)
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
    accept: Annotated[
        list[str] | None, typer.Option("--accept", help="The name of a doubt that you have looked at. Repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept every doubt; they stand in the file as comments.")] = False,
    as_json: Json = False,
) -> None:
    """Look at your files, tell every doubt, and write a first configuration, for you to correct."""
    from cvj_ml.errors import ConfigError, DataError, nearest, raise_all
    from cvj_ml.setup import look, write_config

    told = read_columns(column or [])
    with Terminal().step("Looking at the files"):
        found = look(files, config_file, time_zone, told)
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


@app.command()
def check(config_file: ConfigFile, as_of: AsOf, adopt_out: AdoptOut = False, as_json: Json = False) -> None:
    """Read everything and show what the configuration makes of it, without training."""
    from cvj_ml import commands

    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    found = commands.check(config, instant, Terminal())
    store = found.histories.store
    sources = [
        {
            "source": name,
            "rows_in": counts.rows_in,
            "stored": counts.stored,
            "refused": sum(counts.refused.values()),
            "duplicates": counts.duplicates,
            "unmatched": counts.unmatched,
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
def train(
    config_file: ConfigFile,
    as_of: AsOf,
    promote: Promotion = "auto",
    tune: Annotated[
        int, typer.Option(min=0, help="Try so many settings on folds before the reported one (needs optuna).")
    ] = 0,
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Report the last matured fold, compare with the champion, refit at AS_OF, register in MLflow."""
    from cvj_ml import commands
    from cvj_ml.evaluation.backtesting import summary

    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    done = commands.train(config, instant, Terminal(), promote, tune)
    version, table = done.version, summary(done.fold.rows)
    if as_json:
        print_json(
            {
                "model": version.name,
                "version": version.version,
                "digest": version.digest,
                "aliases": list(version.aliases),
                "run_id": version.run_id,
                "verdict": {"sentence": done.verdict.sentence, **json.loads(done.verdict.as_json())},
                "summary": table.to_dict("records"),
            }
        )
        require_usable(done.verdict, promote)
        return
    show_metrics(table, f"On the last matured fold ({commands.as_of_name(config, done.fold.fold.cut)})")
    if done.stages and (judged := done.stages.evidence):
        show(judged.metrics, f"The current stage of {judged.customers:,} customers held out, their evidence hidden")
    out.print(
        f"Registered {version.name} version {version.version} ({', '.join(version.aliases)}), {version.digest[:12]}"
    )
    out.print(done.verdict.sentence, soft_wrap=True)
    require_usable(done.verdict, promote)


def require_usable(verdict: Verdict, promote: Promotion) -> None:
    """Raise GateError where a first model was refused, so that nobody takes the run for done."""
    from cvj_ml.errors import GateError

    if verdict.refused and promote == "auto":
        raise GateError(
            f"{verdict.sentence} It is registered as the challenger, and nothing can be scored with it. Look at its"
            " card (`cvj-ml models export`), give more history or fewer targets, and train again; or, if you know"
            " better, use it with `cvj-ml train … --promote always`."
        )


@app.command()
def backtest(
    config_file: ConfigFile,
    until: Annotated[str, typer.Option("--until", help="Where observation ends: a date or an instant.")],
    folds: Annotated[
        int, typer.Option(min=1, help="At most so many instants; at each the model is fitted anew, in minutes.")
    ] = 3,
    spacing: Annotated[
        str | None, typer.Option(help="Time between two folds, such as 90d. Default: the longest horizon.")
    ] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Compare subgroups: first_channel, or attribute:country and the like. May be repeated."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where tables and plots go. Default: <out>/backtest/until=<date>.")
    ] = None,
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Refit at past instants and judge by what came after, beside the baselines, with intervals over customers."""
    from cvj_ml.cli.backtest import report_as_json, show_report
    from cvj_ml.commands import run_backtest

    config, instant = read(config_file, until, adopt_out=adopt_out)
    apart = None if spacing is None else read_duration(spacing, "--spacing")
    done = run_backtest(config, instant, Terminal(), folds=folds, spacing=apart, segments=segment or (), folder=folder)
    if as_json:
        print_json({**report_as_json(done.report), "folder": str(done.folder), "run_id": done.run_id})
        return
    show_report(done.report)
    out.print(f"All rows and plots: {done.folder}", soft_wrap=True)


@app.command()
def audit(
    config_file: ConfigFile,
    as_of: AsOf,
    model: Annotated[Path | None, typer.Option("--model", help="An exported bundle; default: the champion.")] = None,
    cut_offs: Annotated[int, typer.Option("--cut-offs", min=1, help="How many past instants to ask about.")] = 4,
    customers: Annotated[int, typer.Option(min=1, help="Whole blocks are drawn until they hold so many.")] = 5_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawn instants, blocks and changes.")] = 1,
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Look for answers that know their future: in features, stages, scores, and in your own sources."""
    from cvj_ml import commands
    from cvj_ml.cli.audit import as_document, show_findings
    from cvj_ml.errors import GateError

    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    done = commands.audit(config, instant, Terminal(), bundle=model, cut_offs=cut_offs, customers=customers, seed=seed)
    if as_json:
        print_json(as_document(done, config))
    else:
        show_findings(done, config)
    if done.findings.leaks:
        raise GateError(
            f"{len(done.findings.leaks)} leak(s): answers about the past change with what came later. docs/audit.md"
            " says how to find the cause; train again once it is mended."
        )


@app.command()
def score(
    config_file: ConfigFile, as_of: AsOf, accept: Accept = None, adopt_out: AdoptOut = False, as_json: Json = False
) -> None:
    """Score every customer with the champion and publish the night: scores and page, no lists."""
    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    _night(config, instant, accept or [], as_json, with_lists=False)


@app.command()
def targets(
    config_file: ConfigFile, as_of: AsOf, accept: Accept = None, adopt_out: AdoptOut = False, as_json: Json = False
) -> None:
    """Score every customer, rank the lists and publish all of it as one night."""
    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    _night(config, instant, accept or [], as_json, with_lists=True)


@app.command()
def report(config_file: ConfigFile, as_of: AsOf, as_json: Json = False) -> None:
    """Find the published night and say where its page and worksheet are; nothing is made or published."""
    from cvj_ml import commands

    config, instant = read(config_file, as_of)
    found = commands.show_night(config, instant)
    if as_json:
        print_json(found)
        return
    out.print(f"Page:      {found['page']}", soft_wrap=True)
    out.print(f"Worksheet: {found['worksheet']}", soft_wrap=True)


@app.command()
def measure(
    config_file: ConfigFile,
    until: Annotated[str, typer.Option("--until", help="Where observation ends: a date or an instant.")],
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Say whether past lists worked, target against control, and whether their scores were right."""
    from cvj_ml import commands
    from cvj_ml.cli.measure import measured_as_json, show_measured
    from cvj_ml.errors import GateError, raise_all

    config, instant = read(config_file, until, adopt_out=adopt_out)
    done = commands.measure(config, instant, Terminal())
    if as_json:
        print_json(measured_as_json(done))
    else:
        show_measured(done)
    raise_all(
        GateError, "The scores of past nights are surely worse than the floor (measure:); train anew:", done.faults
    )


def _night(config: Config, instant: int, accepted: list[str], as_json: bool, *, with_lists: bool) -> None:
    from cvj_ml import commands
    from cvj_ml.lists import NOT_LISTED, REASONS, title_of, without_evidence

    night = commands.publish_night(config, instant, Terminal(), with_lists=with_lists, accepted=accepted)
    if as_json:
        print_json(night.as_document())
        return
    out.print(
        f"Scored {len(night.scores):,} customers with model {night.model_version}: {night.folder}", soft_wrap=True
    )
    if night.published.outcome == "unchanged":
        out.print("  It was published already, and is whole.")
    for one in night.lists:
        title = title_of(one["from_stage"], one["to_stage"], one["horizon_days"])
        out.print(f"  {title}: {one['listed']:,} listed of {one['in_stage']:,}, {one['control']:,} of them in control")
        if without_evidence(one["listed"], one.get("expected_moves", one["listed"])):
            told = "    without evidence: not one of them is expected to move, so their order says nothing"
            out.print(told, soft_wrap=True)
        for name, words in {**REASONS, **NOT_LISTED}.items():
            if one[name]:
                out.print(f"    {one[name]:,} left out: {words}", soft_wrap=True)
    show_people(night.as_document()["people"])
    if night.lists:
        out.print(f"For people: {night.folder / 'targets' / 'lists.xlsx'}", soft_wrap=True)
    if night.page:
        out.print(f"In a browser: {night.page}", soft_wrap=True)


app.command()(nightly)
app.command()(verify)
app.command()(forget)
