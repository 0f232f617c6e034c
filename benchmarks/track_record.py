"""Whether a list's track record agrees with the probabilities beside it, on whole simulated nights.

    python -m benchmarks.track_record --customers 5000 --seeds 1 2 3    # writes results/track_record.md

Each seed is a business of its own. `cvj-ml demo` is run on it: train, score, rank, publish. Of the first 100 rows of
each list it is counted how many have a track record, how many of these probabilities it confirms (the others have no
interval), whether each printed 95 % interval holds the probability beside it, and how wide these are in the middle; and
whether the past customers beside them moved as often as predicted.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.records import commit, machine, today
from cvj_ml.demo import run_demo
from cvj_ml.night.layout import NightFolder
from cvj_ml.run import Silent

TOP = 100
RESULTS = Path(__file__).parent / "results" / "track_record.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    rows = pd.DataFrame(one for seed in arguments.seeds for one in night(arguments.customers, seed))
    seeds = ", ".join(map(str, arguments.seeds))
    command = f"`python -m benchmarks.track_record --customers {arguments.customers} --seeds {seeds.replace(',', '')}`"
    told = (
        f"# Track records beside the probabilities\n\n{command}, {today()}, commit {commit()}, {machine()}.\n\n"
        f"The first {TOP} rows of each list, means over {len(arguments.seeds)} night(s); in brackets the night with the"
        " fewest confirmed.\n\n"
    )
    RESULTS.write_text(told + table(rows), encoding="utf-8")


def night(customers: int, seed: int) -> Iterator[dict[str, object]]:
    """Yield what one night's lists say, a row a list."""
    with tempfile.TemporaryDirectory() as folder:
        found = run_demo(Path(folder, "demo"), customers, seed, Silent()).night
        for name, file in sorted(NightFolder(found.folder).list_files().items()):
            one = agreement(pq.read_table(file, partitioning=None).slice(0, TOP).to_pandas())
            print(seed, name, {figure: f"{value:.3f}" for figure, value in one.items()}, flush=True)
            yield {"list": name, "seed": seed, **one}


def agreement(rows: pd.DataFrame) -> dict[str, float]:
    """Return how the track records of some rows agree with their probabilities; NaN where none has one."""
    told = rows[rows["track_record_n"].notna()]
    low, high = told["track_record_low"], told["track_record_high"]
    printed = low.notna()
    return {
        "told": len(told) / len(rows) if len(rows) else np.nan,
        "confirmed": printed.mean(),
        "inside": told["probability"].between(low, high)[printed].mean(),
        "width": (high - low).median(),
        "probability": told["probability"].mean(),
        "predicted": told["track_record_predicted"].mean(),
        "moved": (told["track_record_k"] / told["track_record_n"]).mean(),
    }


def table(rows: pd.DataFrame) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| list | rows with a record | of these confirmed | printed intervals that hold it | median width |"
        " shown | predicted then | moved then |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in [*rows.groupby("list"), ("**all**", rows)]:
        mean = one.drop(columns=["list", "seed"]).mean()
        told = [f"{mean['told']:.0%}", f"{mean['confirmed']:.0%} ({one['confirmed'].min():.0%})"]
        told += [f"{mean['inside']:.0%}", f"{mean['width']:.1%}"]
        told += [f"{mean[column]:.1%}" for column in ("probability", "predicted", "moved")]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
