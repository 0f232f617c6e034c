"""What lists are of, in words: one of moves, of those who are leaving, or of those who left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cvj_ml.config import DAY, JourneySpec, ListSpec

LEAVING = "leave"
"""What the probability of a list by contractual churn is of: leaving the stage held. Each stage has such an outcome."""

_KINDS = {
    ("at_risk", "kept"): "At risk",
    ("at_risk", LEAVING): "At risk of leaving",
    ("win_back", "kept"): "Win back",
    ("win_back", "purchase"): "Win back",
}
"""Lists that lead to no stage, as people call them, by kind and outcome."""


class Verb(NamedTuple):
    """What the probability of a list is of, as it is said: "to be lost", "1 is lost", "2 are lost", "2 were lost".

    ``pair``: "one who was lost and one who was not"; ``good`` is what the outcome is called by which the list is
    measured: of who is at risk, that they stayed.
    """

    will: str
    one: str
    many: str
    did: str
    pair: str
    good: str


_MOVED = Verb("move", "moves on", "move on", "moved", "moved and one who did not", "moved")
_BACK = Verb("come back", "comes back", "come back", "came back", "came back and one who did not", "came back")
_BOUGHT = Verb("buy again", "buys again", "buy again", "bought again", "bought and one who did not", "bought again")
_BY_KIND = {
    ("at_risk", "kept"): Verb("be lost", "is lost", "are lost", "were lost", "was lost and one who was not", "stayed"),
    ("at_risk", LEAVING): Verb("leave", "leaves", "leave", "left", "left and one who did not", "stayed"),
    ("win_back", "kept"): _BACK,
    ("win_back", "purchase"): _BOUGHT,
}


def name_of(journey: JourneySpec, spec: ListSpec) -> str:
    """Return the name of a list's files: ``convert__ascend__30d``, ``at-risk__convert-excite__60d``.

    By contractual churn: ``at-risk-contractual__active__30d``.

    No slug of a stage has the hyphens that stand in the other lists' names.
    """
    slug = {stage.name: stage.slug for stage in journey.stages}
    of = "-".join(slug[name] for name in spec.origins)
    kind, to = (of, slug[spec.target]) if spec.kind == "move" else (spec.kind.replace("_", "-"), of)
    return f"{kind}{'-contractual' if spec.contractual else ''}__{to}__{spec.horizon // DAY}d"


def said_of(kind: str, outcome: str) -> Verb:
    """Return how the outcome of a list is said."""
    return _BY_KIND.get((kind, outcome), _MOVED)


def said_of_row(row: Mapping[str, Any]) -> Verb:
    """Return how the outcome of a list is said, from a row of SUMMARY or of the history of `measure`."""
    return said_of(*_kind_and_outcome(row))


def kind_in_words(kind: str, outcome: str) -> str:
    """Return what people call lists that lead to no stage."""
    return _KINDS[kind, outcome]


def heading_of(kind: str, outcome: str, origin: str, to_stage: str | None) -> tuple[str, str]:
    """Return whom a list is of, and the stage that it leads to, empty where it leads to none."""
    return (origin, to_stage or "") if kind == "move" else (f"{kind_in_words(kind, outcome)}: {origin}", "")


def heading_of_row(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the same from a row of SUMMARY or of the history; one from before there were kinds is of moves."""
    kind, outcome = _kind_and_outcome(row)
    return heading_of(kind, outcome, row["from_stage"], _text(row["to_stage"]))


def title_of(heading: tuple[str, str], days: int) -> str:
    """Return what a list is of, in words."""
    return f"{' → '.join(one for one in heading if one)}, {days} day{'' if days == 1 else 's'}"


def title_of_row(row: Mapping[str, Any]) -> str:
    """Return what a list is of, from a row of SUMMARY or of the history."""
    return title_of(heading_of_row(row), row["horizon_days"])


def _kind_and_outcome(row: Mapping[str, Any]) -> tuple[str, str]:
    return _text(row.get("kind")) or "move", _text(row.get("outcome")) or "reach"


def _text(value: Any) -> str | None:
    """Return a text, None for what a table has in the place of a missing one."""
    return value if isinstance(value, str) else None
