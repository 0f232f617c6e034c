"""``cvj-ml train``: its options, and what it says of the new model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from cvj_ml.cli.arguments import AdoptOut, AsOf, ConfigFile, Json, Promotion, read
from cvj_ml.cli.output import Terminal, out, print_json, show, show_metrics

if TYPE_CHECKING:
    from cvj_ml.evaluation.promotion import Verdict


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
    from cvj_ml.commands.train import train as run_train
    from cvj_ml.evaluation.backtesting import summary
    from cvj_ml.inputs import as_of_name

    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    done = run_train(config, instant, Terminal(), promote, tune)
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
        _require_usable(done.verdict, promote)
        return
    show_metrics(table, f"On the last matured fold ({as_of_name(config, done.fold.fold.cut)})")
    if done.stages and (evaluated := done.stages.evidence):
        show(
            evaluated.metrics, f"The current stage of {evaluated.customers:,} customers held out, their evidence hidden"
        )
    out.print(
        f"Registered {version.name} version {version.version} ({', '.join(version.aliases)}), {version.digest[:12]}"
    )
    out.print(done.verdict.sentence, soft_wrap=True)
    _require_usable(done.verdict, promote)


def _require_usable(verdict: Verdict, promote: Promotion) -> None:
    """Raise GateError where a first model was refused, so that nobody takes the run for done."""
    from cvj_ml.errors import GateError

    if verdict.refused and promote == "auto":
        raise GateError(
            f"{verdict.sentence} It is registered as the challenger, and nothing can be scored with it. A history that"
            " is short, or that holds little but purchases, may tell customers apart no better than chance: add sources"
            " of what they do before (visits, sign-ups, e-mails), or train again with more history. For lists by base"
            " rates until then, write model: {min_customers: N} into the configuration, with N above the number of your"
            " customers; nothing else is learned with it. Or, if you know better, use this model with"
            " `cvj-ml train … --promote always`."
        )
