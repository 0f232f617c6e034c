"""The commands: arguments in, one pipeline story, words out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvj_ml.cli.arguments import AsOf, ConfigFile, Json, read
from cvj_ml.cli.models import models
from cvj_ml.cli.terminal import Terminal, out, print_json, show, show_metrics

if TYPE_CHECKING:
    from cvj_ml.pipeline import Night

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
def audit(
    config_file: ConfigFile,
    as_of: AsOf,
    model: Annotated[Path | None, typer.Option("--model", help="An exported bundle; default: the champion.")] = None,
    cut_offs: Annotated[int, typer.Option("--cut-offs", min=1, help="How many past instants to ask about.")] = 4,
    customers: Annotated[int, typer.Option(min=1, help="Whole blocks are drawn until they hold so many.")] = 5_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawn instants, blocks and changes.")] = 1,
    as_json: Json = False,
) -> None:
    """Look for answers that know their future: in features, stages, scores, and in your own sources."""
    from cvj_ml import pipeline
    from cvj_ml.cli.audit import as_document, show_findings
    from cvj_ml.errors import GateError

    config, instant = read(config_file, as_of)
    done = pipeline.audit(config, instant, Terminal(), bundle=model, cut_offs=cut_offs, customers=customers, seed=seed)
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
def score(config_file: ConfigFile, as_of: AsOf, as_json: Json = False) -> None:
    """Score every customer with the champion and publish the night."""
    _night(config_file, as_of, as_json, with_lists=False)


@app.command()
def targets(config_file: ConfigFile, as_of: AsOf, as_json: Json = False) -> None:
    """Score every customer, rank the lists and publish both as one night."""
    _night(config_file, as_of, as_json, with_lists=True)


@app.command()
def measure(
    config_file: ConfigFile,
    until: Annotated[str, typer.Option("--until", help="Where observation ends: a date or an instant.")],
    as_json: Json = False,
) -> None:
    """Say whether past lists worked, target against control, and whether their scores were right."""
    from cvj_ml.cli.measures import measured_as_json, show_measured
    from cvj_ml.errors import GateError, raise_all
    from cvj_ml.measuring import measure as run_measure

    config, instant = read(config_file, until)
    done = run_measure(config, instant, Terminal())
    if as_json:
        print_json(measured_as_json(done))
    else:
        show_measured(done)
    raise_all(
        GateError, "The scores of past nights are surely worse than the floor (measure:); train anew:", done.faults
    )


def _night(config_file: Path, as_of: str, as_json: bool, *, with_lists: bool) -> None:
    from cvj_ml import pipeline
    from cvj_ml.lists import NOT_LISTED, REASONS

    config, instant = read(config_file, as_of)
    night = pipeline.publish_night(config, instant, Terminal(), with_lists=with_lists)
    if as_json:
        print_json(_night_as_json(night))
        return
    out.print(
        f"Scored {len(night.scores):,} customers with model {night.model_version}: {night.folder}", soft_wrap=True
    )
    for one in night.lists:
        out.print(f"  {one.title}: {len(one.rows):,} listed of {one.in_stage:,}, {one.control:,} of them in control")
        reasons = {**REASONS, **NOT_LISTED}
        for name, count in {**one.left_out, **one.not_listed}.items():
            if count:
                out.print(f"    {count:,} left out: {reasons[name]}", soft_wrap=True)
    if night.lists:
        out.print(f"For people: {night.folder / 'targets' / 'lists.xlsx'}", soft_wrap=True)


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
