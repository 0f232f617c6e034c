"""What to do next, and through which channel: the first play that is meant for the customer and can reach them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvj_ml.config import JourneySpec, Play, play_channels
from cvj_ml.lists.contact_history import ContactHistory, conditional_plays

LISTED, NO_ROOM, FULL = range(3)

_Mask = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Offer:
    """A play through one of its channels; positions in the journey.

    ``order`` is the play's among those of the list, ``condition`` its position among the conditional plays (None: it is
    meant for everybody), ``channel`` that among the channels of all plays (-1: the play names none).
    """

    play: Play
    order: int
    condition: int | None
    channel: int


def offers_of(journey: JourneySpec, plays: Sequence[Play]) -> tuple[Offer, ...]:
    """Return some of the journey's plays, the first to be tried first, through each of their channels."""
    channels, conditional = play_channels(journey), conditional_plays(journey)
    # By identity: two plays may have the same words.
    condition = {id(play): i for i, play in enumerate(conditional)}
    return tuple(
        Offer(play, order, condition.get(id(play)), channels.index(channel) if channel else -1)
        for order, play in enumerate(sorted(plays, key=lambda play: play.priority))
        for channel in play.channels or ("",)
    )


def meant_for(offers: Sequence[Offer], history: ContactHistory) -> _Mask:
    """Return (customers, offers): whether a play is meant for them."""
    everybody = np.ones(len(history), dtype=np.bool_)
    columns = [everybody if one.condition is None else history.meant[:, one.condition] for one in offers]
    return np.array(columns, dtype=np.bool_).reshape(len(offers), len(history)).T


def help_alone(offers: Sequence[Offer], journey: JourneySpec, meant: _Mask, unhappy: _Mask) -> _Mask:
    """Return (customers, offers) what is meant without plays that would pass over the trouble of the unhappy.

    Left to them are the plays whose ``when`` asks for trouble.
    """
    asks = [one.play.when is not None and journey.unhappy.asked_by(one.play.when) for one in offers]
    return meant & (~unhappy[:, None] | np.array(asks, dtype=np.bool_))


def open_to(offers: Sequence[Offer], allowed: _Mask) -> _Mask:
    """Return (customers, offers): whether the offer's channel is allowed; allowed is (customers, all channels).

    A play without channels is closed where the stage's other plays have some, and none of them is open.
    """
    named = sorted({one.channel for one in offers} - {-1})
    somehow = allowed[:, named].any(axis=1) if named else np.ones(len(allowed), dtype=np.bool_)
    columns = [somehow if one.channel < 0 else allowed[:, one.channel] for one in offers]
    return np.array(columns, dtype=np.bool_).reshape(len(offers), len(allowed)).T


def preferred_offers(offers: Sequence[Offer], history: ContactHistory) -> _Ints:
    """Return for each customer the offers, the best first: (customers, offers), positions in ``offers``.

    Plays stand in their own order. Of one play, first come channels through which sends were answered, by the share
    answered, (answered + 1) / (sent + 2), and then by their number; then those that the customer uses, by how often;
    then the others, in the order of the plays.
    """
    named = list(dict.fromkeys(one.channel for one in offers if one.channel >= 0))
    sent, answered, own = (part[:, named] for part in (history.sent, history.answered, history.own))
    share = np.where(answered > 0, (answered + 1) / (sent + 2), 0.0)
    order = np.lexsort((np.broadcast_to(np.arange(len(named)), own.shape), -own, -answered, -share), axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(len(named)), order.shape), axis=1)
    keys = np.empty((len(history), len(offers)), dtype=np.int64)
    for i, one in enumerate(offers):
        keys[:, i] = one.order * (len(named) + 1) + (rank[:, named.index(one.channel)] if one.channel >= 0 else 0)
    return np.argsort(keys, axis=1, kind="stable")


def serve(
    preferred: _Ints, possible: _Mask, channel: _Ints, room: Mapping[int, int], capacity: int
) -> tuple[_Ints, _Ints, dict[int, int]]:
    """Give ranked customers, the first one first, their best offer whose channel has room, until the list is full.

    preferred: (customers, offers), positions of offers, the best first; possible: (customers, offers), by position;
    channel: of each offer; room: channel to the contacts that are left, no limit for others. Returns for each customer
    LISTED, NO_ROOM or FULL, the position of the offer (-1 where there are none), and the room that remains.
    """
    size, kinds = preferred.shape
    in_order = np.take_along_axis(possible, preferred, axis=1)
    status = np.full(size, LISTED, dtype=np.int64)
    if not kinds or not room.keys() & set(channel.tolist()):
        status[capacity:] = FULL
        best = in_order.argmax(axis=1) if kinds else np.zeros(0, dtype=np.int64)
        return status, preferred[np.arange(size), best] if kinds else np.full(size, -1, dtype=np.int64), dict(room)
    left, listed, chosen = dict(room), 0, np.full(size, -1, dtype=np.int64)
    for row in range(size):
        if listed == capacity:
            status[row:] = FULL
            break
        here = preferred[row][in_order[row]].tolist()
        offer = next((one for one in here if left.get(int(channel[one]), 1) > 0), None)
        if offer is None:
            status[row] = NO_ROOM
            continue
        chosen[row] = offer
        listed += 1
        if (through := int(channel[offer])) in left:
            left[through] -= 1
    return status, chosen, left
