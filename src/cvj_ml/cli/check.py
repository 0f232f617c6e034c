"""``cvj-ml check``: its options, and what it shows."""

from __future__ import annotations

from cvj_ml.cli.arguments import AdoptOut, AsOf, ConfigFile, Json, read
from cvj_ml.cli.output import Terminal, out, print_json, show


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
