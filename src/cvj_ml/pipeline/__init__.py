"""Each command's story, in one short function."""

from cvj_ml.pipeline.auditing import Audited, audit, model_to_audit
from cvj_ml.pipeline.backtesting import Backtested, backtest, backtest_fold, run_backtest
from cvj_ml.pipeline.champions import Champion, champion, verify_version
from cvj_ml.pipeline.checking import Checked, check
from cvj_ml.pipeline.forgetting import Forgotten, forget
from cvj_ml.pipeline.measuring import Measured, measure
from cvj_ml.pipeline.nightly import nightly
from cvj_ml.pipeline.nights import Night, config_digest, publish_night, show_night
from cvj_ml.pipeline.opening import (
    Histories,
    Progress,
    Silent,
    Watcher,
    as_of_name,
    open_histories,
    require_customers,
    require_same,
)
from cvj_ml.pipeline.scores import Scored, score
from cvj_ml.pipeline.sparing import listed_in_control
from cvj_ml.pipeline.training import Promote, Trained, judge_challenger, train, training_panel, true_stages

__all__ = [
    "Audited",
    "Backtested",
    "Champion",
    "Checked",
    "Forgotten",
    "Histories",
    "Measured",
    "Night",
    "Progress",
    "Promote",
    "Scored",
    "Silent",
    "Trained",
    "Watcher",
    "as_of_name",
    "audit",
    "backtest",
    "backtest_fold",
    "champion",
    "check",
    "config_digest",
    "forget",
    "judge_challenger",
    "listed_in_control",
    "measure",
    "model_to_audit",
    "nightly",
    "open_histories",
    "publish_night",
    "require_customers",
    "require_same",
    "run_backtest",
    "score",
    "show_night",
    "train",
    "training_panel",
    "true_stages",
    "verify_version",
]
