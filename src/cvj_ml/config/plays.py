"""Plays: what marketing can do for a customer, for whom each one is meant, and what speaks of trouble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cvj_ml.config.base import DAY, Duration, Section, _as_list

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in"]
Scalar = bool | int | float | str
Names = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
Rating = Literal["good", "middle", "bad", "none"]
Tests = dict[str, dict[Operator, Scalar | list[Scalar]]]

OUTER_RATINGS = 0.4
"""The lower and the upper share of the scale of ratings: what lies there is bad or good, the middle is neither."""


def outer_rating(scale: tuple[float, float], share: float = OUTER_RATINGS) -> tuple[float, float]:
    """Return up to where ratings are bad, and from where on they are good; scale: the worst and the best."""
    worst, best = scale
    outer = share * (best - worst)
    return worst + outer, best - outer


STAGE_CHANGE = "CRM stage: "
"""How the event of a change of the CRM's stage field begins; nothing that a customer does is called so."""


def with_stage_field(data: Any) -> Any:
    """Read ``{stage_field: Lead}`` as the event of that change."""
    if not isinstance(data, dict) or "stage_field" not in data:
        return data
    if "event" in data:
        raise ValueError("stage_field and event: a rule asks for one of them; combine two with any or all")
    names = data["stage_field"] if isinstance(data["stage_field"], list | tuple) else [data["stage_field"]]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("stage_field is a name of the CRM's stage field, or a list of them")
    others = {name: value for name, value in data.items() if name != "stage_field"}
    return {**others, "event": [STAGE_CHANGE + name for name in names]}


def with_shorthand(tests: Any) -> Any:
    """Read ``{country: UK}`` as ``{country: {eq: UK}}``."""
    if not isinstance(tests, dict):
        return tests
    return {
        name: test if isinstance(test, dict) else {"in" if isinstance(test, list) else "eq": test}
        for name, test in tests.items()
    }


def operand_faults(key: str, tests: Tests) -> list[str]:
    """Return which operators got a list where they take one value, or the other way round."""
    return [
        f"{key} {name}: {operator} takes {'a list' if operator == 'in' else 'one value'}"
        for name, one in tests.items()
        for operator, operand in one.items()
        if (operator == "in") != isinstance(operand, list)
    ]


class Condition(Section):
    """What a play asks of a customer tonight: a leaf (``event``, ``attribute``, ``date`` …), or a combination.

    ``within`` looks back from tonight, of a ``date`` ahead: that many local days, of which today is the first.
    ``since`` counts only what came after the customer's last such event. ``last_rating`` names what the customer's last
    rating may be; ``none``: they never rated.
    """

    event: Names | None = None
    where: Tests = {}
    count: int = Field(default=1, ge=1)
    value_at_least: float | None = None
    within: Duration | None = None
    since: Names | None = None
    attribute: Tests | None = None
    date: str | None = Field(default=None, exclude_if=lambda name: name is None)
    last_rating: Annotated[tuple[Rating, ...], BeforeValidator(_as_list), Field(min_length=1)] | None = None
    any: tuple[Condition, ...] | None = Field(default=None, min_length=1)
    all: tuple[Condition, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _stage_field(cls, data: Any) -> Any:
        return with_stage_field(data)

    @field_validator("where", "attribute", mode="before")
    @classmethod
    def _shorthand(cls, tests: Any) -> Any:
        return with_shorthand(tests)

    @model_validator(mode="after")
    def _one_shape(self) -> Condition:
        known = ("event", "attribute", "date", "last_rating", "any", "all")
        shapes = [name for name in known if getattr(self, name) is not None]
        if len(shapes) != 1:
            found = " and ".join(shapes) or "none of them"
            raise ValueError(f"a condition has exactly one of {', '.join(known)}; found {found}")
        extra = self.model_fields_set - {*known}
        if self.date is not None and extra == {"within"} and self.within and self.within % DAY == 0:
            return self
        if self.date is not None:
            raise ValueError("a condition with date has within, a number of whole days, such as 60d, and nothing else")
        if not self.event and extra:
            raise ValueError(f"{', '.join(sorted(extra))} belong to a condition with event, not beside {shapes[0]}")
        if faults := operand_faults("where", self.where) + operand_faults("attribute", self.attribute or {}):
            raise ValueError("\n".join(faults))
        return self

    def leaves(self) -> Iterator[Condition]:
        """Yield the leaves, in order."""
        children = (self.any or ()) + (self.all or ())
        if not children:
            yield self
        for child in children:
            yield from child.leaves()

    def with_events(self, mapping: Mapping[str, tuple[str, ...]]) -> Condition:
        """Return this condition with canonical event names replaced by the business's own."""
        update: dict[str, Any] = {}
        for key in ("event", "since"):
            if (names := getattr(self, key)) is not None:
                update[key] = own_names(names, mapping)
        for key in ("any", "all"):
            if children := getattr(self, key):
                update[key] = tuple(child.with_events(mapping) for child in children)
        return self.model_copy(update=update)


class Play(Section):
    """What marketing can do for a customer, for whom, and at what cost a contact.

    The lowest ``priority`` goes first, then the order of the file. ``cost`` is in the unit of ``stage_value``.
    """

    text: str
    channels: tuple[str, ...] = ()
    when: Condition | None = None
    not_when: Condition | None = None
    priority: int = 10
    cost: float = Field(default=0.0, ge=0)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Both conditions, as far as there are any."""
        return tuple(one for one in (self.when, self.not_when) if one is not None)

    def with_events(self, mapping: Mapping[str, tuple[str, ...]]) -> Play:
        """Return this play with canonical event names replaced by the business's own."""
        given = {name: one.with_events(mapping) for name in ("when", "not_when") if (one := getattr(self, name))}
        return self.model_copy(update=given)


class PlaysSpec(Section):
    """Plays that lead to no stage: to keep who is leaving, or to win back who has left."""

    plays: tuple[Play, ...] = ()


class UnhappySpec(Section):
    """Events that speak of trouble: tickets, what closes them, and setbacks such as refunds and cancellations."""

    tickets: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    closed: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    setbacks: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()

    @model_validator(mode="after")
    def _closes_something(self) -> UnhappySpec:
        if self.closed and not self.tickets:
            raise ValueError("closed: there are no tickets to close; name the events that open one under tickets")
        return self

    @property
    def events(self) -> frozenset[str]:
        """Events that are bad news."""
        return frozenset(self.tickets + self.setbacks)

    def asked_by(self, condition: Condition) -> bool:
        """Return whether a condition asks for trouble: it cannot hold of somebody who had none."""
        if condition.any:
            return all(map(self.asked_by, condition.any))
        if condition.all:
            return any(map(self.asked_by, condition.all))
        if condition.last_rating is not None:
            return set(condition.last_rating) == {"bad"}
        return condition.event is not None and set(condition.event) <= self.events

    def with_events(self, mapping: Mapping[str, tuple[str, ...]]) -> UnhappySpec:
        """Return these events by the business's own names."""
        return self.model_copy(
            update={name: own_names(getattr(self, name), mapping) for name in type(self).model_fields}
        )


def own_names(names: tuple[str, ...], mapping: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the business's own names of events, each once; a name without a mapping is its own."""
    return tuple(dict.fromkeys(own for name in names for own in mapping.get(name, (name,))))
