"""What published nights say to whoever asks: nights, the plan of one, a list, measurements, the model card.

Everything is read from files that were published, each checked against its night's manifest; nothing is trained, scored
or written. Without leave to name customers, no answer holds an id, and small counts are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from cvj_ml.commands.measure import HISTORY
from cvj_ml.config import Config
from cvj_ml.errors import DataError, ModelError, NightError, nearest
from cvj_ml.io import json_values
from cvj_ml.lists.eligibility import REASONS
from cvj_ml.lists.kinds import title_of_row
from cvj_ml.lists.ranked_list import NOT_LISTED
from cvj_ml.models.bundle.verification import CARD, verify_bundle
from cvj_ml.models.segment_levels import SEGMENTS
from cvj_ml.night.champion import MODELS
from cvj_ml.night.layout import LISTS, NightFolder, nights
from cvj_ml.night.reading import current_night, published_nights
from cvj_ml.night.verifying import verified_file, verified_manifest
from cvj_ml.scoring import SCORES

LEAST = 5
"""Fewer customers than this are not counted out to somebody who may not see whom they are."""

MOST_GROUPS = 10

_TOLD_OF_A_ROW = (
    *("rank", "customer_id", "from_stage", "to_stage", "horizon_days", "probability", "lift", "expected_value"),
    *("incremental_probability", "reason_1", "reason_2", "reason_3", "play", "because", "channel"),
)
"""Columns of TARGETS that an answer has; none that the business added, such as addresses."""

_FORECAST = ("expected_moves", "expected_moves_low_80", "expected_moves_high_80")

NightName = Annotated[
    str | None,
    Field(description="A night as the tool `nights` names it, for example 2025-06-24; without: the current."),
]
ListName = Annotated[str, Field(description="A list as the tool `plan` names it, for example convert__ascend__30d.")]


@dataclass(frozen=True, slots=True)
class NightAnswers:
    """Answers from the published nights of a configuration; ``ids``: customers may be named, and counted one by one.

    Each public method is a tool of `cvj-ml mcp`, and its docstring what a model reads of it. NightError where no such
    night is published, it has no such list, or it is not what was published.
    """

    config: Config
    ids: bool = False

    def nights(
        self, newest: Annotated[int, Field(ge=1, le=400, description="How many nights, the newest first.")] = 30
    ) -> dict[str, Any]:
        """List the published nights, the newest first: date, model, customers, customers by stage, lists and sizes.

        A night is one run of the predictions, published whole. `as_of` is the instant up to which it knows the past. A
        damaged night has only `damaged`, which says what is wrong. `null` is a count that is left out because it, or
        one that it would give away, is below 5.
        """
        names, current = self._names(), current_night(self._out)
        found: list[dict[str, Any]] = []
        for name in names[:newest]:
            folder = published_nights(self._out, name)[0]
            try:
                manifest = _manifest(folder)
                stages = self._by_stage(manifest["stages"])
                lists = {one["list"]: self._count(one["listed"]) for one in manifest.get("lists", ())}
                told = {"as_of": manifest["as_of"], "model": manifest["model"][:12]}
                told |= {"customers": self._count(sum(manifest["stages"].values())), "stages": stages, "lists": lists}
            except NightError as error:
                told = {"damaged": str(error)}
            found.append({"night": name, "current": folder == current, **told})
        return {"nights": found, "published": len(names)}

    def plan(self, night: NightName = None) -> dict[str, Any]:
        """Tell the plan of one night: its lists, what changed since the last night, and the ready segments.

        Of each list: whom it is of, how many are listed, to contact (`target`) and in `control` (picked by chance, not
        to be contacted, so that the effect can be measured), why others of its stage are not on it (`left_out`), and
        how many of the listed are expected to move, with an 80 % range. In `changes`: now = before + entered − left.
        Customers of `dropped` were on the plan of the last night and are on none now. `null` is a count that is left
        out because it, or one that it would give away, is below 5, or a number that nobody knows.
        """
        folder = self._folder(night)
        manifest = _manifest(folder)
        return {
            "night": NightFolder(folder).date,
            "as_of": manifest["as_of"],
            "model": manifest["model"][:12],
            "stages": self._by_stage(manifest["stages"]),
            "lists": [self._list(row) for row in manifest.get("lists", ())],
            "changes": self._changes(manifest.get("changes", {}).get("last", {})),
            "segments": self._segments(folder, manifest),
        }

    def list_rows(
        self,
        list_name: ListName,
        night: NightName = None,
        first: Annotated[
            int, Field(ge=1, le=200, description="How many customers to contact, where the server may name them.")
        ] = 20,
    ) -> dict[str, Any]:
        """Tell who is on one list of a night: counts of all listed by play, channel and probability.

        `by_probability` has up to ten groups of equal size, the likeliest first, with their mean probability.
        `others` are small groups together; a `value` of null is no play or no channel. Customers themselves (`rows`:
        id, probability, reasons, play, channel) are told only where the server was started with --ids, and only those
        to contact: whoever is in the control group must not be contacted. `rows` is null where the server may not name
        customers.
        """
        folder = self._folder(night)
        manifest = _manifest(folder)
        summary = self._summary(folder, manifest, list_name)
        file = verified_file(folder, manifest, f"{LISTS}/{list_name}.parquet")
        table = pq.read_table(file, partitioning=None).to_pandas()
        told = {"night": NightFolder(folder).date, **self._list(summary)}
        told |= {f"by_{name}": self._by_value(table[name]) for name in ("play", "channel")}
        told |= {"by_probability": self._by_probability(table["probability"]), "rows": None}
        if self.ids:
            target = table[table["group"] == "target"].sort_values("rank", kind="stable")
            shown = [name for name in _TOLD_OF_A_ROW if name in target.columns]
            told["rows"] = json_values(target[shown].head(first).to_dict("records"))
        return told

    def measured(
        self,
        list_name: Annotated[str | None, Field(description="One list only; without: all.")] = None,
        newest: Annotated[
            int, Field(ge=1, le=400, description="How many rows, those of the newest nights first.")
        ] = 30,
    ) -> dict[str, Any]:
        """Tell what `cvj-ml measure` has found of past nights whose horizon is over: whether contacts helped.

        `difference` is the share that moved in the target group minus that in control, with a 95 % interval
        (`_low`, `_high`): an interval around 0 is no proof of an effect. `observed_over_expected` says whether
        probabilities came true (1: they did). A row with `left_out` is of a group with fewer than 5 customers. An
        empty answer means that no measurement was made yet, or no horizon is over.
        """
        file = self._out / HISTORY
        if not file.exists():
            return {"rows": [], "measured": 0}
        try:
            history = pd.read_parquet(file, partitioning=None)
        except pa.ArrowException:
            raise DataError(f"{file}: it cannot be read. Go back to a copy, or remove it and measure again.") from None
        if list_name is not None:
            history = history[history["list"] == list_name]
        rows = json_values(history.iloc[::-1].head(newest).to_dict("records"))
        return {"rows": [self._measurement(row) for row in rows], "measured": len(history)}

    def model_card(self, night: NightName = None) -> str:
        """Tell the model card of a night's model as Markdown: what it answers, how good it was, what it cannot see."""
        model: str = _manifest(self._folder(night))["model"]
        folder = self._out / MODELS / model
        if not folder.is_dir():
            raise ModelError(
                f"{folder}: only the model of the newest nights is kept beside them, and this one is not."
                f" `cvj-ml models list` finds version and digest {model[:12]}, `cvj-ml models export` its card."
            )
        verify_bundle(folder, model)
        return (folder / CARD).read_text(encoding="utf-8")

    @property
    def _out(self) -> Path:
        return Path(self.config.out)

    def _names(self) -> list[str]:
        """Return the names of the dates with a published night, the newest first."""
        return [
            of_date[0].date for of_date in nights(self._out, newest_first=True) if any(one.finished for one in of_date)
        ]

    def _folder(self, night: str | None) -> Path:
        """Return the folder of a night, of several for one date the current one or the youngest."""
        names = self._names()
        if not names:
            raise NightError(f"{self._out}: no night is published. `cvj-ml nightly` makes one.")
        if night is None:
            return current_night(self._out) or published_nights(self._out, names[0])[0]
        if night not in names:  # also what is no name at all, such as a pattern or a path
            raise NightError(
                f"{self._out}: no night {night!r} is published; the newest is {names[0]}.{nearest(night, names)}"
            )
        return published_nights(self._out, night)[0]

    def _summary(self, folder: Path, manifest: Mapping[str, Any], list_name: str) -> Mapping[str, Any]:
        rows = {row["list"]: row for row in manifest.get("lists", ())}
        if list_name not in rows:
            raise NightError(
                f"{folder}: the night has no list {list_name!r}; there are {', '.join(rows) or 'none'}."
                f"{nearest(list_name, rows)}"
            )
        found: Mapping[str, Any] = rows[list_name]
        return found

    def _list(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is told of a list, from its row of the summary."""
        enough = self._count(row["listed"]) is not None
        told = ("list", "kind", "outcome", "from_stage", "to_stage", "horizon_days", "ranked_by", "epoch")
        reasons = {name: row[name] for name in (*REASONS, *NOT_LISTED) if row.get(name)}
        meaning = {**REASONS, **NOT_LISTED}
        return {
            **{name: row.get(name) for name in told},
            "title": title_of_row(row),
            "in_stage": self._count(row["in_stage"]),
            "listed": self._count(row["listed"]),
            **self._division({name: row[name] for name in ("target", "control")}),
            "left_out": {meaning[name]: count for name, count in self._division(reasons).items()},
            **{name: json_values(row.get(name)) if enough else None for name in _FORECAST},
        }

    def _changes(self, last: Mapping[str, Any]) -> dict[str, Any]:
        """Return what changed since the last night; why nothing is known of it, where that is so."""
        if "people" not in last:
            return {"not_comparable": last.get("not_comparable", "no_night")}
        no_stage = self.config.journey.in_no_stage
        return {
            "since": last["as_of"],
            "people": self._balance(last["people"]),
            "plan": self._balance(last["plan"]),
            "stages": {name or no_stage: self._balance(one) for name, one in last["stages"].items()},
            "lists": {name: self._balance(one) for name, one in last["lists"].items()},
            "dropped": self._division(last["dropped"]),
            "on_another_list": self._count(last["other_list"]),
            "moved_stage": self._count(last["moved_stage"]),
        }

    def _segments(self, folder: Path, manifest: Mapping[str, Any]) -> dict[str, int | None] | None:
        """Return the customers in each ready segment; None where the night knows of none."""
        scores = verified_file(folder, manifest, SCORES)
        if "segment" not in pq.read_schema(scores).names:
            return None
        found = pq.read_table(scores, columns=["segment"], partitioning=None)["segment"]
        if found.null_count:
            return None
        counts = {one["values"]: one["counts"] for one in found.value_counts().to_pylist()}
        return self._division({name: counts.get(name, 0) for name in SEGMENTS})

    def _measurement(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row of the history; of one with a group that is too small, only which it is."""
        groups = [row.get(name) for name in ("target_n", "control_n", "untouched_n")]
        if all(self._count(int(one or 0)) is not None for one in groups):
            return row
        return {name: row.get(name) for name in ("list", "epoch", "night", "until")} | {"left_out": True}

    def _by_stage(self, stages: Mapping[str, int]) -> dict[str, int | None]:
        return self._division({name or self.config.journey.in_no_stage: count for name, count in stages.items()})

    def _by_value(self, column: pd.Series[Any]) -> list[dict[str, Any]]:
        """Return how many customers have each value, the most frequent first; small groups together, unnamed."""
        counts = {str(name): int(count) for name, count in column.fillna("").value_counts().items()}
        told = self._division(counts)
        shown: list[dict[str, Any]] = [
            {"value": name or None, "customers": count} for name, count in told.items() if count is not None
        ]
        if rest := sum(count for name, count in counts.items() if told[name] is None):
            shown.append({"others": True, "customers": self._count(rest)})
        return shown

    def _by_probability(self, column: pd.Series[Any]) -> list[dict[str, Any]]:
        """Return groups of equal size, the likeliest first, none of them too small to be told."""
        ranked = np.sort(column.dropna().to_numpy(np.float64))[::-1]
        groups = min(MOST_GROUPS, len(ranked) // LEAST)
        parts = np.array_split(ranked, groups) if groups else []
        return [{"customers": len(part), "mean_probability": round(float(part.mean()), 4)} for part in parts]

    def _count(self, number: int) -> int | None:
        """Return a count of customers, None where it is left out."""
        return None if not self.ids and 0 < number < LEAST else int(number)

    def _division(self, counts: Mapping[str, int]) -> dict[str, int | None]:
        """Return how customers are divided, without the small counts and without one that would give them away.

        Whoever knows the sum could otherwise subtract: at least two counts are left out, of `LEAST` customers together.
        """
        small = {name: count for name, count in counts.items() if self._count(count) is None}
        if small and (len(small) == 1 or sum(small.values()) < LEAST):
            others = {name: count for name, count in counts.items() if count and name not in small}
            small |= dict(sorted(others.items(), key=lambda one: one[1])[:1])
        return {name: None if name in small else int(count) for name, count in counts.items()}

    def _balance(self, one: Mapping[str, int]) -> dict[str, int | None]:
        """Return before + entered − left = now; of two numbers that go together, both are left out or none."""
        told = {name: self._count(one[name]) for name in ("before", "entered", "left", "now")}
        if None in told.values():
            told |= {"entered": None, "left": None}
        return told


def _manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a night that tells what answers need; nights of early versions do not."""
    manifest = verified_manifest(folder)
    if missing := {"as_of", "model", "stages"} - manifest.keys():
        raise NightError(
            f"{folder}: an earlier version made this night; its manifest has no {', '.join(sorted(missing))}. Run it"
            " again with this version, or ask about a newer night."
        )
    return manifest
