"""Evaluating the posterior of the current stage, by customers whose truth is known and whose evidence is hidden.

``truth`` is (rows,) positions of stages; ``p`` (rows, stages) sums to one in each row. What is evaluated are customers
that the contenders were not fitted on.

What the posterior of the current stage is compared with: the observed stage, a table, an ordinal regression.

Each is fitted on customers as seen, whose true stage is known, and returns P(true stage) of others, (rows, stages):
nothing below the observed stage, each row summing to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import cohen_kappa_score, f1_score

from cvj_ml.engines import Blocks
from cvj_ml.models.stage.posterior import StageModel, low_stages
from cvj_ml.models.stage.posterior_fitting import LOW_EVIDENCE, fit_stages
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.stage_panel import BEFORE_ANY, Seen, StageRows, Tracking, stage_rows

_F64 = npt.NDArray[np.float64]

POSTERIOR = "posterior"
FLOOR, TABLE, ORDINAL = "observed stage", "table given the observed stage", "ordinal regression"

CLIP = 1e-4
"""Least probability of a stage before a logarithm is taken; rows are renormalised after it."""

_FOLDS = 3
_BINS = 10


def stage_log_loss(truth: npt.NDArray[np.integer], p: _F64) -> float:
    """Return the mean of -log P(true stage), probabilities clipped to [CLIP, 1] and renormalised."""
    clipped = np.clip(p, CLIP, 1.0)
    clipped = clipped / clipped.sum(axis=1, keepdims=True)
    return float(-np.log(clipped[np.arange(len(truth)), truth]).mean()) if len(truth) else math.nan


def ranked_probability_score(truth: npt.NDArray[np.integer], p: _F64) -> float:
    """Return the mean over rows of sum_j (P(stage <= j) - [true <= j])^2 / (stages - 1) (Epstein 1969); 0 is best."""
    stages = p.shape[1]
    happened = truth[:, None] <= np.arange(stages)[None, :]
    squares = (np.cumsum(p, axis=1) - happened) ** 2
    return float(squares[:, :-1].sum(axis=1).mean() / max(stages - 1, 1)) if len(truth) else math.nan


def calibration_error(truth: npt.NDArray[np.integer], p: _F64) -> float:
    """Return the expected calibration error of all stages' probabilities, in ten bins of equal width, by rows."""
    happened = (truth[:, None] == np.arange(p.shape[1])[None, :]).ravel().astype(np.float64)
    flat = p.ravel()
    if not len(flat):
        return math.nan
    which = np.minimum((flat * _BINS).astype(np.int64), _BINS - 1)
    gap = np.bincount(which, weights=flat - happened, minlength=_BINS)
    return float(np.abs(gap).sum() / len(truth))


def stage_metrics(truth: npt.NDArray[np.integer], p: _F64) -> dict[str, float]:
    """Return every metric of one contender; kappa is Cohen's with quadratic weights, of the most likely stage."""
    predicted, labels = p.argmax(axis=1), np.arange(p.shape[1])
    there = np.unique(truth)
    one = len(np.union1d(truth, predicted)) < 2
    return {
        "log_loss": stage_log_loss(truth, p),
        "accuracy": float((predicted == truth).mean()) if len(truth) else math.nan,
        "macro_f1": float(f1_score(truth, predicted, labels=there, average="macro", zero_division=0.0))
        if len(truth)
        else math.nan,
        "kappa": math.nan if one else float(cohen_kappa_score(truth, predicted, labels=labels, weights="quadratic")),
        "ranked_probability_score": ranked_probability_score(truth, p),
        "calibration_error": calibration_error(truth, p),
    }


def stage_mix(truth: npt.NDArray[np.integer], p: _F64) -> _F64:
    """Return the sum of probabilities over the true number of customers, for each stage; NaN where there is nobody."""
    number = np.bincount(truth, minlength=p.shape[1]).astype(np.float64)
    return np.asarray(p.sum(axis=0) / np.where(number > 0, number, np.nan))


@dataclass(frozen=True, slots=True)
class StageEvidence:
    """What held-out customers say: a row of metrics and one of the mix for each contender, and how many there were."""

    metrics: pd.DataFrame
    mix: pd.DataFrame
    customers: int


MOST_CONFLICTS = 0.05
"""Share of stage labels below what is observed from which a training warns."""


