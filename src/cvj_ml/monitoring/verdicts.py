"""What a row of the history of `measure` says, in sentences: for a screen and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def effect_words(row: Mapping[str, Any]) -> str:
    """Say whether contacting helped."""
    if not row["target_n"] or not row["control_n"]:
        return "Did it work? Nobody can say: one of the two groups is empty."
    rates = [row[f"{arm}_moved"] / row[f"{arm}_n"] for arm in ("target", "control")]
    low, high = row["difference_low"], row["difference_high"]
    verdict = "It helped" if low > 0 else "It harmed" if high < 0 else "No effect is shown"
    gained = abs(row["difference"]) * row["target_n"]
    about = f", about {gained:,.0f} customers {'more' if low > 0 else 'fewer'}" if low > 0 or high < 0 else ""
    return (
        f"{verdict}: {rates[0]:.1%} of {row['target_n']:,} in the target group moved, {rates[1]:.1%} of"
        f" {row['control_n']:,} in control: {100 * row['difference']:+.1f} points"
        f" ({100 * low:+.1f} to {100 * high:+.1f}){about}."
    )


def contact_words(row: Mapping[str, Any]) -> str:
    """Say which share of each group was contacted; nothing where both groups are empty."""
    parts = [
        f"{row[f'{arm}_contacted']:.0%} of {name}"
        for arm, name in (("target", "the target group"), ("control", "control"))
        if row[f"{arm}_n"]
    ]
    return f"Contacted within the horizon, for whatever reason: {' and '.join(parts)}." if parts else ""


def score_words(row: Mapping[str, Any]) -> str:
    """Say whether the probabilities came true; nothing where they could not be judged."""
    if row["observed_over_expected"] != row["observed_over_expected"]:
        return ""
    found = (
        f"Scores, on {row['untouched_n']:,} customers whom the lists left alone:"
        f" {row['observed_over_expected']:.2f} moved for each one expected"
        f" ({row['observed_over_expected_low']:.2f} to {row['observed_over_expected_high']:.2f})"
    )
    if row["lift_10pct"] != row["lift_10pct"]:
        return found + "."
    low, high = row["lift_10pct_low"], row["lift_10pct_high"]
    return (
        found + f"; the likeliest tenth moved {row['lift_10pct']:.1f} times as often as all ({low:.1f} to {high:.1f})."
    )
