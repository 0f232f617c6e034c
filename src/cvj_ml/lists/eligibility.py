"""Who may be on a list, and why everybody else is not: each customer of the stage has one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import Config, ListSpec, play_channels
from cvj_ml.customers import Permissions
from cvj_ml.errors import DataError, nearest, raise_all
from cvj_ml.lists.contact_history import ContactHistory

REASONS = {
    "already_there": "probably there already, or not predicted",
    "awake": "not silent for long enough to be won back",
    "quiet": "silent already for longer than three of their usual gaps",
    "suppressed": "named in the suppression file",
    "no_consent": "not named in the consent file",
    "contact_cap": "contacted often enough lately",
    "recent_contact": "contacted in the last days, or spared then as control",
    "unhappy": "unhappy with us: a bad rating, a ticket, a refund or a cancellation",
    "dormant": "silent: nothing of their own for too long",
    "no_play": "no play is meant for them tonight",
    "no_channel": "no channel of the plays is permitted, or all have reached their cap",
    "low_evidence": "the probability rests on base rates",
    "improbable": "below the smallest probability",
    "other_list": "on another list tonight, where they are worth more or which comes first",
    "do_not_disturb": "a contact makes it less likely, as past control groups show",
}
"""Why a customer of the stage is left out, in the order in which the rules are asked; the first that holds counts."""

HELD_BACK = (
    *("suppressed", "no_consent", "contact_cap", "recent_contact", "unhappy"),
    *("dormant", "no_play", "no_channel", "do_not_disturb"),
)
"""Reasons for which somebody who may well move on is not contacted tonight."""

OUTSIDE = ("awake", "quiet")
"""Reasons why a list is not of somebody at all, though of their stage: it asks nothing of them."""

POSITION = {reason: i for i, reason in enumerate(REASONS)}

WHY = pa.schema([("customer_id", pa.string()), ("reason", pa.string())])
"""Why some customers are not on a list tonight: who was asked about, and a name of a reason."""

_Mask = npt.NDArray[np.bool_]


def unasked(config: Config) -> str:
    """Say which permissions are not configured, so that nobody was asked; nothing where both are."""
    missing = [name for name in ("consent", "suppression") if getattr(config, name) is None]
    return f"no {' and no '.join(missing)} file is configured" if missing else ""


@dataclass(frozen=True, slots=True)
class Reachable:
    """Who may be contacted tonight, whatever the list: masks over the customers of a stage.

    ``allowed`` is (customers, channels).
    """

    suppressed: _Mask
    no_consent: _Mask
    capped: _Mask
    allowed: _Mask


def reachable(config: Config, customers: pa.Array, history: ContactHistory, permissions: Permissions) -> Reachable:
    """Apply suppression, consent and contact caps to some customers and their history."""
    size, channels = len(customers), play_channels(config.journey)
    allowed = np.ones((size, len(channels)), dtype=np.bool_)
    suppressed, no_consent = np.zeros((2, size), dtype=np.bool_)
    if permissions.suppression is not None:
        suppressed, refused = _named(permissions.suppression, customers, channels)
        allowed &= ~refused
    if permissions.consent is not None:
        everywhere, granted = _named(permissions.consent, customers, channels)
        allowed &= granted
        no_consent = ~everywhere & ~_isin(customers, permissions.consent)
    caps = config.eligibility.contact_caps
    full = history.contacts >= np.array([cap.max for cap in caps], dtype=np.int64)
    capped: _Mask = np.any(full[:, [cap.channel is None for cap in caps]], axis=1)
    for i, cap in enumerate(caps):
        if cap.channel is not None:
            allowed[:, channels.index(cap.channel)] &= ~full[:, i]
    return Reachable(suppressed, no_consent, capped, allowed)


def left_out(
    config: Config,
    spec: ListSpec,
    scores: pa.Table,
    probability: npt.NDArray[np.float64],
    history: ContactHistory,
    may: Reachable,
    meant: _Mask,
    possible: _Mask,
    as_of: int,
    evidence: Sequence[str],
) -> npt.NDArray[np.int64]:
    """Return for each row of SCORES (those in the list's stages) the position in REASONS, -1 for eligible.

    probability: NaN where there is none; meant and possible: (customers, offers), whether a play is meant for them and
    whether it can reach them, too; evidence: what in ``low_evidence`` the probability rests on.
    ``columns_asked`` names what is read. Other lists are not asked about.
    """
    rule = config.eligibility.excluded(spec)
    there = np.isnan(probability)
    if beyond := [scores[name].to_numpy(zero_copy_only=False) for name in _beyond(config, spec)]:
        there |= np.nansum(beyond, axis=0) >= (rule.already_there or 0)
    nobody = np.zeros(len(probability), dtype=np.bool_)
    silence = config.journey.dormant_after if rule.dormant_for == "journey" else rule.dormant_for
    if spec.kind == "win_back":
        silence = None  # they are whom it is of
    has_plays = meant.shape[1] > 0
    # Whoever is left with a play that asks for trouble is not held back for it.
    unhappy = history.unhappy if spec.kind == "move" else history.unhappy & ~meant.any(axis=1)
    holds = {
        "already_there": there,
        "awake": ~_holds(scores["dormant"]) if spec.audience == "dormant" else nobody,
        "quiet": ~_holds(scores["active"]) if spec.audience == "active" else nobody,
        "suppressed": may.suppressed,
        "no_consent": may.no_consent,
        "contact_cap": may.capped,
        "recent_contact": history.recent,
        "unhappy": unhappy,
        "dormant": nobody if silence is None else ~history.awake(as_of, silence),
        "no_play": ~meant.any(axis=1) if has_plays else nobody,
        "no_channel": ~possible.any(axis=1) if has_plays else nobody,
        "low_evidence": _names(scores["low_evidence"], evidence) if rule.low_evidence else nobody,
        "improbable": probability < config.eligibility.least(spec),
    }
    found: npt.NDArray[np.int64] = np.select(list(holds.values()), [POSITION[reason] for reason in holds], -1)
    return found


def columns_asked(config: Config, spec: ListSpec) -> list[str]:
    """Return the columns of SCORES that ``left_out`` asks for a list."""
    rule = config.eligibility.excluded(spec)
    audience = [spec.audience] if spec.audience else []
    return [*_beyond(config, spec), *audience, *(["low_evidence"] if rule.low_evidence else [])]


def _beyond(config: Config, spec: ListSpec) -> list[str]:
    """Return the columns of the stages in which somebody is where the list leads to; none where that is not asked."""
    if spec.kind != "move" or config.eligibility.excluded(spec).already_there is None:
        return []
    return [f"p_stage_{stage.slug}" for stage in config.journey.stages[config.journey.index(spec.target) :]]


def require_permissions(permissions: Permissions, channels: Sequence[str]) -> None:
    """Raise DataError where a suppression names a channel that no play goes through, so that it holds back nobody."""
    table = permissions.suppression
    if table is None or not len(table):
        return
    faults = [
        f"suppression: no play of the journey goes through {channel!r}.{nearest(channel, channels)} Correct"
        " the file, or select other rows with a query"
        for channel in table["channel"].drop_null().unique().to_pylist()
        if channel not in channels
    ]
    raise_all(DataError, "No list is made:", faults)


def _holds(flags: pa.ChunkedArray) -> _Mask:
    """Return flags as a mask; what is missing does not hold."""
    mask: _Mask = pc.fill_null(flags, False).to_numpy()
    return mask


def _names(lists: pa.ChunkedArray, names: Sequence[str]) -> _Mask:
    """Return which lists of names hold one of some names."""
    whole = lists.combine_chunks()
    named = pc.is_in(whole.flatten(), value_set=pa.array(names, pa.string()))
    owners = pc.list_parent_indices(whole).filter(named)
    found = np.zeros(len(whole), dtype=np.bool_)
    found[owners.to_numpy()] = True
    return found


def _named(table: pa.Table, customers: pa.Array, channels: Sequence[str]) -> tuple[_Mask, _Mask]:
    """Return who is named for every channel, and (customers, channels) who is for each."""
    everywhere = _isin(customers, table.filter(table["channel"].is_null()))
    columns = [_isin(customers, table.filter(pc.equal(table["channel"], name))) for name in channels]
    by_channel = np.reshape(columns, (len(channels), len(everywhere))).astype(np.bool_).T
    return everywhere, by_channel | everywhere[:, None]


def _isin(customers: pa.Array, table: pa.Table) -> _Mask:
    found = pc.is_in(customers, value_set=table["customer_id"].combine_chunks())
    mask: _Mask = found.to_numpy(zero_copy_only=False)
    return mask
