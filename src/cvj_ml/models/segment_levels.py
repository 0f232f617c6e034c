"""Who is active by their own rhythm, and into which ready segment everybody falls: by thresholds a model keeps.

A threshold is frozen at training, so one customer's segment follows from their own history alone, whoever is scored
beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, SegmentsSpec
from cvj_ml.histories import Block, rows_of
from cvj_ml.journey import Outcome
from cvj_ml.models.value.value import amount_if_bought
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import before, local_days

_F64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

SEGMENTS = ("dormant", "ready_to_buy", "new", "at_risk", "high_value", "potential_high_value", "other")
"""The ready segments; of several that fit the first is somebody's."""

LEVELS = ("ready_to_buy", "at_risk", "high_value", "potential_high_value")
"""The segments that begin at a level of a column."""

FEWEST_GAPS = 3
"""Gaps between active days from which on somebody has a rhythm of their own."""

QUIET_AFTER = 3
"""So many times the usual gap somebody may be silent and is active still."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Of some customers: how many local days ago they were last active, and the median gap between active days.

    An active day is one with a touchpoint that counts as kept. NaN where there was none; the gap also where there are
    fewer than `FEWEST_GAPS`.
    """

    silence: _F64
    usual_gap: _F64

    @classmethod
    def of(cls, block: Block, snapshots: Snapshots, kept: Outcome, zone: Any) -> Self:
        """Return the rhythm at each snapshot of a block, as visible just before it."""
        points, size = block.touchpoints, len(snapshots)
        offsets, rows = rows_of(points.offsets, snapshots.customer)
        asked = np.repeat(np.arange(size), np.diff(offsets))
        moment = snapshots.as_of[asked]
        seen = before(points.visible_at[rows], moment) & ~before(points.superseded_at[rows], moment)
        seen &= kept.among(points)[rows]
        days = points.day[rows[seen]].astype(np.int64)
        first = days.min(initial=0)
        span = days.max(initial=0) - first + 1
        # One number for a snapshot and day sorts three times as fast as a pair does.
        owner, day = np.divmod(np.unique(asked[seen] * span + days - first), span)
        day += first
        last = np.full(size, np.nan)
        last[owner] = day  # ascending, so the last one stays
        same = owner[1:] == owner[:-1]
        gaps, whose = (day[1:] - day[:-1])[same], owner[1:][same]
        order = np.lexsort((gaps, whose))
        count = np.bincount(whose, minlength=size)
        ends = np.cumsum(count)
        known = count >= FEWEST_GAPS
        low, high = (ends - count + (count - 1) // 2)[known], (ends - count + count // 2)[known]
        usual = np.full(size, np.nan)
        usual[known] = (gaps[order][low] + gaps[order][high]) / 2
        instants, which = np.unique(snapshots.as_of, return_inverse=True)
        today = local_days(instants, zone).astype(np.float64)[which]
        return cls(today - last, usual)

    def active(self, usual_gap: _F64) -> _Mask:
        """Return who is active by their own rhythm, or else by the ``usual_gap`` of the stage of each, in days."""
        gap = np.where(np.isnan(self.usual_gap), usual_gap, self.usual_gap)
        found: _Mask = self.silence <= QUIET_AFTER * gap
        return found


@dataclass(frozen=True, slots=True)
class SegmentLevels:
    """What a model keeps: the usual gap by stage (the first before any), in days, and from where on a segment begins.

    ``levels`` has those of `LEVELS` whose columns there are: the others are nobody's. ``horizons`` are those of the
    columns, in days.
    """

    spec: SegmentsSpec
    horizons: Mapping[str, int]
    usual_gap: _F64
    levels: Mapping[str, float]

    def segment(
        self, columns: Mapping[str, _F64], dormant: _Mask, active: _Mask, tenure: _F64
    ) -> npt.NDArray[np.int64]:
        """Return the position in `SEGMENTS` of everybody; columns: of SCORES, tenure: days since first seen."""
        fits = {"dormant": dormant, "new": tenure * DAY <= self.spec.new}
        for name, level in self.levels.items():
            fits[name] = level_column(name, self.horizons[name], columns) >= level
        fits["at_risk"] = fits.get("at_risk", np.False_) & active
        known = [name for name in SEGMENTS if name in fits]
        places = [SEGMENTS.index(name) for name in known]
        return np.select([fits[name] for name in known], places, SEGMENTS.index("other"))

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        return {
            "settings": self.spec.model_dump(mode="json"),
            "horizons": dict(self.horizons),
            "usual_gap": self.usual_gap.tolist(),
            "levels": dict(self.levels),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return what ``as_dict`` wrote."""
        spec = SegmentsSpec.model_validate(document["settings"])
        return cls(spec, document["horizons"], np.array(document["usual_gap"], dtype=np.float64), document["levels"])


def level_column(name: str, days: int, columns: Mapping[str, _F64]) -> _F64:
    """Return what a segment's level is of, everybody's; NaN where it is not known or the columns are not there."""
    if name == "at_risk":
        asked = [f"p_churn_{days}d"]
    elif name == "ready_to_buy":
        asked = [f"p_purchase_{days}d"]
    else:
        asked = [f"value_{days}d", f"p_purchase_{days}d"]
    if not all(one in columns for one in asked):
        return np.full(len(next(iter(columns.values()), ())), np.nan)
    found = np.asarray(columns[asked[0]], dtype=np.float64)
    if name == "potential_high_value":
        found = amount_if_bought(found, np.asarray(columns[asked[1]], dtype=np.float64))
    return found
