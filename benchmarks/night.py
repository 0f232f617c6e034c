"""What a night costs: wall clock, CPU and peak memory of each station, for any number of customers.

    python -m benchmarks.night --customers 50000            # a small run, after which everything is in the cache
    python -m benchmarks.night --customers 1000000          # 20 million touchpoints
    python -m benchmarks.night --customers 5000000          # 100 million touchpoints: about 30 GB of disk
    python -m benchmarks.night --report                     # writes benchmarks/results/night.md from all runs

Customers are drawn by the simulator, 20,000 of them over 540 days, with 20 touchpoints each on average: of the
simulated ones every customer keeps the first, and of the others a random share. More customers are copies of these
under new ids, each copy moved by up to three days. A model is trained on the 20,000 themselves, as the command does.
Then the night of 2025-06-24 is run as ``cvj-ml targets`` runs it, in a process of its own with two threads: the next
two stages and the return at five horizons, seven lists with room for 10,000 each, reasons, page, everything published.
The night after it brings one more file, a 365th of the rows, of the day between.

Stations are those that the command shows. Their peak is of the resident memory of the whole process while the station
lasts (VmHWM). Each run leaves ``night-<customers>.json`` beside the inputs in the cache folder. A model of another
version of the package cannot be read: remove the cache folder then.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.commands.nightly import nightly
from cvj_ml.commands.train import train as run_train
from cvj_ml.config import DAY, SECOND, Config
from cvj_ml.run import Silent
from cvj_ml.simulate import simulate
from cvj_ml.windows import midnight

SIMULATED = 20_000
A_CUSTOMER = 20
"""Touchpoints a customer, on average."""
AS_OF, NEXT = date(2025, 6, 24), date(2025, 6, 25)
RESULTS = Path(__file__).parent / "results" / "night.md"

LISTS = (
    ("Engage", "Subscribe"),
    ("Subscribe", "Convert"),
    ("Convert", "Excite"),
    ("Convert", "Ascend"),
    ("Excite", "Ascend"),
    ("Ascend", "Advocate"),
    ("Advocate", "Promote"),
)
NAMES = ("customer_id", "occurred_at", "known_at", "touchpoint_id", "event", "channel", "value", "rating")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=50_000)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "cvj-ml-night"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-limit", default="1GB", help="for DuckDB, while sources are read")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--step", choices=("inputs", "train", "night"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.report:
        return report(given.cache)
    if given.step:
        return STEPS[given.step](given)
    require_room(given.cache, given.customers)
    for step in STEPS:
        # A process each: what one has left behind in memory is not counted for the next.
        subprocess.run([sys.executable, "-m", "benchmarks.night", *sys.argv[1:], "--step", step], check=True)


def require_room(cache: Path, customers: int) -> None:
    """Stop where the disk is too small: rows take about 300 bytes each in inputs, spill, store and work."""
    cache.mkdir(parents=True, exist_ok=True)
    needed, free = customers * A_CUSTOMER * 300, shutil.disk_usage(cache).free
    if free < needed:
        raise SystemExit(
            f"{cache}: {needed / 1e9:.0f} GB are needed, {free / 1e9:.0f} GB are free; give another --cache"
        )


# Inputs.


def make_inputs(given: argparse.Namespace) -> None:
    """Draw the simulated customers, and the copies of them that make up the log."""
    simulated = given.cache / "simulated"
    if not simulated.exists():
        beside = given.cache / ".simulated"
        drawn = simulate(customers=SIMULATED, seed=1)
        beside.mkdir(exist_ok=True)
        drawn.write(beside)
        thin(beside / "touchpoints.parquet")
        beside.rename(simulated)
    folder = log_folder(given)
    if not folder.exists():
        beside = folder.with_name(f".{folder.name}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        copy(simulated, beside, given.customers)
        beside.rename(folder)


def thin(file: Path) -> None:
    """Keep 20 touchpoints a customer, on average: everybody's first, and a random share of the others."""
    table = pq.read_table(file).sort_by([("customer_id", "ascending"), ("occurred_at", "ascending")])
    ids = table["customer_id"].to_numpy(zero_copy_only=False)
    first = np.concatenate(([True], ids[1:] != ids[:-1]))
    share = (A_CUSTOMER * SIMULATED - first.sum()) / (len(ids) - first.sum())
    keep = first | (np.random.default_rng(1).random(len(ids)) < share)
    pq.write_table(table.filter(pa.array(keep)), file)


