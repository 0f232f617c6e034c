"""What a contact changes for the customers of one list: the effect model, how sure it is, and how far it reaches.

A list's effect is the difference that being in its target group makes to the outcome that a contact is for: moving on,
being kept, buying. It is learned from the list's own control groups and from experiments that are told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # LightGBM is not needed to read what a list's effect is
    from cvj_ml.models.uplift.effect_model import EffectModel

_F64 = npt.NDArray[np.float64]

COLUMN = "incremental_"
"""The columns of effects in SCORES begin so."""

_LONGEST = 63

PERSUADABLE, SURE_THING, LOST_CAUSE, DO_NOT_DISTURB = "persuadable", "sure_thing", "lost_cause", "do_not_disturb"
"""How somebody answers a contact (Radcliffe and Surry 2011): it helps; they move anyway; never; it harms."""


@dataclass(frozen=True, slots=True)
class EffectGroups:
    """Groups of customers by predicted effect, the smallest first, with the effect that was measured in each.

    ``edges`` part the groups, one fewer than there are; ``estimate``, ``low`` and ``high`` are the means of doubly
    robust scores and their 95 % intervals, from models that had seen none of the group's customers.
    """

    edges: _F64
    estimate: _F64
    low: _F64
    high: _F64

    def of(self, effects: _F64) -> npt.NDArray[np.int64]:
        """Return the group of each predicted effect."""
        return np.searchsorted(self.edges, effects, side="right")


@dataclass(frozen=True, slots=True)
class ListEffect:
    """The effect of the contacts of one list.

    ``name`` is the list's, ``outcome`` what its probability is of (`reach`, `kept`, `leave`, `purchase`); ``published``
    names by the stage of its customers the column of SCORES that has this probability, a feature of the model.
    ``ranks`` is whether it may rank the list, by the rule of training, and ``sentence`` why or why not; ``average`` is
    what a contact changes on average and ``gain`` what a contact brings more if it is chosen by effect, each with its
    95 % interval (estimate, low, high); ``contacts_needed`` would show that gain (None: there is none to show). Who has
    a probability below ``support`` was never on the list, so of them nothing is known.
    """

    name: str
    outcome: str
    published: Mapping[str, str]
    model: EffectModel
    groups: EffectGroups
    support: float
    ranks: bool
    sentence: str
    average: tuple[float, float, float]
    gain: tuple[float, float, float]
    contacts_needed: int | None

    def predict(self, x: npt.NDArray[np.float32], probability: _F64) -> _F64:
        """Return the effect of a contact on the probability of the outcome, NaN without a probability; (customers,).

        x: (customers, features), as of `ModelSpec.features`.
        """
        effects: _F64 = np.full(len(x), np.nan)
        known = ~np.isnan(probability)
        if known.any():
            effects[known] = self.model.predict(with_probability(x[known], probability[known]))[:, 0]
        return effects

    def interval(self, effects: _F64) -> tuple[_F64, _F64]:
        """Return the interval of each effect's group, NaN without an effect: a single one has none of its own."""
        group, known = self.groups.of(effects), ~np.isnan(effects)
        last = len(self.groups.estimate) - 1
        low, high = (
            np.where(known, one[np.minimum(group, last)], np.nan) for one in (self.groups.low, self.groups.high)
        )
        return low, high

    def response_type(self, effects: _F64, happens: _F64) -> list[str | None]:
        """Return how each customer answers a contact, None where the interval of their group does not tell.

        happens: the probability of the outcome. Persuadable: the interval lies above 0; do not disturb: below. Of the
        others, those whom a contact surely changes less than it does on average: who is likelier than not to do it
        is a sure thing, who is not a lost cause.
        """
        low, high = self.interval(effects)
        little = (low <= 0) & (high >= 0) & (high < self.model.average[0])
        holds = {
            PERSUADABLE: low > 0,
            DO_NOT_DISTURB: high < 0,
            SURE_THING: little & (happens >= 0.5),
            LOST_CAUSE: little,
        }
        found = np.select(list(holds.values()), np.arange(len(holds)), -1)
        names = list(holds)
        return [names[i] if i >= 0 else None for i in found.tolist()]

    def told(self, effects: _F64, happens: _F64) -> dict[str, object]:
        """Return what TARGETS tell of effects: what was found in each one's group, which is all that was measured."""
        low, high = self.interval(effects)
        place = np.minimum(self.groups.of(effects), len(self.groups.estimate) - 1)
        found = np.where(np.isnan(effects), np.nan, self.groups.estimate[place])
        told: dict[str, object] = {"incremental_probability": found, "incremental_low": low, "incremental_high": high}
        return {**told, "response_type": self.response_type(effects, happens)}

    def disturbs(self, effects: _F64) -> npt.NDArray[np.bool_]:
        """Return whom a contact surely harms, as far as their group tells; nobody where the effect may not rank."""
        _, high = self.interval(effects)
        harmed: npt.NDArray[np.bool_] = (high < 0) & self.ranks
        return harmed

    def as_dict(self) -> dict[str, Any]:
        """Return all but the model, as JSON knows it."""
        groups = {name: getattr(self.groups, name).tolist() for name in ("edges", "estimate", "low", "high")}
        plain = ("name", "outcome", "support", "ranks", "sentence", "average", "contacts_needed")
        # What no night tells yet is not a number, which JSON has no word for.
        gain = [None if np.isnan(one) else one for one in self.gain]
        told = {name: getattr(self, name) for name in plain}
        return {**told, "gain": gain, "published": dict(self.published), "groups": groups}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], model: EffectModel) -> Self:
        """Return what `as_dict` wrote, with its model."""
        groups = EffectGroups(**{name: np.array(one, dtype=np.float64) for name, one in document["groups"].items()})
        told: dict[str, Any] = {name: one for name, one in document.items() if name != "groups"}
        told["average"] = tuple(told["average"])
        told["gain"] = tuple(np.nan if one is None else one for one in told["gain"])
        return cls(**told, groups=groups, model=model)


def column_of(name: str) -> str:
    """Return the column of SCORES that tells the effect of a list's contacts.

    The name of a list of many stages is cut and ends with a digest of it: databases hold names of 63 bytes.
    """
    column = f"{COLUMN}{name}"
    if len(column) <= _LONGEST:
        return column
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{column[: _LONGEST - 9]}_{digest}"


def with_probability(x: npt.NDArray[np.float32], probability: _F64) -> npt.NDArray[np.float32]:
    """Return the features of an effect model: those of a customer, and what a night published of them."""
    return np.column_stack([x, probability.astype(np.float32)])


def effect_of(effects: Collection[ListEffect], name: str) -> ListEffect | None:
    """Return the effect of a list, None where none is known."""
    return next((one for one in effects if one.name == name), None)
