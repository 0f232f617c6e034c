"""``cvj-ml backtest``: its options, and how a backtest reads on a screen and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvj_ml.cli.arguments import AdoptOut, ConfigFile, Json, Until, read
from cvj_ml.cli.output import Terminal, estimate, out, print_json, show, with_interval

if TYPE_CHECKING:
    import pandas as pd

    from cvj_ml.evaluation.mlflow_record import Evaluation

_SHOWN = 12
_TOGETHER = {
    "log_loss": "log loss",
    "level": "level",
    "ranking": "ranking",
    "auc": "AUC",
    "observed_expected": "obs/exp",
}
_WORDS = {"reach": "Reach of a later stage", "return": "Return"}


def backtest(
    config_file: ConfigFile,
    until: Until,
    folds: Annotated[
        int, typer.Option(min=1, help="At most so many instants; at each the model is fitted anew, in minutes.")
    ] = 3,
    spacing: Annotated[
        str | None, typer.Option(help="Time between two folds, such as 90d. Default: the longest horizon.")
    ] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Compare subgroups: first_channel, or attribute:country and the like. May be repeated."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where tables and plots go. Default: <out>/backtest/until=<date>.")
    ] = None,
    adopt_out: AdoptOut = False,
    as_json: Json = False,
) -> None:
    """Refit at past instants and evaluate by what came after, beside the baselines, with intervals over customers."""
    from cvj_ml.commands.backtest import run_backtest
    from cvj_ml.config.base import read_duration

    config, instant = read(config_file, until, adopt_out=adopt_out)
    apart = None if spacing is None else read_duration(spacing, "--spacing")
    done = run_backtest(config, instant, Terminal(), folds=folds, spacing=apart, segments=segment or (), folder=folder)
    if as_json:
        print_json({**_report_as_json(done.report), "folder": str(done.folder), "run_id": done.run_id})
        return
    _show_report(done.report)
    out.print(f"All rows and plots: {done.folder}", soft_wrap=True)


def _report_as_json(report: Evaluation) -> dict[str, Any]:
    """Return every table of a report by its name, and the folds."""
    return {"folds": list(report.folds), **{name: table.to_dict("records") for name, table in report.tables.items()}}


def _show_report(report: Evaluation) -> None:
    """Print what a person has to know of a backtest; everything else is in its files."""
    means, last = report.last("means"), report.folds[-1]
    if means.empty:
        out.print(f"Fold {last}: too few customers moved in every transition, so nothing can be judged.\n")
        return
    out.print(
        f"Last fold, {last}: fitted on what was visible before it, judged by what came after. In brackets stand 95 %"
        " intervals over customers.\n",
        soft_wrap=True,
    )
    for question, words in _WORDS.items():
        if len(here := means[means["question"] == question]):
            columns = ["days", "converted", "log loss", "best baseline", "model better by"]
            show(_losses(here), f"{words}: log loss, lower is better", columns)
    _show_outcomes(report.last("outcomes"))
    _show_diagnosis(report)
    _show_baselines(report)
    _show_calibration(report)
    _show_earlier(report)
    _show_over_folds(report)
    if "model_age" in report.tables:
        _show_age(report.tables["model_age"])
    if "subgroup_gaps" in report.tables:
        _show_gaps(report.last("subgroup_gaps"))


def _show_outcomes(found: pd.DataFrame) -> None:
    """Print how good churn and purchase are, and their rankings beside the rule of thumb by stage and recency."""
    from cvj_ml.evaluation.backtesting import MODEL
    from cvj_ml.evaluation.outcome_evaluation import LIFT_SHARES

    for outcome, here in found.groupby("outcome", sort=False):
        title = str(outcome).capitalize()
        losses = _losses(here.rename(columns={"outcome": "question"}))
        columns = ["days", "converted", "log loss", "best baseline", "model better by"]
        show(
            losses.rename(columns={"converted": "happened"}),
            f"{title}: log loss, lower is better",
            [name.replace("converted", "happened") for name in columns],
        )
        rows = []
        for days, table in here.groupby("horizon_days"):
            by_contender = {row["contender"]: row for row in table.to_dict("records")}
            model, thumb = by_contender[MODEL], by_contender["stage and recency"]
            row = {"days": days, "obs/exp": with_interval(model, "observed_expected", 2)}
            for share in LIFT_SHARES:
                name = f"{share * 100:g}"
                row[f"top {name} %"] = f"{model[f'lift_{name}']:.2f} ({thumb[f'lift_{name}']:.2f})"
            rows.append(row)
        show(_frame(rows), f"{title}: times as often among the likeliest (in brackets by stage and recency)")


def _losses(means: pd.DataFrame) -> pd.DataFrame:
    """Return the model's means beside the best baseline's."""
    from cvj_ml.evaluation.backtesting import MODEL

    rows = []
    for (question, days), here in means.groupby(["question", "horizon_days"]):
        model = here[here["contender"] == MODEL].iloc[0]
        best = here[here["contender"] != MODEL].sort_values("log_loss", kind="stable").iloc[0]
        rows.append(
            {
                "question": question,
                "days": days,
                "converted": model["converted"],
                "log loss": with_interval(model, "log_loss"),
                "best baseline": best["contender"],
                "model better by": with_interval(best, "log_loss_above_model"),
            }
        )
    return _frame(rows)


def _list_horizon(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the horizon nearest to 30 days, that of the lists."""
    nearest = min(table["horizon_days"].unique(), key=lambda days: (abs(days - 30), days))
    rows: pd.DataFrame = table[table["horizon_days"] == nearest]
    return rows


