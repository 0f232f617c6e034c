"""Alerts over time: what no single night shows, graded by the levels that gates have.

The stage mix that creeps away by little a night, a gate that does not pass for nights on end, and lists whose outcomes
came out otherwise than was said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cvj_ml.config import DAY, MonitorSpec
from cvj_ml.errors import GateError
from cvj_ml.gates.drift import CHANCE
from cvj_ml.gates.verdicts import GateVerdict, graded, passed
from cvj_ml.models.drift_profile.reference import stability
from cvj_ml.windows import observed_whole

_QUALITY = GateError.exit_code


@dataclass(frozen=True, slots=True)
class MonitoredNight:
    """A published night: its local day, its instant, its journey's and its model's digest, what its gates said.

    ``stages`` counts customers by observed stage; the empty name is no stage.
    """

    day: str
    as_of: int
    journey: str
    model: str
    stages: Mapping[str, int]
    gates: tuple[GateVerdict, ...]

    @property
    def customers(self) -> int:
        """How many customers there were."""
        return sum(self.stages.values())

    @property
    def not_passed(self) -> list[str]:
        """The names of the gates that did not pass."""
        return [one.name for one in self.gates if one.level != "pass"]

    def share(self, stage: str) -> float:
        """Return the share of customers in a stage."""
        return self.stages.get(stage, 0) / max(self.customers, 1)

    def gate_value(self, name: str) -> str:
        """Return what a gate found, to two digits; a dash where it found no number."""
        # What lies below nought by chance is none.
        found = (max(one.value, 0.0) for one in self.gates if one.name == name and one.value is not None)
        return next((f"{one:.2f}" for one in found), "–")


def alerts(
    spec: MonitorSpec, nights: Sequence[MonitoredNight], measured: pd.DataFrame, fewest: int, no_stage: str
) -> list[GateVerdict]:
    """Return what is said of the newest of some nights in order of time, and of the newest measured night of each list.

    measured: the history of `measure`; fewest: customers who have to have moved, or been expected to, before a list
    is graded; no_stage: what the journey calls those in no stage.
    """
    if not nights:
        return []
    return [_stages(spec, nights, no_stage), *_streaks(spec, nights), *_quality(spec, measured, fewest)]


def _stages(spec: MonitorSpec, nights: Sequence[MonitoredNight], no_stage: str) -> GateVerdict:
    """Compare the newest stage mix with that of the last night that lies ``over`` before it."""
    name, newest, days = "stage_mix", nights[-1], spec.over // DAY
    earlier = [
        one
        for one in nights[:-1]
        if one.journey == newest.journey and observed_whole(newest.as_of - one.as_of, spec.over)
    ]
    if not earlier:
        return passed(name, f"no night of this journey lies {days} days before {newest.day}", _QUALITY)
    then = earlier[-1]
    names = [one for one in {**then.stages, **newest.stages} if then.stages.get(one) or newest.stages.get(one)]
    shares = np.array([[then.share(one) for one in names]])
    counts = np.array([[float(newest.stages.get(one, 0)) for one in names]])
    psi, noise = (float(one[0]) for one in stability(shares, counts, np.array([then.customers]), CHANCE))
    moved = max(names, key=lambda one: abs(newest.share(one) - then.share(one)))
    told = (
        f"{moved or no_stage} holds {newest.share(moved):.1%} of the customers on {newest.day}, {then.share(moved):.1%}"
        f" on {then.day} (PSI {psi:.2f})"
    )
    levels = spec.alerts.stages
    warn, fail = (None if one is None else one + noise for one in (levels.warn, levels.fail))
    advice = "Look for what has changed: sources, event names, a campaign; if the business itself has, train anew"
    return graded(name, psi, warn, fail, told, advice, _QUALITY)


def _streaks(spec: MonitorSpec, nights: Sequence[MonitoredNight]) -> list[GateVerdict]:
    """Count for how many nights in a row, up to the newest, each gate has not passed."""
    levels, found = spec.alerts.streak, list[GateVerdict]()
    for gate in nights[-1].gates:
        streak = 0
        for night in reversed(nights):
            if gate.name not in night.not_passed:
                break
            streak += 1
        if streak:
            told = f"has not passed on the last {streak} night(s); on {nights[-1].day}: {gate.message}"
            advice = "Mend the cause, or give the gate a level that fits (docs/gates.md)"
            name = f"streak:{gate.name}"
            found.append(graded(name, streak, levels.warn, levels.fail, told.rstrip("."), advice, _QUALITY))
    return found or [passed("streak", f"every gate passed on {nights[-1].day}", _QUALITY)]


def _quality(spec: MonitorSpec, measured: pd.DataFrame, fewest: int) -> list[GateVerdict]:
    """Grade how far off the newest measured night of each list was, as far as that is sure."""
    if measured.empty:
        return [passed("quality", "nothing is measured yet: `cvj-ml measure` does, once a horizon is over", _QUALITY)]
    levels, found = spec.alerts.quality, list[GateVerdict]()
    for name, rows in measured.groupby("list", sort=True):
        row = rows.sort_values("night", kind="stable").iloc[-1]
        numbers = [float(row[f"observed_over_expected{end}"]) for end in ("", "_low", "_high")]
        if not np.isfinite(numbers).all() or max(row["untouched_moved"], row["untouched_expected"]) < fewest:
            told = f"of the night of {row['night'][:10]}, too few moved, or were expected to, to say"
            found.append(passed(f"quality:{name}", told, _QUALITY))
            continue
        ratio, low, high = numbers
        off = max(1.0, low, 1 / high if high > 0 else 1.0)
        told = (
            f"of the night of {row['night'][:10]}, {ratio:.2f} customers did so for each one"
            f" expected ({low:.2f} to {high:.2f})"
        )
        advice = "Train anew; if it stays, see docs/backtest.md"
        found.append(graded(f"quality:{name}", off, levels.warn, levels.fail, told, advice, _QUALITY))
    return found
