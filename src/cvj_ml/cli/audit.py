"""``cvj-ml audit``: its options, and what a person, or a program, is told of what it found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvj_ml.cli.arguments import AdoptOut, AsOf, ConfigFile, Json, read
from cvj_ml.cli.output import Terminal, out, print_json, show

if TYPE_CHECKING:
    from cvj_ml.commands.audit import Audited
    from cvj_ml.config import Config

_LEAKS = 40  # of the table; --json has all


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
    from cvj_ml.commands.audit import audit as run_audit
    from cvj_ml.errors import GateError

    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    done = run_audit(config, instant, Terminal(), bundle=model, cut_offs=cut_offs, customers=customers, seed=seed)
    if as_json:
        print_json(_as_document(done, config))
    else:
        _show_findings(done, config)
    if done.findings.leaks:
        raise GateError(
            f"{len(done.findings.leaks)} leak(s): answers about the past change with what came later. docs/audit.md"
            " says how to find the cause; train again once it is mended."
        )


def _as_document(done: Audited, config: Config) -> dict[str, Any]:
    """Return the findings as plain data."""
    from cvj_ml.inputs import as_of_name

    found = done.findings
    return {
        "leaks": [asdict(one) for one in found.leaks],
        "target_leaks": [asdict(one) for one in found.target_leaks],
        "warnings": list(found.warnings),
        "customers": found.customers,
        "model_version": done.model_version,
        "cut_offs": [
            {**asdict(one), "cut_off": as_of_name(config, one.cut_off), "replayed": one.cut_off in found.replayed}
            for one in found.power
        ],
        "files": [asdict(one) for one in found.files],
    }


def _show_findings(done: Audited, config: Config) -> None:
    """Print what was tested, what leaks, and what may be target leakage."""
    import pandas as pd

    from cvj_ml.inputs import as_of_name

    found = done.findings
    what = f"scores of model {done.model_version}" if done.model_version else "no scores (nothing is trained yet)"
    tested = [
        {
            "cut_off": as_of_name(config, one.cut_off),
            "customers": one.customers,
            "rows_changed": one.change.rows,
            "changed_later": f"{one.noticed / max(one.compared, 1):.0%}",
            "sources_reread": "yes" if one.cut_off in found.replayed else "no rows",
        }
        for one in found.power
    ]
    out.print(f"Tested on {found.customers:,} customers: stages, features, labels, {what}\n", soft_wrap=True)
    show(pd.DataFrame(tested), "The cut-offs")
    out.print(
        "Rows known from a cut-off on were deleted, altered and added (rows changed), and no answer about the cut-off"
        " may change with them. Of answers about a month later (changed later) nearly all must.\n",
        soft_wrap=True,
    )
    for one in found.files:
        told = f"rows as of {one.column}" if one.column else one.reason
        out.print(f"  {one.table}.files.{one.file}: {told}", soft_wrap=True)
    if found.files:
        out.print()
    if found.target_leaks:
        rows = [{key: value for key, value in asdict(one).items() if key != "group"} for one in found.target_leaks]
        show(pd.DataFrame(rows), "Too good: features that alone nearly tell who moves, among customers in one stage")
    for warning in found.warnings:
        out.print(f"warning: {warning}", soft_wrap=True)
    if found.warnings:
        out.print()
    if not found.leaks:
        out.print(f"No leak found at {len(found.power)} cut-off(s).")
        return
    shown = pd.DataFrame(
        [
            {
                "found_by": one.check,
                "kind": one.kind,
                "name": one.name,
                "customers": one.customers,
                "of": one.compared,
                "cut_offs": one.cut_offs or None,
            }
            for one in found.leaks[:_LEAKS]
        ]
    )
    more = f", the first {_LEAKS} of {len(found.leaks)}" if len(found.leaks) > _LEAKS else ""
    show(shown, f"Leaks: answers about the past that change with what came later{more}")
