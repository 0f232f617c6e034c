"""Each command's story, in one short function."""

from cvj_ml.commands.audit import Audited, audit
from cvj_ml.commands.backtest import backtest, backtest_fold, run_backtest
from cvj_ml.commands.check import Checked, check
from cvj_ml.commands.compare import compare_versions
from cvj_ml.commands.forget import Forgotten, forget
from cvj_ml.commands.measure import Measured, measure
from cvj_ml.commands.monitor import monitor
from cvj_ml.commands.nightly import nightly
from cvj_ml.commands.one_night import Night
from cvj_ml.commands.report import show_night, write_worksheet
from cvj_ml.commands.train import Promote, train, training_panel
from cvj_ml.engines import Progress
from cvj_ml.inputs import Histories, as_of_name, open_histories, require_customers
from cvj_ml.night.champion import champion, verify_version
from cvj_ml.night.reading import listed_in_control
from cvj_ml.night.scores import Scored, score
from cvj_ml.run import Silent, Watcher

__all__ = [
    "Audited",
    "Checked",
    "Forgotten",
    "Histories",
    "Measured",
    "Night",
    "Progress",
    "Promote",
    "Scored",
    "Silent",
    "Watcher",
    "as_of_name",
    "audit",
    "backtest",
    "backtest_fold",
    "champion",
    "check",
    "compare_versions",
    "forget",
    "listed_in_control",
    "measure",
    "monitor",
    "nightly",
    "open_histories",
    "require_customers",
    "run_backtest",
    "score",
    "show_night",
    "train",
    "training_panel",
    "verify_version",
    "write_worksheet",
]