@dataclass(frozen=True, slots=True)
class FitOfStages:
    """The fitted posterior, how it did on customers it had not seen, and the mix if its coverage is wrong."""

    model: StageModel
    evidence: StageEvidence | None
    labels: int
    conflicts: int
    misstated: pd.DataFrame

    def warnings(self, names: Sequence[str]) -> list[str]:
        """Return what a person should know of this fit."""
        found = []
        if self.labels and self.conflicts > MOST_CONFLICTS * self.labels:
            found.append(
                f"{self.conflicts} of {self.labels} stage labels contradict what is observed (the customer has the"
                " evidence of a later stage, or lacks one that coverage calls always visible) and are left out; check"
                " stage_labels, coverage, and the journey's rules"
            )
        if self.model.tracking.labelled and self.model.source != "labels":
            found.append("no stage label can be used: none is known by now of a customer with a touchpoint before it")
        if self.model.tracking.complete_when is not None and self.model.source == "presence":
            found.append("nobody fulfils complete_when, so the true stage is known of nobody")
        if self.model.source == "presence":
            found.append(
                "the current stage rests on coverage alone, and nothing here can check it: declare complete_when or"
                " stage_labels if you know the true stage of some customers"
            )
        if weak := low_stages(self.model, names):
            found.append(
                f"fewer than {LOW_EVIDENCE} customers are known at {', '.join(weak)}, or below: who else is there"
                " rests on the observed stage and a few sums such as recency"
            )
        return found


def fit_and_evaluate(
    definition: ModelSpec, tracking: Tracking, blocks: Blocks, cut: int, seed: int, threads: int
) -> FitOfStages:
    """Fit the posterior on what was visible at the cut, evaluate its recipe by folds of customers, restate coverage."""
    rows = stage_rows(definition, tracking, blocks, cut, seed=seed)
    names = definition.journey.names
    model = fit_stages(rows, tracking, seed, threads)
    first = first_copies(rows.seen)
    mixes = [
        {"changed": "" if j < 0 else names[j], "coverage": coverage, **dict(zip(names, mix, strict=True))}
        for j, coverage, mix in mix_if_misstated(model, first)
    ]
    return FitOfStages(
        model,
        evaluate_stages(rows, tracking, names, seed=seed, threads=threads),
        rows.labels,
        rows.conflicts,
        pd.DataFrame(mixes),
    )


def evaluate_stages(
    rows: StageRows,
    tracking: Tracking,
    names: Sequence[str],
    *,
    seed: int,
    threads: int,
) -> StageEvidence | None:
    """Evaluate the posterior and its baselines by cross-validation over customers, each evaluated on its first copy.

    None where the truth is known of nobody (presence only), or of too few customers for folds.
    """
    customers = np.unique(rows.seen.customer)
    if rows.source == "presence" or len(customers) < 10 * _FOLDS:
        return None
    fold = np.random.default_rng(seed).permutation(len(customers)) % _FOLDS
    evaluated: list[Seen] = []
    found: dict[str, list[_F64]] = {}
    for k in range(_FOLDS):
        held = first_copies(rows.of(customers[fold == k]).seen)
        held = held.take(held.floor > BEFORE_ANY)
        evaluated.append(held)
        for name, predict in contenders(rows.of(customers[fold != k]), tracking, seed, threads).items():
            found.setdefault(name, []).append(predict(held))
    truth = np.concatenate([one.truth for one in evaluated]).astype(np.int64)
    probabilities = {name: np.concatenate(parts) for name, parts in found.items()}
    return StageEvidence(
        pd.DataFrame([{"contender": name, **stage_metrics(truth, p)} for name, p in probabilities.items()]),
        pd.DataFrame(
            [
                {"contender": name, **dict(zip(names, stage_mix(truth, p), strict=True))}
                for name, p in probabilities.items()
            ]
        ),
        len(truth),
    )


def contenders(rows: StageRows, tracking: Tracking, seed: int, threads: int) -> Mapping[str, Contender]:
    """Return the posterior and its three baselines, fitted on these rows."""
    stages = len(tracking.coverage)
    model = fit_stages(rows, tracking, seed, threads)
    seen = rows.seen.take(rows.seen.floor > BEFORE_ANY)
    return {
        POSTERIOR: lambda evaluated: model.posterior(evaluated.x, evaluated.floor, threads=threads),
        FLOOR: floor_with_error(seen, stages),
        TABLE: table_given_floor(seen, stages),
        ORDINAL: ordinal_regression(seen, stages, rows.columns),
    }


def first_copies(seen: Seen) -> Seen:
    """Return one row a customer, the first of its copies."""
    _, first = np.unique(seen.customer, return_index=True)
    return seen.take(first)


def mix_if_misstated(model: StageModel, seen: Seen, change: float = 0.1) -> Iterator[tuple[int, float, _F64]]:
    """Yield (stage, its coverage changed by -change and +change, expected customers by stage) for each hidden stage.

    The classifiers stay as they are, so this shows what the declared coverage does by itself: it cannot be learned
    from touchpoints. Coverage is kept within [0.01, 1]. First comes (-1, NaN, the mix as declared).
    """
    rows = seen.take(seen.floor > BEFORE_ANY)

    def mix(coverage: _F64) -> _F64:
        restated = replace(model, tracking=replace(model.tracking, coverage=coverage))
        return np.asarray(restated.posterior(rows.x, rows.floor).sum(axis=0))

    declared = model.tracking.coverage
    yield -1, math.nan, mix(declared)
    for j in model.tracking.incomplete:
        for shift in (-change, change):
            coverage = declared.copy()
            coverage[j] = min(max(coverage[j] + shift, 0.01), 1.0)
            yield int(j), float(coverage[j]), mix(coverage)


