"""The model as a folder: text and numbers with a digest each, nothing that is executed on loading."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cvj_ml.config import CompleteSpec, JourneySpec
from cvj_ml.config.model import CustomFeature
from cvj_ml.errors import ModelError, raise_all
from cvj_ml.features import CustomColumns, Vocabulary, compile_catalogue
from cvj_ml.histories import Block
from cvj_ml.io import sha256_of
from cvj_ml.journey import Journey, Outcome
from cvj_ml.models.bundle.canary import block_from_tables, block_to_tables
from cvj_ml.models.bundle.corrections import year_ago_as_json, year_ago_from_json
from cvj_ml.models.bundle.effect_files import load_list_effects, save_list_effects
from cvj_ml.models.bundle.forecast_errors import NO_ERRORS, ForecastErrors
from cvj_ml.models.bundle.hazard_files import (
    HAZARD_FILES,
    load_calendar,
    load_hazard,
    read_json,
    save_hazard,
    text_of,
    write_json,
)
from cvj_ml.models.bundle.track_record import NO_RECORD, TrackRecord
from cvj_ml.models.bundle.value_files import load_value, save_value
from cvj_ml.models.bundle.verification import (
    CANARY,
    CARD,
    FORECASTS,
    FORMAT,
    MANIFEST,
    RECORD,
    YEAR_AGO,
    names_in,
    verify_bundle,
)
from cvj_ml.models.drift_profile.reference import drift_as_json, drift_from_json
from cvj_ml.models.explain.typical import Reference
from cvj_ml.models.predictor import OutcomeModel, Predictor
from cvj_ml.models.segment_levels import SegmentLevels
from cvj_ml.models.stage.posterior import HiddenStage, Line, StageModel
from cvj_ml.models.uplift.list_effect import ListEffect
from cvj_ml.panel.calendar import NO_CALENDAR
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.stage_panel import Tracking

_STAGE = "stage.json"
_STAGE_LINE = ("columns", "mean", "scale", "coefficients", "intercept")


@dataclass(frozen=True, slots=True)
class Canary:
    """Simulated customers with the scores that this model gave them when it was saved."""

    block: Block
    as_of: int
    scores: pa.Table


@dataclass(frozen=True, slots=True)
class ModelEvidence:
    """What lists ask of a model beside its SCORES; of one that was never saved the past is not known.

    ``track_record`` is what became of those who were scored alike, ``forecast_errors`` how far sums were off;
    ``amounts_rank`` whether its amounts order customers well enough to rank them (`ValueModel.ranks`); ``effects`` are
    those of lists whose control groups taught what a contact changes.
    """

    track_record: TrackRecord = NO_RECORD
    forecast_errors: ForecastErrors = NO_ERRORS
    amounts_rank: bool = False
    effects: tuple[ListEffect, ...] = ()

    @classmethod
    def of(
        cls, predictor: Predictor, track_record: TrackRecord = NO_RECORD, forecast_errors: ForecastErrors = NO_ERRORS
    ) -> Self:
        """Return what a model tells of itself, and what is known of its past."""
        return cls(track_record, forecast_errors, predictor.amounts_rank, predictor.effects)


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

    @property
    def evidence(self) -> ModelEvidence:
        """What lists ask of the model beside its SCORES."""
        return ModelEvidence.of(self.predictor, self.track_record, self.forecast_errors)


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
    save_hazard(trees, predictor.calibration, definition.calendar, folder)
    for outcome, one in zip(definition.own_outcomes, predictor.outcomes, strict=True):
        place = folder / _outcome_folder(outcome)
        place.mkdir()
        # The periods are those of the bundle; here is what they change of the outcome.
        save_hazard(one.trees, one.calibration, NO_CALENDAR, place)
    save_value(predictor.value, folder)
    save_list_effects(predictor.effects, folder)
    write_json(folder / YEAR_AGO, year_ago_as_json(predictor.year_ago))
    if predictor.stage is not None:
        _save_stage(predictor.stage, folder)
    journey = definition.journey.spec.model_dump(mode="json", exclude_defaults=True)
    (folder / "journey.yaml").write_text(yaml.safe_dump(journey, sort_keys=False, allow_unicode=True), encoding="utf-8")
    write_json(folder / "features.json", _definition_as_json(definition))
    write_json(folder / RECORD, track_record.as_dict())
    write_json(folder / FORECASTS, forecast_errors.as_dict())
    (folder / CARD).write_text(card, encoding="utf-8")
    write_json(folder / "reference.json", _references_as_json(predictor))
    touchpoints, attributes = block_to_tables(canary.block)
    for name, table in zip(CANARY, (touchpoints, attributes, canary.scores), strict=True):
        pq.write_table(table, folder / name)
    files = {name: sha256_of(folder / name) for name in names_in(folder)}
    write_json(folder / MANIFEST, {"format": FORMAT, "canary_as_of": canary.as_of, "files": files})
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
    document = read_json(folder / "features.json")
    definition = replace(_definition_from_json(document, folder), calendar=load_calendar(folder))
    wanted = {f"{_outcome_folder(one)}/{name}" for one in definition.own_outcomes for name in HAZARD_FILES}
    missing = [f"{name} is missing" for name in sorted(wanted - manifest["files"].keys())]
    raise_all(ModelError, f"{folder}: the model bundle is not what was saved; restore it or train anew:", missing)
    record = TrackRecord.from_dict(read_json(folder / RECORD))
    errors = ForecastErrors.from_dict(read_json(folder / FORECASTS))
    touchpoints, attributes, scores = (pq.read_table(folder / name, partitioning=None) for name in CANARY)
    dates = frozenset(definition.catalogue.vocabulary.dates)
    block = block_from_tables(touchpoints, attributes, frozenset(definition.outbound), dates)
    trees, maps = load_hazard(folder, definition)
    outcomes = tuple(
        OutcomeModel(*load_hazard(folder / _outcome_folder(one), definition.asking(one)))
        for one in definition.own_outcomes
    )
    stage = _load_stage(folder) if _STAGE in manifest["files"] else None
    remembered = read_json(folder / "reference.json")
    reference, drift = _reference_from_json(remembered["typical"]), drift_from_json(remembered["drift"], definition)
    year_ago = year_ago_from_json(read_json(folder / YEAR_AGO))
    segments = SegmentLevels.from_dict(remembered["segments"]) if remembered["segments"] else None
    value = load_value(folder)
    effects = load_list_effects(folder)
    predictor = Predictor(
        *(definition, trees, maps, stage, reference, drift, year_ago, outcomes, segments, value, effects)
    )
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
            (folder / trees).write_text(text_of(one.trees), encoding="utf-8")
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
    write_json(
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
    document = read_json(folder / _STAGE)
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


def _outcome_folder(outcome: Outcome) -> str:
    return f"outcome_{outcome.name}"


def _references_as_json(predictor: Predictor) -> dict[str, Any]:
    segments = predictor.segments.as_dict() if predictor.segments else {}
    typical, drift = _reference_as_json(predictor.reference), drift_as_json(predictor.drift)
    return {"typical": typical, "drift": drift, "segments": segments}


def _reference_as_json(reference: Reference | None) -> dict[str, Any]:
    if reference is None:
        return {}
    # As short as a float32 can be told apart: 0.1 and not 0.10000000149011612.
    typical = [[None if np.isnan(one) else float(str(one)) for one in row] for row in reference.typical]
    silent = {"silent": _reference_as_json(reference.silent)} if reference.silent else {}
    return {"typical_by_stage": typical, "of_the_stage": reference.own.tolist(), **silent}


def _reference_from_json(document: dict[str, Any]) -> Reference | None:
    if not document:
        return None
    typical = [[np.nan if one is None else one for one in row] for row in document["typical_by_stage"]]
    own, silent = np.array(document["of_the_stage"], dtype=np.bool_), _reference_from_json(document.get("silent", {}))
    return Reference(np.array(typical, dtype=np.float32), own, silent)


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
        **({"excluded": catalogue.excluded} if catalogue.excluded else {}),
        **({"custom": [_custom_as_json(one) for one in catalogue.custom]} if catalogue.custom else {}),
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
        "outcomes": [
            {"name": one.name, "events": sorted(one.events), "but": one.but, "same_as": one.same_as}
            | ({"stage": one.stage} if one.stage else {})
            for one in definition.outcomes
        ],
    }


def _custom_as_json(columns: CustomColumns) -> dict[str, Any]:
    return {**columns.spec.model_dump(mode="json"), "source_sha256": columns.digest}


def _custom_from_json(document: dict[str, Any]) -> CustomColumns:
    spec = {name: value for name, value in document.items() if name != "source_sha256"}
    return CustomColumns(CustomFeature.model_validate(spec), document["source_sha256"])


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
    excluded = frozenset(document.get("excluded", ()))
    catalogue = compile_catalogue(
        vocabulary,
        [journey.names[i] for i in journey.observable],
        document["windows"],
        document["trend"],
        document["session_gap"],
        document["value_decimals"],
        [journey.names[i] for i in journey.leavable],
        tuple(_custom_from_json(one) for one in document.get("custom", ())),
        lambda feature: feature.name in excluded,
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
        outcomes=tuple(
            Outcome(one["name"], frozenset(one["events"]), one["but"], one["same_as"], one.get("stage"))
            for one in document["outcomes"]
        ),
    )
