"""The story of ``cvj-ml forget``: customers erased from everything that was made of them, and never from half of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from cvj_ml import delivery
from cvj_ml.config import Config
from cvj_ml.config.places import lies_below
from cvj_ml.errors import ConfigError, CvjError, DataError, raise_all
from cvj_ml.pipeline.opening import Watcher
from cvj_ml.publish import forget_in_night, hold, nights_naming
from cvj_ml.sources import clear_leftovers, ingest, read_contact, rows_held


@dataclass
class Forgotten:
    """What was removed where, in counts: rows of scores and lists, files, and folders that sources had filled."""

    customers: int
    nights: int = 0
    scores: int = 0
    listed: int = 0
    files: int = 0
    leftovers: Mapping[str, int] = field(default_factory=dict)
    delivered: Mapping[str, int] = field(default_factory=dict)


def forget(config: Config, file: Path, watcher: Watcher) -> Forgotten:
    """Erase the customers whose ids are the lines of a file.

    DataError while a source still has rows of them, NightError for a damaged night; then nothing was removed.
    What was done stays done where a later step fails, and the same call again does the rest.
    """
    if lies_below(str(file), config.out):
        raise ConfigError(f"{file}: it lies below out ({config.out}), where files are removed; put it elsewhere.")
    customers = read_ids(file)
    out = Path(config.out)
    with hold(out, "forget"):
        with watcher.step("Reading sources"):
            store = ingest(config, lambda told: watcher.say(f"warning: {told}"))
            held = rows_held(store, customers)
            contact = read_contact(config)["customer_id"].to_pylist()
        if known := sum(one in customers for one in contact):
            held["contact"] = known
        raise_all(
            DataError,
            "Sources still have rows of these customers, so the next run would bring them back. Nothing was removed;"
            " delete these rows first:",
            [f"{source}: {rows} row(s)" for source, rows in held.items()],
        )
        ids = pa.array(sorted(customers), pa.string())
        with watcher.step("Searching published nights"):
            nights = nights_naming(out, ids)
        done = Forgotten(len(customers), len(nights))
        with watcher.step("Removing what was read before"):
            done.leftovers = clear_leftovers(out, store)
        with watcher.step("Rewriting published nights") as progress:
            for number, night in enumerate(nights, 1):
                rewritten = forget_in_night(out, night, ids)
                done.scores += rewritten.scores
                done.listed += rewritten.listed
                done.files += rewritten.files
                progress(number, len(nights))
        if config.deliver is not None:
            with watcher.step("Deleting in PostgreSQL"):
                try:
                    done.delivered = delivery.forget(config.deliver.postgres, sorted(customers))
                except CvjError as error:
                    raise CvjError(
                        f"{error} In {out} these customers are forgotten, in PostgreSQL they are not; run the same"
                        " command again."
                    ) from None
    return done


def read_ids(file: Path) -> frozenset[str]:
    """Return the ids of a file, one a line, as the sources have them; ConfigError where there is none."""
    try:
        lines = [line.removesuffix("\r") for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{file}: cannot read the file: {reason}. Write one customer id a line, as UTF-8.") from None
    ids = frozenset(line for line in lines if line)
    if not ids:
        raise ConfigError(f"{file}: it names nobody; write one customer id a line.")
    return ids
