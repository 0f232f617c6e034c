"""The lists: whom each is of, in which order, who may be on them, and when a past list counts as bad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cvj_ml.config.base import DAY, Duration, Section, _as_list, format_duration
from cvj_ml.config.journey import JourneySpec
from cvj_ml.config.plays import OUTER_RATINGS, STAGE_CHANGE, Names, Play
from cvj_ml.errors import nearest

Probability = Annotated[float, Field(ge=0, le=1)]


class ExcludeSpec(Section):
    """Who is left out of a list by rule; ``dormant_for`` is the journey's ``dormant_after`` unless it is given."""

    already_there: float | None = Field(default=None, gt=0, le=1)
    dormant_for: Duration | Literal["journey"] | None = "journey"
    low_evidence: bool = False


class OfStages(Section):
    """The stages whose customers a list is of."""

    stages: Names


class AtRiskSpec(OfStages):
    """The stages whose customers a list at risk is of, and by which notion of churn they are lost.

    ``silence``: they do nothing that counts as kept. ``contractual``: they leave the stage, by what its rule names.
    """

    churn: Literal["silence", "contractual"] = "silence"


ListKind = Literal["move", "at_risk", "win_back"]
Order = Literal["probability", "expected_value", "churn", "lost_value"]
ORDERS: Mapping[ListKind, tuple[Order, ...]] = {
    "move": ("probability", "expected_value"),
    "at_risk": ("churn", "lost_value"),
    "win_back": ("probability",),
}
"""By what lists of each kind can be ranked; the first unless another is given."""


class ListSpec(Section):
    """One ranked list, of one kind.

    A move: who in ``from`` is likely to reach ``to`` within ``horizon``. ``at_risk``: who of its stages is active and
    likely to be silent for all of it, or, by contractual churn, likely to leave the stage. ``win_back``: who of its
    stages is dormant and likely to buy, or come back.
    """

    from_stage: str | None = Field(default=None, alias="from")
    to_stage: str | None = Field(default=None, alias="to")
    at_risk: AtRiskSpec | None = None
    win_back: OfStages | None = None
    horizon: Duration
    capacity: int | None = Field(default=None, ge=1)
    by: Order = "probability"
    min_probability: Probability | None = None
    exclude: ExcludeSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _usual_order(cls, data: Any) -> Any:
        return {"by": "churn", **data} if isinstance(data, dict) and data.get("at_risk") is not None else data

    @model_validator(mode="after")
    def _one_kind(self) -> ListSpec:
        given = {"from": self.from_stage, "to": self.to_stage, "at_risk": self.at_risk, "win_back": self.win_back}
        found = [name for name, value in given.items() if value is not None]
        if found not in (["from", "to"], ["at_risk"], ["win_back"]):
            raise ValueError(
                "a list has from and to, or at_risk, or win_back, and nothing of another kind; found"
                f" {' and '.join(found) or 'none of them'}"
            )
        faults = []
        if self.by not in ORDERS[self.kind]:
            faults.append(f"by: {self.by} is no order of such a list; it has {' or '.join(ORDERS[self.kind])}")
        if self.kind == "win_back" and self.exclude is not None and "dormant_for" in self.exclude.model_fields_set:
            faults.append("exclude.dormant_for: a win_back list is of the dormant; leave it out")
        for name in {name for name in self.origins if self.origins.count(name) > 1}:
            faults.append(f"the stage {name!r} is given twice; keep one")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def kind(self) -> ListKind:
        """What the list asks of its customers."""
        return "at_risk" if self.at_risk else "win_back" if self.win_back else "move"

    @property
    def contractual(self) -> bool:
        """Whether the list is of who is likely to leave a stage that they hold."""
        return self.at_risk is not None and self.at_risk.churn == "contractual"

    @property
    def audience(self) -> Literal["active", "dormant"] | None:
        """The column of SCORES that says of whom in its stages the list is; None: of all."""
        if self.kind == "win_back":
            return "dormant"
        return "active" if self.kind == "at_risk" and not self.contractual else None

    @property
    def origins(self) -> tuple[str, ...]:
        """The stages whose customers are asked about."""
        of = self.at_risk or self.win_back
        return of.stages if of else (self.from_stage or "",)

    @property
    def stages_by_place(self) -> tuple[tuple[str, str], ...]:
        """Every stage that the list names, behind the setting that names it."""
        if self.kind == "move":
            return ("from", self.from_stage or ""), ("to", self.target)
        return tuple((f"{self.kind}.stages", name) for name in self.origins)

    @property
    def target(self) -> str:
        """The stage that a list of moves leads to; AssertionError of any other list."""
        if self.to_stage is None:
            raise AssertionError(f"a list of the kind {self.kind} leads to no stage")
        return self.to_stage

    @property
    def words(self) -> str:
        """Whom the list is of, as an error message names it."""
        stages = ", ".join(self.origins)
        if self.kind == "move":
            return f"{self.from_stage} to {self.to_stage}"
        return f"{self.kind}{', contractual' if self.contractual else ''}: {stages}"


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
    """What chance decides: who of a list is not contacted, who else gets a place on it, and who gets which play."""

    share: float = Field(default=0.1, ge=0, lt=1)
    salt: str | None = None
    epoch: Literal["month", "quarter", "half", "year"] = "quarter"
    explore_who: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="share of a list's places for eligible customers drawn by chance, so effects on others are learned",
    )
    explore_how: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the listed whose play and channel are drawn from all that are open to them",
    )


