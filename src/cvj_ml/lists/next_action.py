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


@dataclass(frozen=True, slots=True)
class Served:
    """What became of ranked customers, each array (customers,), and the contacts that are left by channel.

    ``status`` is LISTED, NO_ROOM or FULL; ``offer`` the position of the offer, -1 where there is none. The listed have
    an offer for being first in the order that they were served in. ``as_usual`` is whether it is of the same words and
    channel as the one that they had had in the other order; ``open`` is how many could have been theirs, and ``alike``
    how many of these were of its words and channel.
    """

    status: _Ints
    offer: _Ints
    as_usual: _Mask
    open: _Ints
    alike: _Ints
    room: dict[int, int]

    def chance(self, explore_how: float) -> npt.NDArray[np.float64]:
        """Return how likely each one's play and channel were, given who came before, where a share is drawn by chance.

        (1 − share) · [they are the usual ones] + share · alike / open; 1 where there are no offers.
        """
        chances: npt.NDArray[np.float64] = np.where(
            self.open > 0,
            (1 - explore_how) * self.as_usual + explore_how * self.alike / np.maximum(self.open, 1),
            1.0,
        )
        return chances


def serve(
    order: _Ints, preferred: _Ints, possible: _Mask, offers: Sequence[Offer], room: Mapping[int, int], capacity: int
) -> Served:
    """Give ranked customers, the first one first, an offer whose channel has room, until the list is full.

    order and preferred: (customers, offers), positions of offers, the first one to be tried first: what is offered
    follows ``order``, which is ``preferred`` but for those for whom chance decides. possible: (customers, offers), by
    position; room: channel to the contacts that are left, no limit for others.
    """
    size, kinds = preferred.shape
    channel = np.array([one.channel for one in offers], dtype=np.int64)
    # Two plays may have the same words.
    keys = [(one.play.text, one.channel) for one in offers]
    kind = np.array([keys.index(key) for key in keys], dtype=np.int64)
    status, usual, chosen, of, alike = (np.full(size, one, dtype=np.int64) for one in (LISTED, -1, -1, 0, 0))
    if not kinds or not room.keys() & set(channel.tolist()):
        status[capacity:] = FULL
        if kinds:
            each = np.arange(size)
            chosen, usual = (
                one[each, np.take_along_axis(possible, one, axis=1).argmax(axis=1)] for one in (order, preferred)
            )
            of, alike = possible.sum(axis=1), (possible & (kind == kind[chosen][:, None])).sum(axis=1)
        return Served(status, chosen, kind[chosen] == kind[usual] if kinds else of > 0, of, alike, dict(room))
    left, listed = dict(room), 0
    has_room = np.array([left.get(one, 1) > 0 for one in channel.tolist()])
    for row in range(size):
        if listed == capacity:
            status[row:] = FULL
            break
        here = possible[row] & has_room
        if not here.any():
            status[row] = NO_ROOM
            continue
        chosen[row], usual[row] = (one[row][here[one[row]]][0] for one in (order, preferred))
        of[row], alike[row] = here.sum(), (here & (kind == kind[chosen[row]])).sum()
        listed += 1
        if (through := int(channel[chosen[row]])) in left:
            left[through] -= 1
            has_room &= (channel != through) | (left[through] > 0)
    return Served(status, chosen, kind[chosen] == kind[usual], of, alike, left)
