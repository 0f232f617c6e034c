"""The journey: ordered stages, each with an entry rule (the grammar is in docs/journey.md)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cvj_ml.config.base import Duration, Section, _as_list
from cvj_ml.errors import nearest

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in"]
Scalar = bool | int | float | str
Names = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]


class Growth(Section):
    """The sum in a window is at least ``ratio`` times the (positive) sum of the window before it."""

    window: Duration
    ratio: float = Field(gt=0)


class Rule(Section):
    """An entry rule: a leaf (``event`` …) or a combination (``any``, ``all``)."""

    event: Names | None = None
    where: dict[str, dict[Operator, Scalar | list[Scalar]]] = {}
    count: int = Field(default=1, ge=1)
    value_at_least: float | None = None
    within: Duration | None = None
    distinct: str | None = None
    growth: Growth | None = None
    after: str | None = None
    any: tuple[Rule, ...] | None = Field(default=None, min_length=1)
    all: tuple[Rule, ...] | None = Field(default=None, min_length=1)

    @field_validator("where", mode="before")
    @classmethod
    def _shorthand(cls, where: Any) -> Any:
        """Read ``{country: UK}`` as ``{country: {eq: UK}}``."""
        if isinstance(where, dict):
            return {
                name: test if isinstance(test, dict) else {"in" if isinstance(test, list) else "eq": test}
                for name, test in where.items()
            }
        return where

    @model_validator(mode="after")
    def _one_shape(self) -> Rule:
        shapes = [name for name in ("event", "any", "all") if getattr(self, name) is not None]
        if len(shapes) != 1:
            found = " and ".join(shapes) or "none of them"
            raise ValueError(f"a rule has exactly one of event, any, all; found {found}")
        extra = self.model_fields_set - {"event", "any", "all", "after"}
        if not self.event and extra:
            raise ValueError(f"{', '.join(sorted(extra))} belong to a rule with event, not beside {shapes[0]}")
        if self.within and self.count == 1 and self.value_at_least is None:
            raise ValueError("within needs a count above 1 or value_at_least")
        for name, tests in self.where.items():
            for operator, operand in tests.items():
                if (operator == "in") != isinstance(operand, list):
                    raise ValueError(f"where {name}: {operator} takes {'a list' if operator == 'in' else 'one value'}")
        return self

    def leaves(self) -> Iterator[Rule]:
        """Yield the leaves of this rule, in order."""
        if self.event:
            yield self
        for child in (self.any or ()) + (self.all or ()):
            yield from child.leaves()

    def follows(self) -> set[str]:
        """Return the stages named by ``after`` anywhere in this rule."""
        children = (self.any or ()) + (self.all or ())
        return ({self.after} if self.after else set()).union(*(child.follows() for child in children))

    def with_events(self, mapping: Mapping[str, tuple[str, ...]]) -> Rule:
        """Return this rule with canonical event names replaced by the business's own."""
        update: dict[str, Any] = {}
        if self.event:
            update["event"] = tuple(dict.fromkeys(own for name in self.event for own in mapping.get(name, (name,))))
        for shape in ("any", "all"):
            children = getattr(self, shape)
            if children:
                update[shape] = tuple(child.with_events(mapping) for child in children)
        return self.model_copy(update=update)


class Play(Section):
    """What marketing can do for a customer at a stage."""

    text: str
    channels: tuple[str, ...] = ()


class Stage(Section):
    """A stage of the journey."""

    name: str = Field(min_length=1)
    enter: Rule
    goal: str = ""
    plays: tuple[Play, ...] = ()

    @property
    def slug(self) -> str:
        """The stage's name as lower-case ASCII for column and file names."""
        ascii_name = unicodedata.normalize("NFKD", self.name).encode("ascii", "ignore").decode()
        return re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")


class JourneySpec(Section):
    """Ordered stages; a customer's observed stage is the highest one entered."""

    name: str
    dormant_after: Duration = 180 * 86_400_000_000
    same_day: Literal["counts", "later"] = Field(
        default="counts", description="after, where only dates are known: the same day counts, or only a later one"
    )
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> JourneySpec:
        names = [stage.name for stage in self.stages]
        faults = []
        slugs = [stage.slug for stage in self.stages]
        for name, slug in zip(names, slugs, strict=True):
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
    def names(self) -> tuple[str, ...]:
        """Stage names in order."""
        return tuple(stage.name for stage in self.stages)

    def index(self, name: str) -> int:
        """Return the position of a stage."""
        return self.names.index(name)

    def unknown_events(self, mapping: Mapping[str, object]) -> list[str]:
        """Return what is wrong with the names of a mapping of events: those that no rule uses."""
        used = {name for stage in self.stages for leaf in stage.enter.leaves() for name in leaf.event or ()}
        return [
            f"events: no rule of the journey uses {name!r}.{nearest(name, used)}"
            for name in mapping
            if name not in used
        ]

    def with_events(self, mapping: Mapping[str, tuple[str, ...]]) -> JourneySpec:
        """Return this journey with canonical event names replaced by the business's own."""
        stages = (stage.model_copy(update={"enter": stage.enter.with_events(mapping)}) for stage in self.stages)
        return self.model_copy(update={"stages": tuple(stages)})

    @property
    def rules(self) -> tuple[int, str, tuple[tuple[str, Rule], ...]]:
        """What gives predictions their meaning: goals and plays may change without a new model."""
        return self.dormant_after, self.same_day, tuple((stage.name, stage.enter) for stage in self.stages)

    def in_order_of_rules(self) -> list[int]:
        """Return stage positions such that each comes after the stages its rule follows."""
        order: list[int] = []
        while len(order) < len(self.stages):
            done = {self.stages[i].name for i in order}
            order += [i for i, stage in enumerate(self.stages) if i not in order and stage.enter.follows() <= done]
        return order
