"""The model as a folder: text and numbers with a digest each, nothing that is executed on loading."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cvj_ml.config import CompleteSpec, JourneySpec
from cvj_ml.errors import ModelError
from cvj_ml.features import Vocabulary, compile_catalogue
from cvj_ml.histories import Block
from cvj_ml.io import sha256_of, sorted_json
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.canary import block_from_tables, block_to_tables
from cvj_ml.models.bundle.corrections import (
    calendar_as_json,
    calendar_from_json,
    effect_from_json,
    ridge_as_json,
    ridge_from_json,
    year_ago_as_json,
    year_ago_from_json,
)
from cvj_ml.models.bundle.forecast_errors import NO_ERRORS, ForecastErrors
from cvj_ml.models.bundle.track_record import NO_RECORD, TrackRecord
from cvj_ml.models.bundle.verification import (
    CALENDAR,
    CANARY,
    CARD,
    FORECASTS,
    FORMAT,
    MANIFEST,
    RECORD,
    RIDGE,
    TREES,
    YEAR_AGO,
    names_in,
    verify_bundle,
)
from cvj_ml.models.drift_profile.reference import drift_as_json, drift_from_json
from cvj_ml.models.explain.typical import Reference
from cvj_ml.models.hazard.base_rates import BaseRates
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.models.hazard.linear import LinearHazard, linear_columns
from cvj_ml.models.hazard.reach import Trees
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.stage.posterior import HiddenStage, Line, StageModel
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.stage_panel import Tracking

_STAGE = "stage.json"
_STAGE_LINE = ("columns", "mean", "scale", "coefficients", "intercept")
_LINE = ("missing", "mean", "scale", "coefficients")


@dataclass(frozen=True, slots=True)
class Canary:
    """Simulated customers with the scores that this model gave them when it was saved."""

    block: Block
    as_of: int
    scores: pa.Table


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded model; ``digest`` (64 hex digits) names its exact content, ``card`` is the model card in Markdown."""

    predictor: Predictor
    canary: Canary
    digest: str
    track_record: TrackRecord = NO_RECORD
    card: str = ""
    forecast_errors: ForecastErrors = NO_ERRORS

    @property
    def version(self) -> str:
        """The ``model_version`` of scores: 12 hex digits of the digest."""
        return self.digest[:12]


def save(
    predictor: Predictor,
    canary: Canary,
    folder: Path,
    track_record: TrackRecord = NO_RECORD,
    card: str = "",
    forecast_errors: ForecastErrors = NO_ERRORS,
) -> str:
    """Write the bundle into an empty or new folder and return its digest; ModelError for an estimator of one's own."""
    if predictor.trees.estimator is not None:
        raise ModelError(
            f"{type(predictor.trees.estimator.classifier).__name__} is an estimator of your own, and a bundle holds"
            " nothing that is executed on loading. Keep it by its own means, or fit without estimator=."
        )
    (folder / "canary").mkdir(parents=True)
    definition, trees = predictor.definition, predictor.trees
    (folder / TREES).write_text(_text_of(trees.booster) if trees.booster else "", encoding="utf-8")
    _write_json(
        folder / "calibration.json",
        {"intercept": predictor.calibration.intercept.tolist(), "slope": predictor.calibration.slope.tolist()},
    )
    line = trees.linear
    _write_json(
        folder / "linear.json",
        {**{name: getattr(line, name).tolist() for name in _LINE}, "intercept": line.intercept} if line else {},
    )
    _write_json(folder / RIDGE, {"share": trees.ridge_share, **ridge_as_json(trees.ridge)})
    _write_json(folder / YEAR_AGO, year_ago_as_json(predictor.year_ago))
    _write_json(
        folder / "base_rates.json",
        {
            "recency_cuts": trees.base.cuts.tolist(),
            "by_stage": trees.base.by_stage.tolist(),
            "rates": trees.base.rates.tolist(),
            "known": trees.base.known.tolist(),
            # Of a stage of which nothing is known it is infinite, which JSON has no word for.
            "spread": [[None if np.isinf(one) else one for one in row] for row in trees.base.spread.tolist()],
            "low_evidence": trees.low.tolist(),
        },
    )
    _write_json(folder / CALENDAR, calendar_as_json(definition.calendar, trees.calendar))
    if predictor.stage is not None:
        _save_stage(predictor.stage, folder)
    journey = definition.journey.spec.model_dump(mode="json", exclude_defaults=True)
    (folder / "journey.yaml").write_text(yaml.safe_dump(journey, sort_keys=False, allow_unicode=True), encoding="utf-8")
    _write_json(folder / "features.json", _definition_as_json(definition))
    _write_json(folder / RECORD, track_record.as_dict())
    _write_json(folder / FORECASTS, forecast_errors.as_dict())
    (folder / CARD).write_text(card, encoding="utf-8")
    _write_json(folder / "reference.json", _references_as_json(predictor))
    touchpoints, attributes = block_to_tables(canary.block)
    for name, table in zip(CANARY, (touchpoints, attributes, canary.scores), strict=True):
        pq.write_table(table, folder / name)
    files = {name: sha256_of(folder / name) for name in names_in(folder)}
    _write_json(folder / MANIFEST, {"format": FORMAT, "canary_as_of": canary.as_of, "files": files})
    return sha256_of(folder / MANIFEST)


