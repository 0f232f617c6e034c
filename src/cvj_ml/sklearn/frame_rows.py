"""Rows (customer_id, as_of) of any frame, and one answer to each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from cvj_ml.config import DAY, Config, Match, parse_duration
from cvj_ml.errors import ConfigError, DataError, nearest, raise_all
from cvj_ml.histories import Block
from cvj_ml.inputs import Histories
from cvj_ml.scoring.frames import id_as_text
from cvj_ml.snapshots import Snapshots, are_eligible
from cvj_ml.store.customer_ids import canonical
from cvj_ml.windows import Instants, midnight, parse_as_of, to_microseconds

CUSTOMER, AS_OF = "customer_id", "as_of"
_Numbers = TypeVar("_Numbers", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of X: ``customer`` indexes ``names``, each once."""

    names: tuple[str, ...]
    customer: npt.NDArray[np.int64]
    as_of: Instants


def rows_of(X: Any, config: Config) -> Rows:
    """Return the rows of X as they are read everywhere; ConfigError for its columns, DataError for what is in them."""
    frame, faults = named_columns(X, [CUSTOMER, AS_OF]), list[str]()
    names, customer = _customers(frame[CUSTOMER], config.ids.match, faults)
    as_of = read_instants(frame[AS_OF], config.zone, faults)
    raise_all(DataError, f"X cannot be read ({len(frame):,} rows):", faults)
    return Rows(names, customer, as_of)


def named_columns(X: Any, wanted: list[str]) -> pd.DataFrame:
    """Return some columns of a frame of pandas, Polars or Arrow; ConfigError where they are not there."""
    if not hasattr(X, "columns") or not (isinstance(X, pd.DataFrame) or hasattr(X, "__arrow_c_stream__")):
        raise ConfigError(
            f"X is a frame of pandas, Polars or Arrow with the columns {CUSTOMER} and {AS_OF}; found"
            f" {type(X).__name__}. Where it comes out of another step of a pipeline, let this one be the first."
        )
    names = [str(name) for name in (X.column_names if isinstance(X, pa.Table) else X.columns)]
    index = [name for name in getattr(getattr(X, "index", None), "names", ()) if name in wanted]
    faults = [
        f"{name!r} is the index and no column; call reset_index() first"
        if name in index
        else f"there is no column {name!r}.{nearest(name, names)}"
        for name in wanted
        if name not in names
    ]
    faults += [f"several columns are called {name!r}" for name in wanted if names.count(name) > 1]
    raise_all(ConfigError, f"X has the columns {', '.join(names)}:", faults)
    if isinstance(X, pd.DataFrame):
        return X[wanted]
    table = pa.table(X).select(wanted)
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz is not None:
            # The same instants: how a zone is called is not understood alike by all versions.
            instants = table[field.name].cast(pa.timestamp("us", "UTC"), safe=False)
            table = table.set_column(place, field.name, instants)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _customers(column: pd.Series, match: Match, faults: list[str]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the ids as they are read in every table, each once, and each row's position among them."""
    codes, values = pd.factorize(column)
    texts = canonical(pa.array([id_as_text(one) for one in values] + [None], pa.string()), match).to_pylist()
    known, names = pd.factorize(np.array(texts, dtype=object))
    customer = known[codes]  # -1 is the null at the end
    if unread := int((customer < 0).sum()):
        faults.append(f"{CUSTOMER} of {unread:,} row(s) is empty, or neither text nor a whole number")
    return tuple(names), customer.astype(np.int64)


def read_instants(column: pd.Series, zone: ZoneInfo, faults: list[str], name: str = AS_OF) -> Instants:
    """Return times in microseconds; naive ones are local, dates their midnight; faults name the rows without one."""
    codes, values = pd.factorize(column)
    found = [_instant(one, zone) for one in values] + [None]
    unread = sum(found[code] is None for code in codes)
    if unread:
        faults.append(
            f"{name} of {unread:,} row(s) is empty or no time; give dates, timestamps, or text such as 2024-12-31 or"
            " 2024-12-31T18:00"
        )
    return np.array([0 if one is None else one for one in found], dtype=np.int64)[codes]


def _instant(value: object, zone: ZoneInfo) -> int | None:
    if isinstance(value, str):
        try:
            return parse_as_of(value, zone)
        except ConfigError:
            return None
    if isinstance(value, datetime):
        # Nanoseconds are cut off, as in every table.
        moment = value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
        return to_microseconds(moment if moment.tzinfo else moment.replace(tzinfo=zone))
    return midnight(value, zone) if isinstance(value, date) else None


def ask(
    histories: Histories,
    rows: Rows,
    answer: Callable[[Block, Snapshots], npt.NDArray[_Numbers]],
    out: npt.NDArray[_Numbers],
) -> npt.NDArray[_Numbers]:
    """Fill ``out`` with the answers to all rows; DataError where a row has nothing visible before its ``as_of``."""
    order = np.lexsort((rows.as_of, rows.customer))
    begins = np.searchsorted(rows.customer[order], np.arange(len(rows.names) + 1))
    number = {name: i for i, name in enumerate(rows.names)}

    def work(block: Block) -> tuple[npt.NDArray[np.int64], npt.NDArray[_Numbers], int]:
        customers = np.array([number[name] for name in block.customers], dtype=np.int64)
        asked = [order[begins[one] : begins[one + 1]] for one in customers]
        place = np.concatenate(asked) if asked else order[:0]
        found = Snapshots(np.repeat(np.arange(len(block)), [len(one) for one in asked]), rows.as_of[place])
        seen = are_eligible(block.touchpoints, found)
        return place[seen], answer(block, found.take(seen)), int((~seen).sum())

    answered = early = 0
    for place, values, unseen in histories.engine().only(rows.names).map(work):
        out[place] = values
        answered, early = answered + len(place), early + unseen
    unknown = len(out) - answered - early
    faults = [f"{unknown:,} of customers who have no touchpoint at all"] if unknown else []
    faults += [f"{early:,} of customers whose first touchpoint was not yet visible"] if early else []
    raise_all(
        DataError,
        f"Of {len(out):,} rows, {unknown + early:,} ask about customers of whom nothing was known before {AS_OF}, which"
        " no model was ever shown. Leave them out; cvj_ml.sklearn.snapshots lists whom can be asked about:",
        faults,
    )
    return out


def duration_of(name: str, text: object, faults: list[str]) -> int:
    """Return a duration in microseconds, or a day and a fault."""
    try:
        return parse_duration(text)
    except ValueError as error:
        faults.append(f"{name}: {error}")
        return DAY
