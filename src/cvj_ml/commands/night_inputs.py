"""What a night is made from: everything that is read before it is scored, and the facts that decide its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import pandas as pd
import pyarrow as pa

from cvj_ml.commands.measure import known_history
from cvj_ml.config import Config
from cvj_ml.customers import Identities, People
from cvj_ml.inputs import Histories
from cvj_ml.night.base_nights import BaseNights, digest_of_journey, find_base_nights
from cvj_ml.night.champion import Champion
from cvj_ml.night.reading import first_listed, listed_in_control
from cvj_ml.night.timings import package_version
from cvj_ml.night.writing import digest_of, digest_of_table
from cvj_ml.store import Usage
from cvj_ml.windows import to_datetime


@dataclass(frozen=True, slots=True)
class NightInputs:
    """What one night is made from.

    people: the tables about customers under the ids of tonight, None where no lists are asked for; with it, ``bases``
    are the nights to compare with. exposures: HOLDOUT_EXPOSURES of earlier nights. listed_since: on which night of the
    epoch each list first had somebody to contact. measured: what `measure` had found before tonight.
    """

    histories: Histories
    champion: Champion
    usage: Usage
    as_of: int
    identities: Identities
    people: People | None
    exposures: pa.Table
    listed_since: Mapping[str, int]
    measured: pd.DataFrame
    bases: BaseNights | None

    @classmethod
    def read(cls, histories: Histories, people: People | None, champion: Champion, usage: Usage, as_of: int) -> Self:
        """Read what earlier nights leave to this one, and put everybody under the id that is known tonight."""
        config, with_lists = histories.config, people is not None
        identities = Identities.at(histories.store, as_of)
        return cls(
            histories,
            champion,
            usage,
            as_of,
            identities,
            people.under(identities) if people is not None else None,
            identities.by_person(listed_in_control(config, as_of)),
            first_listed(config, as_of) if with_lists else {},
            known_history(config, as_of),
            find_base_nights(config, as_of) if with_lists else None,
        )

    @property
    def with_lists(self) -> bool:
        """Whether the night has lists."""
        return self.people is not None

    @property
    def local_time(self) -> str:
        """The instant of the night as its manifest writes it."""
        return to_datetime(self.as_of, self.histories.config.zone).isoformat()

    def facts(self) -> dict[str, Any]:
        """Return all that the night is made from: it decides every byte, so no clock and no path is in it."""
        config, store, champion = self.histories.config, self.histories.store, self.champion
        usage = self.usage
        facts: dict[str, Any] = {
            "as_of": self.local_time,
            "software": package_version(),
            "store": store.key,
            "model": champion.bundle.digest,
            "model_from": "registry" if champion.copied is None else "local copy, registry down",
            "training": digest_of(asdict(champion.training)) if champion.training else None,
            "config": config_digest(config),
            "journey": digest_of_journey(config),
            "counts": {name: asdict(counts) for name, counts in store.counts.items()},
            "rows": {"used": usage.used, "not_yet_visible": usage.not_yet_visible, "superseded": usage.superseded},
            "inputs": dict(store.fingerprints),
            # It decides which outcomes are wholly known, and may be set without a new store.
            "arrival_delay": store.arrival_delay,
        }
        if self.people is not None:
            # By content: where these tables lie, and in how many files, changes no list.
            facts["people"] = {name: digest_of_table(table.rows) for name, table in self.people.tables.items()}
            if len(self.exposures):
                facts["spared"] = digest_of_table(self.exposures)
            if self.listed_since:
                facts["first_listed"] = dict(sorted(self.listed_since.items()))
        if self.bases is not None:
            facts |= self.bases.facts
        if len(self.measured):
            facts["history"] = digest_of(self.measured.to_dict("list"))
        return facts


_OTHERWISE_TOLD = {"sources", "stage_history", "attributes", "contact", "suppression", "consent"}
"""Tables are facts of a night by their content, wherever they lie."""
_AFTERWARDS = {"measure", "gates", "monitor", "mlflow", "engine", "deliver", "out"}
"""What is asked of a night, or done with it, changes none of its bytes."""


def config_digest(config: Config) -> str:
    """Return a digest of every setting that can change a list; where things lie does not."""
    return digest_of(config.model_dump(mode="json", exclude=_OTHERWISE_TOLD | _AFTERWARDS))


def rows_by_outcome(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return what became of the rows of all touchpoint sources together; the outcomes add up to ``rows_in``."""
    counts = facts["counts"].values()
    return {
        "rows_in": sum(one["rows_in"] for one in counts),
        **facts["rows"],
        "duplicates": sum(one["duplicates"] for one in counts),
        "refused": sum(sum(one["refused"].values()) for one in counts),
        "unmatched": sum(one["unmatched"] for one in counts),
        "unassigned": sum(one["unassigned"] for one in counts),
        "left_out": sum(one["left_out"] for one in counts),
    }