def copy(simulated: Path, folder: Path, customers: int) -> None:
    """Write as many customers as asked for; each copy of a customer is moved in time as a whole."""
    points, people = (pq.read_table(simulated / f"{name}.parquet") for name in ("touchpoints", "customers"))
    ids = np.unique(people["customer_id"].to_numpy(zero_copy_only=False))
    owner, person = (
        np.searchsorted(ids, table["customer_id"].to_numpy(zero_copy_only=False)) for table in (points, people)
    )
    random = np.random.default_rng(2)
    end = midnight(AS_OF, ZoneInfo("UTC"))
    with (
        pq.ParquetWriter(folder / "touchpoints-0.parquet", points.schema, compression="zstd") as log,
        pq.ParquetWriter(folder / "customers.parquet", people.schema, compression="zstd") as attributes,
    ):
        for number, begin in enumerate(range(0, customers, len(ids))):
            size = min(len(ids), customers - begin)
            shift = random.integers(-3 * DAY // SECOND, 1, len(ids)) * SECOND
            mine = points.filter(pa.array(owner < size))
            converted = {name: shifted(mine[name], shift[owner[owner < size]]) for name in ("occurred_at", "known_at")}
            log.write_table(renamed(mine, number, ("customer_id", "touchpoint_id"), converted))
            attributes.write_table(renamed(people.filter(pa.array(person < size)), number, ("customer_id",), {}))
    # A day's rows: a 365th of the log, of random customers, between the two nights.
    rows = customers * A_CUSTOMER // 365
    some = random.integers(0, len(points), rows)
    copies = max(1, customers // len(ids))
    day = points.take(pa.array(some))
    at = pa.array(end + random.integers(0, DAY // SECOND, rows) * SECOND, pa.int64()).cast(points.schema.field(1).type)
    names = [
        f"{number}-{name}"
        for number, name in zip(random.integers(0, copies, rows), day["customer_id"].to_pylist(), strict=True)
    ]
    day = day.set_column(0, "customer_id", pa.array(names))
    for name in ("occurred_at", "known_at"):
        day = day.set_column(day.schema.get_field_index(name), points.schema.field(name), at)
    day = day.set_column(
        day.schema.get_field_index("touchpoint_id"), "touchpoint_id", pa.array([f"new-{i}" for i in range(rows)])
    )
    pq.write_table(day, folder / "new.parquet", compression="zstd")


def shifted(column: pa.ChunkedArray, by: np.ndarray) -> pa.Array:
    return pa.array(column.cast(pa.int64()).to_numpy() + by).cast(column.type)


def renamed(table: pa.Table, number: int, ids: tuple[str, ...], columns: dict[str, pa.Array]) -> pa.Table:
    texts = {name: pc.binary_join_element_wise(str(number), table[name], "-") for name in ids}
    for name, values in {**columns, **texts}.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    return table


def log_folder(given: argparse.Namespace) -> Path:
    return Path(given.cache, f"log-{given.customers}")


# The model.


def config(given: argparse.Namespace, folder: Path, **settings: Any) -> Config:
    """Return the configuration of a log; everything but the number of customers is the same."""
    return Config.model_validate(
        {
            "name": "night",
            "time_zone": "UTC",
            "history_from": date(2024, 1, 1),
            "sources": {
                "touchpoints": {
                    "path": str(folder / "touchpoints*.parquet"),
                    "times": "utc",
                    "columns": {name: name for name in NAMES},
                    "arrival_delay": "2d",
                }
            },
            "attributes": {
                "path": str(folder / "customers.parquet"),
                "times": "utc",
                "columns": {name: name for name in ("customer_id", "known_at", "country", "age", "plan")},
            },
            "outbound": ["email_sent", "ad_impression"],
            "journey": "cvj8",
            "targets": {"next": 2},
            "model": {"max_rows": 200_000},
            "lists": [{"from": a, "to": b, "horizon": "30d", "capacity": 10_000} for a, b in LISTS],
            "stage_value": {"Convert": 40, "Excite": 60, "Ascend": 120, "Advocate": 150, "Promote": 250},
            "mlflow": {"tracking_uri": f"sqlite:///{given.cache / 'mlflow.db'}"},
            "engine": {"threads": given.threads, "memory_limit": given.memory_limit},
            **settings,
        }
    )


def train(given: argparse.Namespace) -> None:
    """Train the champion on the simulated customers, once."""
    done = given.cache / "trained"
    if not done.exists():
        settings = config(given, given.cache / "simulated", out=str(given.cache / "training"))
        run_train(settings, midnight(AS_OF, settings.zone), Silent(), "always")
        done.touch()


# The night.


@dataclass
class Stopwatch:
    """A watcher that takes the wall clock, CPU seconds and peak memory of every station."""

    stations: list[dict[str, Any]] = field(default_factory=list)

    def say(self, message: str) -> None:
        print(message, file=sys.stderr)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], None]]:
        with self.timed(title):
            yield lambda done, of: None

    @contextmanager
    def timed(self, title: str) -> Iterator[None]:
        reset_peak()
        wall, cpu = time.perf_counter(), cpu_seconds()
        yield
        row = {
            "station": title,
            "wall": time.perf_counter() - wall,
            "cpu": cpu_seconds() - cpu,
            "peak_mb": peak_mb(),
        }
        print(f"{title}: {row['wall']:.1f} s, CPU {row['cpu']:.1f} s, peak {row['peak_mb']:.0f} MB", file=sys.stderr)
        self.stations.append(row)


def cpu_seconds() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def reset_peak() -> None:
    """Forget the peak so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def night(given: argparse.Namespace) -> None:
    """Run two nights in a row, the second with a day's new rows."""
    folder, out = log_folder(given), given.cache / f"out-{given.customers}"
    shutil.rmtree(out, ignore_errors=True)
    new = folder / "touchpoints-1.parquet"
    new.unlink(missing_ok=True)
    settings = config(given, folder, out=str(out))
    rows, load = [], os.getloadavg()[0]
    for kind, day in (("full", AS_OF), ("incremental", NEXT)):
        if kind == "incremental":
            os.link(folder / "new.parquet", new)
        watcher = Stopwatch()
        wall, cpu = time.perf_counter(), cpu_seconds()
        (found,) = nightly(settings, [midnight(day, settings.zone)], watcher, watched=True)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        told = watcher.stations
        rest = {
            "station": "Publishing and the rest",
            "wall": wall - sum(one["wall"] for one in told),
            "cpu": cpu - sum(one["cpu"] for one in told),
            "peak_mb": peak_mb(),
        }
        total = {"station": "All", "wall": wall, "cpu": cpu, "peak_mb": max(one["peak_mb"] for one in [*told, rest])}
        rows += [{"night": kind, "customers": len(found.scores), **one} for one in [*told, rest, total]]
        print(f"{kind} night: {wall:.1f} s, CPU {cpu:.1f} s, peak {total['peak_mb']:.0f} MB", file=sys.stderr)
    new.unlink()
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": given.customers,
        "threads": given.threads,
        "memory_limit": given.memory_limit,
        "cores": os.cpu_count(),
        "load": load,
        "machine": f"{platform.machine()}, {processor()}",
        "stations": rows,
    }
    (given.cache / f"night-{given.customers}.json").write_text(json.dumps(record, indent=1))


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


