"""Effects of the lists' contacts, learned from EXPERIMENTS: a model a list, and whether it may rank the list.

Whether it may is decided on past epochs: where a list has several, all but its last one decide, and what the last one
says is reported once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.evaluation.uplift_verdict import EffectVerdict, RankingEvidence, verdicts
from cvj_ml.models.uplift.effect_model import (
    FEWEST_ROWS,
    Experiment,
    OutOfFold,
    clustered_error,
    fit_effect_model,
    out_of_fold_effects,
)
from cvj_ml.models.uplift.list_effect import EffectGroups, ListEffect, with_probability

FEWEST_OUTCOMES = 50
"""Outcomes that an experiment needs before anything is learned of it, and as many rows without one."""

MOST_GROUPS = 10
ROWS_A_GROUP = 500
"""Rows that each group of customers by predicted effect has at least, so that its interval says something."""

_Z = 1.959963984540054
_LEAST_SHARE, _MOST_SHARE = 0.1, 0.5

_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LearnableList:
    """One list whose past nights may teach; ``share`` is what it took of its eligible customers."""

    name: str
    stages: tuple[str, ...]
    outcome: str
    probability: str
    share: float


@dataclass(frozen=True, slots=True)
class LearnedEffect:
    """A list's effect, with the verdict on past epochs, and what the last epoch says (None: there is only one)."""

    effect: ListEffect
    verdict: EffectVerdict
    last: EffectVerdict | None


def learn_list_effects(
    lists: Sequence[LearnableList],
    rows: pd.DataFrame,
    x: npt.NDArray[np.float32],
    keys: npt.NDArray[np.uint64],
    seed: int,
    threads: int,
    min_customers: int,
) -> tuple[tuple[LearnedEffect, ...], Mapping[str, str]]:
    """Return what a contact changes on each list, and of the others why nothing was learned, by name.

    rows: of EXPERIMENTS; x: their features, (rows, features); keys: of the bootstrap's draws.
    """
    found: list[tuple[LearnableList, Experiment, OutOfFold, pd.DataFrame]] = []
    silent: dict[str, str] = {}
    for one in lists:
        here = (rows["list"] == one.name).to_numpy()
        experiment = _experiment(rows[here], x[here])
        if reason := _too_few(experiment):
            silent[one.name] = reason
            continue
        told = out_of_fold_effects(experiment, seed, threads, min_customers=min_customers)
        found.append((one, experiment, told, rows[here]))
    past, last = [], []
    for one, experiment, told, table in found:
        newest = table["epoch"].to_numpy() == table["epoch"].iloc[int(np.argmax(table["as_of"].to_numpy()))]
        several = not newest.all() and _too_few(experiment.take(~newest)) is None
        deciding = ~newest if several else np.ones(len(table), dtype=np.bool_)
        past.append(_evidence(one, experiment, told, table, deciding))
        last.append(_evidence(one, experiment, told, table, newest) if several else None)
    decided = verdicts(past, keys)
    reported = iter(verdicts([one for one in last if one is not None], keys))
    learned = []
    for (one, experiment, told, table), verdict, unseen in zip(found, decided, last, strict=True):
        model = fit_effect_model(experiment, seed, threads, min_customers=min_customers)
        shown = told.above_average + model.average
        effect = ListEffect(
            one.name,
            one.stages,
            one.outcome,
            one.probability,
            model,
            effect_groups(shown[:, 0], told.pseudo_outcomes[:, 0], experiment.customer),
            float(np.quantile(table["probability"].to_numpy(dtype=np.float64), 0.01)),
            verdict.ranks,
            verdict.sentence,
            (verdict.average.estimate, verdict.average.low, verdict.average.high),
            (verdict.gain.estimate, verdict.gain.low, verdict.gain.high),
            verdict.contacts_needed,
        )
        learned.append(LearnedEffect(effect, verdict, next(reported) if unseen is not None else None))
    return tuple(learned), silent


def effect_groups(effects: _F64, scores: _F64, customer: npt.NDArray[np.int64]) -> EffectGroups:
    """Return groups of equal size by predicted effect, with the mean of the doubly robust scores in each.

    effects, scores and customer: (rows,). Equal effects stay in one group; where all are equal there is one.
    """
    count = max(1, min(MOST_GROUPS, len(effects) // ROWS_A_GROUP))
    edges = np.unique(np.quantile(effects, np.arange(1, count) / count))
    edges = edges[edges > effects.min()]
    group = np.searchsorted(edges, effects, side="right")
    mean, error = np.zeros((2, len(edges) + 1))
    for k in range(len(edges) + 1):
        mine = group == k
        mean[k] = scores[mine].mean()
        error[k] = clustered_error(scores[mine, None], customer[mine])[0]
    return EffectGroups(edges, mean, mean - _Z * error, mean + _Z * error)


def _experiment(rows: pd.DataFrame, x: npt.NDArray[np.float32]) -> Experiment:
    share = rows["propensity"].to_numpy(dtype=np.float64)
    return Experiment(
        with_probability(x, rows["probability"].to_numpy(dtype=np.float64)),
        rows["treated"].to_numpy(dtype=np.int64),
        rows["outcome"].to_numpy(dtype=np.float64),
        np.column_stack([1 - share, share]),
        pd.factorize(rows["person"])[0].astype(np.int64),
    )


def _too_few(experiment: Experiment) -> str | None:
    """Return why an experiment is too small to learn from, None where it is not."""
    control, treated = np.bincount(experiment.arm, minlength=2)[:2].tolist()
    happened = int(experiment.outcome.sum())
    if min(control, treated) < FEWEST_ROWS:
        return (
            f"{treated:,} contacted and {control:,} in control were followed to the end of their horizon, and at least"
            f" {FEWEST_ROWS} of each are needed"
        )
    if min(happened, len(experiment) - happened) < FEWEST_OUTCOMES:
        return (
            f"of {len(experiment):,} followed to the end {happened:,} did what a contact is for, and at least"
            f" {FEWEST_OUTCOMES} have to, and as many not"
        )
    return None


def _evidence(
    one: LearnableList, experiment: Experiment, told: OutOfFold, table: pd.DataFrame, rows: npt.NDArray[np.bool_]
) -> RankingEvidence:
    """Return what some rows say; the top is as large a share of them as the list was of its eligible customers."""
    share = min(max(one.share, _LEAST_SHARE), _MOST_SHARE)
    return RankingEvidence(
        one.name,
        told.pseudo_outcomes[rows, 0],
        told.above_average[rows, 0],
        table["probability"].to_numpy(dtype=np.float64)[rows],
        experiment.customer[rows],
        int(experiment.arm[rows].sum()),
        max(1, round(share * int(rows.sum()))),
    )
