"""The story of ``cvj-ml measure``: past nights whose horizons are over, evaluated and kept in a history."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import DAY, LEAVE, Config
from cvj_ml.customers import Identities
from cvj_ml.errors import DataError, NightError
from cvj_ml.inputs import Histories, open_histories
from cvj_ml.io import write_table
from cvj_ml.journey import KEPT, in_scores
from cvj_ml.lists.control import epoch_end
from cvj_ml.lists.kinds import LEAVING, said_of_row
from cvj_ml.measurement.effects import play_words
from cvj_ml.measurement.experiments import redrawn
from cvj_ml.measurement.outcomes import Observation, PastList, listings, measure_lists
from cvj_ml.measurement.subgroups import measure_subgroups
from cvj_ml.models.bundle.forecast_errors import ExpectedMoves
from cvj_ml.night.layout import NightFolder, instant_of
from cvj_ml.night.locking import hold
from cvj_ml.night.reading import contacted_lists, published_lists
from cvj_ml.ownership import scratch
from cvj_ml.run import Watcher
from cvj_ml.windows import follow_up, midnight, observed_whole, to_datetime, to_microseconds

KEY = ("list", "epoch", "night")
HISTORY = Path("measure", "history.parquet")
BY_EFFECT_HISTORY = Path("measure", "by_effect.parquet")
BY_PLAY_HISTORY = Path("measure", "by_play.parquet")

_OF_CONTACT = ("incremental_probability", "play", "channel", "play_probability")
"""What a listing says of a contact, beside who it is and whether chance left them alone."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The rows of this measurement, the whole history, its file, and what fell below the configured floor.

    ``by_effect`` has target against control in groups by what nights said that a contact changes, ``by_play`` by play
    and channel.
    """

    rows: pd.DataFrame
    by_effect: pd.DataFrame
    by_play: pd.DataFrame
    history: pd.DataFrame
    file: Path
    faults: tuple[str, ...]
    waiting: int


def measure(config: Config, until: int, watcher: Watcher) -> Measured:
    """Evaluate every published list whose horizon is over by ``until``, and keep one row a list, epoch and night."""
    with hold(Path(config.out), "measure"):
        return _measure(config, until, watcher)


def _measure(config: Config, until: int, watcher: Watcher) -> Measured:
    with watcher.step("Reading published nights"):
        lists = read_past(config)
    out = Path(config.out)
    if hindsight := {*published_lists(out)} - {*contacted_lists(out)}:
        watcher.say(
            f"warning: {len(hindsight)} night(s) were made by a model that had seen what followed (a backfill), so"
            " nobody was contacted by them and nothing is measured of them."
        )
    histories = open_histories(config, watcher)
    usable = [past for past in lists if {*past.stages} <= _observable(histories)]
    if len(usable) < len(lists):
        watcher.say(f"warning: {len(lists) - len(usable)} past list(s) name stages that are not observed any more.")
    for told in redrawn(usable, [end_of_epoch(config, past) for past in usable]).values():
        watcher.say(f"warning: {told}.")
    observation = observation_at(histories, until)
    with watcher.step("Looking at what became of the customers") as progress:
        found = measure_lists(usable, observation, histories.engine(progress))
        groups, plays = measure_subgroups(usable, observation, histories.engine())
    measured_at = to_datetime(until, config.zone).isoformat()
    rows, by_effect, by_play = (pd.DataFrame(one) for one in (found, groups, plays))
    for table in (rows, by_effect, by_play):
        if len(table):
            table.insert(2, "night", [to_datetime(one, config.zone).isoformat() for one in table.pop("as_of")])
            table["until"] = measured_at
    file = Path(config.out, HISTORY)
    history = add_to_history(rows, file)
    add_to_history(by_effect, Path(config.out, BY_EFFECT_HISTORY), (*KEY, "group"))
    add_to_history(by_play, Path(config.out, BY_PLAY_HISTORY), (*KEY, "play", "channel"))
    faults = tuple(below_floor(config, rows))
    return Measured(
        rows, by_effect, by_play, history, file, faults, sum(not observation.is_over(past) for past in usable)
    )


def observation_at(histories: Histories, until: int) -> Observation:
    """Return how outcomes are read that were visible at an instant, under the configuration."""
    return Observation(
        histories.visible.journey,
        until,
        histories.store.arrival_delay,
        Identities.at(histories.store, until).person,
        clicks_of(histories.config),
    )


def read_past(config: Config) -> list[PastList]:
    """Return the lists of every night that can be judged, with everybody who was scored for them."""
    return [past for folder in contacted_lists(Path(config.out)) for past in _lists_of(config, folder)]


def _lists_of(config: Config, folder: Path) -> Iterator[PastList]:
    """Yield the lists of one night."""
    scores = pq.read_table(NightFolder(folder).scores, partitioning=None).to_pandas()
    as_of = to_microseconds(scores["as_of"].iloc[0].to_pydatetime())
    for row in summary_of(folder):
        stages = stages_of(config, row)
        past = past_list(row, stages, as_of, str(scores["model_version"].iloc[0]), scores.head(0))
        columns, audience = _columns(row, stages), past.audience
        missing = [name for name in (*columns.values(), audience) if name is not None and name not in scores.columns]
        unknown = [name for name in stages if name not in config.journey.names]
        if missing or unknown:
            fault = (
                f"its scores have no column {', '.join(missing)}, so the night is damaged or of another journey"
                if missing
                else f"its list {row['list']} names {', '.join(unknown)}, which the configuration's journey does not"
            )
            raise DataError(f"{folder}: {fault}; remove the night, or measure with the configuration that made it.")
        here = scores["stage"].isin(columns)
        if audience:
            here &= scores[audience].fillna(False).astype(bool)
        scored = scores.loc[here, ["customer_id"]].assign(probability=np.nan)
        for stage, column in columns.items():
            of_stage = here & (scores["stage"] == stage)
            scored.loc[of_stage, "probability"] = scores.loc[of_stage, column]
        if row.get("outcome") == KEPT and row["kind"] == "win_back":
            scored["probability"] = 1 - scored["probability"]
        scored = scored.dropna(subset="probability").merge(
            listed_of(folder, row["list"]), on="customer_id", how="left", validate="one_to_one"
        )
        # Nights from before forecasts had a range told their number alone, or none.
        moves = ExpectedMoves.from_columns(row, "expected_moves", row["listed"]) if "past_folds" in row else None
        yield replace(past, scored=scored, moves=moves)


def past_list(
    row: Mapping[str, Any], stages: tuple[str, ...], as_of: int, model_version: str, scored: pd.DataFrame
) -> PastList:
    """Return a past list from its row of a summary; one from before there were kinds is of moves."""
    return PastList(
        row["list"],
        row["from_stage"],
        row["to_stage"],
        row["horizon_days"] * DAY,
        row["epoch"],
        as_of,
        model_version,
        scored,
        kind=row.get("kind") or "move",
        outcome=row.get("outcome") or "reach",
        stages=stages,
    )


def end_of_epoch(config: Config, past: PastList) -> int:
    """Return the instant at which control is drawn anew after a night."""
    return midnight(epoch_end(past.epoch.split("-")[1], past.as_of, config.zone), config.zone)


def stages_of(config: Config, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stages that a list names, from a row of a summary; one that the journey does not know as its slug."""
    if (row.get("kind") or "move") == "move":
        return row["from_stage"], row["to_stage"]
    named = {stage.slug: stage.name for stage in config.journey.stages}
    return tuple(named.get(slug, slug) for slug in row["list"].split("__")[1].split("-"))


