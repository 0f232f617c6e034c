"""How much the trees may learn: what each data set's held-out customers decided, and whether it paid later.

    python -m benchmarks.capacity [--max-rows 200000] [--only cdnow starbucks]

Writes ``benchmarks/results/capacity.md``. The decision is `choose`, made on what was visible at the cut of a
development fold (`benchmarks.recipes`); the fold's outcomes then judge it against the default trees.
"""

from __future__ import annotations

import argparse
import sys
import time

from joblib import cpu_count

from benchmarks.recipes import DRAWS, UNTIL, prepare
from benchmarks.records import ROOT, commit, machine, today
from cvj_ml.evaluation.backtesting import evaluated
from cvj_ml.evaluation.bootstrap import draw_keys
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.evaluation.promotion import CHALLENGER, CHAMPION, decide
from cvj_ml.models.hazard.fitting import Settings
from cvj_ml.models.hazard.tree_size import DEFAULT, EARLY_STOPPED, ERRORS, LARGE, Choice
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach

FILE = ROOT / "benchmarks" / "results" / "capacity.md"
NAMES = {EARLY_STOPPED: "half the rounds", LARGE: "large"}


def words(settings: Settings) -> str:
    """Return settings in words."""
    return f"{settings.rounds} {'extremely randomised ' if settings.extra else ''}trees of {settings.leaves} leaves"


def measure(name: str, max_rows: int, seed: int, threads: int) -> dict[str, str | float | None]:
    """Return one data set's row: the comparisons, what was chosen, its effect on the fold, and what choosing cost."""
    setting = prepare(name, max_rows, seed, threads)
    began = time.process_time()
    fit = fit_reach(setting.history, seed, threads)
    chosen = time.process_time() - began
    began = time.process_time()
    again = fit_reach(setting.history, seed, threads, given=fit.choice)
    given = time.process_time() - began
    said = {
        CHAMPION: setting.fit(settings=DEFAULT),
        CHALLENGER: Predictor(setting.history.definition, again.trees, again.calibration).predict(
            setting.test, threads
        ),
    }
    effect = decide(evaluated(setting.test, said), draw_keys(DRAWS, seed)).difference
    return {
        "data": name.replace("_", " "),
        **{
            NAMES[one.settings]: f"{1000 * one.difference:+.2f} ({1000 * one.error:.2f})"
            for one in fit.choice.comparisons
            if one.settings in NAMES
        },
        "chosen": words(fit.choice.settings),
        "effect": "the default trees"
        if fit.choice == Choice(DEFAULT)
        else f"{1000 * effect.estimate:+.2f} [{1000 * effect.low:+.2f}, {1000 * effect.high:+.2f}]",
        "cost": f"{chosen:.0f} / {given:.0f}",
    }


def main() -> None:
    """Decide and judge on every data set, and write the table."""
    parser = argparse.ArgumentParser(description="What held-out customers decide about the capacity of the trees.")
    parser.add_argument("--max-rows", type=int, default=200_000, help="the row budget of each fit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=cpu_count(), help="no figure but the cost depends on it")
    parser.add_argument("--only", nargs="+", choices=sorted(UNTIL), default=list(UNTIL), metavar="DATA")
    asked = parser.parse_args()
    rows = []
    for name in asked.only:
        print(name, file=sys.stderr, flush=True)
        rows.append(measure(name, asked.max_rows, asked.seed, asked.threads))
    headings = {
        "data": "data set",
        **{name: f"{name} (standard error)" for name in NAMES.values()},
        "chosen": "chosen",
        "effect": "log loss on the fold [95 %]",
        "cost": "CPU s of the fit, choosing / given",
    }
    FILE.write_text(
        "# How much the trees may learn\n\nLog loss minus that of the default trees, in thousandths: below 0 is"
        " better. First on customers held out, on later days where the history has some (what decides, at"
        f" {ERRORS:g} standard errors); last on the development fold, which the decision has not seen. At most"
        f" {asked.max_rows:,} hazard rows, seed {asked.seed}.\n\n{markdown_table(rows, headings)}\n"
        f"Written by `python -m benchmarks.capacity` ({today()}, commit {commit()}, {machine()}).\n",
        encoding="utf-8",
    )
    print(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
