"""``cvj-ml monitor``: its options, and how nights over time read on a screen and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvj_ml.cli.arguments import ConfigFile, Json, read
from cvj_ml.cli.output import out, print_json, show

if TYPE_CHECKING:
    from cvj_ml.report.monitor_page import MonitorFacts

_SHOWN = 14
"""Nights on the screen; the page and the JSON object have all of them."""


def monitor(
    config_file: ConfigFile,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what is found as one HTML page, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at published nights over time: stage mix, drift, matured quality; alerts end with exit code 5."""
    from cvj_ml.commands.monitor import monitor as run_monitor
    from cvj_ml.errors import GateError, raise_all

    config, _ = read(config_file)
    done = run_monitor(config)
    if page is not None:
        from cvj_ml.report.monitor_page import monitor_page

        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(monitor_page(done.facts), encoding="utf-8")
    if as_json:
        print_json(_as_json(done.facts))
    else:
        _show(done.facts)
        if page is not None:
            out.print(f"\nPage: {page}", soft_wrap=True)
    raise_all(GateError, "Alerts (monitor.alerts):", done.failed)


def _as_json(facts: MonitorFacts) -> dict[str, Any]:
    return {
        "nights": [
            {
                "day": one.day,
                "model": one.model[:12],
                "customers": one.customers,
                "stages": dict(one.stages),
                "gates": [gate.as_json() for gate in one.gates],
            }
            for one in facts.nights
        ],
        "measured": len(facts.measured),
        "alerts": [one.as_json() for one in facts.verdicts],
    }


def _show(facts: MonitorFacts) -> None:
    """Print the newest nights, then what is said of them over time."""
    import pandas as pd

    rows = [
        {
            "night": one.day,
            "customers": one.customers,
            "model": one.model[:12],
            "gates_not_passed": ", ".join(gate.name for gate in one.gates if gate.level != "pass") or "none",
        }
        for one in facts.nights[-_SHOWN:]
    ]
    more = f", the newest {_SHOWN} of {len(facts.nights)}" if len(facts.nights) > _SHOWN else ""
    show(pd.DataFrame(rows), f"Published nights{more}")
    ends = {one.day: one for one in (facts.nights[0], facts.nights[-1])}
    stages = [
        {"stage": name or facts.no_stage, **{day: f"{one.share(name):.1%}" for day, one in ends.items()}}
        for name in facts.stages_shown
    ]
    show(pd.DataFrame(stages), "Where customers stand")
    for one in facts.verdicts:
        out.print(f"{one.level}: {one.name}: {one.message}", soft_wrap=True)
