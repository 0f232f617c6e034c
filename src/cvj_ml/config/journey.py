"""The journey: ordered stages, each with an entry rule (the grammar is in docs/journey.md)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cvj_ml.config.base import Duration, Section
from cvj_ml.config.plays import (
    Condition,
    Names,
    Play,
    PlaysSpec,
    Tests,
    UnhappySpec,
    operand_faults,
    own_names,
    with_shorthand,
    with_stage_field,
)
from cvj_ml.errors import nearest

KEPT, PURCHASE, LEAVE = "kept", "purchase", "leave_"
"""The names of outcomes; of leaving a stage, what stands before its slug."""


class Growth(Section):
    """The sum in a window is at least ``ratio`` times the (positive) sum of the window before it."""

    window: Duration
    ratio: float = Field(gt=0)


class Rule(Section):
    """A rule that enters or leaves a stage: a leaf (``event`` …, ``attribute``), or a combination (``any``, ``all``).

    ``silent_for`` is a leaf of rules that leave.
    """

    event: Names | None = None
    attribute: Tests | None = Field(default=None, exclude_if=lambda tests: tests is None)
    silent_for: Duration | None = Field(default=None, exclude_if=lambda silence: silence is None)
    where: Tests = {}
    count: int = Field(default=1, ge=1)
    value_at_least: float | None = None
    within: Duration | None = None
    distinct: str | None = None
    growth: Growth | None = None
    after: str | None = None
    any: tuple[Rule, ...] | None = Field(default=None, min_length=1)
    all: tuple[Rule, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _stage_field(cls, data: Any) -> Any:
        return with_stage_field(data)

    @field_validator("where", "attribute", mode="before")
    @classmethod
    def _shorthand(cls, where: Any) -> Any:
        return with_shorthand(where)

    @model_validator(mode="after")
    def _one_shape(self) -> Rule:
        known = ("event", "attribute", "silent_for", "any", "all")
        shapes = [name for name in known if getattr(self, name) is not None]
        if len(shapes) != 1:
            found = " and ".join(shapes) or "none of them"
            raise ValueError(f"a rule has exactly one of {', '.join(known)}; found {found}")
        extra = self.model_fields_set - {*known, "after"}
        if not self.event and extra:
            raise ValueError(f"{', '.join(sorted(extra))} belong to a rule with event, not beside {shapes[0]}")
        if self.within and self.count == 1 and self.value_at_least is None:
            raise ValueError("within needs a count above 1 or value_at_least")
        if faults := operand_faults("where", self.where) + operand_faults("attribute", self.attribute or {}):
            raise ValueError("\n".join(faults))
        return self

    def leaves(self) -> Iterator[Rule]:
        """Yield the leaves of this rule, in order."""
        if not (self.any or self.all):
            yield self
        for child in (self.any or ()) + (self.all or ()):
            yield from child.leaves()

    def follows(self) -> set[str]:
        """Return the stages named by ``after`` anywhere in this rule."""
        children = (self.any or ()) + (self.all or ())
        return ({self.after} if self.after else set()).union(*(child.follows() for child in children))

    @property
    def silence(self) -> int | None:
        """The shortest silence that fulfils this rule, in microseconds; None where none does."""
        found = [self.silent_for, *(child.silence for child in self.any or ())]
        return min((one for one in found if one is not None), default=None)

    @property
    def unless_silent(self) -> Rule | None:
        """What else than silence fulfils this rule; None where nothing does."""
        if self.silent_for is not None:
            return None
        if self.any and self.silence is not None:
            others = tuple(one for child in self.any if (one := child.unless_silent) is not None)
            return self.model_copy(update={"any": others}) if others else None
        return self

    def with_events(self, mapping: Mapping[str, tuple[str, ...]]) -> Rule:
        """Return this rule with canonical event names replaced by the business's own."""
        update: dict[str, Any] = {}
        if self.event:
            update["event"] = own_names(self.event, mapping)
        for shape in ("any", "all"):
            children = getattr(self, shape)
            if children:
                update[shape] = tuple(child.with_events(mapping) for child in children)
        return self.model_copy(update=update)


