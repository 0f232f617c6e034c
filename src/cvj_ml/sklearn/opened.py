"""Touchpoints are read once, and what a command would warn of is told by Python's warnings."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, ModelError, nearest, raise_all
from cvj_ml.inputs import Histories, open_histories, open_touchpoints, open_under
from cvj_ml.journey import Journey
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.run import PythonWarnings
from cvj_ml.store import touchpoint_rows
from cvj_ml.touchpoints import Touchpoints
from cvj_ml.windows import before, midnight, to_datetime

Stages = str | Mapping[str, object] | Journey | None
"""A journey as users name it; None is ``cvj8``, or that of a configuration."""

SETTINGS = ("burn_in", "drop_duplicates", "engine", "features", "ids", "model", "refused_share")
"""Settings of a configuration file that decide how rows are read, and what their features are."""

_opened: weakref.WeakKeyDictionary[Touchpoints, list[tuple[Any, Histories]]] = weakref.WeakKeyDictionary()
"""Touchpoints never change, so each of them is read once under a journey and settings."""


def open_to_learn(touchpoints: object, stages: Stages, settings: Mapping[str, object] | None) -> Histories:
    """Open customers under a journey and settings, or under those of a configuration; ConfigError for wrong ones."""
    if isinstance(touchpoints, Config):
        if stages is not None or settings is not None:
            raise ConfigError("A configuration has a journey and settings of its own: leave out journey and settings.")
        return open_histories(touchpoints, PythonWarnings())
    table, own = _checked(touchpoints, settings)
    journey = stages if isinstance(stages, Journey) else Journey(stages or "cvj8", (), table.value_decimals)
    key = ("learn", journey, journey.preset, own)
    return _cached(table, key) or _keep(table, key, open_touchpoints(table, journey, own, PythonWarnings()))


def open_to_ask(touchpoints: object, definition: ModelSpec, settings: Mapping[str, object] | None) -> Histories:
    """Open customers whom features of this definition are asked for: those of the fit, or others like them.

    ModelError where the features would mean something else than they did at the fit.
    """
    if isinstance(touchpoints, Config):
        histories = open_histories(touchpoints, PythonWarnings())
    else:
        table, own = _checked(touchpoints, settings)
        key = ("ask", definition.journey, own)
        histories = _cached(table, key) or _keep(table, key, _open_asked(table, definition.journey, own))
    _require_alike(definition, histories)
    return histories


def _open_asked(touchpoints: Touchpoints, journey: Journey, settings: Mapping[str, object]) -> Histories:
    histories = open_under(touchpoints, journey, settings, PythonWarnings())
    if touchpoints.history_from is not None:
        return histories
    store, config = histories.store, histories.config
    first = min(
        np.min(touchpoint_rows(store, bucket)["occurred_at"].to_numpy())
        for bucket, customers in enumerate(store.bucket_customers)
        if customers
    )
    begins = to_datetime(first, config.zone).date()
    return replace(histories, config=config.model_copy(update={"history_from": begins}))


def _checked(touchpoints: object, settings: Mapping[str, object] | None) -> tuple[Touchpoints, dict[str, object]]:
    faults = list[str]()
    if not isinstance(touchpoints, Touchpoints):
        faults.append(
            "touchpoints: give Touchpoints, made of a DataFrame, or a Config of sources in files (load_config); found"
            f" {type(touchpoints).__name__}"
        )
    known = isinstance(settings, Mapping) or settings is None
    names = sorted(map(str, settings)) if isinstance(settings, Mapping) else []
    faults += [] if known else [f"settings: give names and values, such as {{'burn_in': '60d'}}; found {settings!r}"]
    faults += [
        f"settings: {name} changes nothing here.{nearest(name, SETTINGS)} Known: {', '.join(SETTINGS)}"
        for name in names
        if name not in SETTINGS
    ]
    raise_all(ConfigError, "Customers cannot be opened:", faults)
    assert isinstance(touchpoints, Touchpoints)
    return touchpoints, dict(settings or {})


def _cached(touchpoints: Touchpoints, key: object) -> Histories | None:
    return next((found for one, found in _opened.get(touchpoints, ()) if one == key), None)


def _keep(touchpoints: Touchpoints, key: object, histories: Histories) -> Histories:
    _opened.setdefault(touchpoints, []).append((key, histories))
    return histories


def _require_alike(definition: ModelSpec, histories: Histories) -> None:
    config, store = histories.config, histories.store
    there = {*store.property_kinds, *store.attribute_kinds}
    for label, spec in config.touchpoint_tables.items():
        there |= {*spec.columns, *spec.constants, *store.columns[label.removeprefix("sources.")]}
    vocabulary = definition.catalogue.vocabulary
    needed = {*vocabulary.columns, *vocabulary.numbers, *vocabulary.categories, *vocabulary.dates}
    # Of these, no column needs to tell: days have no hours, and are known when they are over.
    absent = sorted(needed - {"known_at", "date_only", "touchpoint_id"} - there)
    begins = to_datetime(definition.observed_from, definition.zone).date()
    first = np.array([midnight(config.history_from, config.zone)])
    same = {
        "the stages or their rules differ": config.journey.rules == definition.journey.spec.rules,
        f"the history begins on {config.history_from}, that of the fit on {begins}; if rows were recorded from then on,"
        f" say history_from='{begins}'": before(first, definition.observed_from + 1).all(),
        "a customer is an account for one, a person for the other": (config.unit == "account") == vocabulary.people,
        "the time zone differs": config.time_zone == definition.time_zone,
        "other events are outbound": {*config.outbound} == {*definition.outbound},
        "value_decimals differ": config.value_decimals == definition.catalogue.value_decimals,
        f"there is no {', no '.join(absent)}": not absent,
    }
    raise_all(
        ModelError,
        "JourneyFeatures were fitted on touchpoints unlike these; give some that are alike, or fit again:",
        [difference for difference, agrees in same.items() if not agrees],
    )
