"""Whom a contact moves: the package's effect model beside what its field uses, fitted in the same run.

    python -m benchmarks.uplift hillstrom starbucks --half choice
    python -m benchmarks.uplift hillstrom starbucks --half test
    python -m benchmarks.uplift complete_journey simulator fallback

Contenders: S- and T-learner of the package; econml's DRLearner and CausalForestDML with LightGBM of the same settings
as nuisances (propensities are the arms' shares); the response, P(outcome) of all rows. They are fitted on one half of
the customers and ranked on the other. Choices were made on halves of the half that teaches (`--half choice`); openings
of the half that tests are rows of ``openings.csv``. Intervals are the middle 95 % of 1,000 draws of customers, and
those of a difference pair two rankings on the same customers.

Each part replaces its sections of ``results/uplift.md``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from econml.dml import CausalForestDML
from econml.dr import DRLearner
from joblib import Parallel, delayed
from lightgbm import LGBMRegressor
from scipy.stats import spearmanr
from sklearn.dummy import DummyClassifier

from benchmarks.records import ROOT, SIMULATED, commit, machine, record_opening, today, write_section
from benchmarks.uplift_data import Halves, complete_journey, hillstrom, starbucks
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys
from cvj_ml.evaluation.metrics import Interval, markdown_table
from cvj_ml.evaluation.uplift_metrics import (
    TOP_SHARES,
    contrast,
    effect_calibration,
    ranking_difference,
    ranking_metrics,
)
from cvj_ml.evaluation.uplift_verdict import EffectVerdict, RankingEvidence, verdicts
from cvj_ml.models.uplift.arm_outcomes import fit_s_learner, fit_t_learner
from cvj_ml.models.uplift.effect_model import Experiment, fit_effect_model, out_of_fold_effects, pseudo_outcomes
from cvj_ml.models.uplift.propensity import HIGHEST, LOWEST, OverlapError, estimate_propensity, overlap, trim
from cvj_ml.simulate.trial import Effects, SimulatedTrial, simulate_trial

_F64 = npt.NDArray[np.float64]

RESULTS = ROOT / "benchmarks" / "results" / "uplift.md"
TITLE = "# Whom a contact moves\n\nWritten by `python -m benchmarks.uplift`.\n"
MODEL, RESPONSE, DR, FOREST = "model", "response", "econml DRLearner", "econml CausalForestDML"
SEED, KEYS = 1, draw_keys(DRAWS, 20240229)
CAPACITY = 0.3
SEEDS = 100
TRIALS = (1, 2, 3, 4, 5)


def contenders(taught: Experiment, tested: Experiment, *, forest: bool = True) -> dict[str, _F64]:
    """Return what each contender, fitted on some customers, says of others: (rows, arms); higher is contacted first."""
    arms = taught.arms + 1
    fits = (taught.features, taught.arm, taught.outcome, arms, SEED, 1)
    found = {
        MODEL: fit_effect_model(taught, SEED, 1).predict(tested.features),
        "S-learner": fit_s_learner(*fits).effects(tested.features),
        "T-learner": fit_t_learner(*fits).effects(tested.features),
    }
    # econml's forest takes no missing values.
    known, asked = (np.nan_to_num(one.features, nan=-1.0) for one in (taught, tested))
    learners = {
        DR: DRLearner(
            model_propensity=DummyClassifier(strategy="prior"),
            model_regression=_trees(len(taught), 8),
            model_final=_trees(len(taught), 4),
            cv=5,
            random_state=SEED,
        )
    }
    if forest:
        learners[FOREST] = CausalForestDML(
            model_y=_trees(len(taught), 8),
            model_t=DummyClassifier(strategy="prior"),
            discrete_treatment=True,
            cv=5,
            n_estimators=200,
            min_samples_leaf=50,
            n_jobs=1,
            random_state=SEED,
        )
    for name, learner in learners.items():
        learner.fit(taught.outcome, taught.arm, X=known)
        found[name] = np.column_stack([learner.effect(asked, T0=0, T1=arm).ravel() for arm in range(1, arms)])
    pooled = fit_s_learner(taught.features, np.zeros_like(taught.arm), taught.outcome, 1, SEED, 1)
    found[RESPONSE] = np.repeat(pooled.predict(tested.features), arms - 1, axis=1)
    return found


def _trees(rows: int, leaves: int) -> LGBMRegressor:
    """Return trees with the settings of the package's nuisances."""
    return LGBMRegressor(
        num_leaves=leaves,
        min_child_samples=min(max(rows // 50, 50), 500),
        learning_rate=0.05,
        n_estimators=60,
        reg_lambda=10.0,
        colsample_bytree=0.8,
        random_state=SEED,
        n_jobs=1,
        verbosity=-1,
    )


def measured(name: str, half: str, halves: Halves) -> Iterator[tuple[str, str]]:
    """Yield a section for each arm of an experiment, and its figures in short."""
    taught, tested = halves.taught, halves.tested
    told = contenders(taught, tested)
    scores = _scores(taught, tested)
    for arm, arm_name in enumerate(halves.arms):
        rows = contrast(tested, arm + 1)
        own = told[MODEL][:, arm]
        table, short = [], []
        for contender, effects in told.items():
            found = ranking_metrics(rows, effects[:, arm], KEYS)
            row: dict[str, str | float | None] = {
                "contender": contender,
                "qini": _in(found.qini, 1e3),
                "auuc": _in(found.auuc, 1e3),
            }
            row |= {f"at {share:.0%}": _in(at, 100) for share, at in zip(TOP_SHARES, found.uplift, strict=True)}
            if contender != MODEL:
                above = ranking_difference(rows, own, effects[:, arm], KEYS)
                row["above"] = f"{_in(above.metrics.qini, 1e3)}, p = {above.p_qini:.3f}"
                row["above at 30 %"] = f"{_in(above.metrics.uplift[2], 100)}, p = {above.p_uplift[2]:.3f}"
            table.append(row)
            short.append(f"{contender} qini {found.qini.estimate:.5f} uplift@30% {found.uplift[2].estimate:.4f}")
        verdict = _verdict(tested, scores[:, arm], own, told[RESPONSE][:, arm], arm)
        headings = {
            "contender": "contender",
            "qini": "Qini, thousandths",
            "auuc": "AUUC, thousandths",
            **{f"at {share:.0%}": f"uplift at {share:.0%}, points" for share in TOP_SHARES},
            "above": "the model's Qini above it",
            "above at 30 %": "the model's uplift at 30 % above it",
        }
        filled = [{key: row.get(key, "-") for key in headings} for row in table]
        text = (
            f"## {name}, {arm_name} against none ({half})\n\n{len(taught):,} rows of"
            f" {len(np.unique(taught.customer)):,} customers teach, {len(tested):,} rows of"
            f" {len(np.unique(tested.customer)):,} evaluate. {_by()}\n\n{markdown_table(filled, headings)}\n"
            f"{_deciles(scores[:, arm], own, tested)}\nAt a capacity of {CAPACITY:.0%}, beside the response:"
            f" {verdict.sentence}\n"
        )
        yield text, f"{arm_name}: {'; '.join(short)}"


def _scores(taught: Experiment, tested: Experiment) -> _F64:
    """Return doubly robust scores of rows by nuisances of other customers."""
    model = fit_s_learner(taught.features, taught.arm, taught.outcome, taught.arms + 1, SEED, 1)
    return pseudo_outcomes(tested, model.predict(tested.features))


def _verdict(tested: Experiment, scores: _F64, effects: _F64, probability: _F64, arm: int) -> EffectVerdict:
    contacts, k = int((tested.arm == arm + 1).sum()), round(CAPACITY * len(tested))
    return verdicts([RankingEvidence("The list", scores, effects, probability, tested.customer, contacts, k)], KEYS)[0]


def _deciles(scores: _F64, effects: _F64, tested: Experiment) -> str:
    rows = [
        {
            "decile": str(k + 1),
            "rows": one.rows,
            "predicted": f"{100 * one.predicted:+.2f}",
            "observed": _in(one.observed, 100),
        }
        for k, one in enumerate(effect_calibration(scores, effects, tested.customer, KEYS))
    ]
    headings = {
        "decile": "tenth by effect",
        "rows": "rows",
        "predicted": "predicted, points",
        "observed": "observed, points",
    }
    return (
        f"The model's effects by tenth, lowest first; equal effects stay together:\n\n{markdown_table(rows, headings)}"
    )


def targeted() -> str:
    """Return what Complete Journey's targeted campaigns allow to say: how far those sent one and others are alike."""
    features, arm, outcome, customer = complete_journey()
    propensity = estimate_propensity(features, arm, customer, SEED, 1)
    experiment = Experiment(features, arm, outcome, propensity, customer)
    found = overlap(experiment)
    lines = [
        f"{len(arm):,} rows (household and campaign of type A), {found.rows[1]:,} of which were sent one.",
        f"Outside {LOWEST:g} to {HIGHEST:g}: {found.outside:.1%}. The weights are worth {found.effective[0]:,.0f} rows"
        f" of control and {found.effective[1]:,.0f} of those sent one.",
        f"Largest standardised difference of a feature: {np.nanmax(found.before):.2f} before weighting,"
        f" {np.nanmax(found.after):.2f} after.",
        *found.warnings,
    ]
    try:
        inside, _ = trim(experiment)
        left = overlap(inside)
        lines.append(
            f"Trimmed: {len(inside):,} rows are left; of these the largest difference after weighting is"
            f" {np.nanmax(left.after):.2f}. Nothing is said of an effect."
        )
    except OverlapError as error:
        lines.append(f"Refused: {error}")
    listed = "\n".join(f"- {line}" for line in lines)
    return f"## complete_journey (simulated by its publisher), a targeted log\n\n{_by()}\n\n{listed}\n"


def known_effects() -> str:
    """Return how near effects are to the truth, how often intervals of tenths hold it, and what a policy is worth."""
    rows = []
    for size in (10_000, 50_000):
        for arms in (1, 2):
            drawn = Parallel(n_jobs=2)(delayed(_against_the_truth)(size, arms, seed) for seed in TRIALS)
            for contender in drawn[0]:
                rmse, rank, policy = np.concatenate([one[contender] for one in drawn], axis=1)
                rows.append(
                    {
                        "rows": size,
                        "arms": arms,
                        "contender": contender,
                        "rmse": float(rmse.mean()) if contender != RESPONSE else None,
                        "rank": float(np.nanmean(rank)),
                        "policy": float(policy.mean()),
                        "least": float(policy.min()),
                    }
                )
    inside, bins = 0, 0
    for seed in range(20):
        trial = simulate_trial(10_000, 1000 + seed)
        out = out_of_fold_effects(_experiment(trial), seed, 1)
        # Edges between tenths are taken as they are, so what is asked for is the mean true effect of the same rows.
        told_bins = effect_calibration(out.pseudo_outcomes[:, 0], out.effects[:, 0], trial.customer, KEYS)
        truth = effect_calibration(trial.effect[:, 0], out.effects[:, 0], trial.customer, KEYS[:2])
        for one, true in zip(told_bins, truth, strict=True):
            bins += 1
            inside += one.observed.low <= true.observed.estimate <= one.observed.high
    headings = {
        "rows": "rows that teach",
        "arms": "arms",
        "contender": "contender",
        "rmse": "root of squared error, points",
        "rank": "rank correlation",
        "policy": f"value of the top {CAPACITY:.0%}, share of the best possible",
        "least": "the least of it",
    }
    return (
        f"## simulator, effects that are known\n\n`simulate_trial`, effects of 5 points on average with a spread of 4;"
        f" judged on 50,000 other rows; means over {len(TRIALS)} trials and over arms, each against control. {_by()}"
        f"\n\n{markdown_table(rows, headings)}\nThe 95 % interval of a tenth's mean doubly robust score holds the"
        f" tenth's true mean effect in {inside:,} of {bins:,} tenths ({inside / bins:.1%}; 20 seeds of 10,000 rows, out"
        " of fold).\n"
    )


def _against_the_truth(size: int, arms: int, seed: int) -> dict[str, _F64]:
    """Return of each contender the error (points), the rank correlation and the share of the best policy, by arm."""
    taught, asked = simulate_trial(size, seed, arms=arms), simulate_trial(50_000, 1000 + seed, arms=arms)
    told = contenders(_experiment(taught), _experiment(asked), forest=False)
    truth, found = asked.effect, {}
    for contender, effects in told.items():
        columns = range(arms)
        error = 100 * np.sqrt(((effects - truth) ** 2).mean(axis=0))
        # Equal effects rank nobody.
        rank = [spearmanr(effects[:, k], truth[:, k]).statistic if np.ptp(effects[:, k]) else 0.0 for k in columns]
        policy = [_top_mean(truth[:, k], effects[:, k]) / _top_mean(truth[:, k], truth[:, k]) for k in columns]
        found[contender] = np.array([error, rank, policy])
    return found


def _top_mean(effect: _F64, score: _F64) -> float:
    return float(effect[np.argsort(-score, kind="stable")[: round(CAPACITY * len(score))]].mean())


def fallback(seeds: int) -> str:
    """Return how often a list stays ranked by probability, and the CPU seconds that the answer takes."""
    rows = []
    kinds: Mapping[Effects, str] = {
        "none": "no effect at all",
        "alike": "everybody gains 5 points",
        "differ": "effects differ, 5 points on average, spread 4",
    }
    for effects, words in kinds.items():
        asked = range(seeds if effects != "differ" else seeds // 5)
        answers = Parallel(n_jobs=2)(delayed(_answer)(effects, seed) for seed in asked)
        found, spent = [one for one, _ in answers], [seconds for _, seconds in answers]
        rows.append(
            {
                "truth": words,
                "seeds": len(found),
                "by probability": sum(not one.ranks for one in found),
                "alike": sum("gains alike" in one.sentence for one in found),
                "none": sum("No effect" in one.sentence for one in found),
                "seconds": float(np.median(spent)),
                "most": max(spent),
            }
        )
    headings = {
        "truth": "truth",
        "seeds": "seeds",
        "by probability": "ranked by probability",
        "alike": "of them: everybody gains alike",
        "none": "of them: no effect is shown",
        "seconds": "CPU seconds a seed, median",
        "most": "at most",
    }
    return (
        f"## fallback, 10,000 customers\n\nCapacity {CAPACITY:.0%}, half in control, one-sided 5 %, one list. {_by()}"
        f"\n\n{markdown_table(rows, headings, digits=2)}"
    )


def _answer(effects: Effects, seed: int) -> tuple[EffectVerdict, float]:
    """Return the verdict on a trial, and the CPU seconds from its rows to the verdict."""
    trial = simulate_trial(10_000, seed, effects)
    started = time.process_time()
    out = out_of_fold_effects(_experiment(trial), seed, 1)
    scores, effect = out.pseudo_outcomes[:, 0], out.above_average[:, 0]
    verdict = _verdict(_experiment(trial), scores, effect, trial.probability, 0)
    return verdict, time.process_time() - started


def _experiment(trial: SimulatedTrial) -> Experiment:
    return Experiment(trial.features, trial.arm, trial.outcome, trial.propensity, trial.customer)


def _in(found: Interval, times: float) -> str:
    return f"{times * found.estimate:+.2f} [{times * found.low:+.2f}, {times * found.high:+.2f}]"


def _by() -> str:
    return f"{today()}, commit {commit()}, {machine()}."


def experiments(part: str, half: str) -> Iterator[tuple[str, Halves]]:
    """Yield the experiments of a data set by name."""
    if part == "starbucks":
        yield (
            f"starbucks ({'simulated by its publisher' if part in SIMULATED else 'real'}), transactions",
            starbucks(half),
        )
        return
    for outcome in ("visit", "conversion"):
        for arms in ("all", "two"):
            yield f"hillstrom, {outcome}s", hillstrom(outcome, arms, half)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure some parts and write their sections."""
    parts = ("hillstrom", "starbucks", "complete_journey", "simulator", "fallback")
    parser = argparse.ArgumentParser(description="Measure effects of contacts.")
    parser.add_argument("parts", nargs="+", choices=parts)
    parser.add_argument("--half", choices=("choice", "test"), default="choice", help="of Hillstrom and Starbucks")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the fallback")
    chosen = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module="sklearn|econml")
    for part in chosen.parts:
        started = time.process_time()
        if part in ("hillstrom", "starbucks"):
            for name, halves in experiments(part, chosen.half):
                for text, short in measured(name, chosen.half, halves):
                    if chosen.half == "test":
                        record_opening(f"uplift {part}", f"{name}, {short}")
                    print(text, flush=True)
                    write_section(RESULTS, TITLE, text)
        else:
            text = {
                "complete_journey": targeted,
                "simulator": known_effects,
                "fallback": lambda: fallback(chosen.seeds),
            }[part]()
            print(text, flush=True)
            write_section(RESULTS, TITLE, text)
        print(f"{part}: {time.process_time() - started:.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
