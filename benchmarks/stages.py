"""Protocol D: the posterior of the current stage on Martial Arts Stack Exchange, beside three baselines.

    python -m benchmarks.stages --instant choice
    python -m benchmarks.stages --instant test

There is no separate test instant, so settings are chosen with other seeds for thinning and folds; every opening of
the test seeds is a row in ``benchmarks/openings.csv``, written before a figure is shown. Figures are means over
the test thinnings of customers held out by folds. The second variant knows nobody's truth: it sees one thinning.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import KFold

from benchmarks.records import STORES, commit, config_file, machine, record_opening, require_data, today
from cvj_ml.config import Config, load_config
from cvj_ml.config.tables import AttributesSpec, SourceSpec
from cvj_ml.engines import LocalEngine
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.evaluation.stage_evaluation import POSTERIOR, contenders, stage_metrics, stage_mix
from cvj_ml.histories import Block
from cvj_ml.journey import Journey, Stays
from cvj_ml.models.stage.posterior_fitting import fit_stages
from cvj_ml.panel.model_spec import ModelSpec, define
from cvj_ml.panel.stage_panel import Seen, StageRows, Tracking, observe, smooth_columns
from cvj_ml.snapshots import Snapshots
from cvj_ml.store import ingest
from cvj_ml.windows import midnight

_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]

DATASET = "stackexchange_martialarts"
COVERAGE = (1.0, 0.8, 0.7, 0.7, 0.7, 0.5, 0.3)
TRUTH = (6521, 1293, 960, 371, 266, 286, 17)
COPIES = (0, 1, 2)
# The dump's last account was made on 2023-12-02 after midnight; the protocol counts every row of `users`.
DAY = date(2023, 12, 3)


@dataclass(frozen=True, slots=True)
class Seeds:
    """Thinnings that are judged, the folds' shuffle, and the thinnings that presence-only data is made by."""

    evaluated: tuple[int, ...]
    folds: int
    presence: tuple[int, ...]


SEEDS = {
    "choice": Seeds((800, 801, 802, 803), 7, (700, 701, 702, 703)),
    "test": Seeds(tuple(range(900, 910)), 0, (999,)),
}


@dataclass(frozen=True, slots=True)
class Community:
    """All accounts, in the order of `users`: what thinning needs, and the features of what it leaves."""

    definition: ModelSpec
    block: Block
    stays: Stays
    order: _I64
    as_of: int

    def __len__(self) -> int:
        return len(self.order)

    @property
    def truth(self) -> npt.NDArray[np.int8]:
        """Each account's true stage."""
        return self.stays.at(np.arange(len(self)), self.as_of).stage[self.order]

    def seen(self, hidden: _Mask) -> Seen:
        """Return what is left to see with some stages hidden, (accounts, stages), in the order of `users`."""
        in_block = np.empty_like(hidden)
        in_block[self.order] = hidden
        everybody = Snapshots(np.arange(len(self), dtype=np.int64), np.full(len(self), self.as_of, dtype=np.int64))
        x, floor = observe(self.definition, self.block, self.stays, in_block, everybody)
        return Seen(np.arange(len(self)), x[self.order], floor[self.order], self.truth)

    def without_own(self, hidden: _Mask) -> Seen:
        """Return the accounts above the first stage with the evidence of their own stage hidden, too."""
        own = hidden.copy()
        own[np.arange(len(self)), self.truth] = self.truth > 0
        return self.seen(own).take(self.truth > 0)


def open_community() -> Community:
    """Read users and badges as the data set's configuration does, with the robot's row and the column Views."""
    folder = require_data(DATASET)
    config = configured(str(folder))
    engine = LocalEngine(ingest(config))
    as_of = midnight(DAY, config.zone)
    definition = define(config, Journey(config.journey), engine, as_of)
    (block,) = engine.map(lambda one: one)
    ids = pd.read_parquet(folder / "users.parquet", columns=["Id"])["Id"].astype(str)
    position = {name: i for i, name in enumerate(block.customers)}
    order = np.array([position[name] for name in ids], dtype=np.int64)
    return Community(definition, block, definition.stays(block), order, as_of)