class ExperimentsSpec(Section):
    """Touchpoints of the log that say in which arm of an experiment a customer was: chance decided about a contact.

    ``arm``, ``campaign`` and ``propensity`` name properties of these touchpoints, as sources map them; a number is
    everybody's propensity to be treated.
    """

    event: Names
    arm: str = Field(default="arm", description="property that names the arm")
    control: Names = Field(default=("control",), description="arms that were left alone; every other one is treated")
    campaign: str | None = Field(default=None, description="property that tells experiments apart")
    propensity: str | float | None = Field(
        default=None,
        description="chance to be treated: a number, or the property that has it; without it the log is targeted",
    )

    @model_validator(mode="after")
    def _chance(self) -> ExperimentsSpec:
        if isinstance(self.propensity, float) and not 0 < self.propensity < 1:
            raise ValueError(f"propensity lies between 0 and 1; found {self.propensity:g}")
        return self

    @property
    def properties(self) -> dict[str, str]:
        """The properties that are named, by the setting that names each."""
        named = {"arm": self.arm, "campaign": self.campaign, "propensity": self.propensity}
        return {setting: name for setting, name in named.items() if isinstance(name, str)}


SHORTEST_EPOCH = {"month": 28 * DAY, "quarter": 90 * DAY, "half": 181 * DAY, "year": 365 * DAY}


CLICKS = ("email_open", "email_click", "ad_click", "sms_click", "push_open", "push_click")


class MeasureSpec(Section):
    """Below which quality of past scores ``measure`` ends with exit code 5; only what is surely worse counts.

    And what does not count when it asks whether somebody was kept.
    """

    min_lift: float = Field(default=1.0, ge=0)
    max_miscalibration: float = Field(default=2.0, gt=1)
    min_converted: int = Field(default=30, ge=1)
    clicks: tuple[str, ...] = Field(
        default=CLICKS, description="own events that only answer a send: they do not count as staying or coming back"
    )


def play_channels(journey: JourneySpec) -> tuple[str, ...]:
    """Return the channels that the journey's plays name, each once."""
    return tuple(dict.fromkeys(name for play in journey.all_plays for name in play.channels))


