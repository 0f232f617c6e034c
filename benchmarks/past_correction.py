"""What it would cost to correct probabilities by the track record beside them, on rolling development instants.

    python -m benchmarks.past_correction        # about 8 CPU minutes; writes results/past_correction.md

At each instant a model is fitted, as on a night, and one at the fold before, whose track record is known by then. The
correction is the smallest monotone one that puts each probability into the record's interval (or nearer to it), learned
from that record alone; it is judged by what became of the customers after the instant. `docs/decisions/0039` draws the
conclusion.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from joblib import cpu_count

from benchmarks.records import SIMULATED, STORES, commit, config_file, machine, require_data, today
from benchmarks.rolling import ROWS, every
from cvj_ml.config import DAY, Config, load_config
from cvj_ml.engines import LocalEngine
from cvj_ml.evaluation.backtesting import MODEL, Evaluated, FoldResult, build_panels
from cvj_ml.evaluation.folds import Fold, last_matured, unteachable
from cvj_ml.evaluation.metrics import log_loss_terms, wilson_interval
from cvj_ml.evaluation.past_scores import track_record
from cvj_ml.journey import observability
from cvj_ml.models.bundle.track_record import PastScores, TrackRecord
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.run import Run
from cvj_ml.simulate import simulate
from cvj_ml.store import ingest
from cvj_ml.windows import midnight, to_datetime

RESULTS = Path(__file__).parent / "results" / "past_correction.md"
SETS: Mapping[str, tuple[tuple[date, ...], date, tuple[int, ...]]] = {
    "online_retail": (every(84, date(2010, 11, 30), date(2011, 6, 7)), date(2011, 9, 6), (30, 90)),
    "complete_journey": (every(28, date(2017, 6, 7), date(2017, 9, 1)), date(2017, 10, 3), (14, 30)),
}
"""Development instants of a data set, the day by which outcomes end, and its horizons in days."""

CUSTOMERS, SEED, INSTANTS, APART = 5000, 11, 2, 90 * DAY
"""Of the simulated business, and how far apart its instants stand."""

Z = {"95 %": 1.96, "90 %": 1.645, "80 %": 1.28}
"""The intervals into which probabilities are moved, and their half-widths in standard errors."""

LEFT = 0.1
"""Which share of a change is not made, so that the order of customers stays."""

WITHIN, TOP, FEWEST, DRAWS = 0.1, 100, 10, 200
_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Instant:
    """What a model said of everybody at an instant, what became of them, and the record that was known by then."""

    record: TrackRecord
    found: Evaluated


@dataclass(frozen=True, slots=True)
class Question:
    """The customers of one transition and horizon: said, converted, who they are, and their past scores."""

    said: _F64
    converted: npt.NDArray[np.bool_]
    customer: npt.NDArray[np.int64]
    past: PastScores
    next_stage: bool


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    lines = [
        "| data | instants | into the interval of | log loss, thousandths, mean (each instant) | rows changed |"
        " lists with fewer than 90 of the first 100 inside: before, after |"
        " first 100 of all lists: said, corrected, moved |",
        "| --- | ---: | --- | --- | ---: | --- | --- |",
    ]
    for name in ("demo", *SETS):
        with tempfile.TemporaryDirectory() as folder:
            found = list(demo(Path(folder)) if name == "demo" else of_data(name))
        told = f"{name} (simulated)" if name in ("demo", *SIMULATED) else name
        for interval, z in Z.items():
            lines.append(f"| {told} | {len(found)} | {interval} | {judged(found, z)} |")
            print(lines[-1], flush=True)
    head = f"`python -m benchmarks.past_correction`, {today()}, commit {commit()}, {machine()}."
    text = (
        "\n\nThe change of log loss has the standard error of 200 bootstrap draws of customers; positive is worse."
        " Rows are changed where they move by half a point or more. Lists lead to the next stage.\n"
    )
    RESULTS.write_text(f"# A correction by past scores\n\n{head}{text}\n" + "\n".join(lines) + "\n", encoding="utf-8")


def demo(folder: Path) -> Iterator[Instant]:
    """Yield the instants of a simulated business."""
    business = simulate(customers=CUSTOMERS, seed=SEED)
    business.write(folder)
    document = yaml.safe_load(files("cvj_ml").joinpath("demo.yaml").read_text(encoding="utf-8"))
    (folder / "demo.yaml").write_text(yaml.safe_dump(document | {"horizons": ["30d", "90d"]}), encoding="utf-8")
    config = load_config(folder / "demo.yaml").model_copy(update={"out": str(folder / "out")})
    run = opened(config)
    until = midnight(business.start, config.zone) + business.days * DAY
    last = last_matured(run, until).cut
    days = [to_datetime(last - k * APART, config.zone).date() for k in reversed(range(INSTANTS))]
    yield from judged_instants(run, days, until)


def of_data(name: str) -> Iterator[Instant]:
    """Yield the development instants of a data set."""
    require_data(name)
    days, until, horizons = SETS[name]
    update = {"out": str(STORES / name), "horizons": tuple(one * DAY for one in horizons)}
    config = load_config(config_file(name)).model_copy(update=update)
    yield from judged_instants(opened(config), days, midnight(until, config.zone))


def opened(config: Config) -> Run:
    """Read the sources and return the run."""
    store = ingest(config)
    journey = observability(config, store.events, store.property_kinds).journey
    return Run(config, journey, LocalEngine(store, 1), store.arrival_delay, cpu_count())


def judged_instants(run: Run, days: Sequence[date], until: int) -> Iterator[Instant]:
    """Yield each instant whose fold before it can be taught."""
    for day in days:
        cut = midnight(day, run.config.zone)
        before = last_matured(run, cut)
        if not unteachable(run, before.cut):
            yield Instant(track_record(run, fitted(run, before)), fitted(run, Fold(cut, until)).evaluated)


def fitted(run: Run, fold: Fold) -> FoldResult:
    """Fit at a fold and score its customers."""
    panels = build_panels(run, fold, max_rows=ROWS)
    fit = fit_reach(panels.history, run.seed, run.threads)
    predictor = Predictor(panels.history.definition, fit.trees, fit.calibration)
    return FoldResult(fold, fit, panels.test, {MODEL: predictor.predict(panels.test, run.threads)}, pd.DataFrame())


def judged(found: Sequence[Instant], z: float) -> str:
    """Return the cells of a row of the table."""
    random, changes, moved, lists = np.random.default_rng(0), [], [], []
    for one in found:
        asked = list(questions(one))
        corrected = [np.interp(each.said, *knots(each.past, z)) for each in asked]
        worse = [
            log_loss_terms(each.converted, p) - log_loss_terms(each.converted, each.said)
            for each, p in zip(asked, corrected, strict=True)
        ]
        _, whose = np.unique(np.concatenate([each.customer for each in asked]), return_inverse=True)
        sums, rows = np.bincount(whose, np.concatenate(worse)), np.bincount(whose)
        draws = random.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), DRAWS)
        changes.append((1e3 * sums.sum() / rows.sum(), 1e3 * float(np.std((draws @ sums) / (draws @ rows)))))
        apart = np.concatenate([np.abs(p - each.said) for each, p in zip(asked, corrected, strict=True)])
        moved.append(float((apart >= 0.005).mean()))
        lists += [of_list(each, p) for each, p in zip(asked, corrected, strict=True) if each.next_stage]
    table = np.array([one for one in lists if not np.isnan(one[0])])
    few = (table[:, :2] < 0.9).mean(axis=0)
    said, better, happened = table[:, 2:].sum(axis=0)
    each = ", ".join(f"{change:+.1f} ± {error:.1f}" for change, error in changes)
    return (
        f"{np.mean([change for change, _ in changes]):+.1f} ({each}) | {np.mean(moved):.0%} |"
        f" {few[0]:.0%}, {few[1]:.0%} of {len(table)} | {said:,.0f}, {better:,.0f}, {happened:,.0f}"
    )


def questions(one: Instant) -> Iterator[Question]:
    """Yield the transitions and horizons of which there is a record, and in which enough customers moved."""
    found = one.found
    for (origin, target), h in itertools.product(
        itertools.combinations(range(len(found.stages)), 2), range(len(found.horizons))
    ):
        rows = found.known[:, 1 + target, h] & (found.stage == origin)
        converted = found.converted[rows, 1 + target, h]
        past = one.record.find(found.stages[origin], found.stages[target], found.horizons[h] // DAY)
        if past is not None and converted.sum() >= FEWEST:
            said = found.probabilities[MODEL][rows, 1 + target, h]
            yield Question(said, converted, found.customer[rows], past, target == origin + 1)


def knots(past: PastScores, z: float) -> tuple[_F64, _F64]:
    """Return a rising line from what was said to what is said instead, through the means of the cells."""
    said = np.array(past.predicted)
    near = past.near(said, WITHIN)
    n = np.maximum(near.n, 1)
    centre = (near.k / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(near.k / n * (1 - near.k / n) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = np.maximum.accumulate(np.where(near.n > 0, centre - half, 0.0))
    high = np.minimum.accumulate(np.where(near.n > 0, centre + half, 1.0)[::-1])[::-1]
    instead = (1 - LEFT) * np.minimum(np.maximum(said, low), high) + LEFT * said
    return np.concatenate([[0.0], said, [1.0]]), np.concatenate([[0.0], instead, [1.0]])


def of_list(asked: Question, corrected: _F64) -> tuple[float, ...]:
    """Return of the first of a list: shares inside before and after, moves that were said, corrected, and happened."""
    first = np.argsort(-asked.said, kind="stable")[:TOP]
    near = asked.past.near(asked.said[first], WITHIN)
    low, high = wilson_interval(near.k, near.n)
    said, better = asked.said[first], corrected[first]
    before, after = (np.where(near.n > 0, (low <= p) & (p <= high), np.nan) for p in (said, better))
    shares = (float(np.nanmean(one)) if near.n.any() else np.nan for one in (before, after))
    return (*shares, float(said.sum()), float(better.sum()), float(asked.converted[first].sum()))


if __name__ == "__main__":
    main()