def configured(folder: str) -> Config:
    """Return the data set's configuration, changed to what the protocol allows as input."""
    config = load_config(config_file(DATASET))
    users = (f"{folder}/users.parquet",)
    signed_up = SourceSpec(
        query="SELECT Id AS customer_id, CreationDate AS occurred_at FROM users",
        files={"users": users},
        times="utc",
        constants={"event": "sign_up"},
    )
    views = AttributesSpec(
        query="SELECT Id AS customer_id, CAST(Views AS DOUBLE) AS views FROM users",
        files={"users": users},
        columns={"views": "views"},
        static=True,
    )
    return config.model_copy(
        update={
            "sources": {**config.sources, "users": signed_up},
            "attributes": views,
            "features": config.features.model_copy(update={"top_events": 60}),
            "engine": config.engine.model_copy(update={"buckets": 1}),
            "out": str(STORES / f"{DATASET}_stages"),
        }
    )


def draws(seed: int, accounts: int) -> _Mask:
    """Return the protocol's thinning: which stages are hidden for which account."""
    random = np.random.default_rng(seed)
    hidden = np.zeros((accounts, len(COVERAGE)), dtype=np.bool_)
    for i, coverage in enumerate(COVERAGE[1:], start=1):
        hidden[:, i] = random.random(accounts) > coverage
    return hidden


@dataclass(frozen=True, slots=True)
class Result:
    """Metrics (a row for each contender and thinning), and the mix (rows alike, a column a stage)."""

    metrics: pd.DataFrame
    mix: pd.DataFrame


def complete(community: Community, seeds: Seeds, threads: int) -> Result:
    """Fit on complete accounts, thinned by the seeds 0, 1, 2; judge held-out ones, thinned by others."""
    copies = [draws(seed, len(community)) for seed in COPIES]
    rows = StageRows(
        "complete",
        _joined([community.seen(hidden) for hidden in copies]),
        _joined([community.without_own(hidden) for hidden in copies]),
        smooth_columns(community.definition),
        community.definition.min_customers,
    )
    evaluated = {seed: community.seen(draws(seed, len(community))) for seed in seeds.evaluated}
    tracking = Tracking(np.array(COVERAGE), None)
    probabilities: dict[tuple[str, int], _F64] = {}
    for taught, held in _folds(community, seeds):
        for name, predict in contenders(rows.of(taught), tracking, 1, threads).items():
            for seed, seen in evaluated.items():
                p = probabilities.setdefault((name, seed), np.empty((len(community), len(COVERAGE))))
                p[held] = predict(seen.take(held))
        print(f"  {len(held)} of {len(community)} accounts judged", file=sys.stderr)
    return _result(probabilities, community.truth)


def presence_only(community: Community, seeds: Seeds, threads: int) -> Result:
    """Fit on what one thinning left to see; judge held-out accounts, seen through the same thinning."""
    tracking = Tracking(np.array(COVERAGE), None)
    probabilities: dict[tuple[str, int], _F64] = {}
    for seed in seeds.presence:
        hidden = draws(seed, len(community))
        visible = community.seen(hidden)
        taken = Seen(visible.customer, visible.x, visible.floor, visible.floor)
        own = hidden.copy()
        own[np.arange(len(community)), visible.floor] = visible.floor > 0
        without = community.seen(own)
        lowered = Seen(without.customer, without.x, without.floor, visible.floor).take(visible.floor > 0)
        columns, fewest = smooth_columns(community.definition), community.definition.min_customers
        rows = StageRows("presence", taken, lowered, columns, fewest)
        found = probabilities[POSTERIOR, seed] = np.empty((len(community), len(COVERAGE)))
        probabilities["counting what is seen", seed] = np.eye(len(COVERAGE))[visible.floor]
        for taught, held in _folds(community, seeds):
            model = fit_stages(rows.of(taught), tracking, 1, threads)
            found[held] = model.posterior(visible.x[held], visible.floor[held], threads=threads)
    return _result(probabilities, community.truth)


