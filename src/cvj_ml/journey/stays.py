"""When stages were held, and the stage of a customer at any time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.compiled import compiled
from cvj_ml.config import DAY
from cvj_ml.windows import NEVER, Instants, before, is_past

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StageState:
    """Where customers stand: ``stage`` is -1 before any stage; ``days_in_stage`` is NaN there."""

    stage: npt.NDArray[np.int8]
    days_in_stage: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stays:
    """When stages were held: every stay is ``[enter, leave)``, NEVER where it has not ended.

    ``first`` is when each stage was first entered, (customers, stages), NEVER where it was not or is unobserved; where
    no stage can be left that is all. Of those that can, the rows ``[offsets[c], offsets[c + 1])`` of ``stage``,
    ``enter`` and ``leave`` are a customer's stays, those of one stage in order of time. ``silent`` marks what silence
    ended; it is False where that is not told.
    """

    first: Instants
    offsets: _Rows
    stage: _Rows
    enter: Instants
    leave: Instants
    silent: npt.NDArray[np.bool_]
    leavable: npt.NDArray[np.bool_]

    def last(self, customer: _Rows, as_of: Instants | int) -> tuple[Instants, Instants]:
        """Return of the last stay begun before each snapshot when it began, and when it ended before the snapshot.

        Both are (snapshots, stages); NEVER where nothing had begun, or ended.
        """
        moments = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(customer))[:, None]
        entered = self.first[customer]
        entered = np.where(before(entered, moments), entered, NEVER)
        if not self.leavable.any():
            return entered, np.full(entered.shape, NEVER, dtype=np.int64)
        row = self._begun(customer, as_of)
        enter, leave = (np.append(one, NEVER)[row] for one in (self.enter, self.leave))
        return np.where(self.leavable, enter, entered), np.where(before(leave, moments), leave, NEVER)

    def held(self, customer: _Rows, as_of: Instants | int) -> Instants:
        """Return since when each stage is held at snapshots, (snapshots, stages); NEVER where it is not."""
        entered, left = self.last(customer, as_of)
        return np.where(left == NEVER, entered, NEVER)

    def holds(self, customer: _Rows, as_of: Instants | int) -> npt.NDArray[np.bool_]:
        """Return which stages are held at snapshots, (snapshots, stages)."""
        since = self.held(customer, as_of)
        return np.not_equal(since, NEVER)

    def at(self, customer: _Rows, as_of: Instants | int) -> StageState:
        """Return where customers stand: the highest stage held at ``as_of``, and the days since it was entered."""
        return stage_at(self.held(customer, as_of), as_of)

    def coming(self, customer: _Rows, as_of: Instants) -> Instants:
        """Return when each stage is entered next, from ``as_of`` on, or was entered where it is held; else NEVER."""
        found = self.first[customer]
        if self.leavable.any():
            found[:, self.leavable] = NEVER
            _coming(self.offsets, self.stage, self.enter, self.leave, customer, as_of, found)
        return found

    def until(self, customer: _Rows, as_of: Instants) -> Instants:
        """Return when the stay of each stage that is held at ``as_of`` ends, unless by silence; else NEVER."""
        row = self._begun(customer, as_of)
        leave, silent = np.append(self.leave, NEVER)[row], np.append(self.silent, True)[row]
        return np.where(before(leave, as_of[:, None]) | silent, NEVER, leave)

    def _begun(self, customer: _Rows, as_of: Instants | int) -> _Rows:
        """Return the row of the last stay begun before each snapshot, (snapshots, stages); -1 where there is none."""
        found = np.full((len(customer), self.first.shape[1]), -1, dtype=np.int64)
        moments = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(customer))
        _begun(self.offsets, self.stage, self.enter, customer, moments, found)
        return found


@compiled
def _begun(offsets: _Rows, stage: _Rows, enter: Instants, customer: _Rows, as_of: Instants, found: _Rows) -> None:
    for i in range(len(customer)):
        for k in range(offsets[customer[i]], offsets[customer[i] + 1]):
            if is_past(enter[k], as_of[i]):
                found[i, stage[k]] = k


@compiled
def _coming(
    offsets: _Rows,
    stage: _Rows,
    enter: Instants,
    leave: Instants,
    customer: _Rows,
    as_of: Instants,
    found: Instants,
) -> None:
    for i in range(len(customer)):
        for k in range(offsets[customer[i]], offsets[customer[i] + 1]):
            if found[i, stage[k]] == NEVER and not is_past(leave[k], as_of[i]):
                found[i, stage[k]] = enter[k]


def stage_at(entries: Instants, as_of: Instants | int) -> StageState:
    """Return the highest stage held at ``as_of``, entered before it, row by row, and the days spent in it.

    The highest stage's own entry is the instant at which the running maximum first reached it.
    """
    moments = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(entries))
    entered = before(entries, moments[:, None])
    stages = entries.shape[1]
    stage = np.where(entered.any(axis=1), stages - 1 - np.argmax(entered[:, ::-1], axis=1), -1)
    since = entries[np.arange(len(entries)), np.maximum(stage, 0)]
    days = np.where(stage < 0, np.nan, (moments - np.where(stage < 0, 0, since)) / DAY)
    return StageState(stage.astype(np.int8), days)


def reached(times: Instants) -> Instants:
    """Return when each stage *or a higher one* was first reached: minima over the stages from each one up."""
    return np.minimum.accumulate(times[:, ::-1], axis=1)[:, ::-1]
