"""The story of ``cvj-ml forget``: customers erased from everything that was made of them, and never from half of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from cvj_ml.config import Config
from cvj_ml.config.places import lies_below
from cvj_ml.customers import (
    clear_leftovers,
    known_from_readings,
    other_ids,
    rows_held,
)
from cvj_ml.errors import ConfigError, CvjError, DataError, raise_all
from cvj_ml.night import delivery
from cvj_ml.night.champion import require_no_old_models
from cvj_ml.night.forgetting import begin, ended, forget_in_night, nights_naming, remember, unfinished, was_forgotten
from cvj_ml.night.locking import hold
from cvj_ml.run import Watcher
from cvj_ml.store import CustomerIds, ingest

_MOST_TOLD = 20


@dataclass
class Forgotten:
    """What was removed where, in counts: rows of scores and lists, files, and folders that sources had filled.

    ``unknown`` are those of the customers of whom nothing was found, nor an earlier call about them; ``other_ids`` are
    further ids of the same persons, which are forgotten as well.
    """

    customers: int
    other_ids: int = 0
    unknown: int = 0
    nights: int = 0
    scores: int = 0
    listed: int = 0
    files: int = 0
    leftovers: Mapping[str, int] = field(default_factory=dict)
    delivered: Mapping[str, int] = field(default_factory=dict)


def forget(config: Config, file: Path, watcher: Watcher, *, allow_unknown: bool = False) -> Forgotten:
    """Erase the customers whose ids are the lines of a file.

    DataError while a source still has rows of them, or for ids that nothing knows; NightError for a damaged night;
    ModelError for a model that may hold something of a single customer; LockedError while another run reads: then
    nothing was removed. What was done stays done where a later step fails, and the same call again does the rest.
    """
    if lies_below(str(file), config.out):
        raise ConfigError(f"{file}: it lies below out ({config.out}), where files are removed; put it elsewhere.")
    lines = read_ids(file)
    named = CustomerIds.of(list(lines), config.ids.match)
    out = Path(config.out)
    with hold(out, "forget"):
        # What told the ids of these persons may be gone from the sources, and from the stores once they are cleared.
        customers = unfinished(out, other_ids(out, named))
        with watcher.step("Looking at the models"):
            require_no_old_models(config)
        with watcher.step("Reading sources"):
            store = ingest(config, lambda told: watcher.say(f"warning: {told}"))
            held = rows_held(config, store, customers)
        raise_all(
            DataError,
            "Sources still have rows of these customers, so the next run would bring them back. Nothing was removed;"
            " delete these rows first:",
            [f"{source}: {rows} row(s)" for source, rows in held.items()],
        )
        with watcher.step("Searching published nights"):
            nights, known = nights_naming(out, customers)
        unknown: list[int] = []
        if not was_forgotten(out, named):
            unknown = _unknown(lines, CustomerIds(_known(config, customers, known), customers.match))
            if unknown and not allow_unknown:
                raise _unknown_ids(file, unknown)
            remember(out, named)
        done = Forgotten(len(named), len(customers) - len(named), len(unknown), len(nights))
        with watcher.step("Removing what was read before"):
            begin(out, customers)
            done.leftovers = clear_leftovers(out, store)
        with watcher.step("Rewriting published nights") as progress:
            for number, night in enumerate(nights, 1):
                rewritten = forget_in_night(out, night, customers)
                done.scores += rewritten.scores
                done.listed += rewritten.listed
                done.files += rewritten.files
                progress(number, len(nights))
        if config.deliver is not None and config.deliver.postgres is not None:
            with watcher.step("Deleting in PostgreSQL"):
                try:
                    done.delivered = delivery.forget_delivered(config.deliver.postgres, customers)
                except CvjError as error:
                    raise CvjError(
                        f"{error} In {out} these customers are forgotten, in PostgreSQL they are not; run the same"
                        " command again."
                    ) from None
        ended(out)
    return done


def read_ids(file: Path) -> dict[str, int]:
    """Return the ids of a file, one a line, as the sources have them, with their lines; ConfigError for none."""
    try:
        lines = [line.removesuffix("\r") for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{file}: cannot read the file: {reason}. Write one customer id a line, as UTF-8.") from None
    ids = {line: number for number, line in enumerate(lines, 1) if line.strip()}
    if not ids:
        raise ConfigError(f"{file}: it names nobody; write one customer id a line.")
    return ids


def _known(config: Config, customers: CustomerIds, known: pa.Array) -> pa.Array:
    """Return which customers something knows: the nights, as said, the stores, the quarantine, or PostgreSQL."""
    known = pa.concat_arrays([known, known_from_readings(Path(config.out), customers)]).unique()
    if config.deliver is not None and config.deliver.postgres is not None and len(known) < len(customers):
        known = pa.concat_arrays([known, delivery.known(config.deliver.postgres, customers)]).unique()
    return known


def _unknown(lines: Mapping[str, int], known: CustomerIds) -> list[int]:
    """Return the lines of the ids that nothing knows."""
    held = known.holds(pa.array(list(lines), pa.string())).to_pylist()
    return [number for number, one in zip(lines.values(), held, strict=True) if not one]


def _unknown_ids(file: Path, numbers: list[int]) -> DataError:
    told = ", ".join(map(str, numbers[:_MOST_TOLD]))
    more = f" and {len(numbers) - _MOST_TOLD:,} more" if len(numbers) > _MOST_TOLD else ""
    return DataError(
        f"{file}: {len(numbers):,} id(s) are known to no source, store, night or server, nor were they forgotten before"
        f" (line(s) {told}{more}). Nothing was removed. Write ids as the sources have them, letter by letter, or as"
        " ids.match reads them; --allow-unknown forgets the others."
    )