def _folds(community: Community, seeds: Seeds) -> list[tuple[_I64, _I64]]:
    return list(KFold(5, shuffle=True, random_state=seeds.folds).split(np.arange(len(community))))


def _joined(parts: Sequence[Seen]) -> Seen:
    order = np.argsort(np.concatenate([one.customer for one in parts]), kind="stable")
    return Seen(
        np.concatenate([one.customer for one in parts])[order],
        np.concatenate([one.x for one in parts])[order],
        np.concatenate([one.floor for one in parts])[order],
        np.concatenate([one.truth for one in parts])[order],
    )


def _result(probabilities: dict[tuple[str, int], _F64], truth: npt.NDArray[np.int8]) -> Result:
    metrics, mix = [], []
    for (name, seed), p in probabilities.items():
        metrics.append({"contender": name, "seed": seed, **stage_metrics(truth, p)})
        mix.append({"contender": name, "seed": seed, **dict(enumerate(stage_mix(truth, p)))})
    return Result(pd.DataFrame(metrics), pd.DataFrame(mix))


def in_words(title: str, result: Result) -> str:
    """Return a run's figures in one line for the record of openings."""
    loss = result.metrics.groupby("contender", sort=False)["log_loss"].agg(["mean", "std"])
    mix = result.mix[result.mix["contender"] == POSTERIOR].drop(columns=["contender", "seed"]).mean()
    losses = "; ".join(f"{name} log loss {row['mean']:.4f} sd {row['std']:.4f}" for name, row in loss.iterrows())
    evaluated = " ".join(str(seed) for seed in result.metrics["seed"].unique())
    return f"{title}, thinned by {evaluated}: {losses}; mix {' '.join(f'{share:.3f}' for share in mix)}"


def show(title: str, result: Result, names: Sequence[str]) -> None:
    """Print metrics (mean and sd over the thinnings) and the mix (mean)."""
    print(f"## {title}\n")
    means = result.metrics.drop(columns="seed").groupby("contender", sort=False).mean().reset_index()
    spread = result.metrics.groupby("contender", sort=False)["log_loss"].std().to_numpy()
    means.insert(2, "sd", spread)
    columns = {str(name): str(name).replace("_", " ") for name in means.columns}
    print(markdown_table([{str(k): v for k, v in row.items()} for row in means.to_dict("records")], columns))
    mix = result.mix.drop(columns="seed").groupby("contender", sort=False).mean().reset_index()
    mix.columns = pd.Index(["contender", *names])
    rows = [{str(k): v for k, v in row.items()} for row in mix.to_dict("records")]
    print("Sum of the probabilities over the true number:\n")
    print(markdown_table(rows, {name: name for name in mix.columns}, digits=3))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both variants with the seeds for choosing, or open the test seeds."""
    parser = argparse.ArgumentParser(description="Measure protocol D.")
    parser.add_argument("--instant", choices=sorted(SEEDS), required=True)
    parser.add_argument("--threads", type=int, default=1, help="of LightGBM; no figure depends on it")
    chosen = parser.parse_args(arguments)
    community, seeds = open_community(), SEEDS[chosen.instant]
    counts = tuple(np.bincount(community.truth, minlength=len(COVERAGE)).tolist())
    if counts != TRUTH:
        sys.exit(f"The counts are not the protocol's: {counts}, not {TRUTH}")
    names = community.definition.journey.names
    print(f"{today()}, commit {commit()}, {machine()}\n")
    variants: dict[str, Callable[[Community, Seeds, int], Result]] = {
        "complete accounts": complete,
        "presence only": presence_only,
    }
    for title, measure in variants.items():
        result = measure(community, seeds, chosen.threads)
        if chosen.instant == "test":
            record_opening("D", in_words(title, result))
        show(title, result, names)


if __name__ == "__main__":
    main()
