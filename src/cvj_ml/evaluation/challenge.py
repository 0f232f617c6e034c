"""The comparison behind a verdict: the champion and the new recipe, both cut before the same matured window."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np

from cvj_ml.config import Config, format_duration
from cvj_ml.engines import Blocks
from cvj_ml.evaluation.backtest import MODEL, FoldResult, run_fold
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys
from cvj_ml.evaluation.folds import Fold
from cvj_ml.evaluation.verdict import CHALLENGER, CHAMPION, Verdict, decide, undecided
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel import build_panel
from cvj_ml.windows import follow_up, midnight, observed_whole, to_datetime


def challenge(
    config: Config,
    result: FoldResult,
    champion: Predictor,
    champion_cut: int,
    blocks: Blocks,
    unobserved: frozenset[str],
    arrival_delay: int,
    threads: int,
) -> Verdict:
    """Judge the champion beside the recipe that a fold has fitted, and apply the rule.

    A champion younger than the fold has seen outcomes of its window, so the window then begins at the champion's own
    cut, where the recipe is fitted anew; horizons that are not over yet drop out. Before the horizon of the lists is
    over nothing is decided.
    """
    if champion_cut > result.fold.cut:
        fold = Fold(_next_midnight(config, champion_cut), result.fold.until)
        horizon = config.default_list_horizon
        if not observed_whole(follow_up(fold.cut, fold.until, arrival_delay), horizon):
            ready = to_datetime(fold.cut + horizon + arrival_delay, config.zone).date() + timedelta(days=1)
            return undecided(
                False,
                f"Kept the champion: less than {format_duration(horizon)} have been observed since it was trained, so"
                f" there is nothing to compare on. Train again from {ready} on, or promote by hand.",
            )
        result = run_fold(config, blocks, unobserved, fold, arrival_delay, threads)
    fold = result.fold
    panel = build_panel(champion.definition, blocks, np.array([fold.cut], dtype=np.int64), fold.until, arrival_delay)
    if not np.array_equal(panel.customer, result.panel.customer):
        raise AssertionError("the same instant has other customers under another model")
    said = {CHAMPION: champion.predict(panel, threads), CHALLENGER: result.probabilities[MODEL]}
    return decide(replace(result.judged, probabilities=said), draw_keys(DRAWS, config.model.seed))


def _next_midnight(config: Config, instant: int) -> int:
    day = to_datetime(instant, config.zone).date()
    at = midnight(day, config.zone)
    return at if at == instant else midnight(day + timedelta(days=1), config.zone)
