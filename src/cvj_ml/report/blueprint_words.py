"""How the blueprint is told: moods, pain points and times of a stage, and personas with journey and play."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from cvj_ml.journey_analytics.experience import Mood, Moods, PainPoints
from cvj_ml.journey_analytics.journey_map import Step
from cvj_ml.journey_analytics.personas import Persona, PersonaStage
from cvj_ml.report.wording import amount, days, people, percent, spoken, whole_number

PERSONAS = (
    "People who came through the same first channel and spend alike, or share a segment: the five largest groups of at"
    " least 100, and everybody else as others."
)

MOST_MOVES = 4
"""Steps between stages that are told of a persona; the rest are told together."""


def mood(one: Mood, scale: tuple[float, float]) -> str:
    """Say how customers rated what they lived through, with the scale."""
    bad = percent(one.bad / one.given) if one.bad else "none"
    return f"{one.mean:.1f} on the {in_scale(scale)}: {ratings(one.given)}, {bad} bad"


def in_scale(scale: tuple[float, float]) -> str:
    """Return the scale of ratings."""
    return f"scale {scale[0]:g} to {scale[1]:g}"


def ratings(number: int) -> str:
    """Return a number of ratings."""
    return f"{number:,} rating{'' if number == 1 else 's'}"


def rating_notes(found: Moods, shown: Collection[int]) -> list[str]:
    """Say which ratings are in no mood of the stages that are shown."""
    told = []
    if found.outside:
        lie = "lies" if found.outside == 1 else "lie"
        counted = "is not counted" if found.outside == 1 else "are not counted"
        told.append(f"{ratings(found.outside)} {lie} outside the {in_scale(found.scale)} and {counted}.")
    if unplaced := sum(one.given for stage, one in found.of.items() if stage not in shown):
        told.append(f"{ratings(unplaced)} came before the customer stood in any stage, and no stage counts them.")
    return told


def pains(one: PainPoints, here: int) -> tuple[str, ...]:
    """Say which share of those who stand in a stage has trouble; nothing of what nobody has, or the log lacks."""
    if not here:
        return ()
    told = [f"{percent(one.silent / here)} silent"] if one.silent else []
    for number, trouble in ((one.tickets, "ticket"), (one.setbacks, "refund or cancellation")):
        if number:
            told.append(f"{percent(number / here)} had a {trouble}")
    return tuple(told)


def time_here(step: Step, so_far: float | None) -> str:
    """Say how long those who stand in a stage have been there, beside the time by which half move on."""
    if so_far is None:
        return ""
    told = f"half here for {days(so_far)} or more" if so_far >= 1 else "half here for under a day"
    return told if step.pace.median is None else f"{told}; half move on after {days(step.pace.median)}"


def persona(one: Persona) -> str:
    """Return a persona's name as a heading."""
    return one.name[:1].upper() + one.name[1:]


def persona_size(one: Persona, everybody: int, currency: str | None) -> str:
    """Say how many people a persona has, and what they spent."""
    told = f"{people(one.people)}, {percent(one.people / everybody)} of everybody"
    if one.above is not None and one.up_to is not None:
        between = f"more than {amount(one.above, currency)} and up to {amount(one.up_to, currency)}"
        told += f"; each spent {between} until tonight"
    elif one.above is not None:
        told += f"; each spent more than {amount(one.above, currency)} until tonight"
    elif one.up_to is not None:
        told += f"; each spent up to {amount(one.up_to, currency)} until tonight"
    return f"{told}, {amount(one.value / one.people, currency)} on average" if one.value > 0 else told


def most_at(stages: Iterable[PersonaStage], names: Mapping[int, str]) -> str:
    """Say where most of a persona stand."""
    most = sorted((one for one in stages if one.here), key=lambda one: -one.here)[:3]
    return f"Most are at {', '.join(f'{names[one.stage]} ({whole_number(one.here)})' for one in most)}."


def offered(one: Persona) -> str:
    """Say which play most of a persona's people are offered tonight."""
    if one.play is None:
        return "Nobody of them is offered a play tonight."
    through = f", mostly through {spoken(one.play.channel)}" if one.play.channel else ""
    return f"{one.play.text} ({people(one.play.people)} tonight{through})"


def persona_moves(one: Persona, names: Mapping[int, str]) -> str:
    """Say between which stages most of a persona moved in the last period, most first."""
    most = sorted(one.moves, key=lambda move: (-move.people, move.origin, move.to))[:MOST_MOVES]
    told = ", ".join(f"{names[move.origin]} → {names[move.to]} {whole_number(move.people)}" for move in most)
    rest = sum(move.people for move in one.moves) - sum(move.people for move in most)
    return f"{told}, other steps {whole_number(rest)}" if rest else told or "nobody moved on"
