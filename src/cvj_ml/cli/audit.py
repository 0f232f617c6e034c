"""What a person, or a program, is told about an audit."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cvj_ml.cli.output import out, show

if TYPE_CHECKING:
    from cvj_ml.commands import Audited
    from cvj_ml.config import Config

_LEAKS = 40  # of the table; --json has all


def as_document(done: Audited, config: Config) -> dict[str, Any]:
    """Return the findings as plain data."""
    from cvj_ml.commands import as_of_name

    found = done.findings
    return {
        "leaks": [asdict(one) for one in found.leaks],
        "suspects": [asdict(one) for one in found.suspects],
        "warnings": list(found.warnings),
        "customers": found.customers,
        "model_version": done.model_version,
        "cut_offs": [
            {**asdict(one), "cut_off": as_of_name(config, one.cut_off), "rebuilt": one.cut_off in found.rebuilt}
            for one in found.power
        ],
        "files": [asdict(one) for one in found.files],
    }


def show_findings(done: Audited, config: Config) -> None:
    """Print what was tested, what leaks, and what looks suspicious."""
    import pandas as pd

    from cvj_ml.commands import as_of_name

    found = done.findings
    what = f"scores of model {done.model_version}" if done.model_version else "no scores (nothing is trained yet)"
    tested = [
        {
            "cut_off": as_of_name(config, one.cut_off),
            "customers": one.customers,
            "rows_changed": one.change.rows,
            "changed_later": f"{one.noticed / max(one.compared, 1):.0%}",
            "sources_reread": "yes" if one.cut_off in found.rebuilt else "no rows",
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
    if found.suspects:
        rows = [{key: value for key, value in asdict(one).items() if key != "group"} for one in found.suspects]
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