def plays_of(journey: JourneySpec, spec: ListSpec) -> tuple[Play, ...]:
    """Return the plays that a list can offer: of its stage, or of its kind."""
    if spec.kind == "move":
        return next((stage.plays for stage in journey.stages if stage.name == spec.to_stage), ())
    return (journey.at_risk if spec.kind == "at_risk" else journey.win_back).plays


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
    places = [
        (f"lists[{i}] ({one.words})", f"play of {one.to_stage}" if one.kind == "move" else f"{one.kind} play", one)
        for i, one in enumerate(lists or ())
    ]
    asked = [(place, name, plays_of(journey, one)) for place, name, one in places]
    if lists is None:  # consecutive stages: every one but the first is led to
        asked = [(f"the list to {one.name}", f"play of {one.name}", one.plays) for one in journey.stages[1:]]
    faults += [
        f"{place}: no {name} names a channel, so {channelled[0]} cannot be kept; give these plays their channels in the"
        " journey file"
        for place, name, plays in asked
        if channelled and not any(play.channels for play in plays)
    ]
    for place, _, one in places:
        name = one.to_stage or ""
        later = journey.names[journey.index(name) :] if name in journey.names else journey.names
        if one.by == "expected_value" and journey.value is None and not any(stage in stage_value for stage in later):
            faults.append(
                f"{place}: by: expected_value needs the worth of {name} or a later stage in stage_value, or value: in"
                " the journey file, the events by which people buy"
            )
        if one.by == "lost_value" and journey.value is None:
            faults.append(f"{place}: by: lost_value needs value: in the journey file, the events by which people buy")
        if one.kind == "win_back":
            faults += [f"{place}: {fault}" for fault in _left_before_dormant(one, journey, outbound)]
        if one.contractual:
            faults += [f"{place}: {fault}" for fault in _never_left(one, journey)]
    return faults


def _never_left(spec: ListSpec, journey: JourneySpec) -> list[str]:
    """Return the stages of a list by contractual churn that nothing but silence leaves: no scores tell who leaves."""
    return [
        f"{stage.name} {'is left by silence alone' if stage.leave else 'cannot be left'}, and churn: contractual ranks"
        " by who leaves. Name in its rule leave: what ends it, such as a cancellation; or take churn: silence"
        for stage in journey.stages
        if stage.name in spec.origins and (stage.leave is None or stage.leave.unless_silent is None)
    ]


def _left_before_dormant(spec: ListSpec, journey: JourneySpec, outbound: tuple[str, ...]) -> list[str]:
    """Return the stages that silence leaves before anybody there is dormant: a list to win back never has one of them.

    Not where something else than what customers do themselves enters: it may come while they are silent.
    """
    faults = []
    for stage in journey.stages:
        silence = stage.leave.silence if stage.leave and stage.name in spec.origins else None
        named = [name for leaf in stage.enter.leaves() for name in leaf.event or (STAGE_CHANGE,)]
        own = not any(name in ("*", *outbound) or name.startswith(STAGE_CHANGE) for name in named)
        if silence is not None and silence <= journey.dormant_after and own:
            faults.append(
                f"{stage.name} is left after {format_duration(silence)} of silence, before anybody there is dormant"
                f" (dormant_after: {format_duration(journey.dormant_after)}), so nobody would ever be listed from it."
                " Name an earlier stage that silence does not leave, such as one with the same enter and no leave"
            )
    return faults


def epoch_faults(control: ControlSpec, lists: Iterable[ListSpec], default: int) -> list[str]:
    """Return which lists are given twice, and whether an epoch can be shorter than a list's horizon."""
    files = [(one.words, one.horizon) for one in lists]
    faults = [
        f"lists: {words} in {format_duration(horizon)} is given twice; keep one"
        for words, horizon in sorted({one for one in files if files.count(one) > 1})
    ]
    longest = max((horizon for *_, horizon in files), default=default)
    if longest > SHORTEST_EPOCH[control.epoch]:
        faults.append(
            f"control: the epoch {control.epoch!r} can be shorter than the longest list horizon"
            f" {format_duration(longest)}; choose a longer epoch"
        )
    return faults
