"""Every real data set's last matured fold under its own configuration, the model beside the baselines.

    make results    (python -m benchmarks.results)

Writes ``benchmarks/results/<data set>.md`` (means) and ``.csv`` (every transition, horizon and contender). One fold
tells of one season: `benchmarks.rolling` ranks models.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd

from benchmarks.records import (
    ROOT,
    SIMULATED,
    STORES,
    commit,
    config_file,
    machine,
    record_opening,
    require_data,
    today,
)
from cvj_ml import engines
from cvj_ml.commands.backtest import backtest
from cvj_ml.config import load_config
from cvj_ml.evaluation.assessment import Assessment, assess
from cvj_ml.evaluation.backtesting import MODEL, FoldResult, summary
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.inputs import as_of_name, open_histories
from cvj_ml.windows import parse_as_of

UNTIL = {
    "online_retail": "2011-12-09",
    "cdnow": "1998-07-01",
    "complete_journey": "2018-01-01",
    "starbucks": "2018-08-31",
    "stackexchange_martialarts": "2023-12-02",
}
"""The last midnight by which everything in a data set has been recorded: where observation ends."""

HOLDS_TEST_OUTCOMES = ("online_retail", "cdnow")
"""Their last fold shares outcomes with the test instants of protocols A and B, so it is recorded as an opening."""

FOLDER = ROOT / "benchmarks" / "results"

_CALIBRATION = {
    "observed / expected": "observed_expected",
    "slope": "calibration_slope",
    "mean error": "expected_calibration_error",
}
_QUESTIONS = {"reach": "reach a later stage", "return": "return"}

Row = dict[str, str | float | None]


class Progress:
    """Tells on stderr which step runs."""

    def say(self, message: str) -> None:
        """Show a line."""
        print(message, file=sys.stderr)

    @contextmanager
    def step(self, title: str) -> Iterator[engines.Progress]:
        """Show a step at its start."""
        self.say(f"  {title}")
        yield lambda done, of: None


def main() -> None:
    """Measure every data set and write its files."""
    measured_by = f"{today()}, commit {commit()}, {machine()}"
    for name in UNTIL:
        require_data(name)
        print(name, file=sys.stderr)
        record(name, measure(name), measured_by)


def measure(name: str) -> FoldResult:
    """Backtest a data set's own configuration at its last matured fold."""
    config = load_config(config_file(name)).model_copy(update={"out": str(STORES / name)})
    histories = open_histories(config, Progress())
    (result,) = backtest(histories, parse_as_of(UNTIL[name], config.zone), 1)
    return result


def record(name: str, result: FoldResult, measured_by: str) -> None:
    """Write a data set's files."""
    means = summary(comparable(result.rows))
    fold = as_of_name(load_config(config_file(name)), result.fold.cut)
    if name in HOLDS_TEST_OUTCOMES:
        shown = [f"{row['target']} {row['horizon_days']}d {row['log_loss']:.4f}" for row in of_model(means)]
        record_opening(f"results {name}", f"fold {fold}: model's log loss: {'; '.join(shown)}")
    FOLDER.mkdir(exist_ok=True)
    result.rows.to_csv(FOLDER / f"{name}.csv", index=False, lineterminator="\n", float_format="%.6g")
    title = f"{name} (simulated)" if name in SIMULATED else name
    columns = {column: column.replace("_", " ") for column in means.columns}
    (FOLDER / f"{name}.md").write_text(
        f"# {title}\n\nTrained on what was visible before {fold}, {len(result.panel):,} customers judged by what came"
        f" after. Means over the transitions that every contender was judged on, weighted by customers; each"
        f" transition is in `{name}.csv`.\n\n{markdown_table(as_rows(means), columns)}\n"
        f"{calibration_text(assess(result.evaluated, draw_keys(DRAWS, 1)))}\nMeasured {measured_by}.\n",
        encoding="utf-8",
    )


def calibration_text(found: Assessment) -> str:
    """Return the calibration pooled by horizon, and the transitions that fail, as Markdown."""
    if not len(found.calibration):
        return "## Calibration\n\nNowhere did 100 customers move: nothing can be said of it.\n"
    rows: list[Row] = [
        {
            "question": _QUESTIONS[str(row["question"])],
            "days": row["horizon_days"],
            "transitions": row["transitions"],
            "converted": row["converted"],
            **{heading: with_interval(row, figure) for heading, figure in _CALIBRATION.items()},
        }
        for row in as_rows(found.calibration)
    ]
    text = (
        "## Calibration\n\nOf the transitions in which at least 100 customers moved, pooled; 95 % intervals over"
        f" customers.\n\n{markdown_table(rows, {name: name for name in rows[0]})}\n"
    )
    if not len(found.failing):
        return f"{text}No transition differs from 1 after Holm's correction.\n"
    failing: list[Row] = [
        {
            "transition": f"{row['from']} to {row['to']}",
            "days": row["horizon_days"],
            "figure": str(row["figure"]).replace("_", " "),
            "value": with_interval({**row, "": row["estimate"], "_low": row["low"], "_high": row["high"]}, ""),
            "finding": row["finding"],
        }
        for row in as_rows(found.failing)
    ]
    return (
        f"{text}These differ from 1 after Holm's correction:\n\n"
        f"{markdown_table(failing, {name: name for name in failing[0]})}\n"
    )


def with_interval(row: Row, figure: str) -> str:
    """Return a figure with its interval."""
    value, low, high = (float(row[f"{figure}{bound}"] or 0.0) for bound in ("", "_low", "_high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of transitions and horizons on which every contender was judged."""
    cell = rows.groupby(["from", "to", "horizon_days"])["log_loss"]
    return rows[cell.transform("count") == cell.transform("size")]


def of_model(means: pd.DataFrame) -> list[Row]:
    """Return the model's own rows."""
    return as_rows(means[means["contender"] == MODEL])


def as_rows(frame: pd.DataFrame) -> list[Row]:
    """Return a table row by row."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


if __name__ == "__main__":
    main()