def _columns(row: Mapping[str, Any], stages: Sequence[str]) -> dict[str, str]:
    """Return the column of SCORES that the probability of a list comes from, by the stage of its customers."""
    days, slugs = row["horizon_days"], row["list"].split("__")[1]
    if (row.get("kind") or "move") == "move":
        return {stages[0]: f"p_reach_{slugs}_{days}d"}
    if row["outcome"] == LEAVING:
        return {name: f"p_{LEAVE}{slug}_{days}d" for name, slug in zip(stages, slugs.split("-"), strict=True)}
    return dict.fromkeys(stages, f"p_{in_scores(row['outcome'])}_{days}d")


def clicks_of(config: Config) -> frozenset[str]:
    """Return the events that only answer a send, by the business's own names."""
    names = config.measure.clicks
    return frozenset(names).union(*(config.events.get(name, ()) for name in names))


def summary_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a night's summary, a list each."""
    found: list[dict[str, Any]] = pq.read_table(NightFolder(folder).summary, partitioning=None).to_pylist()
    return found


def listed_of(folder: Path, name: str, others: Sequence[str] = _OF_CONTACT) -> pd.DataFrame:
    """Return customer_id, group and control_share of everybody on a list, and ``others`` as far as they are there."""
    file = NightFolder(folder).list_file(name)
    # Nights of earlier versions lack columns that came later.
    told = pq.read_schema(file).names
    columns = ["customer_id", "group", "control_share", *(one for one in others if one in told)]
    found: pd.DataFrame = pq.read_table(file, columns=columns, partitioning=None).to_pandas()
    return found


