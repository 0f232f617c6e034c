"""What every command begins with: its sources read into the store, and checked against journey and lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from joblib import cpu_count

from cvj_ml.config import Config
from cvj_ml.customers import People, persons_of, under_accounts
from cvj_ml.engines import Engine, Progress, open_engine, require_engine
from cvj_ml.errors import ConfigError, DataError, ModelError, nearest, raise_all
from cvj_ml.features import Written, learn, sight, unknown_patterns
from cvj_ml.journey import Journey, Visible, observability
from cvj_ml.journey_analytics.dwell_times import require_segment
from cvj_ml.lists.ranked_list import list_specs
from cvj_ml.models.bundle.bundle import Bundle
from cvj_ml.models.bundle.verification import differences
from cvj_ml.panel.model_spec import catalogue_of, selection_of
from cvj_ml.run import Run, Watcher
from cvj_ml.store import Store, Usage, ingest, touchpoint_rows, usage
from cvj_ml.touchpoints import Touchpoints
from cvj_ml.windows import NEVER, Instants, midnight, to_datetime

MOST = 2**31
"""Of names: all of them."""

_FEW = 1000
"""One row of so many is few: they do not decide when the history begins."""


@dataclass(frozen=True, slots=True)
class Histories:
    """The customers of a configuration: the store, an engine over it, the stages that can be seen, and who is told."""

    config: Config
    store: Store
    visible: Visible
    threads: int
    watcher: Watcher

    def engine(self, progress: Progress | None = None) -> Engine:
        """Return the configured engine over the store's blocks."""
        return open_engine(self.config.engine, self.store, progress)

    def run(self, progress: Progress | None = None) -> Run:
        """Return what fits and evaluations of these customers share."""
        blocks, delay = self.engine(), self.store.arrival_delay
        return Run(self.config, self.visible.journey, blocks, delay, self.threads, progress)


def open_histories(config: Config, watcher: Watcher) -> Histories:
    """Read the sources into the store (or find it there) and compare the journey with what occurs."""
    require_engine(config.engine)
    with watcher.step("Reading sources"):
        store = ingest(config, lambda told: watcher.say(f"warning: {told}"))
    visible = observability(config, store.events, store.property_kinds)
    for warning in visible.warnings:
        watcher.say(f"warning: {warning}")
    # Lists and worksheets that cannot be made are told before hours of training.
    list_specs(config, visible.journey)
    require_segment(config.report.segment, store.attribute_kinds)
    found = Histories(config, store, visible, config.engine.threads or cpu_count(), watcher)
    _require_features(found)
    return found


def _require_features(histories: Histories) -> None:
    """Raise ConfigError for features to leave out that no customer could have, and properties that no source has."""
    config, store = histories.config, histories.store
    faults = [
        f"features.custom: {one.name}: the touchpoints have no property {name!r}.{nearest(name, store.property_kinds)}"
        " Sources map properties under columns"
        for one in config.features.custom
        for name in one.properties
        if name not in store.property_kinds
    ]
    if config.features.exclude:
        # With whatever name anybody has, frequent or not: which ones are, differs from one cut to the next.
        every = learn(histories.engine().map(partial(sight, cut=NEVER)), MOST, MOST, MOST, 1, Written())
        everything = config.features.model_copy(update={"exclude": ()})
        possible = catalogue_of(config.model_copy(update={"features": everything}), histories.visible.journey, every)
        faults += unknown_patterns(config.features.exclude, possible.features, selection_of(config))
    raise_all(ConfigError, "Features of the configuration are not there:", faults)


def open_touchpoints(
    touchpoints: Touchpoints, journey: Journey, settings: Mapping[str, object], watcher: Watcher
) -> Histories:
    """Read touchpoints from memory under a journey; ``settings`` are others of a configuration file.

    Where nobody says when the history begins, it begins with the first row. DataError where that would stretch it over
    a time with next to no rows: a few wrong dates must not decide what everything is measured by.
    """
    config = touchpoints.configure(
        {
            **settings,
            "journey": journey.spec,
            "preset": journey.preset,
            "unobserved": sorted(journey.unobserved),
        }
    )
    histories = open_histories(config, watcher)
    if config.drop_duplicates and touchpoints.history_from is not None:
        return histories  # nothing is asked of the rows
    store, occurred, repeats = histories.store, list[Instants](), 0
    for bucket in range(store.buckets):
        rows = touchpoint_rows(store, bucket)
        occurred.append(rows["occurred_at"].to_numpy())
        repeats += 0 if config.drop_duplicates else _repeats(rows)
    if repeats * _FEW >= 10 * len(touchpoints):
        watcher.say(
            f"warning: {repeats:,} of {len(touchpoints):,} rows repeat another one exactly, and each counts. If they"
            " are copies, say drop_duplicates=True beside the model's other settings."
        )
    if touchpoints.history_from is not None:
        return histories
    first = _first_day(np.sort(np.concatenate(occurred)), config.zone)
    return replace(histories, config=config.model_copy(update={"history_from": first}))


