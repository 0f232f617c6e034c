"""Protocol F: the model at every instant at which it can be trained, so that no single season ranks it.

    python -m benchmarks.rolling                          # about 40 CPU minutes; writes results/rolling.md and .csv
    python -m benchmarks.rolling --against 8741559 --seeds 3   # the same beside the recipe of another commit

At each instant the model sees what was visible then and is judged by what came after; the instants that are final are
not among them. Log loss is told apart into level, slope and ranking (`decompose_log_loss`), pooled over the transitions
in which at least ten customers moved. Fits are kept under ``out/benchmarks/rolling`` by a digest of everything that
they come from, so that only what has changed is fitted anew.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from benchmarks.records import ROOT, SIMULATED, STORES, commit, config_file, machine, require_data, today

_F64 = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]
_Horizon = tuple[int, list[tuple[int, npt.NDArray[np.int64]]]]

ROWS = 50_000
"""Hazard rows of each fit: what is learned about recipes does not need more."""

MODEL, YEAR_AGO, BEFORE = "model", "model with the level of a year ago", "recipe before"
FEWEST = 10
"""Customers who must have moved in a transition."""

FOLDER = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- rolling:begin -->", "<!-- rolling:end -->"


@dataclass(frozen=True, slots=True)
class Series:
    """A data set's development instants, the day by which outcomes end, and horizons (days) other than its own."""

    instants: tuple[date, ...]
    until: date
    horizons: tuple[int, ...] = ()


