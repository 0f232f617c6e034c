"""What contacts change, in sentences: of a list, and of one person on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cvj_ml.config import Config, plays_of
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.report.wording import amount, people, percent, spoken


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
    average = point_range(effect.average)
    told = [f"What a contact changes, as past control groups and experiments show: {average} on average."]
    if one.ranked_by == "incremental":
        told.append(
            "People are ranked by it, since that brings more than choosing the likeliest:"
            f" {point_range(effect.gain)} a contact."
        )
    else:
        needed = effect.contacts_needed
        more = "" if needed is None else f"; about {float(f'{needed:.2g}'):,.0f} more contacts might"
        told.append(f"That does not show yet who gains more than others{more}, so people are ranked by their chance.")
    if (extra := one.incremental_moves) is not None:
        told.append(
            f"Contacting tonight's {people(len(one.of_group('target')))} is expected to bring {round(extra) or 0:+,} on"
            " top of those who do it anyway."
        )
    if effect.support > 0:
        told.append(
            f"Nothing is known of people whose chance is below {percent(effect.support)}: hardly anybody like them was"
            " ever on this list."
        )
    if one.explored:
        told.append(f"{people(one.explored)} on it were drawn by chance, to learn what a contact changes for others.")
    return " ".join(told)


def of_plays(one: RankedList, config: Config) -> tuple[str, ...]:
    """Say what contacting tonight's people is expected to bring by play and channel, and what it costs.

    The effect is that of the list's contacts as they were made, so plays differ by whom they are for. The worth is that
    of the list's stage, where it has one, less the cost of the contacts.
    """
    if one.incremental_moves is None:
        return ()
    costs = {play.text: play.cost for play in plays_of(config.journey, one.spec)}
    worth, currency = config.stage_value.get(one.spec.to_stage or ""), config.report.currency
    found: dict[tuple[str | None, str | None], list[float]] = {}
    columns = ("play", "channel", "incremental_probability")
    target = one.of_group("target")
    for play, channel, change in zip(*(target[name].to_pylist() for name in columns), strict=True):
        found.setdefault((play, channel), []).append(np.nan if change is None else change)
    told = []
    for (play, channel), changes in sorted(found.items(), key=lambda item: -np.nansum(item[1])):
        extra, cost = float(np.nansum(changes)), len(changes) * costs.get(play or "", 0.0)
        through = f" through {spoken(channel)}" if channel else ""
        said = f"{play or 'No play'}{through}: {people(len(changes))}, {extra:+.1f} on top of those who do it anyway"
        if worth is not None:
            said += f", worth {amount(worth * extra - cost, currency)} after costs of {amount(cost, currency)}"
        elif cost:
            said += f", at a cost of {amount(cost, currency)}"
        told.append(said)
    return tuple(told)


def of_person(row: Mapping[str, Any]) -> str:
    """Say what a contact changes for one person, by the interval of people like them."""
    if row["incremental_probability"] is None:
        return ""
    found = row["incremental_probability"], row["incremental_low"], row["incremental_high"]
    kind = row["response_type"]
    return f"contact: {point_range(found)}{f', {RESPONSES[kind]}' if kind else ''}"