def load(folder: Path, digest: str | None = None) -> Bundle:
    """Verify every digest, then load; ModelError where anything differs, is missing or is there besides.

    ``digest`` is what the registry or a published night says. A damaged model text would abort the whole process
    inside LightGBM, so nothing is handed to it before all files are verified.
    """
    manifest = verify_bundle(folder, digest)
    try:
        return _read(folder, manifest)
    except (ValueError, KeyError, TypeError, pa.ArrowException, lgb.basic.LightGBMError) as error:
        raise ModelError(
            f"{folder}: the model bundle cannot be read by this version of cvj_ml ({type(error).__name__}). Train anew."
        ) from error


def _read(folder: Path, manifest: dict[str, Any]) -> Bundle:
    known = json.loads((folder / CALENDAR).read_text(encoding="utf-8"))
    document = json.loads((folder / "features.json").read_text(encoding="utf-8"))
    definition = replace(_definition_from_json(document, folder), calendar=calendar_from_json(known))
    calibration = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    base = json.loads((folder / "base_rates.json").read_text(encoding="utf-8"))
    maps = Calibration(np.array(calibration["intercept"]), np.array(calibration["slope"]))
    spread = [[np.inf if one is None else one for one in row] for row in base["spread"]]
    numbers = (np.array(base[name], dtype=np.float64) for name in ("recency_cuts", "by_stage", "rates"))
    cuts, by_stage, by_recency = numbers
    rates = BaseRates(
        cuts,
        by_stage,
        by_recency,
        np.array(base["known"], dtype=np.bool_),
        np.array(spread, dtype=np.float64),
    )
    line = json.loads((folder / "linear.json").read_text(encoding="utf-8"))
    linear = (
        LinearHazard(intercept=line.pop("intercept"), **{k: np.array(v) for k, v in line.items()}) if line else None
    )
    ridge = json.loads((folder / RIDGE).read_text(encoding="utf-8"))
    of_return, of_reach = ridge["share"]
    low = np.array(base["low_evidence"], dtype=np.bool_)
    record = TrackRecord.from_dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    errors = ForecastErrors.from_dict(json.loads((folder / FORECASTS).read_text(encoding="utf-8")))
    touchpoints, attributes, scores = (pq.read_table(folder / name, partitioning=None) for name in CANARY)
    dates = frozenset(definition.catalogue.vocabulary.dates)
    block = block_from_tables(touchpoints, attributes, frozenset(definition.outbound), dates)
    text = (folder / TREES).read_text(encoding="utf-8")
    booster = lgb.Booster(model_str=text) if text else None
    stage = _load_stage(folder) if _STAGE in manifest["files"] else None
    remembered = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    trees = Trees(
        booster,
        linear,
        rates,
        low,
        linear_columns(definition),
        ridge_from_json(ridge),
        (of_return, of_reach),
        calendar=effect_from_json(known, definition),
    )
    reference, drift = _reference_from_json(remembered["typical"]), drift_from_json(remembered["drift"], definition)
    year_ago = year_ago_from_json(json.loads((folder / YEAR_AGO).read_text(encoding="utf-8")))
    predictor = Predictor(definition, trees, maps, stage, reference, drift, year_ago)
    canary = Canary(block, int(manifest["canary_as_of"]), scores)
    card = (folder / CARD).read_text(encoding="utf-8")
    return Bundle(predictor, canary, sha256_of(folder / MANIFEST), record, card, errors)


def _save_stage(model: StageModel, folder: Path) -> None:
    """Write the posterior of the true stage; ``stage_<position>.txt`` are trees, for stages that have some."""
    complete = model.tracking.complete_when
    stages: list[dict[str, Any] | None] = []
    for i, one in enumerate(model.stages):
        trees = _stage_trees(i) if one and one.trees else None
        if one and one.trees and trees:
            (folder / trees).write_text(_text_of(one.trees), encoding="utf-8")
        line = one.line if one else None
        stages.append(
            {
                "table": one.table.tolist(),
                "line": {name: np.asarray(getattr(line, name)).tolist() for name in _STAGE_LINE} if line else None,
                "trees": trees,
                "shift": one.shift,
            }
            if one
            else None
        )
    _write_json(
        folder / _STAGE,
        {
            "coverage": model.tracking.coverage.tolist(),
            "complete_when": complete.model_dump(mode="json") if complete else None,
            "labelled": model.tracking.labelled,
            "source": model.source,
            "stages": stages,
        },
    )


