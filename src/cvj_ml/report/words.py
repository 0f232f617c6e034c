"""How numbers are told: short sentences and figures with as many digits as they deserve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvj_ml.config.journey import Play
from cvj_ml.report.journey_map import MINIMUM_MOVERS, Step
from cvj_ml.report.opportunities import Opportunity
from cvj_ml.report.signs import Sign
from cvj_ml.report.stays import AFTER

if TYPE_CHECKING:
    from cvj_ml.report.worksheet import Habit, SegmentStep

UNOBSERVED = "The data show nothing of this stage, so nothing is predicted about it."

ASSOCIATION = (
    "What goes with moving on or with staying is an association: those customers may have moved on anyway. Only a test"
    " with a control group shows a cause."
)

ROOM = (
    "Customers × probability gap × value: how many more would move on if all of them did so as readily as the quarter"
    " with the highest probability. It says where there is room, not what a campaign will bring."
)


def percent(share: float | None) -> str:
    """Return a share as text: one decimal below 10 %, two below 1 %."""
    if share is None or share != share:
        return "–"
    if share == 0 or share >= 0.0995:
        return f"{share:.0%}"
    if share < 0.00005:
        return "under 0.01%"
    return f"{share:.1%}" if share >= 0.00995 else f"{share:.2%}"


def count(number: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,}"


def amount(number: float) -> str:
    """Return an amount: without decimals from 100 on."""
    return f"{number:,.0f}" if abs(number) >= 99.5 else f"{number:,.2f}"


def days(number: float) -> str:
    """Return a time in days, to the nearest; what is shorter than a day is told as that."""
    if number < 1:
        return "under a day"
    nearest = int(number + 0.5)
    return "1 day" if nearest == 1 else f"{nearest:,} days"


def customers(number: int) -> str:
    """Return a number of customers."""
    return f"{number:,} customer{'' if number == 1 else 's'}"


def standing(step: Step) -> str:
    """Say who stands in a stage."""
    silent = f", {'all' if step.dormant == step.here else count(step.dormant)} of them silent" if step.dormant else ""
    return f"{customers(step.here)} now{silent}; {count(step.entered)} have been here"


def movement(step: Step) -> str:
    """Say who came and left in the last period."""
    parts = [f"{count(step.new)} new"] if step.new else []
    parts += [f"{count(step.came)} came from earlier stages"] if step.came else []
    # Nobody moves on from the top.
    parts += [f"{count(step.left)} moved on"] if step.moved else []
    return ", ".join(parts) or "nobody came or left"


def speed(step: Step) -> str:
    """Say how many move on, and how fast."""
    if step.moved < MINIMUM_MOVERS:
        return ""
    told = [
        f"{percent(share)} within {after} days"
        for after, share in zip(AFTER, step.pace.moved_by, strict=True)
        if share is not None
    ]
    half = (
        "fewer than half have moved on in the time observed"
        if step.pace.median is None
        else f"half have moved on after {days(step.pace.median)}"
    )
    return ", ".join([*told, half])


def stalling(step: Step) -> str:
    """Say who has been in a stage for unusually long."""
    if step.pace.usual is None or step.pace.stalled is None:
        return ""
    usual = days(step.pace.usual)
    return f"{customers(step.pace.stalled)} here for more than {usual}, longer than three of four who moved on"


def spoken(name: str) -> str:
    """Return a name of the data as it is spoken: underscores are spaces."""
    return name.replace("_", " ")


def habit(one: Habit) -> str:
    """Say what customers of a stage do."""
    sent = "" if one.inbound else " (sent by us)"
    return f"{spoken(one.event)}{sent} {percent(one.share)}"


def sign(one: Sign) -> str:
    """Say how a touchpoint goes with moving on."""
    sent = "" if one.inbound else " (sent by us)"
    return (
        f"{spoken(one.event)}{sent} {times(one.lift)}× ({times(one.low)} to {times(one.high)}):"
        f" {percent(one.share_with)} of {count(one.with_it)} moved on, {percent(one.share_without)} without it"
    )


def rating(mean: float, rated: int) -> str:
    """Say how satisfied customers are."""
    return f"{mean:.1f} on average, the latest rating of {customers(rated)}"


def moves(number: float) -> str:
    """Return an expected number of moves."""
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.1f}"


def times(ratio: float) -> str:
    """Return a ratio, with so many digits that one beside 1 is told from it."""
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.0f}"


def opportunity(one: Opportunity) -> str:
    """Say how much room a transition has."""
    worth = "" if one.value is None else f", worth {amount(one.value)}"
    return (
        f"{customers(one.customers)}, {percent(one.probability)} on average against {percent(one.best)} for the best"
        f" quarter within {days(one.horizon_days)}: room for {moves(one.moves)} more{worth}"
    )


def play(one: Play) -> str:
    """Say what can be done, and through which channels."""
    return f"{one.text} ({', '.join(one.channels)})" if one.channels else one.text


def segment_share(one: SegmentStep) -> str:
    """Say which share of a segment moved on, with its interval."""
    return f"{percent(one.step.moved / one.step.entered)} ({percent(one.low)} to {percent(one.high)})"
