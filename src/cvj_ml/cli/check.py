"""``cvj-ml check``: its options, and what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cvj_ml.cli.arguments import AdoptOut, AsOf, ConfigFile, Json, read
from cvj_ml.cli.output import Terminal, out, print_json, show

if TYPE_CHECKING:
    from cvj_ml.journey_analytics.data_facts import DataFacts


def check(
    config_file: ConfigFile,
    as_of: AsOf,
    page: Annotated[Path | None, typer.Option(help="Write what is found as one HTML page, too.")] = None,
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Read everything and show what there is to learn from, without training."""
    from cvj_ml.commands.check import check as run_check

    config, instant = read(config_file, as_of, adopt_out=adopt_out)
    found = run_check(config, instant, Terminal())
    store = found.histories.store
    if page is not None:
        from cvj_ml.report.data_page import data_page

        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(data_page(found.facts), encoding="utf-8")
    sources = [
        {
            "source": name,
            "rows_in": counts.rows_in,
            "stored": counts.stored,
            "refused": sum(counts.refused.values()),
            "duplicates": counts.duplicates,
            "unmatched": counts.unmatched,
            "left_out": counts.left_out,
            "unassigned": counts.unassigned,
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
                "warnings": list(found.warnings),
                "data": found.facts.as_document(),
            }
        )
        return
    import pandas as pd

    table = pd.DataFrame(sources)
    seldom = [name for name in ("unmatched", "left_out", "unassigned") if not table[name].any()]
    show(table.drop(columns=seldom), f"{store.customers:,} customers")
    usage = found.usage
    out.print(
        f"Of the stored rows {usage.used:,} are used at {as_of}, {usage.not_yet_visible:,} are not visible yet,"
        f" {usage.superseded:,} were replaced by a newer version.\n",
        soft_wrap=True,
    )
    events = sorted(store.events.items(), key=lambda item: (-item[1], item[0]))
    show(pd.DataFrame(events, columns=["event", "rows"]).head(30), "Events")
    show(found.stages, f"Observed stages at {as_of}")
    _tell(found.facts)
    if page is not None:
        out.print(f"Wrote {page}.", soft_wrap=True)


def _tell(facts: DataFacts) -> None:
    """Show what there is to learn from, and what may be wrong with it."""
    import pandas as pd

    in_time = [
        {
            "source": one.name,
            "from": str(one.first or "–"),
            "to": str(one.last or "–"),
            "days_without": one.days_without,
            "weeks_without": one.weeks_without,
            "repeats": one.repeats,
            "late": one.late,
            "late_days": f"{one.late_days[2]:g}" if one.late else "–",
        }
        for one in facts.sources
    ]
    show(pd.DataFrame(in_time), "In time")
    bought = [
        {
            "source": one.name,
            "purchases": one.bought.rows,
            "with_value": one.bought.valued,
            "of_nothing": one.bought.of_nothing,
            "below_nothing": one.bought.negative,
            "worth": f"{one.bought.worth:,.2f}",
            "on_average": f"{one.bought.worth / one.bought.valued:,.2f}" if one.bought.valued else "–",
        }
        for one in facts.sources
        if one.bought.rows
    ]
    if bought:
        show(pd.DataFrame(bought), "Purchases: are these your books?")
    if (known := facts.identities) is not None:
        told = {"ids": known.ids, "people": known.people, **{f"pairs_{name}": n for name, n in known.pairs.items()}}
        show(pd.DataFrame([{**told, "rows_unassigned": known.unassigned}]), "Ids and people")
    steps = [
        {"next_step": f"{one.origin} → {one.target}", "moved": one.moved, "of": one.came, "enough": one.enough}
        for one in facts.next_steps
        if one.days == facts.within
    ]
    title = f"Moved on within {facts.within} days"
    show(pd.DataFrame(steps, columns=["next_step", "moved", "of", "enough"]), title)
    out.print(f"{facts.rule()}\n", soft_wrap=True)
    questions = facts.questions()
    if questions:
        out.print("Questions")
    for question in questions:
        out.print(f"  - {question}", soft_wrap=True)
