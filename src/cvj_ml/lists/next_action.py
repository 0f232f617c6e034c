"""What to do next, and through which channel: the one that the customer answers to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cvj_ml.config import Play, Stage
from cvj_ml.lists.contact_history import ContactHistory

LISTED, NO_ROOM, FULL = range(3)

_Mask = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]


def preferred_channels(stage: Stage, history: ContactHistory) -> _Ints:
    """Return for each customer the channels of a stage's plays, the best first: (customers, channels of the plays).

    The numbers are positions in ``history.channels``. First come channels through which sends were answered, by the
    share answered, (answered + 1) / (sent + 2), and then by their number; then those that the customer uses, by how
    often; then the others. What is equal stands in the order of the plays.
    """
    named = dict.fromkeys(channel for play in stage.plays for channel in play.channels)
    places = np.array([history.channels.index(channel) for channel in named], dtype=np.int64)
    sent, answered, own = (part[:, places] for part in (history.sent, history.answered, history.own))
    share = np.where(answered > 0, (answered + 1) / (sent + 2), 0.0)
    order = np.lexsort((np.broadcast_to(np.arange(len(places)), own.shape), -own, -answered, -share), axis=1)
    return places[order]


def play_for(stage: Stage, channel: str | None) -> Play | None:
    """Return the stage's first play that goes through a channel; without one, its first play."""
    fitting = [play for play in stage.plays if channel is None or channel in play.channels]
    return fitting[0] if fitting else None


def serve(
    preferred: _Ints, allowed: _Mask, room: Mapping[int, int], capacity: int
) -> tuple[_Ints, _Ints, dict[int, int]]:
    """Give ranked customers, the first one first, their best channel with room, until the list is full.

    preferred: (customers, channels of the plays), positions of channels, the best first; allowed: (customers, all
    channels); room: position to the contacts that are left, no limit for others. Returns for each customer LISTED,
    NO_ROOM or FULL, the position of the channel (-1 where the plays name none), and the room that remains.
    """
    size, kinds = preferred.shape
    open_to = np.take_along_axis(allowed, preferred, axis=1)
    status = np.full(size, LISTED, dtype=np.int64)
    if not kinds or not room.keys() & set(preferred[:1].ravel().tolist()):
        status[capacity:] = FULL
        best = open_to.argmax(axis=1) if kinds else np.zeros(0, dtype=np.int64)
        return status, preferred[np.arange(size), best] if kinds else np.full(size, -1, dtype=np.int64), dict(room)
    left, listed, chosen = dict(room), 0, np.full(size, -1, dtype=np.int64)
    for row in range(size):
        if listed == capacity:
            status[row:] = FULL
            break
        here = (int(channel) for channel in preferred[row][open_to[row]])
        channel = next((one for one in here if left.get(one, 1) > 0), None)
        if channel is None:
            status[row] = NO_ROOM
            continue
        chosen[row] = channel
        listed += 1
        if channel in left:
            left[channel] -= 1
    return status, chosen, left
