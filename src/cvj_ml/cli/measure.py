"""``cvj-ml measure``: its options, and how a measurement reads on a screen and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cvj_ml.cli.arguments import AdoptOut, ConfigFile, Json, Until, read
from cvj_ml.cli.output import Terminal, out, print_json

if TYPE_CHECKING:
    from cvj_ml.commands.measure import Measured


def measure(
    config_file: ConfigFile,
    until: Until,
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Say whether past lists worked, target against control, and whether their scores were right."""
    from cvj_ml.commands.measure import measure as run_measure
    from cvj_ml.errors import GateError, raise_all

    config, instant = read(config_file, until, adopt_out=adopt_out)
    done = run_measure(config, instant, Terminal())
    if as_json:
        print_json(_measured_as_json(done))
    else:
        _show_measured(done)
    raise_all(
        GateError, "The scores of past nights are surely worse than the floor (measure:); train anew:", done.faults
    )


def _measured_as_json(done: Measured) -> dict[str, Any]:
    """Return the rows of this measurement, the history's file, and what is below the floor."""
    return {
        "rows": done.rows.to_dict("records"),
        "by_effect": done.by_effect.to_dict("records"),
        "by_play": done.by_play.to_dict("records"),
        "waiting": done.waiting,
        "history": str(done.file),
        "below_floor": list(done.faults),
    }


def _by_subgroup(done: Measured, row: dict[str, Any]) -> list[str]:
    """Return what contacts brought by what the nights said that they change, as far as they did, and by play."""
    from cvj_ml.measurement.effects import group_words, play_words

    found = []
    for title, table, words in (
        ("By what a contact was expected to change, the least first:", done.by_effect, group_words),
        ("By play, each one's people against the same in control:", done.by_play, play_words),
    ):
        if table.empty:
            continue
        same = (table[["list", "epoch", "night"]] == [row["list"], row["epoch"], row["night"]]).all(axis=1)
        lines = [words(one) for one in table[same].to_dict("records")]
        found += [title, *lines] if lines else []
    return found


def _show_measured(done: Measured) -> None:
    """Print for each list and epoch what its last night says."""
    from cvj_ml.lists.kinds import title_of_row
    from cvj_ml.measurement.effects import contact_words, effect_words, forecast_words, score_words

    if done.rows.empty:
        out.print(f"Nothing to measure yet: {done.waiting} published list(s) wait for the end of their horizon.")
        return
    last = done.rows.groupby(["list", "epoch"], sort=False).tail(1)
    for row in ({str(name): value for name, value in one.items()} for one in last.to_dict("records")):
        out.print(f"\n{title_of_row(row)}, epoch {row['epoch']}")
        for line in (effect_words(row), contact_words(row), forecast_words(row), score_words(row)):
            if line:
                out.print(f"  {line}", soft_wrap=True)
        for line in _by_subgroup(done, row):
            out.print(f"  {line}", soft_wrap=True)
    if done.waiting:
        out.print(f"\n{done.waiting} published list(s) wait for the end of their horizon.")
    out.print(f"\nEvery night: {done.file}", soft_wrap=True)