def _load_stage(folder: Path) -> StageModel:
    document = json.loads((folder / _STAGE).read_text(encoding="utf-8"))
    complete = document["complete_when"]
    stages: list[HiddenStage | None] = []
    for i, one in enumerate(document["stages"]):
        trees = None
        if one and one["trees"]:
            trees = lgb.Booster(model_str=(folder / _stage_trees(i)).read_text(encoding="utf-8"))
        line = None
        if one and one["line"]:
            numbers = {name: np.array(one["line"][name], dtype=np.float64) for name in _STAGE_LINE}
            columns, intercept = numbers.pop("columns").astype(np.int64), float(numbers.pop("intercept"))
            line = Line(columns=columns, intercept=intercept, **numbers)
        stages.append(HiddenStage(np.array(one["table"]), line, trees, one["shift"]) if one else None)
    tracking = Tracking(
        np.array(document["coverage"], dtype=np.float64),
        CompleteSpec.model_validate(complete) if complete else None,
        document["labelled"],
    )
    return StageModel(tracking, document["source"], tuple(stages))


def _stage_trees(position: int) -> str:
    return f"stage_{position}.txt"


def _text_of(booster: lgb.Booster) -> str:
    """Return the model's text without the number of threads that trained it: it is no part of the model."""
    return re.sub(r"^\[num_threads: \d+\]\n", "", booster.model_to_string(), flags=re.MULTILINE)


def _write_json(path: Path, document: Any) -> None:
    path.write_text(sorted_json(document), encoding="utf-8")


def _references_as_json(predictor: Predictor) -> dict[str, Any]:
    return {"typical": _reference_as_json(predictor.reference), "drift": drift_as_json(predictor.drift)}


def _reference_as_json(reference: Reference | None) -> dict[str, Any]:
    if reference is None:
        return {}
    # As short as a float32 can be told apart: 0.1 and not 0.10000000149011612.
    typical = [[None if np.isnan(one) else float(str(one)) for one in row] for row in reference.typical]
    return {"typical_by_stage": typical, "of_the_stage": reference.own.tolist()}


def _reference_from_json(document: dict[str, Any]) -> Reference | None:
    if not document:
        return None
    typical = [[np.nan if one is None else one for one in row] for row in document["typical_by_stage"]]
    return Reference(np.array(typical, dtype=np.float32), np.array(document["of_the_stage"], dtype=np.bool_))


def _definition_as_json(definition: ModelSpec) -> dict[str, Any]:
    catalogue, vocabulary = definition.catalogue, definition.catalogue.vocabulary
    return {
        "names": catalogue.names,
        "vocabulary": {
            "events": vocabulary.events,
            "channels": vocabulary.channels,
            "numbers": vocabulary.numbers,
            "categories": dict(vocabulary.categories),
            "columns": dict(vocabulary.columns),
            "static": vocabulary.static,
            **({"dates": vocabulary.dates} if vocabulary.dates else {}),
            **({"people": True, "roles": vocabulary.roles} if vocabulary.people else {}),
        },
        "windows": catalogue.windows,
        "trend": catalogue.trend,
        "session_gap": catalogue.session_gap,
        "value_decimals": catalogue.value_decimals,
        "unobserved": sorted(definition.journey.unobserved),
        "horizons": definition.horizons,
        "next_stages": definition.next_stages,
        "observed_from": definition.observed_from,
        "time_zone": definition.time_zone,
        "outbound": definition.outbound,
        "drop_duplicates": definition.drop_duplicates,
        "min_customers": definition.min_customers,
    }


def _definition_from_json(document: dict[str, Any], folder: Path) -> ModelSpec:
    spec = JourneySpec.model_validate(yaml.safe_load((folder / "journey.yaml").read_text(encoding="utf-8")))
    journey = Journey(spec, frozenset(document["unobserved"]), document["value_decimals"])
    words = document["vocabulary"]
    vocabulary = Vocabulary(
        tuple(words["events"]),
        tuple(words["channels"]),
        tuple(words["numbers"]),
        {name: tuple(values) for name, values in words["categories"].items()},
        words["columns"],
        words["static"],
        tuple(words.get("dates", ())),
        words.get("people", False),
        tuple(words.get("roles", ())),
    )
    catalogue = compile_catalogue(
        vocabulary,
        [journey.names[i] for i in journey.observable],
        document["windows"],
        document["trend"],
        document["session_gap"],
        document["value_decimals"],
    )
    if catalogue.names != document["names"]:
        raise ModelError(
            f"{folder}: this version of cvj_ml computes other features than the model was trained on. Train anew."
        )
    return ModelSpec(
        journey,
        catalogue,
        tuple(document["horizons"]),
        document["next_stages"],
        document["observed_from"],
        document["time_zone"],
        tuple(document["outbound"]),
        int(document["min_customers"]),
        document["drop_duplicates"],
    )
