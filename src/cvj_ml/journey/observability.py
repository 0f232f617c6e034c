"""Which stages a business can see.

Incomplete tracking: which customers' evidence of a stage is hidden, and what is left to see.

``coverage`` is the share of the customers truly having a stage's evidence for whom it is visible: all or nothing for
each customer and stage, independent given the true stage. Thinning repeats that loss on customers whose evidence is
complete, so that a model can learn the truth from what would have been seen of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.config import Config, Journey, Rule
from cvj_ml.errors import ConfigError, nearest, raise_all
from cvj_ml.histories import Touchpoints
from cvj_ml.journey.leaves import ANY_EVENT, leaf_mask
from cvj_ml.journey.stages import entry_times
from cvj_ml.windows import NEVER, Instants


@dataclass(frozen=True, slots=True)
class Visible:
    """Stages without targets or lists, and what to tell the user about them."""

    unobserved: frozenset[str]
    warnings: tuple[str, ...]


def observability(config: Config, events: Collection[str], properties: Collection[str]) -> Visible:
    """Compare the journey's rules with the events that occur and the properties that sources provide.

    In a preset, a stage none of whose evidence can occur is unobserved, with a warning; so is one that can only
    follow it. In a journey of one's own such a rule is a ConfigError that names the nearest event or property.
    """
    unobserved = set(config.unobserved)
    faults, warnings = [], []
    for stage in config.journey.stages:
        if stage.name in unobserved:
            continue
        leaves = list(stage.enter.leaves())
        if config.preset is None:
            for leaf in leaves:
                faults += [f"stage {stage.name!r}: {fault}" for fault in _missing(leaf, events, properties)]
        elif all(any(_missing(leaf, events, properties, every_event=True)) for leaf in leaves):
            unobserved.add(stage.name)
            named = dict.fromkeys(name for leaf in leaves for name in leaf.event or ())
            warnings.append(
                f"{stage.name} is unobserved: none of {', '.join(named)} occurs with what its rule needs. Map your"
                f" events to these names (events:), or name the stage under unobserved to silence this."
            )
    for i in config.journey.in_order_of_rules():
        stage = config.journey.stages[i]
        hidden = sorted(stage.enter.follows() & unobserved)
        if stage.name not in unobserved and hidden:
            if config.preset is None:
                faults.append(
                    f"stage {stage.name!r} comes after {hidden[0]!r}, which is unobserved; change one of them"
                )
            else:
                unobserved.add(stage.name)
                warnings.append(f"{stage.name} is unobserved: it comes after {hidden[0]}, which is unobserved.")
    faults += [
        f"coverage: {name} is unobserved in the data, so nobody's evidence of it is visible; remove it from"
        " coverage, or map its events"
        for name in config.coverage
        if name in unobserved
    ]
    if len(unobserved) == len(config.journey.stages):
        faults.append("no stage is observed; map your events with events:, or write your own journey")
    raise_all(ConfigError, f"The journey {config.journey.name!r} does not fit the data:", faults)
    return Visible(frozenset(unobserved), tuple(warnings))


def _missing(
    leaf: Rule, events: Collection[str], properties: Collection[str], every_event: bool = False
) -> Iterator[str]:
    """Yield what a leaf needs and the data lacks; with ``every_event`` an event is missing only with all the others."""
    absent = [name for name in leaf.event or () if name != ANY_EVENT and name not in events]
    if not every_event or len(absent) == len(leaf.event or ()):
        for name in absent:
            yield f"the event {name!r} never occurs.{nearest(name, events)}"
    needed = {*leaf.where, leaf.distinct} - {None}
    for name in sorted(str(item) for item in needed):
        if name not in {"value", "channel", *properties}:
            known = ", ".join(("value", "channel", *properties))
            yield f"no source provides the property {name!r}.{nearest(name, properties)} Known: {known}"


_Mask = npt.NDArray[np.bool_]


def coverage_of(journey: Journey, coverage: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return each stage's coverage, shape (stages,); 1 where none is declared."""
    return np.array([coverage.get(name, 1.0) for name in journey.names])


def draw_hidden(
    customers: Sequence[str], journey: Journey, coverage: npt.NDArray[np.float64], seed: int | str
) -> _Mask:
    """Draw which stages are hidden for whom, shape (customers, stages): each with probability 1 - coverage.

    One draw per customer and stage, a hash of (seed, customer, stage): whoever else is asked, the answer stays.
    """
    hidden = np.zeros((len(customers), len(journey.stages)), dtype=np.bool_)
    for i in np.flatnonzero(coverage < 1):
        key = hashlib.blake2b(f"{seed}\n{journey.names[i]}".encode(), digest_size=32).digest()
        digests = [hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in customers]
        draws = (np.frombuffer(b"".join(digests), dtype="<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
        hidden[:, i] = draws >= coverage[i]
    return hidden


def hide(journey: Journey, points: Touchpoints, hidden: _Mask, entries: Instants, minor_units: int) -> Touchpoints:
    """Return the touchpoints that are left when stages are hidden.

    hidden: (customers, stages); entries: the stage entries on the whole history.
    Every touchpoint that matches a leaf of a hidden stage's rule goes, unless a stage that is not hidden needs it:
    one whose rule names its event, too, and that was entered, not before the touchpoint became visible. (Of
    purchases that enter Convert at the first and Ascend at the third, the later ones vanish with Ascend, the first
    stays.) A leaf that takes any event needs none in particular.
    """
    owner = np.repeat(np.arange(len(hidden)), np.diff(points.offsets))
    goes, needed = np.zeros(len(points), dtype=np.bool_), np.zeros(len(points), dtype=np.bool_)
    for i, stage in enumerate(journey.stages):
        named = [leaf for leaf in stage.enter.leaves() if ANY_EVENT not in (leaf.event or ())]
        matches = np.zeros(len(points), dtype=np.bool_)
        for leaf in named:
            matches |= leaf_mask(points, leaf, minor_units)
        here = hidden[owner, i]
        goes |= matches & here
        entered = entries[owner, i]
        needed |= matches & ~here & (entered < NEVER) & (points.visible_at <= entered)
    return points.keep(~goes | needed)


def entries_when_hidden(
    journey: Journey, unobserved: frozenset[str], points: Touchpoints, hidden: _Mask, minor_units: int
) -> Instants:
    """Return the stage entries on what `hide` left: a hidden stage is not entered, whatever still matches its rule."""
    entries = entry_times(journey, unobserved, points, minor_units)
    return np.where(hidden, NEVER, entries)