def _show_earlier(report: Evaluation) -> None:
    table = report.tables["means"]
    earlier = table[table["fold"] != report.folds[-1]]
    if earlier.empty:
        return
    shown = _concat([_losses(rows).assign(fold=fold) for fold, rows in _list_horizon(earlier).groupby("fold")])
    title = "Earlier folds (settings may be chosen on these, so they prove less)"
    show(shown, title, ["fold", "question", "days", "log loss", "model better by"])


def _show_diagnosis(report: Evaluation) -> None:
    for finding in _list_horizon(report.last("diagnosis"))["finding"]:
        out.print(finding, soft_wrap=True)
    out.print()


def _show_over_folds(report: Evaluation) -> None:
    """Print what all folds say together of the model and the best baseline, and each earlier fold in words."""
    from cvj_ml.evaluation.backtesting import MODEL

    if len(report.folds) < 2:
        return
    found = report.tables["diagnosis"]
    earlier = found[found["fold"] != report.folds[-1]]
    for finding in () if earlier.empty else _list_horizon(earlier)["finding"]:
        out.print(finding, soft_wrap=True)
    out.print()
    table = _list_horizon(report.tables["over_folds"])
    rows = []
    for (question, contender), here in table.groupby(["question", "contender"], sort=False):
        by_figure = here.set_index("figure")
        losses = by_figure.loc["log_loss"]
        row = {"question": question, "contender": contender, "won": f"{losses['won']} of {losses['folds']}"}
        row |= {name: _spread(by_figure.loc[figure]) for figure, name in _TOGETHER.items() if figure in by_figure.index}
        row["worst"] = f"{losses['worst']:.3f} ({losses['worst_fold']})"
        rows.append(row)
    rows.sort(key=lambda row: (row["question"], row["contender"] != MODEL))
    title = f"All {len(report.folds)} folds: mean ± standard error over folds; won and worst by log loss"
    show(_frame(rows), title, ["question", "contender", "won", *_TOGETHER.values(), "worst"])


def _spread(row: Any) -> str:
    error = row["standard_error"]
    return f"{row['mean']:.3f} ± {error:.3f}" if error == error else f"{row['mean']:.3f}"


