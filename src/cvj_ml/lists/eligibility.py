"""Who may be on a list, and why everybody else is not: each customer of the stage has one answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import Config, ListSpec
from cvj_ml.errors import DataError, nearest, raise_all
from cvj_ml.lists.outreach import Outreach
from cvj_ml.sources import Permissions

REASONS = {
    "already_there": "probably there already, or not predicted",
    "suppressed": "named in the suppression file",
    "no_consent": "not named in the consent file",
    "contact_cap": "contacted often enough lately",
    "no_channel": "no channel of the plays is permitted, or all have reached their cap",
    "dormant": "nothing of their own for too long",
    "low_evidence": "the probability rests on base rates",
    "improbable": "below the smallest probability",
    "other_list": "on another list tonight",
}
"""Why a customer of the stage is left out, in the order in which the rules are asked; the first that holds counts."""

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reachable:
    """Who may be contacted tonight, whatever the list: masks over the customers of a night.

    ``allowed`` is (customers, channels).
    """

    suppressed: _Mask
    no_consent: _Mask
    capped: _Mask
    allowed: _Mask


def reachable(config: Config, history: Outreach, permissions: Permissions) -> Reachable:
    """Apply suppression, consent and contact caps.

    Raises DataError where a suppression cannot do what it is for: it names none of the customers, or a channel that no
    play goes through.
    """
    size = len(history.customers)
    allowed = np.ones((size, len(history.channels)), dtype=np.bool_)
    suppressed, no_consent = np.zeros((2, size), dtype=np.bool_)
    raise_all(DataError, "No list is made:", _mistaken(permissions, history))
    if permissions.suppression is not None:
        suppressed, refused = _named(permissions.suppression, history)
        allowed &= ~refused
    if permissions.consent is not None:
        everywhere, granted = _named(permissions.consent, history)
        allowed &= granted
        no_consent = ~everywhere & ~_isin(history, permissions.consent)
    caps = config.eligibility.contact_caps
    full = history.contacts >= np.array([cap.max for cap in caps], dtype=np.int64)
    capped: _Mask = np.any(full[:, [cap.channel is None for cap in caps]], axis=1)
    for i, cap in enumerate(caps):
        if cap.channel is not None:
            allowed[:, history.channels.index(cap.channel)] &= ~full[:, i]
    return Reachable(suppressed, no_consent, capped, allowed)


def left_out(
    config: Config,
    spec: ListSpec,
    scores: pa.Table,
    rows: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float64],
    history: Outreach,
    may: Reachable,
    taken: _Mask,
    as_of: int,
) -> npt.NDArray[np.int64]:
    """Return for each of the rows of SCORES (those in the list's stage) the position in REASONS, -1 for eligible.

    probability: of the rows, NaN where there is none; taken: who is on an earlier list, over all customers.
    """
    rule, stages = config.eligibility.excluded(spec), config.journey.stages
    at = config.journey.index(spec.to_stage)
    there = np.isnan(probability)
    if rule.already_there is not None:
        beyond = [scores[f"p_stage_{stage.slug}"].to_numpy(zero_copy_only=False)[rows] for stage in stages[at:]]
        there |= np.nansum(beyond, axis=0) >= rule.already_there
    channels = {history.channels.index(name) for play in stages[at].plays for name in play.channels}
    closed = ~may.allowed[rows][:, sorted(channels)].any(axis=1) if channels else np.zeros(len(rows), np.bool_)
    asleep = (
        ~history.awake(as_of, rule.dormant_for)[rows]
        if rule.dormant_for is not None
        else np.zeros(len(rows), dtype=np.bool_)
    )
    weak = np.zeros(len(rows), dtype=np.bool_)
    if rule.low_evidence:
        weak = np.array([spec.to_stage in names for names in scores["low_evidence"].take(pa.array(rows)).to_pylist()])
    holds = {
        "already_there": there,
        "suppressed": may.suppressed[rows],
        "no_consent": may.no_consent[rows],
        "contact_cap": may.capped[rows],
        "no_channel": closed,
        "dormant": asleep,
        "low_evidence": weak.astype(np.bool_),
        "improbable": probability < config.eligibility.least(spec),
        "other_list": taken[rows] & config.eligibility.one_list,
    }
    found: npt.NDArray[np.int64] = np.select([holds[reason] for reason in REASONS], range(len(REASONS)), -1)
    return found


def _named(table: pa.Table, history: Outreach) -> tuple[_Mask, _Mask]:
    """Return who is named for every channel, and (customers, channels) who is for each."""
    everywhere = _isin(history, table.filter(table["channel"].is_null()))
    columns = [_isin(history, table.filter(pc.equal(table["channel"], name))) for name in history.channels]
    by_channel = np.reshape(columns, (len(history.channels), len(everywhere))).astype(np.bool_).T
    return everywhere, by_channel | everywhere[:, None]


def _isin(history: Outreach, table: pa.Table) -> _Mask:
    names = frozenset(table["customer_id"].to_pylist())
    return np.array([name in names for name in history.customers], dtype=np.bool_)


def _mistaken(permissions: Permissions, history: Outreach) -> list[str]:
    table = permissions.suppression
    if table is None or not len(table):
        return []
    faults = [
        f"suppression: no play of the journey goes through {channel!r}.{nearest(channel, history.channels)} Correct"
        " the file, or select other rows with a query"
        for channel in table["channel"].drop_null().unique().to_pylist()
        if channel not in history.channels
    ]
    if history.customers and not _isin(history, table).any():
        faults.append(
            f"suppression: none of its {len(table['customer_id'].unique()):,} customers occurs in the log, so nobody"
            " would be held back; check customer_id, and that ids are written as in the log"
        )
    return faults
