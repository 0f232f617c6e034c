"""Plots show the numbers they were given, and are written with the same bytes each time."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cvj_ml.errors import CvjError, DataError
from cvj_ml.evaluation import plots
from cvj_ml.evaluation.metrics import gain_points, reliability_bins

RANDOM = np.random.default_rng(1)
P = 1 / (1 + np.exp(-RANDOM.normal(-1, 1, 2000)))
Y = RANDOM.random(2000) < P
INTERVALS = ["0-7 d", "7-14 d", "14-30 d"]

FIGURES: dict[str, Callable[[], Figure]] = {
    "reliability": lambda: plots.reliability(Y, P, "Convert to Ascend"),
    "gain": lambda: plots.gain_curve(Y, {"model": P, "stage": np.round(P, 1)}, "Convert to Ascend"),
    "importance": lambda: plots.importance(["visits", "price ($) in $"], [3.0, 1.0], "Gain"),
    "ageing": lambda: plots.ageing(
        [90, 180, 90], [0.005, 0.003, -0.004], [0.001, -0.001, -0.006], [0.009, 0.006, 0], "Age"
    ),
    "hazard": lambda: plots.hazard_calibration([10, 20, 4.5], [12, 15, 0], INTERVALS, "Hazard"),
}


@pytest.mark.parametrize("kind", ["svg", "png"])
@pytest.mark.parametrize("name", FIGURES)
def test_bytes_are_reproducible_and_hold_no_clock_or_version(name: str, kind: str, tmp_path: Path) -> None:
    figure = FIGURES[name]()
    written = []
    for i, again in enumerate((figure, figure, FIGURES[name]())):
        path = tmp_path / f"{i}.{kind}"
        with matplotlib.rc_context({"lines.linewidth": 5 + i, "svg.hashsalt": str(i), "savefig.dpi": 50 + i}):
            plots.save_figure(again, path)
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]
    assert b"dc:date" not in written[0] and matplotlib.__version__.encode() not in written[0]


def test_a_users_style_does_not_leak_in_nor_out(tmp_path: Path) -> None:
    plots.save_figure(FIGURES["gain"](), tmp_path / "plain.svg")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 20, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        plots.save_figure(FIGURES["gain"](), tmp_path / "styled.svg")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "styled.svg").read_bytes()


def test_pyplot_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # any import of it now fails
    importlib.reload(plots)
    for name, make in FIGURES.items():
        plots.save_figure(make(), tmp_path / f"{name}.png")


def test_reliability_draws_its_bins_and_names_its_axes() -> None:
    top, bottom = plots.reliability(Y, P, "Title").axes
    points = next(line for line in top.get_lines() if line.get_label() == "observed")
    groups = reliability_bins(Y, P)
    np.testing.assert_array_equal(points.get_xdata(), groups.predicted)
    np.testing.assert_array_equal(points.get_ydata(), groups.observed)
    assert top.get_title(loc="left") == "Title"
    assert top.get_ylabel() == "Share that moved"
    assert bottom.get_xlabel().startswith("Predicted probability")
    assert sum(bar.get_height() for bar in bottom.patches if isinstance(bar, Rectangle)) == len(P)


def test_reliability_uses_fewer_groups_for_rare_moves() -> None:
    rare = np.arange(2000) % 60 == 0  # 34 movers
    top = plots.reliability(rare, P, "").axes[0]
    points = next(line for line in top.get_lines() if line.get_label() == "observed")
    assert np.shape(points.get_xydata()) == (3, 2)


def test_gain_curve_draws_each_prediction() -> None:
    axes = plots.gain_curve(Y, {"model": P, "constant": np.full(2000, 0.5)}, "").axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"best possible order", "model", "constant", "random order"}
    np.testing.assert_array_equal(np.asarray(lines["model"].get_xydata()).T, gain_points(Y, P))
    np.testing.assert_array_equal(lines["constant"].get_xydata(), [[0, 0], [1, 1]])


def test_importance_sorts_cuts_and_normalises() -> None:
    axes = plots.importance(["b", "a", "c", "d"], [2, 2, 5, 1], "", top=3).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "a", "b"]
    assert [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)] == pytest.approx([0.5, 0.2, 0.2])
    assert axes.get_xlabel() == "Share of total importance, the 3 largest of 4"
    low, high = axes.get_ylim()
    assert low > high  # the largest on top


def test_names_are_text_and_never_formulas(tmp_path: Path) -> None:
    odd = r"paid $\frac{ in $"  # as mathtext this cannot be parsed
    plots.save_figure(plots.importance([odd], [1.0], odd), tmp_path / "a.png")
    plots.save_figure(plots.gain_curve(Y, {odd: P}, odd), tmp_path / "b.png")


def test_hazard_calibration_draws_ratios_and_leaves_out_the_unexpected() -> None:
    axes = plots.hazard_calibration([10, 0, 20, 5], [5, 0, 30, 0], [*INTERVALS, "30-60 d"], "").axes[0]
    points = next(line for line in axes.get_lines() if line.get_marker() == "o")
    np.testing.assert_array_equal(points.get_xydata(), [[0, 0.5], [1, np.nan], [2, 1.5]])
    arrows = next(line for line in axes.get_lines() if line.get_marker() == "v")
    np.testing.assert_array_equal(arrows.get_xdata(), [3])
    assert [label.get_text() for label in axes.get_xticklabels()][2] == "14-30 d\n30 / 20"


def test_edge_cases_are_drawn_without_a_warning(tmp_path: Path) -> None:
    figures = [
        plots.reliability([0, 0, 0], [0.0, 0.0, 0.0], "nobody"),
        plots.reliability([1], [1.0], "one"),
        plots.reliability([], [], "empty"),
        plots.gain_curve([0, 0], {"model": [0.1, 0.2]}, "nobody"),
        plots.importance([], [], "empty"),
        plots.importance(["a"], [0.0], "zero"),
        plots.hazard_calibration([0, 0, 0], [0, 0, 0], INTERVALS, "nothing"),
        plots.hazard_calibration([1e-9], [4], ["0-7 d"], "far off"),
    ]
    for figure in figures:
        plots.save_figure(figure, tmp_path / "edge.png")


def test_bad_input_is_refused_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 6 predictions, 7 were given"):
        plots.gain_curve([0, 1], {str(i): [0.1, 0.2] for i in range(7)}, "")
    with pytest.raises(DataError, match=r"each of the 1 names; found the shape \(2,\) with 1 negative"):
        plots.importance(["a"], [1, -1], "")
    with pytest.raises(DataError, match="one for each of the 3 intervals"):
        plots.hazard_calibration([1], [1], INTERVALS, "")
    with pytest.raises(CvjError, match=r"end the name with \.svg or \.png"):
        plots.save_figure(FIGURES["hazard"](), tmp_path / "figure.pdf")


def test_models_of_the_same_age_do_not_hide_each_other() -> None:
    (axes,) = FIGURES["ageing"]().axes
    points = axes.lines[-1]
    assert np.asarray(points.get_ydata()).tolist() == [0.005, 0.003, -0.004]
    assert len(set(np.asarray(points.get_xdata()).tolist())) == 3
    assert not plots.ageing([], [], [], [], "nothing").axes[0].lines[-1].get_xydata().size