def newest_matured(config: Config, observation: Observation) -> tuple[list[PastList], pd.DataFrame]:
    """Return of each list the newest one whose horizon is over at the observation's cut, and who was listed near them.

    Scores are read of these nights only; of the others, who was on a list. Stages that are not observed any more are
    passed over.
    """
    nights = {}
    for folder in contacted_lists(Path(config.out)):
        try:
            nights[folder] = instant_of(NightFolder(folder).manifest())
        except (OSError, ValueError, KeyError, TypeError):
            raise NightError(
                f"{folder}: its manifest cannot be read, so nobody knows which night this is. `cvj-ml verify {folder}`"
                " says more; go back to a copy of it, or remove it."
            ) from None
    chosen: dict[str, Path] = {}
    known = set(observation.journey.names) - observation.journey.unobserved
    for folder in sorted(nights, key=nights.__getitem__, reverse=True):
        seen = follow_up(nights[folder], observation.cut, observation.arrival_delay)
        for row in summary_of(folder):
            if {*stages_of(config, row)} <= known and observed_whole(seen, row["horizon_days"] * DAY):
                chosen.setdefault(row["list"], folder)
    found = [
        past
        for folder in dict.fromkeys(chosen.values())
        for past in _lists_of(config, folder)
        if chosen.get(past.name) == folder
    ]
    near = [
        listed_of(folder, row["list"]).assign(as_of=nights[folder], epoch=row["epoch"])
        for folder in nights
        if any(observed_whole(past.horizon, abs(nights[folder] - past.as_of)) for past in found)
        for row in summary_of(folder)
    ]
    return found, pd.concat(near, ignore_index=True) if near else listings([])


def known_history(config: Config, as_of: int) -> pd.DataFrame:
    """Return what measurements up to ``as_of`` have found: a page shows nothing that its night could not know.

    The column ``plays`` has what each play of a night's list brought, in sentences.
    """
    history, plays = (_known(Path(config.out, file), as_of) for file in (HISTORY, BY_PLAY_HISTORY))
    if len(history):
        told: dict[tuple[str, ...], list[str]] = {}
        for row in plays.to_dict("records"):
            told.setdefault(tuple(row[name] for name in KEY), []).append(play_words(row))
        history["plays"] = [told.get(key, []) for key in history[[*KEY]].itertuples(index=False, name=None)]
    return history


def _known(file: Path, as_of: int) -> pd.DataFrame:
    if not file.exists():
        return pd.DataFrame()
    history = pd.read_parquet(file, partitioning=None)
    until = np.array([to_microseconds(datetime.fromisoformat(one)) for one in history["until"]], dtype=np.int64)
    return history[observed_whole(follow_up(until, as_of, 0), 0)].reset_index(drop=True)


def add_to_history(rows: pd.DataFrame, file: Path, key: Sequence[str] = KEY) -> pd.DataFrame:
    """Add rows to the history and return it; of two rows of one list, epoch and night the later measured one stays."""
    old = pd.read_parquet(file, partitioning=None) if file.exists() else pd.DataFrame()
    parts = [part for part in (old, rows) if len(part)]
    if not parts:
        return old
    both = pd.concat(parts, ignore_index=True)
    both["_order"] = [datetime.fromisoformat(one).timestamp() for one in both["until"]]
    # All rows of a night are of one measurement: one with fewer groups leaves none of an earlier one.
    newest = both.groupby(list(KEY))["_order"].transform("max")
    both = both[both["_order"] == newest]
    both = both.sort_values([*key, "_order"], kind="stable").drop_duplicates(key, keep="last").drop(columns="_order")
    history = both.sort_values(["night", "list"], kind="stable", ignore_index=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    with scratch(file.parent, f".{file.stem}-") as staged:
        for name in write_table(staged, file.stem, pa.Table.from_pandas(history, preserve_index=False)):
            os.replace(staged / name, file.with_name(name))
    return history


def below_floor(config: Config, rows: pd.DataFrame) -> list[str]:
    """Return where the last measured night of a list is surely worse than the configured floor."""
    if rows.empty:
        return []
    floor, faults = config.measure, []
    for _, row in rows.groupby("list", sort=True).tail(1).iterrows():
        # Where many were expected, it says something that few moved.
        if max(row["untouched_moved"], row["untouched_expected"]) < floor.min_converted:
            continue
        place, did = f"{row['list']}, {row['night'][:10]}", said_of_row({str(k): v for k, v in row.items()}).did
        if row["lift_10pct_high"] < floor.min_lift:
            faults.append(
                f"{place}: the likeliest tenth {did} {row['lift_10pct']:.2f} times as often as all (at most"
                f" {row['lift_10pct_high']:.2f}), below min_lift {floor.min_lift:g}"
            )
        low, high = row["observed_over_expected_low"], row["observed_over_expected_high"]
        if low > floor.max_miscalibration or high < 1 / floor.max_miscalibration:
            faults.append(
                f"{place}: {row['observed_over_expected']:.2f} customers {did} for each one expected ({low:.2f} to"
                f" {high:.2f}), off by more than max_miscalibration {floor.max_miscalibration:g}"
            )
    return faults


def _observable(histories: Histories) -> set[str]:
    return set(histories.config.journey.names) - histories.visible.unobserved
