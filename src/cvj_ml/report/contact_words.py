"""What contacts change, in sentences: of a list, and of one person on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvj_ml.lists import RankedList
from cvj_ml.report.wording import people, percent


def points(change: float) -> str:
    """Return a difference of probabilities in percentage points, with its sign."""
    return f"{100 * change:+.1f}"


def point_range(found: tuple[float, float, float]) -> str:
    """Return an effect in points with its interval."""
    estimate, low, high = found
    return f"{points(estimate)} points ({points(low)} to {points(high)})"


RESPONSES = {
    "persuadable": "a contact helps",
    "sure_thing": "likely to do it anyway",
    "lost_cause": "hardly to be moved by a contact",
    "do_not_disturb": "a contact harms",
}
"""How somebody answers a contact, by the response type."""


def of_list(one: RankedList) -> str:
    """Say what contacts change for the customers of a list, as past control groups show; nothing where nobody knows."""
    effect = one.effect
    if effect is None:
        return ""
    told = [f"What a contact changes, as past control groups show: {point_range(effect.average)} on average."]
    if one.ranked_by == "incremental":
        told.append(
            "People are ranked by it, since that brings more than choosing the likeliest:"
            f" {point_range(effect.gain)} a contact."
        )
    else:
        more = "" if effect.contacts_needed is None else f"; about {effect.contacts_needed:,} more contacts might"
        told.append(f"That does not show yet who gains more than others{more}, so people are ranked by their chance.")
    if (extra := one.incremental_moves) is not None:
        told.append(
            f"Contacting tonight's people is expected to change the outcome of {extra:,.0f} of"
            f" {len(one.of_group('target')):,}."
        )
    told.append(
        f"Nothing is known of people whose chance is below {percent(effect.support)}: hardly anybody like them was"
        " ever on this list."
    )
    if one.explored:
        told.append(f"{people(one.explored)} on it were drawn by chance, to learn what a contact changes for others.")
    return " ".join(told)


def of_person(row: Mapping[str, Any]) -> str:
    """Say what a contact changes for one person, by the interval of people like them."""
    if row["incremental_probability"] is None:
        return ""
    found = row["incremental_probability"], row["incremental_low"], row["incremental_high"]
    kind = row["response_type"]
    return f"contact: {point_range(found)}{f', {RESPONSES[kind]}' if kind else ''}"
