"""How a measurement reads on a screen and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cvj_ml.cli.terminal import out

if TYPE_CHECKING:
    from cvj_ml.pipeline import Measured


def measured_as_json(done: Measured) -> dict[str, Any]:
    """Return the rows of this measurement, the history's file, and what is below the floor."""
    return {
        "rows": done.rows.to_dict("records"),
        "waiting": done.waiting,
        "history": str(done.file),
        "below_floor": list(done.faults),
    }


def show_measured(done: Measured) -> None:
    """Print for each list and epoch what its last night says."""
    if done.rows.empty:
        out.print(f"Nothing to measure yet: {done.waiting} published list(s) wait for the end of their horizon.")
        return
    last = done.rows.groupby(["list", "epoch"], sort=False).tail(1)
    for row in ({str(name): value for name, value in one.items()} for one in last.to_dict("records")):
        out.print(f"\n{row['from_stage']} → {row['to_stage']}, {row['horizon_days']} days, epoch {row['epoch']}")
        for line in (_effect(row), _contacts(row), _scores(row)):
            if line:
                out.print(f"  {line}", soft_wrap=True)
    if done.waiting:
        out.print(f"\n{done.waiting} published list(s) wait for the end of their horizon.")
    out.print(f"\nEvery night: {done.file}", soft_wrap=True)


def _effect(row: dict[str, Any]) -> str:
    if not row["target_n"] or not row["control_n"]:
        return "Did it work? Nobody can say: one of the two groups is empty."
    rates = [row[f"{arm}_moved"] / row[f"{arm}_n"] for arm in ("target", "control")]
    low, high = row["difference_low"], row["difference_high"]
    verdict = "It helped" if low > 0 else "It harmed" if high < 0 else "No effect is shown"
    gained = row["difference"] * row["target_n"]
    about = f", about {gained:,.0f} customers" if low > 0 or high < 0 else ""
    return (
        f"{verdict}: {rates[0]:.1%} of {row['target_n']:,} in the target group moved, {rates[1]:.1%} of"
        f" {row['control_n']:,} in control: {100 * row['difference']:+.1f} points"
        f" ({100 * low:+.1f} to {100 * high:+.1f}){about}."
    )


def _contacts(row: dict[str, Any]) -> str:
    parts = [
        f"{row[f'{arm}_contacted']:.0%} of {name}"
        for arm, name in (("target", "the target group"), ("control", "control"))
        if row[f"{arm}_n"]
    ]
    return f"Contacted within the horizon, for whatever reason: {' and '.join(parts)}." if parts else ""


def _scores(row: dict[str, Any]) -> str:
    if row["observed_over_expected"] != row["observed_over_expected"]:
        return ""
    found = (
        f"Scores, on {row['untouched_n']:,} customers whom the lists left alone:"
        f" {row['observed_over_expected']:.2f} moved for each one expected"
        f" ({row['observed_over_expected_low']:.2f} to {row['observed_over_expected_high']:.2f})"
    )
    if row["lift_10pct"] != row["lift_10pct"]:
        return found + "."
    return found + f"; the likeliest tenth moved {row['lift_10pct']:.1f} times as often as all."
