"""The Spark engine beside the local one: a panel and the scores of simulated customers, equal to the bit.

    python -m benchmarks.spark                      # 20,000 customers; writes benchmarks/results/spark.md
    python -m benchmarks.spark --customers 2000     # a small run, shown only

Each engine runs in a process of its own, on two cores: threads of that process, Spark in one JVM, and a cluster of two
executors with one core each. What is started once is counted apart. CPU is that of all processes of a contender, Java
and Python; other work on the machine lengthens the wall clock and hardly the CPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.records import ROOT, commit, machine, today
from cvj_ml.config import DAY, Config
from cvj_ml.engines import open_engine
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.histories import Block
from cvj_ml.journey import Journey
from cvj_ml.models.hazard.calibration import identity
from cvj_ml.models.hazard.fitting import Settings, fit_trees
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import build_panel, hazard_rows
from cvj_ml.scoring.parts import work_off
from cvj_ml.scoring.scores_table import merge, score_block, scores_contract
from cvj_ml.simulate import simulate
from cvj_ml.store import Store, ingest
from cvj_ml.windows import midnight

RESULT = ROOT / "benchmarks" / "results" / "spark.md"
BUCKETS = 16
ENGINES: dict[str, dict[str, Any]] = {
    "local, 2 threads": {"threads": 2},
    "Spark, local[2]": {"kind": "spark", "master": "local[2]"},
    "Spark, 2 executors": {"kind": "spark", "master": "local-cluster[2,1,1024]"},
}
READ, ROWS = "blocks read by path", "rows through Spark"

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--engine", choices=list(ENGINES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(contender(arguments.engine, arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(customers=arguments.customers, seed=11).write(folder)
        ingest(configuration(folder, {}))
        found = {engine: run(engine, folder) for engine in ENGINES}
    text = report(found)
    print(text)
    if arguments.customers == parser.get_default("customers"):
        RESULT.write_text(text, encoding="utf-8")


def configuration(folder: Path, engine: dict[str, Any]) -> Config:
    names = ("customer_id", "occurred_at", "known_at", "touchpoint_id", "event", "channel", "value", "rating")
    return Config.model_validate(
        {
            "name": "spark",
            "time_zone": "UTC",
            "history_from": date(2024, 1, 1),
            "sources": {"touchpoints": {"path": "touchpoints.parquet", "columns": {name: name for name in names}}},
            "journey": "cvj8",
            "engine": {"buckets": BUCKETS, **engine},
            "out": "out",
        },
        context={"folder": folder},
    )


def run(engine: str, folder: Path) -> Figures:
    """Measure an engine in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.spark", "--engine", engine, "--folder", str(folder)]
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    print(engine, file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def contender(name: str, folder: Path) -> Figures:
    """Start an engine, then measure a panel, the scores, and two ways to bring blocks to its workers."""
    config = configuration(folder, ENGINES[name])
    store = ingest(config)
    engine = open_engine(config.engine, store)
    cut = midnight(date(2025, 6, 24), config.zone)
    found: Figures = {}
    with measured(found, "start"):
        engine.map(len)
    with measured(found, "panel"):
        definition = define(config, Journey(config.journey), engine, cut)
        instants = np.arange(12, dtype=np.int64) * -14 * DAY + cut - 30 * DAY
        panel = build_panel(definition, engine, instants, cut, 2 * DAY, max_rows=500_000, seed=1)
    settings = Settings(7, 500, lambda_l2=10.0, path_smooth=1000.0, rounds=100)
    trees = fit_trees(panel, hazard_rows(panel.labels, definition.horizons), settings, seed=1, threads=2)
    predictor = Predictor(definition, trees, identity(1 + len(definition.journey.stages), len(definition.horizons)))
    work = folder / name.replace(" ", "-")
    file = work / "scores.parquet"

    def score(block: Block) -> pa.Table:
        return score_block(predictor, block, cut, "benchmark")

    with measured(found, "scores"):
        merge(work_off(engine, work / "blocks", score), {file: scores_contract(definition).schema})
    with measured(found, READ):
        rows = sum(engine.map(lambda block: len(block.touchpoints)))
    if config.engine.kind == "spark":
        with measured(found, ROWS):
            assert rows_through_spark(store) == rows
    found["panel"]["sha256"] = hashlib.sha256(panel.x.tobytes() + panel.labels.times.tobytes()).hexdigest()
    found["scores"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    found |= {"customers": store.customers, "touchpoints": rows, "snapshots": len(panel)}
    return found


def rows_through_spark(store: Store) -> int:
    """Bring every bucket's rows to a worker as Spark does by itself: read, shuffled by bucket, put back in order."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as f

    session = SparkSession.getActiveSession()
    assert session is not None
    session.conf.set("spark.sql.shuffle.partitions", str(BUCKETS))
    session.conf.set("spark.sql.adaptive.enabled", "false")
    frame = session.read.parquet(str(store.folder / "bucket-*" / "touchpoints.parquet")).select(
        "*",
        f.regexp_extract("_metadata.file_path", r"bucket-(\d+)", 1).alias("bucket"),
        f.col("_metadata.row_index").alias("place"),
    )

    def ordered(group: pa.Table) -> pa.Table:
        block = group.sort_by("place").combine_chunks()
        return pa.table({"rows": [len(block)]})

    return sum(frame.groupBy("bucket").applyInArrow(ordered, "rows bigint").toArrow()["rows"].to_pylist())


@contextmanager
def measured(found: Figures, what: str) -> Iterator[None]:
    """Note wall clock and CPU seconds of what is done inside, of this process and all below it."""
    begin, cpu = time.perf_counter(), cpu_seconds()
    yield
    found[what] = {"wall": time.perf_counter() - begin, "cpu": cpu_seconds() - cpu}


def cpu_seconds() -> float:
    """Return CPU seconds of this process and all that it started, and those started, whether they live or not."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    return sum(ticks[pid] for pid in ticks if os.getpid() in ancestry(pid, parents)) / os.sysconf("SC_CLK_TCK")


def ancestry(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        yield pid
        pid = parents[pid]


def report(found: dict[str, Figures]) -> str:
    """Return the figures as Markdown; exits where engines disagree."""
    for what in ("panel", "scores"):
        if len({figures[what]["sha256"] for figures in found.values()}) != 1:
            sys.exit(f"the engines disagree about the {what}")

    def table(columns: dict[str, str]) -> str:
        rows: list[dict[str, str | float | None]] = [
            {"engine": name, **{what: seconds(figures.get(what)) for what in columns}}
            for name, figures in found.items()
        ]
        return markdown_table(rows, {"engine": "engine"} | columns)

    first = next(iter(found.values()))
    size = (
        f"{first['customers']:,} simulated customers, {first['touchpoints']:,} touchpoints, {BUCKETS} buckets. Panel:"
        f" 12 cut-offs, {first['snapshots']:,} snapshots after sampling."
    )
    return f"""# The Spark engine

{size}
Scores: every customer, written to Parquet. Seconds of wall clock / of CPU; the panels and the files of scores are equal
to the byte.

{table({"start": "start, once", "panel": "panel", "scores": "scores"})}
The same blocks brought to the workers in two ways, and nothing done with them: read by each worker from the shared
folder, and as rows that Spark reads, shuffles by bucket and hands over in Arrow, then put back in order.

{table({READ: READ, ROWS: ROWS})}
Written by `python -m benchmarks.spark` ({today()}, commit {commit()}, {machine()}; other work ran beside it).
"""


def seconds(figures: dict[str, float] | None) -> str:
    return f"{figures['wall']:.1f} / {figures['cpu']:.1f}" if figures else ""


if __name__ == "__main__":
    main()
