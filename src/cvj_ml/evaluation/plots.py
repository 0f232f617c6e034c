"""Plots of an evaluation: each function returns a Figure, `save_figure` writes it with reproducible bytes.

Made with matplotlib's objects alone: no pyplot, no current figure, no window, and nobody's matplotlibrc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cvj_ml.errors import CvjError, DataError
from cvj_ml.evaluation.metrics import gain_points, reliability_bins, wilson_interval

# Okabe and Ito's colours, told apart with any colour vision; line styles carry the difference in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
_GREY = "#767676"

_STYLE: list[Any] = [
    "default",
    {
        "axes.axisbelow": True,
        "axes.edgecolor": "#999999",
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": "medium",
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "font.family": "DejaVu Sans",  # comes with matplotlib, so glyphs do not depend on the machine
        "grid.color": "#E4E4E4",
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "savefig.dpi": 150,
        "svg.hashsalt": "cvj_ml",
        "text.parse_math": False,  # a name with a dollar sign is a name, not a formula
        "xtick.color": "#444444",
        "ytick.color": "#444444",
    },
]
_FIXED = {".svg": {"Date": None, "Creator": "cvj_ml"}, ".png": {"Software": None}}
_styled = matplotlib.style.context(_STYLE)


@_styled
def reliability(y: npt.ArrayLike, p: npt.ArrayLike, title: str) -> Figure:
    """Plot observed against predicted shares in groups of equal size, with 95 % intervals (Wilson).

    y, p: (n,) as in `metrics`. Ten groups, fewer where that would leave under ten movers each. Below it, how the
    predictions are distributed.
    """
    groups = reliability_bins(y, p)
    converted = float(groups.observed @ groups.rows)
    if (rarer := min(converted, groups.rows.sum() - converted)) < 100:
        groups = reliability_bins(y, p, bins=max(2, int(rarer // 10)))
    probability = np.asarray(p, dtype=np.float64)
    low, high = wilson_interval(groups.observed * groups.rows, groups.rows)
    # Points decide where the axes end; an interval far beyond them runs out of the frame.
    farthest = max(float(np.max(groups.observed, initial=1e-4)), float(np.max(groups.predicted, initial=1e-4)))
    end = min(1.0, 1.08 * max(farthest, min(float(np.max(high, initial=0.0)), 2.5 * farthest)))
    figure = Figure(figsize=(5.6, 6.4))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    top.plot([0, end], [0, end], color=_GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
    top.vlines(groups.predicted, low, high, color=_COLOURS[0], linewidth=1.2, label="95% interval")
    top.plot(
        groups.predicted,
        groups.observed,
        color=_COLOURS[0],
        linewidth=0.8,
        marker="o",
        markersize=5,
        clip_on=False,
        label="observed",
    )
    top.set(ylabel="Share that moved", xlim=(0, end), ylim=(0, end))
    top.set_title(title, pad=24)
    top.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=3, borderaxespad=0, columnspacing=1.4)
    bottom.hist(np.clip(probability, 0, end), bins=40, range=(0, end), color=_COLOURS[5])
    beyond = int((probability > end).sum())
    note = f" ({beyond:,} above {end:.1%} in the last bar)" if beyond else ""
    bottom.set(xlabel=f"Predicted probability{note}", ylabel="Customers")
    bottom.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    bottom.yaxis.set_major_formatter("{x:,.0f}")
    bottom.grid(False, axis="x")
    _percent(top, "xy", end)
    figure.align_ylabels()
    return figure


@_styled
def gain_curve(y: npt.ArrayLike, predictions: Mapping[str, npt.ArrayLike], title: str) -> Figure:
    """Plot the share of movers found against the share of customers contacted, one line a named prediction.

    y: (n,); predictions: name to (n,) probabilities, at most six. Grey lines: random order and the best possible one.
    """
    if len(predictions) > len(_COLOURS):
        raise DataError(f"A gain curve shows at most {len(_COLOURS)} predictions, {len(predictions)} were given.")
    figure = Figure(figsize=(6.2, 5.2))
    axes = figure.subplots()
    best = gain_points(y, np.asarray(y, dtype=np.float64))
    axes.plot(*best, color=_GREY, linewidth=1, linestyle=":", label="best possible order")
    for (name, p), colour, line in zip(predictions.items(), _COLOURS, _LINES, strict=False):
        axes.plot(*gain_points(y, p), color=colour, linestyle=line, linewidth=1.8, label=name)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="random order")
    axes.set(
        title=title,
        xlabel="Share of customers contacted, highest probability first",
        ylabel="Share of all movers found",
        xlim=(0, 1),
        ylim=(0, 1.01),
    )
    axes.legend(loc="lower right")
    if np.isnan(best[1]).any():
        axes.text(0.5, 0.9, "Nobody moved: there is no gain to show.", ha="center")
    _percent(axes, "xy", 1.0)
    return figure


@_styled
def importance(names: Sequence[str], values: npt.ArrayLike, title: str, top: int = 25) -> Figure:
    """Plot the most important features as bars, each as its share of the total over all features.

    names: of all features; values: (len(names),) not negative, such as the gain of LightGBM's splits.
    """
    gain = np.asarray(values, dtype=np.float64)
    if gain.shape != (len(names),) or not (gain >= 0).all():
        raise DataError(
            f"Importance needs one value of at least 0 for each of the {len(names)} names; found the shape {gain.shape}"
            f" with {int((~(gain >= 0)).sum())} negative or missing value(s)."
        )
    order = sorted(range(len(names)), key=lambda i: (-gain[i], names[i]))[:top]
    share = gain[order] / (gain.sum() or 1.0)
    figure = Figure(figsize=(7.4, 1.3 + 0.24 * max(len(order), 3)))
    axes = figure.subplots()
    # Drawn by position: features with equal labels keep a bar each.
    axes.barh(np.arange(len(order)), share, color=_COLOURS[0], height=0.68)
    axes.set_yticks(np.arange(len(order)), [names[i] for i in order])
    axes.set_ylim(max(len(order), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    rest = f", the {len(order)} largest of {len(names)}" if len(order) < len(names) else ""
    axes.set(title=title, xlabel=f"Share of total importance{rest}")
    axes.set_xlim(0, 1.05 * float(np.max(share, initial=0.0)) or 1.0)
    _percent(axes, "x", axes.get_xlim()[1])
    return figure


@_styled
def hazard_calibration(
    expected: npt.ArrayLike, observed: npt.ArrayLike, intervals: Sequence[str], title: str
) -> Figure:
    """Plot observed over expected moves in each interval of the hazard, with 95 % intervals (Poisson, Byar).

    expected, observed: (intervals,) numbers of moves; intervals: their labels, such as ``7-14 d``. The scale is
    logarithmic, so twice too many and half too few look alike; without expected moves an interval has no point.
    """
    e, o = np.asarray(expected, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    if e.shape != (len(intervals),) or o.shape != e.shape or not ((e >= 0).all() and (o >= 0).all()):
        raise DataError(
            f"Expected and observed moves must be numbers of at least 0, one for each of the {len(intervals)}"
            f" intervals; found the shapes {e.shape} and {o.shape}."
        )
    low, high = _poisson_interval(o)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, low, high = (np.where(e > 0, conversions / e, np.nan) for conversions in (o, low, high))
    # Points decide where the axis ends, and intervals within 0.1 to 10; farther ones run out of the frame. A ratio
    # of 0 lies infinitely far down on this scale: it becomes an arrow at the edge.
    some = ratio > 0
    lowest, highest = float(np.min(ratio, initial=1.0, where=some)), float(np.max(ratio, initial=1.0, where=some))
    floor = min(0.5, lowest / 1.3, max(0.1, float(np.min(low, initial=1.0, where=some)) / 1.1))
    ceiling = max(2.0, highest * 1.3, min(10.0, float(np.max(high, initial=1.0, where=e > 0)) * 1.1))
    place = np.arange(len(intervals))
    figure = Figure(figsize=(max(5.6, 0.95 * len(intervals) + 1.6), 4.4))
    axes = figure.subplots()
    axes.axhline(1, color=_GREY, linewidth=1, linestyle="--")
    none = ratio == 0
    axes.vlines(place, np.maximum(low, floor), high, color=_COLOURS[0], linewidth=1.4)
    axes.plot(place[~none], ratio[~none], color=_COLOURS[0], marker="o", markersize=6, linestyle="none")
    if none.any():
        edge = np.full(int(none.sum()), floor)
        axes.plot(place[none], edge, color=_COLOURS[0], marker="v", markersize=8, linestyle="none", clip_on=False)
    axes.set_yscale("log")
    fine, coarse = (0.5, 0.67, 0.8, 1, 1.25, 1.5, 2), (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    ticks = [tick for tick in (fine if ceiling / floor < 5 else coarse) if floor <= tick <= ceiling]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set(
        title=title,
        ylabel="Observed / expected moves",
        xlabel="Interval after the snapshot, with observed / expected moves",
        xlim=(-0.5, len(intervals) - 0.5),
        ylim=(floor, ceiling),
    )
    axes.set_xticks(
        place, [f"{label}\n{_moves(seen)} / {_moves(due)}" for label, seen, due in zip(intervals, o, e, strict=True)]
    )
    axes.grid(False, axis="x")
    return figure


@_styled
def ageing(age_days: npt.ArrayLike, lost: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, title: str) -> Figure:
    """Plot the log loss that models of some age lost against refitted ones, with 95 % intervals over customers.

    age_days, lost, low, high: (n,) alike, one entry for each model and later fold.
    """
    age, loss, below, above = (np.asarray(values, dtype=np.float64) for values in (age_days, lost, low, high))
    # The constrained layout moves by a hair each time that this figure is drawn; its bytes would differ.
    figure = Figure(figsize=(6.2, 4.2))
    figure.set_layout_engine("none")
    axes = figure.subplots()
    axes.axhline(0, color=_GREY, linewidth=1, linestyle="--")
    # Models of the same age stand beside each other.
    place = age + np.array([0.02 * max(age, default=1.0) * int((age[:i] == age[i]).sum()) for i in range(len(age))])
    axes.vlines(place, below, above, color=_COLOURS[0], linewidth=1.4)
    axes.plot(place, loss, color=_COLOURS[0], marker="o", markersize=6, linestyle="none")
    axes.set(title=title, xlabel="Age of the model in days", ylabel="Log loss above the refitted model")
    axes.set_xticks(np.unique(age))
    axes.set_position((0.15, 0.13, 0.82, 0.79))
    return figure


@_styled
def level_and_ranking(rows: pd.DataFrame, title: str) -> Figure:
    """Plot a contender's observed/expected and AUC at each fold, with 95 % intervals over customers.

    rows: of `Assessment.decomposition` with the column ``fold``, one a fold, the oldest first.
    """
    figure = Figure(figsize=(6.2, 5.2))
    # As in `ageing`: the constrained layout moves by a hair each time that a figure is drawn.
    figure.set_layout_engine("none")
    level, ranking = figure.subplots(2, 1, sharex=True)
    place = np.arange(len(rows))
    for axes, name in ((level, "observed_expected"), (ranking, "auc")):
        axes.vlines(place, rows[f"{name}_low"], rows[f"{name}_high"], color=_COLOURS[0], linewidth=1.4)
        axes.plot(place, rows[name], color=_COLOURS[0], marker="o", markersize=6, linestyle="none")
        axes.grid(False, axis="x")
    level.axhline(1, color=_GREY, linewidth=1, linestyle="--")
    level.set(title=title, ylabel="Observed / expected moves")
    ranking.set(ylabel="AUC", xlabel="Fold", xlim=(-0.5, len(rows) - 0.5))
    ranking.set_xticks(place, rows["fold"])
    level.set_position((0.13, 0.53, 0.84, 0.4))
    ranking.set_position((0.13, 0.11, 0.84, 0.36))
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as ``.svg`` or ``.png``; the same figure gives the same bytes, without date or version."""
    kind = path.suffix.lower()
    if kind not in _FIXED:
        raise CvjError(f"A plot cannot be written as {path.name!r}; end the name with .svg or .png.")
    with matplotlib.style.context(_STYLE):
        figure.savefig(path, metadata=_FIXED[kind])


def _percent(axes: Axes, which: str, end: float) -> None:
    decimals = 0 if end > 0.1 else 1 if end > 0.01 else 2
    for name in which:
        (axes.xaxis if name == "x" else axes.yaxis).set_major_formatter(PercentFormatter(1.0, decimals=decimals))


def _moves(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 or number == round(number) else f"{number:.1f}"


def _poisson_interval(conversions: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return Byar's 95 % bounds of Poisson means."""
    z, above = 1.96, conversions + 1
    counted = np.maximum(conversions, 1.0)
    low = np.where(
        conversions > 0, counted * np.maximum(1 - 1 / (9 * counted) - z / (3 * np.sqrt(counted)), 0) ** 3, 0.0
    )
    return low, above * (1 - 1 / (9 * above) + z / (3 * np.sqrt(above))) ** 3