class Stage(Section):
    """A stage of the journey; without ``leave`` it is held for ever once it is entered.

    ``plays`` lead to it, ``plays_here`` are for those who stay; ``goal``, ``value``, ``next_step`` and ``owner`` tell
    what the stage is, what customers get there, what they should do next, and who answers for it.
    """

    name: str = Field(min_length=1)
    enter: Rule
    leave: Rule | None = Field(default=None, exclude_if=lambda rule: rule is None)
    goal: str = ""
    value: str = ""
    next_step: str = ""
    owner: str = ""
    plays: tuple[Play, ...] = ()
    plays_here: tuple[Play, ...] = ()

    @model_validator(mode="after")
    def _here_by_hand(self) -> Stage:
        if any(play.conditions for play in self.plays_here):
            raise ValueError("plays_here: nobody is listed for them, so they have no when and no not_when")
        return self

    @model_validator(mode="after")
    def _left_by_its_own_rule(self) -> Stage:
        faults = []
        if any(leaf.silent_for is not None for leaf in self.enter.leaves()):
            faults.append("enter: nobody enters a stage by silence; silent_for belongs to leave")
        if self.leave is not None:
            if self.leave.follows():
                faults.append("leave: what leaves a stage counts from its own entry on, so it has no after")
            if any(leaf.silent_for is not None for leaf in _within_all(self.leave)):
                faults.append("leave: silent_for stands alone or in any; beside it in all nothing can happen")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What enters this stage and, where there is a rule for it, what leaves it."""
        return (self.enter,) if self.leave is None else (self.enter, self.leave)

    @property
    def slug(self) -> str:
        """The stage's name as lower-case ASCII for column and file names."""
        ascii_name = unicodedata.normalize("NFKD", self.name).encode("ascii", "ignore").decode()
        return re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")


def _within_all(rule: Rule) -> Iterator[Rule]:
    for child in rule.all or ():
        yield from child.leaves()
    for child in (rule.any or ()) + (rule.all or ()):
        yield from _within_all(child)


class ValueSpec(Section):
    """What customers buy: the events whose ``value`` counts, and those that give some of it back."""

    events: Names
    refunds: Names = ()

    @model_validator(mode="after")
    def _either_bought_or_given_back(self) -> ValueSpec:
        if both := [name for name in self.events if name in self.refunds]:
            raise ValueError(
                f"{', '.join(both)} cannot be bought and given back; of a negative value of an event among events it"
                " is known already that it was given back"
            )
        return self

    def with_events(self, mapping: Mapping[str, tuple[str, ...]]) -> ValueSpec:
        """Return these events by the business's own names."""
        own = {name: own_names(getattr(self, name), mapping) for name in type(self).model_fields}
        return self.model_copy(update=own)