def open_under(
    touchpoints: Touchpoints, journey: Journey, settings: Mapping[str, object], watcher: Watcher
) -> Histories:
    """Read touchpoints from memory under the journey of a model or of features that were fitted before.

    What a few customers do not show is not unobserved, so the data is not asked which stages there are.
    """
    config = touchpoints.configure({**settings, "journey": journey.spec, "unobserved": sorted(journey.unobserved)})
    store = ingest(config, lambda told: watcher.say(f"warning: {told}"))
    return Histories(config, store, Visible(journey, ()), config.engine.threads or cpu_count(), watcher)


def _repeats(rows: pa.Table) -> int:
    """Return how many rows repeat the one before: in the store's order, equal ones are neighbours."""
    same = np.ones(max(len(rows) - 1, 0), dtype=np.bool_)
    for column in rows.columns:
        whole = column.combine_chunks()
        before, after = whole.slice(0, len(same)), whole.slice(1)
        both_missing = pc.and_(pc.is_null(before), pc.is_null(after))
        same &= pc.or_(pc.fill_null(pc.equal(before, after), False), both_missing).to_numpy(zero_copy_only=False)
    return int(same.sum())


def _first_day(occurred: Instants, zone: ZoneInfo) -> date:
    """Return the local day of the first touchpoint, of all in order; DataError where few lie long before the others."""
    first, early, last = (int(occurred[i]) for i in (0, len(occurred) // _FEW, -1))
    if early - first > last - early:
        begins, others = to_datetime(first, zone).date(), to_datetime(early, zone).date()
        raise DataError(
            f"Of {len(occurred):,} rows at most {len(occurred) // _FEW:,} lie between {begins} and {others}, all others"
            " later. Say which day the history begins on (history_from=…), or mend the dates."
        )
    return to_datetime(first, zone).date()


def by_account(people: People, histories: Histories, as_of: int) -> People:
    """Return the tables by customer where customers are accounts and tables name people; else as they are."""
    if not histories.store.accounts:
        return people
    return under_accounts(people, pa.concat_tables(histories.engine().map(partial(persons_of, as_of=as_of))))


def require_customers(histories: Histories, as_of: int) -> Usage:
    """Account for every row at an instant; DataError where nothing is visible before it."""
    with histories.watcher.step("Counting rows"):
        found = usage(histories.store, as_of)
    stored = sum(counts.stored for counts in histories.store.counts.values())
    if found.used + found.not_yet_visible + found.superseded != stored:
        raise AssertionError(f"{stored} rows are stored, {found} are accounted for")
    if not found.used:
        day = to_datetime(as_of, histories.config.zone).date()
        raise DataError(
            f"No touchpoint is visible before {day}: all {stored} stored rows come later. Check --as-of, the time"
            f" zone (times:) and known_at of the sources."
        )
    return found


def require_same(kind: str, name: str, bundle: Bundle, config: Config, visible: Visible) -> None:
    """Raise ModelError where a model does not answer for the configuration's journey and data."""
    raise_all(
        ModelError,
        f"The {kind} {name} does not answer for this configuration; run `cvj-ml train --promote always` with it, or go"
        f" back to the settings that the {kind} was trained with:",
        differences(bundle.predictor, config, visible),
    )


def as_of_name(config: Config, instant: int) -> str:
    """Return the date of a midnight, or the whole instant in a form fit for a file name."""
    local = to_datetime(instant, config.zone)
    return local.date().isoformat() if instant == midnight(local.date(), config.zone) else f"{local:%Y-%m-%dT%H%M%S}"
