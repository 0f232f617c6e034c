"""Scores of a table of touchpoints, for tools that know neither configurations nor stores."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cvj_ml.config import Config
from cvj_ml.engines import LocalEngine
from cvj_ml.scoring.merging import merge
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.scoring.parts import work_off
from cvj_ml.scoring.table import score_block, scores_contract
from cvj_ml.sources import ingest
from cvj_ml.windows import parse_as_of, to_datetime


def score_touchpoints(bundle_folder: Path, touchpoints: pd.DataFrame, as_of: str) -> pd.DataFrame:
    """Score the customers of a table of canonical touchpoints: the entry point of other MLflow tools.

    The rows go through the same ingest as any source. Attributes are not part of this table, so a model that uses
    them sees none.
    """
    bundle = open_bundle(bundle_folder)
    definition = bundle.predictor.definition
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "touchpoints.parquet")
        touchpoints.to_parquet(source)
        config = Config.model_validate(
            {
                "name": "model",
                "time_zone": definition.time_zone,
                "history_from": to_datetime(definition.observed_from, definition.zone).date(),
                "sources": {
                    "touchpoints": {"path": str(source), "columns": {name: name for name in touchpoints.columns}}
                },
                "journey": definition.journey.model_dump(mode="json", exclude_defaults=True),
                "value_decimals": definition.catalogue.value_decimals,
                "outbound": definition.outbound,
                "out": str(Path(folder, "out")),
            }
        )
        engine = LocalEngine(ingest(config))
        instant = parse_as_of(as_of, definition.zone)
        parts = work_off(
            engine,
            Path(folder, "out", "work"),
            lambda block: score_block(bundle.predictor, block, instant, bundle.version),
        )
        scores = Path(folder, "scores.parquet")
        merge(parts, {scores: scores_contract(definition).schema})
        frame: pd.DataFrame = pq.read_table(scores).to_pandas()
    return frame
