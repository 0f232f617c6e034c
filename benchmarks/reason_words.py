"""What the reasons of a published night name: how many rows tell an event, a channel, a value or progress.

    python -m benchmarks.reason_words CONFIG NIGHT             # the shares
    python -m benchmarks.reason_words CONFIG NIGHT --show 20   # rows of each list, too, to be read aloud

CONFIG is the file that the night was made with, NIGHT its folder, such as ``out/as_of=2025-06-24/2ae15836b707``.

A row is a listed customer who has reasons; it counts where one of them names any of the four. What is typical of
others is not looked at, nor are attributes. The names of events and channels are those that the champion knows.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from cvj_ml.config import load_config
from cvj_ml.features import Vocabulary
from cvj_ml.inputs import open_histories
from cvj_ml.lists.last_events import did, name
from cvj_ml.lists.reasons import COLUMNS
from cvj_ml.night.champion import champion
from cvj_ml.night.layout import LISTS
from cvj_ml.run import Silent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("night", type=Path)
    parser.add_argument("--show", type=int, default=0, help="rows of each list to print, evenly from first to last")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    histories = open_histories(config, Silent())
    names = names_of(champion(config, histories.visible).predictor.definition.catalogue.vocabulary)
    tallies = []
    files = sorted((arguments.night / LISTS).glob("*.parquet"))
    found = [file for file in files if COLUMNS[0] in pq.read_schema(file).names]
    if not found:
        parser.error(f"no lists in {arguments.night / LISTS}; name the folder of one published night")
    for file in found:
        table = pq.read_table(file, columns=["probability", *COLUMNS], partitioning=None).to_pylist()
        rows = [[row[column] for column in COLUMNS if row[column]] for row in table]
        print(f"{file.stem}: {told(tally(rows, names))}")
        tallies.append(tally(rows, names))
        for i in range(0, len(rows), max(1, len(rows) // arguments.show)) if arguments.show else ():
            print(f"\n{i + 1}. {table[i]['probability']:.0%}", *rows[i], sep="\n   ")
    print(f"all lists: {told([sum(one) for one in zip(*tallies, strict=True)])}")


def names_of(vocabulary: Vocabulary) -> list[str]:
    """Return how reasons name what the model knows: events as verbs or quoted, channels."""
    events = [text for event in vocabulary.events for text in (did(event), f"“{name(event)}”")]
    return [*events, *(f"through {name(channel)}" for channel in (*vocabulary.channels, "another channel"))]


def is_concrete(reason: str, names: Sequence[str]) -> bool:
    """Return whether a reason names an event, a channel, a value or progress of the customer."""
    own = reason.partition(": ")[2].split("; ")[0]
    quotes_attribute = re.match(r".{1,40} is “", own)
    return bool(re.search(r"\bvalue\b|\btowards\b", own)) or (
        not quotes_attribute and any(text in own for text in names)
    )


def tally(rows: Sequence[Sequence[str]], names: Sequence[str]) -> list[int]:
    """Return the number of rows with reasons, of those that are concrete, of reasons, and of those."""
    concrete = [[is_concrete(reason, names) for reason in row] for row in rows if row]
    return [len(concrete), sum(map(any, concrete)), sum(map(len, concrete)), sum(map(sum, concrete))]


def told(counts: Sequence[int]) -> str:
    rows, concrete, reasons, named = counts
    return (
        f"{concrete:,} of {rows:,} rows ({concrete / max(rows, 1):.0%}), "
        f"{named:,} of {reasons:,} reasons ({named / max(reasons, 1):.0%})"
    )


if __name__ == "__main__":
    main()
