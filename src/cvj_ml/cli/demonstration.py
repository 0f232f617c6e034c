"""``cvj-ml demo``: its options, and what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cvj_ml.cli.arguments import Json
from cvj_ml.cli.output import Terminal, command, out, print_json, show

_SHOWN = ["rank", "customer_id", "probability", "lift", "expected_value", "group"]


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where data, models and lists are written.")] = Path("out/demo"),
    customers: Annotated[int, typer.Option(min=100, help="How many customers to simulate.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = 1,
    as_json: Json = False,
) -> None:
    """Simulate customers, train, register, score and rank: the whole job on data of a known process."""
    from cvj_ml.demo import run_demo
    from cvj_ml.lists.kinds import title_of_row

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
    out.print(f"Files for other tools: {result.night.folder / 'exports'}", soft_wrap=True)
    out.print(f"The same as a page for your browser: {result.night.page}\n", soft_wrap=True)
    for one in result.night.lists:
        if (one["from_stage"], one["to_stage"]) in (("Convert", "Ascend"), ("Advocate", "Promote")):
            title = title_of_row(one)
            first = result.night.rows(one["list"]).slice(0, 5)
            show(first.to_pandas(), f"{title}: the first of {one['listed']}", _SHOWN)
    show(result.comparison, "Log loss on the last matured fold: the model, base rates and the simulator's own hazards")
    out.print("Regret is how much worse than the true hazards, which know each customer's hidden state.\n")
    out.print("Look at the training in MLflow:")
    out.print(f"  {command('mlflow')} ui --host 127.0.0.1 --backend-store-uri {result.tracking_uri}", soft_wrap=True)
