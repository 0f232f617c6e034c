"""Which features are left out, by name or pattern; those that the method itself reads by name stay."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cvj_ml.config import ValueSpec
from cvj_ml.errors import nearest
from cvj_ml.features.catalogue import PROGRESS, Feature, Statistic

NEEDED = ("recency", "touchpoints_all", "tenure", "active_days_all", "value_sum_all")
"""What the line that all starts from, and the rules of thumb beside it in a backtest, look up by name."""

_TOLD = 5


@dataclass(frozen=True, slots=True)
class Selection:
    """Which features a configuration leaves out.

    ``value`` are the events by which customers buy, of whose past the amounts are made; ``audiences`` the attributes
    that say whom a period of the calendar is for. None and empty where there are none.
    """

    patterns: tuple[str, ...]
    value: ValueSpec | None = None
    audiences: frozenset[str] = frozenset()

    def names(self, feature: Feature) -> bool:
        """Return whether a pattern names a feature, or its group."""
        return any(fnmatchcase(feature.name, one) or fnmatchcase(feature.group, one) for one in self.patterns)

    def excludes(self, feature: Feature) -> bool:
        """Return whether a feature is left out: what the method needs never is."""
        return self.names(feature) and not self.needs(feature)

    def needs(self, feature: Feature) -> bool:
        """Return whether the method reads a feature by name, beside all that learns from every feature.

        Those are the habits of the line, the progress towards each stage, how many touchpoints fell into each window
        (drift is seen among the active), what amounts are made of, and who belongs to a period of the calendar.
        """
        if feature.name in NEEDED or feature.name.startswith("touchpoints_") or feature.group == PROGRESS:
            return True
        if feature.fact[0] in ("category", "number"):
            return feature.fact[1] in self.audiences
        if self.value is None:
            return False
        if feature.fact[0] == "event":
            bought = feature.fact[1] in (*self.value.events, *self.value.refunds)
            return bought and feature.statistic in (Statistic.COUNT, Statistic.RECENCY)
        return feature.statistic in (Statistic.SUM, Statistic.MAX)


def unknown_patterns(patterns: Sequence[str], possible: Iterable[Feature], selection: Selection) -> list[str]:
    """Return what is wrong with patterns: those that name nothing there could be, or what the method needs.

    ``possible`` are the features with every name that the data has, frequent or not.
    """
    features, faults = list(possible), list[str]()
    groups = list(dict.fromkeys(one.group for one in features))
    for pattern in patterns:
        if "*" not in pattern and any(one.name == pattern and selection.needs(one) for one in features):
            faults.append(f"features.exclude: {pattern!r} stays: the method itself reads it by name (docs/features.md)")
        elif not any(fnmatchcase(one.name, pattern) or fnmatchcase(one.group, pattern) for one in features):
            names = [one.name for one in features]
            hint = nearest(pattern, [*groups, *names]) or _some(names, pattern)
            faults.append(
                f"features.exclude: no feature and no group is called {pattern!r}.{hint} Groups: {', '.join(groups)}"
            )
    return faults


def _some(names: Collection[str], pattern: str) -> str:
    words = [word for word in pattern.replace("*", "_").split("_") if len(word) > 2]
    like = [name for name in names if any(word in name for word in words)][:_TOLD]
    return f" Features like it: {', '.join(like)}." if like else ""