def every(days: int, first: date, last: date) -> tuple[date, ...]:
    """Return the days from the first to the last at most, so many apart."""
    return tuple(first + timedelta(days=k * days) for k in range((last - first).days // days + 1))


SERIES: Mapping[str, Series] = {
    "online_retail": Series(every(28, date(2010, 8, 3), date(2011, 6, 7)), date(2011, 9, 6)),
    "cdnow": Series(every(14, date(1997, 6, 4), date(1997, 9, 24)), date(1998, 1, 1)),
    "complete_journey": Series(every(14, date(2017, 6, 7), date(2017, 9, 13)), date(2017, 10, 3)),
    "starbucks": Series(every(1, date(2018, 8, 9), date(2018, 8, 14)), date(2018, 8, 17), (3, 7)),
    "stackexchange_martialarts": Series(tuple(date(y, 12, 2) for y in range(2014, 2022)), date(2022, 12, 2)),
    "stackexchange_vi": Series(every(112, date(2016, 6, 1), date(2018, 4, 4)), date(2018, 12, 2)),
}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was said at one instant, and what became of it.

    customer and stage are (n,); converted, known and each of probabilities (n, targets, horizons).
    """

    horizons: tuple[int, ...]
    customer: npt.NDArray[np.int64]
    stage: npt.NDArray[np.int8]
    converted: _Mask
    known: _Mask
    probabilities: Mapping[str, _F64]

    def cells(self, head: str, horizon: int) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """Return (target, rows) of the transitions of a head in which enough customers moved."""
        found = []
        for j in range(1) if head == "return" else range(1, self.known.shape[1]):
            for origin in [None] if j == 0 else range(-1, j - 1):
                known = self.known[:, j, horizon]
                rows = np.flatnonzero(known if origin is None else known & (self.stage == origin))
                if self.converted[rows, j, horizon].sum() >= FEWEST:
                    found.append((j, rows))
        return found


def forecast(name: str, day: date, seed: int, rows: int) -> Forecast | None:
    """Fit at an instant and say what becomes of everybody; None where the history does not reach for it.

    Only what older versions of the package have, too, is used here, so that they can be asked.
    """
    from cvj_ml.config import DAY, load_config
    from cvj_ml.engines import LocalEngine
    from cvj_ml.evaluation.backtesting import matured_outcomes, rfm
    from cvj_ml.evaluation.baselines import baselines
    from cvj_ml.evaluation.folds import unteachable
    from cvj_ml.journey import observability
    from cvj_ml.models.predictor import Predictor
    from cvj_ml.models.training import fit_reach
    from cvj_ml.panel.model_spec import define
    from cvj_ml.panel.panel import build_panel
    from cvj_ml.run import Run
    from cvj_ml.snapshots import training_grid
    from cvj_ml.store import ingest
    from cvj_ml.windows import midnight

    series, config = SERIES[name], load_config(config_file(name))
    horizons = tuple(days * DAY for days in series.horizons) or config.horizons
    settings = config.model.model_copy(update={"seed": seed})
    out = str(Path(os.environ.get("ROLLING_STORES") or STORES) / name)
    config = config.model_copy(update={"out": out, "horizons": horizons, "model": settings})
    store = ingest(config)
    engine = LocalEngine(store, 1)
    journey = observability(config, store.events, store.property_kinds).journey
    run = Run(config, journey, engine, store.arrival_delay, 1)
    cut, until = midnight(day, config.zone), midnight(series.until, config.zone)
    if unteachable(run, cut):
        return None
    spec = define(config, journey, engine, cut)
    history = build_panel(spec, engine, training_grid(config, cut), cut, store.arrival_delay, max_rows=rows, seed=seed)
    test = build_panel(spec, engine, np.array([cut], dtype=np.int64), until, store.arrival_delay)
    fit = fit_reach(history, seed, 1)
    said = {MODEL: Predictor(spec, fit.trees, fit.calibration).predict(test, 1)}
    if hasattr(settings, "year_ago_level"):
        from cvj_ml.evaluation.year_ago import learn_year_ago

        asked = config.model_copy(update={"model": settings.model_copy(update={"year_ago_level": True})})
        level = learn_year_ago(replace(run, config=asked), cut, spec, fit)
        if level is not None:
            said[YEAR_AGO] = Predictor(spec, fit.trees, fit.calibration, year_ago=level).predict(test, 1)
    past = matured_outcomes(history)
    said |= {baseline.name: baseline.fit(past).predict(rfm(test)) for baseline in baselines()}
    if name == "cdnow":
        from benchmarks.protocols import Instant, buy_till_you_die

        days = tuple(horizon // DAY for horizon in horizons)
        data = require_data(name) / "cdnow_master.parquet"
        of_return = buy_till_you_die(data, Instant(day, days, days), test)
        for contender, p in of_return.items():
            said[contender] = np.concatenate(
                [p, np.full((len(p), test.labels.times.shape[1] - 1, p.shape[2]), np.nan)], 1
            )
    found = matured_outcomes(test)
    return Forecast(
        tuple(horizon // DAY for horizon in horizons), test.customer, test.stage, found.converted, found.known, said
    )


def digest(source: Path, name: str, rows: int) -> str:
    """Return what a kept forecast is named after: the package's source, the configuration, how many rows."""
    found = hashlib.sha256(f"{name} {rows} {SERIES[name]}".encode())
    for path in sorted((source / "cvj_ml").rglob("*.py")):
        # What is shown to people changes no forecast.
        if path.relative_to(source).parts[1] not in ("report", "cli", "commands", "model_card", "setup", "night"):
            found.update(path.read_bytes())
    for path in (config_file(name), Path(__file__), ROOT / "benchmarks" / "protocols.py", ROOT / "locks" / "dev.txt"):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def kept(folder: Path, name: str, day: date, seed: int, rows: int) -> Forecast | None:
    """Return a forecast, from the folder where it has been made before."""
    file = folder / f"{name}_{day}_{seed}.npz"
    if not file.exists():
        made = forecast(name, day, seed, rows)
        folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        if made is not None:
            arrays = {f"p {key}": p.astype(np.float32) for key, p in made.probabilities.items()}
            np.savez_compressed(
                content,
                horizons=np.array(made.horizons),
                customer=made.customer,
                stage=made.stage,
                converted=made.converted,
                known=made.known,
                **arrays,  # type: ignore[arg-type]  # numpy's stub takes them for its own options
            )
        part = file.with_suffix(".part")
        part.write_bytes(content.getvalue())
        part.replace(file)
    if not file.stat().st_size:
        return None
    with np.load(file) as stored:
        said = {key[2:]: stored[key].astype(np.float64) for key in stored.files if key.startswith("p ")}
        return Forecast(
            tuple(int(one) for one in stored["horizons"]),
            stored["customer"],
            stored["stage"],
            stored["converted"],
            stored["known"],
            said,
        )


def forecasts(named: Mapping[str, str], seeds: int, rows: int, source: Path, folder: Path) -> None:
    """Make all forecasts by the package under ``source``, a process for each core; ``named`` has the digests."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.rolling import worker; worker()"
    tasks = [
        [name, day.isoformat(), str(seed), str(rows), str(folder / digested)]
        for name, digested in named.items()
        for day in SERIES[name].instants
        for seed in range(1, seeds + 1)
    ]
    todo = [one for one in tasks if not Path(one[4], f"{one[0]}_{one[1]}_{one[2]}.npz").exists()]
    parts = [part for k in range(cpu_count()) if (part := todo[k :: cpu_count()])]
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "ROLLING_STORES": str(folder / f"stores-{source.parent.name}"),
    }

    def run(part: list[list[str]]) -> None:
        arguments = [word for task in part for word in task]
        subprocess.run([sys.executable, "-c", script, *arguments], env=environment, check=True, cwd=ROOT)

    Parallel(n_jobs=len(parts) or 1, backend="threading")(map(delayed(run), parts))


def worker() -> None:
    """Make the forecasts that the command line names, five words each."""
    words = sys.argv[1:]
    for k in range(0, len(words), 5):
        name, day, seed, rows, folder = words[k : k + 5]
        require_data(name)
        kept(Path(folder), name, date.fromisoformat(day), int(seed), int(rows))
        print(f"  {name} {day}, seed {seed}", file=sys.stderr, flush=True)


def measured(name: str, found: Forecast) -> Iterator[dict[str, object]]:
    """Yield a row for each head, horizon and contender that answered everything."""
    from cvj_ml.evaluation.metrics import auc
    from cvj_ml.evaluation.recalibration import calibration_slope_intercept, decompose_log_loss

    for head in ("return", "reach"):
        for h, days in enumerate(found.horizons):
            cells = found.cells(head, h)
            if not cells:
                continue
            y = np.concatenate([found.converted[rows, j, h] for j, rows in cells])
            weights = np.array([len(rows) for _, rows in cells], dtype=np.float64)
            for contender, p in found.probabilities.items():
                parts = [p[rows, j, h] for j, rows in cells]
                said = np.concatenate(parts)
                if not np.isfinite(said).all():
                    continue
                loss = decompose_log_loss(y, said)
                aucs = [auc(found.converted[rows, j, h], one) for (j, rows), one in zip(cells, parts, strict=True)]
                yield {
                    "data": name,
                    "head": head,
                    "days": days,
                    "contender": contender,
                    "customers": len(y),
                    "converted": int(y.sum()),
                    "log_loss": loss.log_loss,
                    "level": loss.level,
                    "slope": loss.slope,
                    "ranking": loss.ranking,
                    "auc": float(np.average(aucs, weights=weights)),
                    "observed_expected": float(y.sum() / said.sum()),
                    "calibration_slope": calibration_slope_intercept(y, np.clip(said, 1e-6, 1 - 1e-6)).slope,
                }


def weighted_terms(found: Forecast, p: _F64, by_horizon: Sequence[_Horizon]) -> _F64:
    """Return a log loss for each row, weighted so that their mean is the mean over horizons."""
    from cvj_ml.evaluation.metrics import log_loss_terms

    sizes = [sum(len(rows) for _, rows in cells) for _, cells in by_horizon]
    parts = [
        log_loss_terms(found.converted[rows, j, h], p[rows, j, h]) * sum(sizes) / (len(sizes) * size)
        for (h, cells), size in zip(by_horizon, sizes, strict=True)
        for j, rows in cells
    ]
    return np.concatenate(parts)


def compared(found: Forecast) -> Iterator[dict[str, object]]:
    """Yield, for each head and contender, its log loss above the model's with a paired interval over customers.

    The mean over horizons, each over the transitions in which enough customers moved.
    """
    from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys, paired_difference

    keys = draw_keys(DRAWS, 1)
    for head in ("return", "reach"):
        by_horizon = [(h, cells) for h in range(len(found.horizons)) if (cells := found.cells(head, h))]
        if not by_horizon:
            continue
        customer = np.concatenate([found.customer[rows] for _, cells in by_horizon for _, rows in cells])
        answered = {
            name: p
            for name, p in found.probabilities.items()
            if all(np.isfinite(p[rows, j, h]).all() for h, cells in by_horizon for j, rows in cells)
        }
        own = weighted_terms(found, answered[MODEL], by_horizon)
        for name, p in answered.items():
            if name != MODEL:
                above, _ = paired_difference(weighted_terms(found, p, by_horizon), own, customer, keys)
                yield {"head": head, "contender": name, "above": above.estimate, "low": above.low, "high": above.high}


def gather(
    named: Mapping[str, str],
    seeds: int,
    rows: int,
    folder: Path,
    before: Mapping[tuple[str, str, int], Forecast],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `measured` and `compared` of each instant, means over seeds; ``before`` is another commit's model."""
    figures, differences = [], []
    for name, digested in named.items():
        where = folder / digested
        for day in SERIES[name].instants:
            for seed in range(1, seeds + 1):
                if (found := kept(where, name, day, seed, rows)) is not None:
                    if (other := before.get((name, day.isoformat(), seed))) is not None:
                        found = replace(found, probabilities={**found.probabilities, BEFORE: same_rows(other, found)})
                    at = {"data": name, "instant": day.isoformat()}
                    figures.append(pd.DataFrame(measured(name, found)).assign(**at))
                    differences.append(pd.DataFrame(compared(found)).assign(**at))
    keys = ["data", "instant", "head", "contender"]
    return (
        pd.concat(figures).groupby([*keys, "days"], sort=False).mean(numeric_only=True).reset_index(),
        pd.concat(differences).groupby(keys, sort=False).mean(numeric_only=True).reset_index(),
    )


def same_rows(other: Forecast, found: Forecast) -> _F64:
    """Return another forecast's probabilities; ValueError where it is of other customers or outcomes."""
    if not (np.array_equal(other.stage, found.stage) and np.array_equal(other.converted, found.converted)):
        raise ValueError("The other commit asks other customers, or counts other outcomes: nothing can be compared.")
    return other.probabilities[MODEL]


Row = dict[str, str | float | None]


def title(name: str) -> str:
    """Return what a data set is called."""
    return f"{name} (simulated)" if name in SIMULATED else name


def coverage(name: str, forecasts: Mapping[date, Forecast]) -> pd.DataFrame:
    """Return how often the ranges of expected moves held, from instants at least the longest horizon apart.

    Every instant is judged by the others of its own series: where instants are closer, there are several series.
    """
    from cvj_ml.config import DAY
    from cvj_ml.evaluation.backtesting import Evaluated
    from cvj_ml.evaluation.interval_coverage import judged_ranges
    from cvj_ml.evaluation.past_forecasts import NUMBERS, forecasts_of

    days = sorted(forecasts)
    if len(days) < 2:
        return pd.DataFrame()
    longest = max(max(one.horizons) for one in forecasts.values())
    step = -(-longest // (days[1] - days[0]).days)
    judged = []
    for first in range(min(step, len(days))):
        seen = []
        for day in days[first::step]:
            one = forecasts[day]
            names = tuple(f"stage {j}" for j in range(one.known.shape[1] - 1))
            horizons = tuple(horizon * DAY for horizon in one.horizons)
            said = {MODEL: one.probabilities[MODEL]}
            found = Evaluated(names, horizons, one.customer, one.stage, one.converted, one.known, said)
            seen += forecasts_of(found, day.toordinal(), NUMBERS, {}, 20)
        judged.append(judged_ranges(seen, "leave one out"))
    found = pd.concat(judged).assign(data=name)
    # A series without a range has columns of nothing, which are no numbers yet.
    numbers = [column for column in found.columns if column.startswith(("inside_", "width_", "low_", "high_"))]
    return found.astype(dict.fromkeys(numbers, np.float64))


def coverage_table(judged: pd.DataFrame) -> str:
    """Return the coverage of each data set, clustered by instant, and the ranges' median width."""
    from cvj_ml.evaluation.interval_coverage import coverage_of_ranges

    rows: list[Row] = []
    for one in coverage_of_ranges(judged, by=["data"]).to_dict("records"):
        row: Row = {"data set": title(one["data"]), "instants": one["instants"], "forecasts": one["forecasts"]}
        row["without a range"] = one["without"]
        for level in (80, 95):
            low, high = one[f"coverage_{level}_low"], one[f"coverage_{level}_high"]
            row[f"holds of {level}"] = f"{one[f'coverage_{level}']:.2f} [{low:.2f}, {high:.2f}]"
            row[f"median width {level}"] = f"{one[f'median_width_{level}']:.2f}"
        rows.append({**row, "verdict": one["verdict"]})
    return table(rows)


def figures_table(figures: pd.DataFrame) -> str:
    """Return the model's figures, means over horizons, then over instants."""
    columns = ["log_loss", "level", "slope", "ranking", "auc", "observed_expected", "calibration_slope"]
    of_model = figures[figures["contender"] == MODEL]
    at = of_model.groupby(["data", "head", "instant"], sort=False)[columns].mean()
    rows: list[Row] = []
    for (name, head), here in at.groupby(["data", "head"], sort=False):
        spread = here["log_loss"].std() / np.sqrt(len(here))
        off = np.exp(np.abs(np.log(here["observed_expected"])).mean())
        rows.append(
            {
                "data set": title(str(name)),
                "question": head,
                "instants": len(here),
                "log loss": f"{here['log_loss'].mean():.4f} ± {spread:.4f}",
                **{one: f"{here[one].mean():.4f}" for one in ("level", "slope", "ranking")},
                "AUC": f"{here['auc'].mean():.3f}",
                "observed / expected": f"{min(here['observed_expected']):.2f} to {max(here['observed_expected']):.2f}",
                "off by": f"{off:.2f}",
                "slope of the line": f"{here['calibration_slope'].mean():.2f}",
            }
        )
    return table(rows)


def contenders_table(differences: pd.DataFrame, contenders: Sequence[str]) -> str:
    """Return how much more each contender loses than the model: mean, spread over instants, instants won, worst."""
    rows: list[Row] = []
    for (name, head), here in differences.groupby(["data", "head"], sort=False):
        for contender in contenders:
            one = here[here["contender"] == contender]
            if not len(one):
                continue
            above = 1000 * one["above"]
            worst = one.loc[above.idxmin()]
            rows.append(
                {
                    "data set": title(str(name)),
                    "question": str(head),
                    "contender": contender,
                    "loses more": f"{above.mean():+.2f} ± {above.std() / np.sqrt(len(one)):.2f}",
                    "model better": f"{(above > 0).sum()} of {len(one)}",
                    "beyond chance": f"{(one['low'] > 0).sum()} for, {(one['high'] < 0).sum()} against",
                    "worst instant": f"{above.min():+.2f} ({worst['instant']})",
                }
            )
    return table(rows)


def lost(differences: pd.DataFrame, contenders: Sequence[str]) -> tuple[int, int]:
    """Return at how many (instant, question) one of the contenders has the lower log loss, and of how many."""
    here = differences[differences["contender"].isin(contenders)]
    least = here.groupby(["data", "instant", "head"])["above"].min()
    return int((least < 0).sum()), len(least)


def table(rows: Sequence[Row]) -> str:
    """Return rows as Markdown, their keys as headings."""
    from cvj_ml.evaluation.metrics import markdown_table

    return markdown_table(list(rows), {name: name for name in rows[0]}) if rows else ""


def against(
    reference: str, names: Sequence[str], seeds: int, rows: int, folder: Path
) -> Mapping[tuple[str, str, int], Forecast]:
    """Return what the package of another commit says at every instant."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        add = ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(tree), reference]
        subprocess.run(add, check=True)
        try:
            named = {name: digest(tree / "src", name, rows) for name in names}
            forecasts(named, seeds, rows, tree / "src", folder)
            found = {
                (name, day.isoformat(), seed): one
                for name in names
                for day in SERIES[name].instants
                for seed in range(1, seeds + 1)
                if (one := kept(folder / named[name], name, day, seed, rows)) is not None
            }
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)
    return found


def main() -> None:
    """Make what is missing, then write the page, the table of every instant, and the README's table."""
    parser = argparse.ArgumentParser(description="Evaluate the model at every development instant.")
    parser.add_argument("--rows", type=int, default=ROWS, help="the row budget of each fit")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(SERIES), default=list(SERIES), metavar="DATA")
    parser.add_argument("--against", metavar="COMMIT", help="also ask the package of another commit")
    asked = parser.parse_args()
    for name in asked.only:
        require_data(name)
    folder, source = STORES / "rolling", ROOT / "src"
    named = {name: digest(source, name, asked.rows) for name in asked.only}
    forecasts(named, asked.seeds, asked.rows, source, folder)
    before = against(asked.against, asked.only, asked.seeds, asked.rows, folder) if asked.against else {}
    figures, differences = gather(named, asked.seeds, asked.rows, folder, before)
    judged = [
        coverage(
            name,
            {
                day: one
                for day in SERIES[name].instants
                if (one := kept(folder / named[name], name, day, 1, asked.rows))
            },
        )
        for name in asked.only
    ]
    write(figures, differences, pd.concat(judged), asked.rows, asked.seeds, asked.against)


def write(
    figures: pd.DataFrame, differences: pd.DataFrame, judged: pd.DataFrame, rows: int, seeds: int, reference: str | None
) -> None:
    """Write results/rolling.md and .csv, and the README's table between its markers."""
    from cvj_ml.evaluation.baselines import baselines

    names = [baseline.name for baseline in baselines()]
    losses, of = lost(differences, names[1:])
    measured_by = f"{today()}, commit {commit()}, {machine()}"
    how = (
        f"At most {rows:,} hazard rows a fit, mean of {seeds} seed(s). Log loss is the mean over horizons, each over"
        " the transitions in which ten customers moved; after ± the standard error over instants. *level* and *slope*"
        " are what refitting the intercept, then the slope, of the log-odds on the outcomes would have saved; *ranking*"
        " is the rest; *off by* is the factor by which expected and observed moves differ at a typical instant."
    )
    text = f"# Rolling instants\n\n{how}\n\n## The model\n\n{figures_table(figures)}\n## Beside others\n\n"
    text += "Log loss above the model's, in thousandths: above 0 the model is better.\n\n"
    others = [*names, "BG/NBD", "Pareto/NBD", YEAR_AGO]
    text += f"{contenders_table(differences, others)}\nAt {losses} of {of} instants and questions ({losses / of:.1%})"
    text += " a baseline (stage and recency, or logistic RFM) has the lower log loss.\n"
    text += "\n## Ranges of expected moves\n\nEach forecast of the likeliest 50, 100, 200, … customers of a transition"
    text += (
        " is judged by the errors of other instants, the longest horizon apart; intervals are clustered by instant.\n"
    )
    text += f"\n{coverage_table(judged)}"
    if reference:
        text += f"\n## Beside the recipe of {reference}\n\n{contenders_table(differences, [BEFORE])}"
    text += f"\nEvery instant is in `rolling.csv`. Written by `python -m benchmarks.rolling` ({measured_by}).\n"
    (FOLDER / "rolling.md").write_text(text, encoding="utf-8")
    figures.to_csv(FOLDER / "rolling.csv", index=False, lineterminator="\n", float_format="%.6g")
    readme = README.read_text(encoding="utf-8")
    head, tail = readme[: readme.index(BEGIN) + len(BEGIN)], readme[readme.index(END) :]
    shown = f"{figures_table(figures)}\n{contenders_table(differences, names[1:])}"
    shown += f"\nWritten by `python -m benchmarks.rolling` ({measured_by}).\n"
    README.write_text(f"{head}\n{shown}{tail}", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
