"""A journey as one business can see it: which of its stages leave evidence in the data, and which do not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cvj_ml.config import STAGE_CHANGE, Config, JourneySpec, Rule, Stage, preset_names, read_journey, validated
from cvj_ml.errors import ConfigError, nearest, raise_all
from cvj_ml.journey.leaves import ANY_EVENT


@dataclass(frozen=True, slots=True, init=False)
class Journey:
    """The ordered stages of a journey, which of them the data cannot show, and in what units values stand.

    An ``unobserved`` stage has no entry, no target and no list. Rules compare values in units of which one is
    ``10 ** value_decimals`` of the store's minor ones. ``preset`` is the name under which the package has it: of such a
    journey, stages may be missing in the data.

    >>> journey = Journey("cvj8", unobserved=["Aware"], events={"purchase": ["order_paid"]})
    >>> journey.names[3], journey.observable
    ('Convert', [1, 2, 3, 4, 5, 6, 7])
    >>> Journey({"Visitor": {"event": "visit"}, "Buyer": {"event": "order", "count": 2}}).names
    ('Visitor', 'Buyer')
    """

    spec: JourneySpec
    unobserved: frozenset[str]
    value_decimals: int
    preset: str | None = field(compare=False)

    def __init__(
        self,
        stages: str | Mapping[str, object] | JourneySpec,
        unobserved: Iterable[str] = (),
        value_decimals: int = 2,
        *,
        events: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        """Take the name of a preset, a YAML file, or each stage's name with its entry rule (docs/journey.md).

        In the place of a rule may stand ``{"enter": rule, "leave": rule}``.

        events: names in the rules to the business's own. ConfigError for what is wrong, all faults at once.
        """
        preset = stages if isinstance(stages, str) and stages in preset_names() else None
        if isinstance(stages, str):
            try:
                spec = read_journey(stages)
            except ValueError as error:
                raise ConfigError(f"{error}.") from None
        elif isinstance(stages, JourneySpec):
            spec = stages
        else:
            rules = [
                {"name": name, **(rule if isinstance(rule, Mapping) and "enter" in rule else {"enter": rule})}
                for name, rule in stages.items()
            ]
            spec = validated(JourneySpec, {"name": "journey", "stages": rules}, None)
        own = {name: (to,) if isinstance(to, str) else tuple(to) for name, to in (events or {}).items()}
        faults = spec.unknown_events(own)
        hidden = frozenset([unobserved] if isinstance(unobserved, str) else unobserved)
        faults += [
            f"unobserved: unknown stage {name!r}.{nearest(name, spec.names)}" for name in sorted(hidden - {*spec.names})
        ]
        raise_all(ConfigError, f"The journey {spec.name!r}:", faults)
        found = {"spec": spec.with_events(own) if own else spec, "unobserved": hidden}
        for name, value in {**found, "value_decimals": value_decimals, "preset": preset}.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """What the journey is called."""
        return self.spec.name

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order, unobserved ones, too."""
        return self.spec.stages

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all stages in order."""
        return self.spec.names

    @property
    def minor_units(self) -> int:
        """How many minor units make one unit of value."""
        return int(10**self.value_decimals)

    @property
    def observable(self) -> list[int]:
        """Positions of the stages that can be observed, in order."""
        return [i for i, name in enumerate(self.names) if name not in self.unobserved]

    @property
    def leavable(self) -> list[int]:
        """Positions of the stages that can be observed and left, in order."""
        return [i for i in self.observable if self.stages[i].leave is not None]

    def index(self, name: str) -> int:
        """Return the position of a stage."""
        return self.spec.index(name)


@dataclass(frozen=True, slots=True)
class Visible:
    """The journey as the data shows it, and what to tell the user about the stages that it does not show."""

    journey: Journey
    warnings: tuple[str, ...]

    @property
    def unobserved(self) -> frozenset[str]:
        """Stages without targets or lists."""
        return self.journey.unobserved


def observability(config: Config, events: Collection[str], properties: Collection[str]) -> Visible:
    """Compare the journey's rules with the events that occur and the properties that sources provide.

    In a preset, a stage none of whose evidence can occur is unobserved, with a warning; so is one that can only
    follow it. In a journey of one's own such a rule is a ConfigError that names the nearest event or property, and
    what its plays and its bad news name in vain is a warning.
    """
    unobserved = set(config.unobserved)
    faults, warnings = [], []
    for stage in config.journey.stages:
        if stage.name in unobserved:
            continue
        leaves = list(stage.enter.leaves())
        leaving = list(stage.leave.leaves()) if stage.leave is not None else []
        if config.preset is None:
            for leaf in leaves:
                faults += [f"stage {stage.name!r}: {fault}" for fault in _missing(leaf, events, properties)]
            for leaf in leaving:
                faults += [f"stage {stage.name!r}, leave: {fault}" for fault in _missing(leaf, events, properties)]
        elif all(any(_missing(leaf, events, properties, every_event=True)) for leaf in leaves):
            unobserved.add(stage.name)
            named = dict.fromkeys(name for leaf in leaves for name in leaf.event or ())
            warnings.append(
                f"{stage.name} is unobserved: none of {', '.join(named)} occurs with what its rule needs. Map your"
                f" events to these names (events:), or name the stage under unobserved to silence this."
            )
        elif leaving and all(any(_missing(leaf, events, properties, every_event=True)) for leaf in leaving):
            named = dict.fromkeys(name for leaf in leaving for name in leaf.event or ())
            warnings.append(
                f"nobody leaves {stage.name}: none of {', '.join(named)} occurs with what its leave rule needs. Map"
                " your events to these names (events:)."
            )
    if config.preset is None:
        value = config.journey.value
        for place, names in (("kept", config.journey.kept or ()), ("value", value.events if value else ())):
            faults += [
                f"{place}: the event {name!r} never occurs.{nearest(name, events)}"
                for name in names
                if name not in events
            ]
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
    if config.preset is None:  # of a preset, most businesses lack some events
        warnings += _unheard(config.journey, events, properties)
    faults += [
        f"coverage: {name} is unobserved in the data, so nobody's evidence of it is visible; remove it from"
        " coverage, or map its events"
        for name in config.coverage
        if name in unobserved
    ]
    if len(unobserved) == len(config.journey.stages):
        faults.append("no stage is observed; map your events with events:, or write your own journey")
    raise_all(ConfigError, f"The journey {config.journey.name!r} does not fit the data:", faults)
    return Visible(Journey(config.journey, frozenset(unobserved), config.value_decimals), tuple(warnings))


def _unheard(journey: JourneySpec, events: Collection[str], properties: Collection[str]) -> Iterator[str]:
    """Yield which conditions of plays and which bad news name what the data lacks."""
    plays = [(stage.name, stage.plays) for stage in journey.stages]
    plays += [("at_risk", journey.at_risk.plays), ("win_back", journey.win_back.plays)]
    for place, several in plays:
        for play in several:
            for leaf in (leaf for one in play.conditions for leaf in one.leaves()):
                asked = Rule(event=leaf.event, where=leaf.where) if leaf.event else None
                lacks = list(_missing(asked, events, properties)) if asked else []
                lacks += [
                    f"the event {name!r} never occurs.{nearest(name, events)}"
                    for name in leaf.since or ()
                    if name not in events
                ]
                for fault in lacks:
                    yield f"{place}, play {play.text!r}: {fault}"
    for name in sorted({*journey.unhappy.tickets, *journey.unhappy.closed, *journey.unhappy.setbacks} - {*events}):
        yield f"unhappy: the event {name!r} never occurs, so it holds nobody back.{nearest(name, events)}"
    for name in sorted({*(journey.value.refunds if journey.value else ())} - {*events}):
        yield f"value: the event {name!r} never occurs, so nothing is given back by it.{nearest(name, events)}"


def _stage_fields(events: Collection[str]) -> list[str]:
    return [name.removeprefix(STAGE_CHANGE) for name in events if name.startswith(STAGE_CHANGE)]


def _missing(
    leaf: Rule, events: Collection[str], properties: Collection[str], every_event: bool = False
) -> Iterator[str]:
    """Yield what a leaf needs and the data lacks; with ``every_event`` an event is missing only with all the others."""
    absent = [name for name in leaf.event or () if name != ANY_EVENT and name not in events]
    if not every_event or len(absent) == len(leaf.event or ()):
        for name in absent:
            if name.startswith(STAGE_CHANGE):
                field, there = name.removeprefix(STAGE_CHANGE), _stage_fields(events)
                hint = nearest(field, there) if there else " stage_history names the table that has them"
                yield f"stage_field {field!r} never occurs.{hint}"
            else:
                yield f"the event {name!r} never occurs.{nearest(name, events)}"
    needed = {*leaf.where, leaf.distinct} - {None}
    for name in sorted(str(item) for item in needed):
        if name not in {"value", "channel", *properties}:
            known = ", ".join(("value", "channel", *properties))
            yield f"no source provides the property {name!r}.{nearest(name, properties)} Known: {known}"
