"""Reasons for 10,000 listed rows: how long they take, and that they add up to what the model says.

    python -m benchmarks.reasons                     # 10,000 rows, a few minutes with the training
    python -m benchmarks.reasons --customers 2000    # a small run

Simulated customers, the model trained as the demo trains it. Lists from every stage to every later one are made and
cut so that they have 10,000 rows together; reasons are told for all of them on two threads, features included. What
is printed is the time of `with_reasons` alone: wall clock and CPU of this process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from importlib.resources import as_file, files
from itertools import combinations
from pathlib import Path

import yaml

from cvj_ml.commands.train import train
from cvj_ml.config import DAY, load_config
from cvj_ml.inputs import open_histories
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.lists.ranking import rank
from cvj_ml.lists.reasons import COLUMNS, with_reasons
from cvj_ml.night.champion import champion
from cvj_ml.night.scores import score
from cvj_ml.run import Silent
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.simulate import simulate
from cvj_ml.windows import midnight

STAGES = ("Engage", "Subscribe", "Convert", "Excite", "Ascend", "Advocate", "Promote")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulation = simulate(customers=arguments.customers, seed=5)
        simulation.write(folder)
        with as_file(files("cvj_ml").joinpath("demo.yaml")) as packaged:
            settings = yaml.safe_load(packaged.read_text())
        pairs = list(combinations(STAGES, 2))
        settings["lists"] = [{"from": a, "to": b, "horizon": "30d"} for a, b in pairs]
        settings["engine"] = {"threads": 2}
        (folder / "c.yaml").write_text(yaml.safe_dump(settings))
        config = load_config(folder / "c.yaml")
        as_of = midnight(simulation.start, config.zone) + simulation.days * DAY
        train(config, as_of, Silent(), promote="always")
        histories = open_histories(config, Silent())
        predictor = champion(config, histories.visible).predictor
        scored = score(histories, predictor, "benchmark", as_of, folder / "work", history=True)
        lists: list[RankedList] = []
        left = arguments.rows
        everybody = rank(config, StoredTable.at(scored.scores), histories.visible.journey, as_of)
        for one in sorted(everybody, key=lambda one: -len(one.rows)):
            lists.append(cut(one, left))
            left -= len(lists[-1].rows)
        wall, cpu = time.perf_counter(), time.process_time()
        told = with_reasons(lists, predictor, histories.engine(), as_of, histories.config)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows = sum(len(one.rows) for one in told)
        reasons = sum(len(one.rows) - one.rows[column].null_count for one in told for column in COLUMNS)
        print(f"{rows:,} rows, {reasons:,} reasons, {len(lists)} lists: {wall:.1f} s, {cpu:.1f} s of CPU")


def cut(one: RankedList, most: int) -> RankedList:
    """Return the first rows of a list, as if nobody else had been in the stage."""
    rows = one.rows.slice(0, most)
    return replace(one, rows=rows, eligible=len(rows), in_stage=len(rows), left_out={}, not_listed={})


if __name__ == "__main__":
    main()