class JourneySpec(Section):
    """Ordered stages; a customer's observed stage is the highest one held.

    ``kept`` names the events by which a customer is still one, ``value`` those by which one buys. ``at_risk`` and
    ``win_back`` have the plays for lists of these names.
    """

    name: str
    dormant_after: Duration = 180 * 86_400_000_000
    same_day: Literal["counts", "later"] = Field(
        default="counts", description="after, where only dates are known: the same day counts, or only a later one"
    )
    unhappy: UnhappySpec = UnhappySpec()
    at_risk: PlaysSpec = Field(default=PlaysSpec(), exclude_if=lambda one: not one.plays)
    win_back: PlaysSpec = Field(default=PlaysSpec(), exclude_if=lambda one: not one.plays)
    kept: Names | None = Field(default=None, exclude_if=lambda names: names is None)
    value: ValueSpec | None = Field(default=None, exclude_if=lambda value: value is None)
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> JourneySpec:
        names = [stage.name for stage in self.stages]
        faults = []
        slugs = [stage.slug for stage in self.stages]
        for name, slug in zip(names, slugs, strict=True):
            if name in ("return", KEPT, PURCHASE) or name.startswith(LEAVE):
                faults.append(f"stage {name!r} has the name of an outcome, by which scores tell it; capitalise it")
            if not slug:
                faults.append(f"stage {name!r} has no ASCII letter or digit for its columns; add one")
            elif slugs.count(slug) > 1:
                faults.append(f"stage {name!r} shares its column name {slug!r} with another stage")
        for stage in self.stages:
            for other in stage.enter.follows():
                if other not in names:
                    faults.append(
                        f"stage {stage.name!r}: after names the unknown stage {other!r}.{nearest(other, names)}"
                    )
        if not faults:
            faults += self._cycles()
        if faults:
            raise ValueError("\n".join(dict.fromkeys(faults)))
        return self

    def _cycles(self) -> list[str]:
        follows = {stage.name: stage.enter.follows() for stage in self.stages}
        while free := [name for name, others in follows.items() if not others & follows.keys()]:
            for name in free:
                del follows[name]
        return (
            [f"the stages {', '.join(sorted(follows))} wait for each other through after; break the cycle"]
            if follows
            else []
        )

    @property
    def in_no_stage(self) -> str:
        """What is said of who holds no stage: they came to none yet, or, where stages can be left, left it."""
        return "in no stage" if any(one.leave for one in self.stages) else "before any stage"

    @property
    def names(self) -> tuple[str, ...]:
        """Stage names in order."""
        return tuple(stage.name for stage in self.stages)

    def index(self, name: str) -> int:
        """Return the position of a stage."""
        return self.names.index(name)

    @property
    def all_plays(self) -> tuple[Play, ...]:
        """The plays that somebody can be listed for: stage by stage, then those for who is leaving or has left."""
        of_stages = (play for stage in self.stages for play in stage.plays)
        return (*of_stages, *self.at_risk.plays, *self.win_back.plays)

    def unknown_events(self, mapping: Mapping[str, object]) -> list[str]:
        """Return what is wrong with the names of a mapping of events: those that nothing in the journey uses."""
        used = {name for leaf in self.leaves() for name in leaf.event or ()}
        conditions = [one for play in self.all_plays for one in play.conditions]
        used |= {
            name for one in conditions for leaf in one.leaves() for name in (leaf.event or ()) + (leaf.since or ())
        }
        used |= {*self.unhappy.tickets, *self.unhappy.closed, *self.unhappy.setbacks}
        used |= {*(self.kept or ()), *(self.value.events + self.value.refunds if self.value else ())}
        return [
            f"events: no rule of the journey uses {name!r}.{nearest(name, used)}"
            for name in mapping
            if name not in used
        ]

    def unknown_attributes(self, known: Collection[str], dates: Collection[str]) -> Iterator[str]:
        """Yield which attributes rules and plays ask for that are not there, or that are no dates, or dates."""
        rules = [(f"{stage.name}, enter", leaf) for stage in self.stages for leaf in stage.enter.leaves()]
        rules += [
            (f"{stage.name}, leave", leaf) for stage in self.stages if stage.leave for leaf in stage.leave.leaves()
        ]
        plays = [(f"{stage.name}, plays", stage.plays) for stage in self.stages]
        plays += [("at_risk.plays", self.at_risk.plays), ("win_back.plays", self.win_back.plays)]
        asked: list[tuple[str, Rule | Condition]] = [*rules]
        for place, several in plays:
            for i, play in enumerate(several):
                asked += [(f"{place}[{i}]", leaf) for one in play.conditions for leaf in one.leaves()]
        for place, leaf in asked:
            for name in (name for name in leaf.attribute or () if name not in known):
                yield (
                    f"journey: {place}: there is no attribute {name!r}.{nearest(name, known)}"
                    f" attributes.columns maps: {', '.join(sorted(known)) or 'none yet'}"
                )
            for name in (name for name in leaf.attribute or () if name in dates):
                yield f"journey: {place}: {name!r} is a date; a play asks for it with {{date: {name}, within: 60d}}"
            if isinstance(leaf, Condition) and leaf.date is not None and leaf.date not in dates:
                yield (
                    f"journey: {place}: there is no date {leaf.date!r}.{nearest(leaf.date, dates)}"
                    f" attributes.dates names: {', '.join(dates) or 'none yet'}"
                )

    def with_events(self, mapping: Mapping[str, tuple[str, ...]]) -> JourneySpec:
        """Return this journey with canonical event names replaced by the business's own."""
        stages = tuple(
            stage.model_copy(
                update={
                    "enter": stage.enter.with_events(mapping),
                    "leave": stage.leave and stage.leave.with_events(mapping),
                    "plays": tuple(play.with_events(mapping) for play in stage.plays),
                }
            )
            for stage in self.stages
        )
        apart = {
            name: PlaysSpec(plays=tuple(play.with_events(mapping) for play in getattr(self, name).plays))
            for name in ("at_risk", "win_back")
        }
        return self.model_copy(
            update={
                "stages": stages,
                "unhappy": self.unhappy.with_events(mapping),
                "kept": own_names(self.kept, mapping) if self.kept else None,
                "value": self.value.with_events(mapping) if self.value else None,
                **apart,
            }
        )

    def with_closing_events(self, named: tuple[str, ...]) -> JourneySpec:
        """Return this journey in which only these events close a ticket."""
        closed = tuple(name for name in self.unhappy.closed if name in named)
        return self.model_copy(update={"unhappy": self.unhappy.model_copy(update={"closed": closed})})

    @property
    def rules(self) -> tuple[object, ...]:
        """What gives predictions their meaning: goals and plays may change without a new model."""
        stages = tuple((stage.name, stage.rules) for stage in self.stages)
        return self.dormant_after, self.same_day, stages, self.kept_events, self.value

    @property
    def kept_events(self) -> tuple[bool, frozenset[str]]:
        """Whether the events that count as kept are named, and which; else all inbound events but these."""
        if self.kept is not None:
            return True, frozenset(self.kept)
        return False, frozenset(self.unhappy.setbacks) | self.leaving_events

    def leaves(self) -> Iterator[Rule]:
        """Yield the leaves of all rules, those that leave a stage, too."""
        for stage in self.stages:
            for rule in stage.rules:
                yield from rule.leaves()

    @property
    def leaving_events(self) -> frozenset[str]:
        """The events of the rules that leave a stage, but for any event."""
        leaves = [leaf for stage in self.stages if stage.leave is not None for leaf in stage.leave.leaves()]
        return frozenset(name for leaf in leaves for name in leaf.event or () if name != "*")

    def in_order_of_rules(self) -> list[int]:
        """Return stage positions such that each comes after the stages its rule follows."""
        order: list[int] = []
        while len(order) < len(self.stages):
            done = {self.stages[i].name for i in order}
            order += [i for i, stage in enumerate(self.stages) if i not in order and stage.enter.follows() <= done]
        return order