def _show_baselines(report: Evaluation) -> None:
    wins = report.tables["baseline_wins"]
    cells = report.last("cells")
    evaluated = len(cells[["from", "to", "horizon_days"]].drop_duplicates())
    clear = wins[wins["beyond_chance"]]
    means = report.last("means")
    for row in means[means["log_loss_above_model"] < 0].to_dict("records"):
        surely = "beyond chance" if row["log_loss_above_model_high"] < 0 else "which may be chance"
        out.print(
            f"On average {row['contender']} does better than the model for {row['question']} within"
            f" {row['horizon_days']} days, {surely}.",
            soft_wrap=True,
        )
    places = len(wins[["from", "to", "horizon_days"]].drop_duplicates())
    if clear.empty:
        out.print(
            f"A baseline has the lower log loss in {places} of {evaluated} transitions and horizons, in none of them"
            " beyond chance (Holm's correction over all comparisons).\n",
            soft_wrap=True,
        )
        return
    title = f"A baseline does better than the model, beyond chance, in {len(clear)} comparison(s):"
    better = [estimate(-row["log_loss_above_model"], -row["high"], -row["low"]) for row in clear.to_dict("records")]
    named = clear.assign(better_by=better)
    show(named.head(_SHOWN), title, ["from", "to", "horizon_days", "contender", "better_by"])


def _show_calibration(report: Evaluation) -> None:
    table, failing = report.last("calibration"), report.tables["failing"]
    if table.empty:
        out.print("Calibration: in no transition 100 customers moved, so there is nothing to say about it.\n")
        return
    rows = [
        {
            "question": row["question"],
            "days": row["horizon_days"],
            "observed/expected": with_interval(row, "observed_expected", 2),
            "slope": with_interval(row, "calibration_slope", 2),
            "mean error": with_interval(row, "expected_calibration_error"),
        }
        for row in table.to_dict("records")
    ]
    show(_frame(rows), "Calibration, over transitions in which at least 100 customers moved")
    out.print(
        "Observed/expected above 1: more moved than predicted. Slope below 1: predictions too extreme. Both are 1 where"
        " the probabilities can be taken at their word.\n",
        soft_wrap=True,
    )
    if failing.empty:
        out.print("No transition's calibration fails: none differs from 1 after Holm's correction.\n", soft_wrap=True)
        return
    named = failing.assign(
        days=failing["horizon_days"],
        figure=failing["figure"].map({"observed_expected": "obs/exp", "calibration_slope": "slope"}),
        value=[estimate(row["estimate"], row["low"], row["high"], 2) for row in failing.to_dict("records")],
    ).sort_values("p_holm", kind="stable")
    title = f"Failing: {len(failing)} figure(s) differ from 1 after Holm's correction"
    show(named.head(_SHOWN), title, ["from", "to", "days", "figure", "value", "finding"])


def _show_age(table: pd.DataFrame) -> None:
    table = _list_horizon(table)
    shown = table.assign(
        days=table["horizon_days"], lost=[with_interval(row, "lost_by_age") for row in table.to_dict("records")]
    ).rename(columns={"log_loss": "older", "log_loss_refitted": "refitted"})
    columns = ["judged_at", "age_days", "question", "days", "older", "refitted", "lost"]
    show(shown, "Model age: log loss of an older model beside the one refitted at the fold", columns)


def _show_gaps(table: pd.DataFrame) -> None:
    flagged = table[table["calibration_differs"] | table["log_loss_differs"]]
    segments = ", ".join(dict.fromkeys(table["segment"])) or "the segments asked for"
    if flagged.empty:
        out.print(
            f"Subgroups ({segments}): {len(table):,} comparisons with the rest of the same transition and horizon, none"
            " differs after Holm's correction.\n",
            soft_wrap=True,
        )
        return
    both = flagged["calibration_differs"] & flagged["log_loss_differs"]
    shown = flagged.rename(columns={"horizon_days": "days", "observed_expected": "obs/exp"}).assign(
        rest=flagged["observed_expected_rest"],
        differs=both.map({True: "both", False: ""}).where(
            both, flagged["calibration_differs"].map({True: "calibration", False: "log loss"})
        ),
    )
    columns = ["value", "from", "to", "days", "obs/exp", "rest", "log_loss_gap", "differs"]
    title = f"Subgroups that differ from the rest: {len(flagged)} of {len(table):,} comparisons"
    show(shown.head(_SHOWN), title, columns)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)


def _concat(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(parts, ignore_index=True)
