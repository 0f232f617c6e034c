"""The lists: which transitions, in which order, who may be on them, and when a past list counts as bad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cvj_ml.config.base import DAY, Duration, Section, _as_list, format_duration
from cvj_ml.config.journey import JourneySpec
from cvj_ml.config.plays import OUTER_RATINGS
from cvj_ml.errors import nearest

Probability = Annotated[float, Field(ge=0, le=1)]


class ExcludeSpec(Section):
    """Who is left out of a list by rule; ``dormant_for`` is the journey's ``dormant_after`` unless it is given."""

    already_there: float | None = Field(default=None, gt=0, le=1)
    dormant_for: Duration | Literal["journey"] | None = "journey"
    low_evidence: bool = False


class ListSpec(Section):
    """One ranked list: who in ``from`` is likely to reach ``to`` within ``horizon``."""

    from_stage: str = Field(alias="from")
    to_stage: str = Field(alias="to")
    horizon: Duration
    capacity: int | None = Field(default=None, ge=1)
    by: Literal["probability", "expected_value"] = "probability"
    min_probability: Probability | None = None
    exclude: ExcludeSpec | None = None


class ContactCap(Section):
    """At most ``max`` contacts within the time before tonight, through one channel or through all together."""

    max: int = Field(ge=1)
    within: Duration
    channel: str | None = None


BROADCAST = ("ads", "ad_impression", "impression", "display", "social", "search", "web", "affiliate", "tv", "radio")


class UnhappyHoldSpec(Section):
    """How long bad experiences hold a customer back; ``rating`` is the lower share of the scale that is bad."""

    within: Duration = Field(default=14 * DAY, description="after a ticket or a setback of the journey's `unhappy:`")
    rating: float = Field(
        default=OUTER_RATINGS,
        ge=0,
        lt=1,
        description="lower share of report.rating_scale that holds back; 0: no rating does",
    )


class ListSizeSpec(Section):
    """How many to contact from a list without a capacity: steps, while the next one holds enough.

    The smallest multiple n of ``step`` such that the next ``step`` customers hold fewer than ``least`` times the moves
    that the first ``step`` hold.
    """

    step: int = Field(default=500, ge=1)
    least: float = Field(default=0.5, ge=0, le=1)


class EligibilitySpec(Section):
    """Who may be on a list; a list's own ``min_probability`` and ``exclude`` take the place of these."""

    contact_caps: Annotated[tuple[ContactCap, ...], BeforeValidator(_as_list)] = ()
    channel_capacity: dict[str, Annotated[int, Field(ge=1)]] = {}
    recent_contact: Duration | None = Field(default=3 * DAY, description="hold back whom we contacted so lately")
    broadcast: tuple[str, ...] = Field(
        default=BROADCAST, description="outbound channels and events that reach a crowd: they hold nobody back"
    )
    unhappy: UnhappyHoldSpec | None = UnhappyHoldSpec()
    one_list: bool = True
    min_probability: Probability = 0.0
    exclude: ExcludeSpec = ExcludeSpec()

    def least(self, spec: ListSpec) -> float:
        """Return the smallest probability that a list shows."""
        return self.min_probability if spec.min_probability is None else spec.min_probability

    def excluded(self, spec: ListSpec) -> ExcludeSpec:
        """Return the exclusions of a list."""
        return self.exclude if spec.exclude is None else spec.exclude


class ControlSpec(Section):
    """The random share of each list that is not contacted."""

    share: float = Field(default=0.1, ge=0, lt=1)
    salt: str | None = None
    epoch: Literal["month", "quarter", "half", "year"] = "quarter"


SHORTEST_EPOCH = {"month": 28 * DAY, "quarter": 90 * DAY, "half": 181 * DAY, "year": 365 * DAY}


class MeasureSpec(Section):
    """Below which quality of past scores ``measure`` ends with exit code 5; only what is surely worse counts."""

    min_lift: float = Field(default=1.0, ge=0)
    max_miscalibration: float = Field(default=2.0, gt=1)
    min_converted: int = Field(default=30, ge=1)


def play_channels(journey: JourneySpec) -> tuple[str, ...]:
    """Return the channels that the journey's plays name, each once."""
    return tuple(dict.fromkeys(name for stage in journey.stages for play in stage.plays for name in play.channels))


def eligibility_faults(
    spec: EligibilitySpec,
    lists: tuple[ListSpec, ...] | None,
    journey: JourneySpec,
    outbound: tuple[str, ...],
    stage_value: Mapping[str, Any],
    by_channel: Iterable[str],
) -> list[str]:
    """Return what cannot be kept; ``by_channel`` names the permissions that are given channel by channel."""
    faults, known = [], play_channels(journey)
    if spec.contact_caps and not outbound:
        faults.append("eligibility.contact_caps: they count what you send; name those events under outbound")
    named = [(f"eligibility.contact_caps[{i}].channel", cap.channel) for i, cap in enumerate(spec.contact_caps)]
    named += [("eligibility.channel_capacity", name) for name in spec.channel_capacity]
    for place, channel in named:
        if channel is not None and channel not in known:
            faults.append(
                f"{place}: no play of the journey goes through {channel!r}.{nearest(channel, known)}"
                f" Channels of the plays: {', '.join(known) or 'none'}"
            )
    channelled = [*by_channel, *(place for place, channel in named if channel is not None)]
    silent = {stage.name for stage in journey.stages if not any(play.channels for play in stage.plays)}
    places = [(f"lists[{i}] ({one.from_stage} to {one.to_stage})", one.to_stage) for i, one in enumerate(lists or ())]
    if lists is None:  # consecutive stages: every one but the first is led to
        places = [(f"the list to {name}", name) for name in journey.names[1:]]
    faults += [
        f"{place}: no play of {name} names a channel, so {channelled[0]} cannot be kept; give the stage's plays their"
        " channels in the journey file"
        for place, name in places
        if channelled and name in silent
    ]
    for (place, name), one in zip(places, lists or (), strict=False):
        later = journey.names[journey.index(name) :] if name in journey.names else journey.names
        if one.by == "expected_value" and not any(stage in stage_value for stage in later):
            faults.append(f"{place}: by: expected_value needs the worth of {name} or a later stage in stage_value")
    return faults


def epoch_faults(control: ControlSpec, lists: Iterable[ListSpec], default: int) -> list[str]:
    """Return which lists are given twice, and whether an epoch can be shorter than a list's horizon."""
    files = [(one.from_stage, one.to_stage, one.horizon) for one in lists]
    faults = [
        f"lists: {from_stage} to {to_stage} in {format_duration(horizon)} is given twice; keep one"
        for from_stage, to_stage, horizon in sorted({one for one in files if files.count(one) > 1})
    ]
    longest = max((horizon for *_, horizon in files), default=default)
    if longest > SHORTEST_EPOCH[control.epoch]:
        faults.append(
            f"control: the epoch {control.epoch!r} can be shorter than the longest list horizon"
            f" {format_duration(longest)}; choose a longer epoch"
        )
    return faults