_CELL = 0.5  # added to each cell of the table
_PENALTY = 1.0  # of the ordinal regression's coefficients, on standardised inputs


def respect_floor(p: _F64, floor: npt.NDArray[np.integer]) -> _F64:
    """Return probabilities with nothing below the observed stage, renormalised; all on it where nothing is left."""
    stages = p.shape[1]
    kept = np.where(np.arange(stages)[None, :] >= floor[:, None], p, 0.0)
    kept[kept.sum(axis=1) <= 0] = np.eye(stages)[floor[kept.sum(axis=1) <= 0]]
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


Contender = Callable[[Seen], _F64]


def floor_with_error(seen: Seen, stages: int) -> Contender:
    """Return the observed stage with probability 1 - e, else e / (stages - 1); e is the hidden share of ``seen``."""
    error = float((seen.floor != seen.truth).mean()) if len(seen) else 0.0

    def predict(evaluated: Seen) -> _F64:
        p = np.full((len(evaluated), stages), error / max(stages - 1, 1))
        p[np.arange(len(evaluated)), evaluated.floor] = 1 - error
        return respect_floor(p, evaluated.floor)

    return predict


def table_given_floor(seen: Seen, stages: int) -> Contender:
    """Return P(true | observed) as counted in ``seen``, with 0.5 added to each cell; its mode is the majority stage."""
    cells = np.full((stages, stages), _CELL)
    np.add.at(cells, (seen.floor.astype(np.int64), seen.truth.astype(np.int64)), 1.0)
    return lambda evaluated: respect_floor(
        cells[evaluated.floor] / cells[evaluated.floor].sum(axis=1, keepdims=True), evaluated.floor
    )


def ordinal_regression(seen: Seen, stages: int, columns: npt.NDArray[np.int64]) -> Contender:
    """Return the proportional-odds model P(true <= k) = expit(theta_k - x beta) (McCullagh 1980).

    Inputs are the observed stage (one column each) and the logarithms of the named columns, standardised; a missing
    value is the column's mean. Fitted by maximum likelihood with a ridge penalty.
    """

    def inputs(rows: Seen) -> _F64:
        numbers = rows.x[:, columns].astype(np.float64)
        return np.hstack([np.eye(stages)[rows.floor][:, 1:], np.sign(numbers) * np.log1p(np.abs(numbers))])

    raw = inputs(seen)
    known = ~np.isnan(raw)
    mean = np.where(known, raw, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, raw - mean, 0.0)
    scale = np.sqrt((centred**2).mean(axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    x, truth = centred / scale, seen.truth.astype(np.int64)
    share = np.cumsum(np.bincount(truth, minlength=stages) + 0.5)
    start = np.log(share[:-1] / (share[-1] - share[:-1]))
    rows = np.arange(len(truth))

    def bounds(parameters: _F64, score: _F64) -> tuple[_F64, _F64]:
        """Return thresholds (increasing by construction) with infinity on both sides, and P(true <= k) there."""
        theta = np.concatenate([[parameters[0]], parameters[0] + np.cumsum(np.exp(parameters[1 : stages - 1]))])
        below = np.hstack([np.zeros((len(score), 1)), expit(theta - score[:, None]), np.ones((len(score), 1))])
        return theta, below

    def loss(parameters: _F64) -> tuple[float, _F64]:
        beta = parameters[stages - 1 :]
        _, below = bounds(parameters, x @ beta)
        p = np.maximum(below[rows, truth + 1] - below[rows, truth], 1e-12)
        slope = below * (1 - below)
        upper, lower = slope[rows, truth + 1] / p, slope[rows, truth] / p
        by_theta = np.zeros(stages - 1)
        np.add.at(by_theta, np.minimum(truth, stages - 2), np.where(truth < stages - 1, -upper, 0.0))
        np.add.at(by_theta, np.maximum(truth - 1, 0), np.where(truth > 0, lower, 0.0))
        steps = np.exp(parameters[1 : stages - 1])
        tail = np.cumsum(by_theta[::-1])[::-1]
        gradient = np.concatenate([[tail[0]], tail[1:] * steps, x.T @ (upper - lower) + _PENALTY * beta])
        return float(-np.log(p).sum() + _PENALTY / 2 * beta @ beta), gradient

    first = np.concatenate([[start[0]], np.log(np.maximum(np.diff(start), 1e-3)), np.zeros(x.shape[1])])
    fitted = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x

    def predict(evaluated: Seen) -> _F64:
        numbers = inputs(evaluated)
        standard = np.where(np.isnan(numbers), 0.0, (numbers - mean) / scale)
        _, below = bounds(fitted, standard @ fitted[stages - 1 :])
        return respect_floor(np.diff(below, axis=1), evaluated.floor)

    return predict
