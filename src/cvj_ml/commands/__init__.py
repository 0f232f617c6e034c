"""Each command's story, in one short function."""

from cvj_ml.commands.audit import Audited, audit, model_to_audit
from cvj_ml.commands.backtest import Backtested, backtest, backtest_fold, run_backtest
from cvj_ml.commands.check import Checked, check
from cvj_ml.commands.compare import ComparedVersions, compare_versions
from cvj_ml.commands.forget import Forgotten, forget
from cvj_ml.commands.measure import Measured, measure
from cvj_ml.commands.monitor import Monitored, monitor
from cvj_ml.commands.nightly import nightly
from cvj_ml.commands.one_night import Night, config_digest
from cvj_ml.commands.report import show_night, write_worksheet
from cvj_ml.commands.train import Promote, Trained, evaluate_challenger, train, training_panel, true_stages
from cvj_ml.engines import Progress
from cvj_ml.inputs import Histories, as_of_name, open_histories, require_customers, require_same
from cvj_ml.night.champion import Champion, champion, verify_version
from cvj_ml.night.reading import listed_in_control
from cvj_ml.night.scores import Scored, score
from cvj_ml.run import Silent, Watcher

__all__ = [
    "Audited",
    "Backtested",
    "Champion",
    "Checked",
    "ComparedVersions",
    "Forgotten",
    "Histories",
    "Measured",
    "Monitored",
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
    "compare_versions",
    "config_digest",
    "evaluate_challenger",
    "forget",
    "listed_in_control",
    "measure",
    "model_to_audit",
    "monitor",
    "nightly",
    "open_histories",
    "require_customers",
    "require_same",
    "run_backtest",
    "score",
    "show_night",
    "train",
    "training_panel",
    "true_stages",
    "verify_version",
    "write_worksheet",
]
