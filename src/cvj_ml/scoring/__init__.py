"""SCORES: one row a customer, for one instant; made block by block, merged on disk, read by column."""

from cvj_ml.scoring.frames import attribute_columns, in_spark_task, require_persons, touchpoint_columns
from cvj_ml.scoring.opening import make_canary, open_bundle
from cvj_ml.scoring.parts import Parts, metadata_of, work_off
from cvj_ml.scoring.scores_table import StoredTable, as_table, merge, score_block, scores_contract
from cvj_ml.scoring.segment_learning import learn_segments
from cvj_ml.scoring.serving import Interface, interface_of, score_frame

__all__ = [
    "Interface",
    "Parts",
    "StoredTable",
    "as_table",
    "attribute_columns",
    "in_spark_task",
    "interface_of",
    "learn_segments",
    "make_canary",
    "merge",
    "metadata_of",
    "open_bundle",
    "require_persons",
    "score_block",
    "score_frame",
    "scores_contract",
    "touchpoint_columns",
    "work_off",
]