# The report.


def report(cache: Path) -> None:
    """Write what was measured, a table for each number of customers."""
    records = sorted(
        (json.loads(path.read_text()) for path in cache.glob("night-*.json")), key=lambda one: int(one["asked"])
    )
    if not records:
        raise SystemExit(f"{cache} holds no measured night; run with --customers first")
    parts = ["# What a night costs\n", "`python -m benchmarks.night` says how this is measured.\n"]
    parts += [summary(records), *map(table, records)]
    RESULTS.write_text("\n".join(parts))
    print(RESULTS.read_text())


def summary(records: list[dict[str, Any]]) -> str:
    lines = [
        "| customers | touchpoints | wall, s | CPU, s | peak, MB | CPU a customer, µs | a day's new rows: CPU, share |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in records:
        frame = pd.DataFrame(one["stations"])
        full, following = (
            frame[(frame["night"] == kind) & (frame["station"] == "All")].iloc[0] for kind in ("full", "incremental")
        )
        lines.append(
            f"| {full['customers']:,} | {one['asked'] * A_CUSTOMER:,} | {full['wall']:.1f} | {full['cpu']:.1f}"
            f" | {full['peak_mb']:.0f} | {full['cpu'] / full['customers'] * 1e6:.0f}"
            f" | {following['cpu'] / full['cpu']:.0%} |"
        )
    return "\n".join([*lines, ""])


def table(record: dict[str, Any]) -> str:
    frame = pd.DataFrame(record["stations"])
    lines = [
        f"\n## {record['asked']:,} customers\n",
        f"{record['machine']}; {record['cores']} cores, {record['threads']} threads,"
        f" `memory_limit: {record['memory_limit']}`, other work on the machine: {record['load']:.1f} of its cores.\n",
        "| night | station | wall, s | CPU, s | peak, MB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in frame.to_dict("records"):
        lines.append(
            f"| {row['night']} | {row['station']} | {row['wall']:.1f} | {row['cpu']:.1f} | {row['peak_mb']:.0f} |"
        )
    return "\n".join([*lines, ""])


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {"inputs": make_inputs, "train": train, "night": night}

if __name__ == "__main__":
    main()
