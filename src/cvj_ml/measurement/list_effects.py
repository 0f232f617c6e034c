"""Effects of the lists' contacts, learned from EXPERIMENTS: a model a list, and whether it may rank the list.

Whether it may is decided on past epochs: where a list has several, all but its last one decide, and what the last one
says is reported once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.evaluation.metrics import Z95, Interval
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
from cvj_ml.models.uplift.propensity import OverlapError, estimate_propensity, inside, trim

FEWEST_OUTCOMES = 50
"""Outcomes that an experiment needs before anything is learned of it, and as many rows without one."""

MOST_GROUPS = 10
ROWS_A_GROUP = 500
"""Rows that each group of customers by predicted effect has at least, so that its interval says something."""

_LEAST_SHARE, _MOST_SHARE = 0.1, 0.5

_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LearnableList:
    """One list whose past nights may teach; ``share`` is what it took of its eligible customers.

    ``published`` is as of `ListEffect`; where ``contrary``, the list shows 1 minus that.
    """

    name: str
    outcome: str
    published: Mapping[str, str]
    contrary: bool
    share: float


@dataclass(frozen=True, slots=True)
class LearnedEffect:
    """A list's effect, decided on past epochs, and what the last epoch says (None: it is the only one, or small)."""

    effect: ListEffect
    last: EffectVerdict | None


def learn_list_effects(
    lists: Sequence[LearnableList],
    rows: pd.DataFrame,
    x: npt.NDArray[np.float32],
    keys: npt.NDArray[np.uint64],
    seed: int,
    threads: int,
    min_customers: int,
) -> tuple[tuple[LearnedEffect, ...], Mapping[str, str], tuple[str, ...]]:
    """Return what a contact changes on each list; of the others why nothing was learned, by name; and warnings.

    rows: of EXPERIMENTS; x: their features, (rows, features); keys: of the bootstrap's draws.
    """
    found: list[tuple[LearnableList, Experiment, OutOfFold, pd.DataFrame]] = []
    silent: dict[str, str] = {}
    warnings: list[str] = []
    for one in lists:
        here = (rows["list"] == one.name).to_numpy()
        experiment, table, told_of = _experiment(one, rows[here], x[here], seed, threads)
        warnings += [f"{one.name}: {text}" for text in told_of]
        if reason := _too_few(experiment):
            silent[one.name] = reason
            continue
        told = out_of_fold_effects(experiment, seed, threads, min_customers=min_customers)
        found.append((one, experiment, told, table))
    past: list[RankingEvidence] = []
    last: list[RankingEvidence] = []
    for one, experiment, told, table in found:
        # Nights alone have published a probability to compare with.
        nights = table["probability"].notna().to_numpy()
        epoch = table["epoch"].to_numpy()
        newest = nights & (epoch == table.loc[nights, "epoch"].iloc[-1]) if nights.any() else nights
        several = _too_few(experiment.take(nights & ~newest)) is None
        if nights.any():
            past.append(_evidence(one, experiment, told, table, nights & ~newest if several else nights))
        if several and _too_few(experiment.take(newest)) is None:
            last.append(_evidence(one, experiment, told, table, newest))
    decided, reported = (
        dict(zip([one.name for one in several], verdicts(several, keys), strict=True)) for several in (past, last)
    )
    learned = []
    for one, experiment, told, table in found:
        verdict = decided[one.name] if one.name in decided else _undecided(one.name, told, experiment)
        model = fit_effect_model(experiment, seed, threads, min_customers=min_customers)
        shown = told.above_average + model.average
        effect = ListEffect(
            one.name,
            one.outcome,
            one.published,
            model,
            # Where everybody gains alike there is one group, whatever the folds saw.
            effect_groups(shown[:, 0] * bool(model.weight[0]), told.pseudo_outcomes[:, 0], experiment.customer),
            _support(table),
            verdict.ranks,
            verdict.sentence,
            verdict.average,
            verdict.gain,
            verdict.contacts_needed,
        )
        learned.append(LearnedEffect(effect, reported.get(one.name)))
    return tuple(learned), silent, tuple(warnings)


def _support(table: pd.DataFrame) -> float:
    """Return the probability that all but the lowest 1 % of the listed had; 0 where no night has published one."""
    published = table["probability"].dropna().to_numpy(dtype=np.float64)
    return float(np.quantile(published, 0.01)) if len(published) else 0.0


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
    return EffectGroups(edges, mean, mean - Z95 * error, mean + Z95 * error)


def _experiment(
    one: LearnableList, rows: pd.DataFrame, x: npt.NDArray[np.float32], seed: int, threads: int
) -> tuple[Experiment, pd.DataFrame, tuple[str, ...]]:
    """Return an experiment, its rows, and what is to be known of those of a targeted log.

    Where no propensity is told it is estimated, and rows without overlap are left out; all of the log is where the
    contacted cannot be compared with anybody.
    """
    treated, listed = (rows[name].to_numpy(dtype=np.float64) for name in ("propensity", "probability"))
    found = Experiment(
        with_probability(x, 1 - listed if one.contrary else listed),
        rows["treated"].to_numpy(dtype=np.int64),
        rows["outcome"].to_numpy(dtype=np.float64),
        np.column_stack([1 - treated, treated]),
        pd.factorize(rows["person"])[0].astype(np.int64),
    )
    if not (targeted := np.isnan(treated)).any():
        return found, rows, ()
    log, drawn = found.take(targeted), (found.take(~targeted), rows[~targeted])
    size = f"{int(targeted.sum()):,} row(s) of a targeted log"
    if reason := _too_few(log):
        return *drawn, (f"{size} are not used: {reason}.",)
    propensity = found.propensity.copy()
    propensity[targeted] = estimate_propensity(log.features, log.arm, log.customer, seed, threads)
    try:
        trimmed, report = trim(replace(log, propensity=propensity[targeted]))
    except OverlapError as error:
        return *drawn, (f"{size} are not used. {error}",)
    kept = ~targeted | inside(propensity)
    if int((kept & targeted).sum()) != len(trimmed):
        raise AssertionError("trimming took other rows than those outside")
    used = f"{len(trimmed):,} of {size} are used."
    return replace(found, propensity=propensity).take(kept), rows[kept], (used, *report.warnings)


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


def _undecided(name: str, told: OutOfFold, experiment: Experiment) -> EffectVerdict:
    """Return the verdict on a list of which no night has published a probability: there is nothing to compare with."""
    mean = float(told.pseudo_outcomes.mean())
    error = float(clustered_error(told.pseudo_outcomes, experiment.customer)[0])
    average = Interval(mean, mean - Z95 * error, mean + Z95 * error)
    sentence = (
        f"{name}: ranked by probability. Experiments tell the effect of a contact, {mean:+.4f} on average"
        f" ({average.low:+.4f} to {average.high:+.4f}); what choosing by it gains, no published night tells yet."
    )
    return EffectVerdict(False, sentence, Interval(np.nan, np.nan, np.nan), 1.0, average, None)


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
