"""The lists of one night: who may be contacted is read first, then everybody's history, then customers are ranked."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from cvj_ml.config import Config, play_channels
from cvj_ml.lists.outreach import merge_outreach, outreach
from cvj_ml.lists.ranking import RankedList, rank
from cvj_ml.models.track_record import TrackRecord
from cvj_ml.panel import Blocks
from cvj_ml.sources import Permissions, read_contact, read_permissions


@dataclass(frozen=True, slots=True)
class People:
    """What the business says about its customers: who may be contacted, and how they are reached."""

    permissions: Permissions
    contact: pa.Table

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables that are configured, by name."""
        tables = {
            "suppression": self.permissions.suppression,
            "consent": self.permissions.consent,
            "contact": self.contact if self.contact.num_columns > 1 else None,
        }
        return {name: table for name, table in tables.items() if table is not None}


def read_people(config: Config) -> People:
    """Read suppression, consent and contact; DataError where one of them cannot be used, so that no list is made."""
    return People(read_permissions(config), read_contact(config))


def make_lists(
    config: Config,
    people: People,
    blocks: Blocks,
    scores: pa.Table,
    unobserved: frozenset[str],
    as_of: int,
    track_record: TrackRecord,
    spared: pa.Table,
) -> tuple[RankedList, ...]:
    """Rank every configured list from SCORES, histories and permissions; spared: of earlier nights, see `SPARED`."""
    channels, caps = play_channels(config.journey), config.eligibility.contact_caps
    parts = blocks.map(lambda block: outreach(block, as_of, channels, caps))
    history = merge_outreach(parts)
    return tuple(
        rank(
            config,
            scores,
            unobserved,
            as_of,
            track_record,
            history=history,
            permissions=people.permissions,
            spared=spared,
        )
    )
