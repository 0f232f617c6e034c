"""Touchpoints from a DataFrame: a table in memory with the roles of its columns, and no configuration file."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import Config, validated
from cvj_ml.errors import ConfigError, DataError, nearest, raise_all
from cvj_ml.schemas import TOUCHPOINT_ROLES

_BEGINNING = date(1970, 1, 1)
"""Where the history begins until the rows have been read."""


class Touchpoints:
    """A table of touchpoints, one row each, and what its columns mean.

    ``table`` is a DataFrame of pandas or Polars, a table of Arrow, or anything else that hands over an Arrow stream
    (``__arrow_c_stream__``). Its rows go through the ingest of any source: what cannot be read is refused by reason,
    and too much of it is an error.

    customer_id, occurred_at, event: columns that every table needs. ``constants`` stands in for one that it does not
    have, as in ``constants={"event": "order"}`` for a table of orders.
    channel, value, known_at, touchpoint_id: columns that it may have; by default those of the same names.
    properties: further columns that rules and features may use; all others are left out (``unused`` names them).
    attributes: a table with a row a customer, or a row a version with ``known_at``; ``attribute_columns`` are used.
    Without ``known_at`` it has to be said that they never change (``static_attributes=True``). ``attribute_dates`` are
    those that are dates to come, such as that of a renewal.
    time_zone: of the business: its days, and naive times, unless ``reading`` says otherwise.
    history_from: the first day from which on everything was recorded; by default the day of the first row.
    outbound: events that the business sends or shows, such as e-mails.
    value_decimals: of values, such as 2 for euros and cents.
    reading: further settings of a source (docs/configuration.md): times, time_format, decimal_mark, known_after, …

    Nothing in it changes, so a copy is the object itself. A pickle does not hold the rows: other processes read them
    where they are, for as long as this object lives.

    ConfigError for columns that are not there; DataError for columns of mixed types.

    >>> import pandas as pd
    >>> orders = pd.DataFrame({"cust": ["a", "a"], "paid_at": ["2024-05-01", "2024-06-01"], "total": [10.0, 20.0]})
    >>> Touchpoints(orders, customer_id="cust", occurred_at="paid_at", value="total", constants={"event": "order"})
    Touchpoints(2 rows, customer_id='cust', occurred_at='paid_at', value='total', event: 'order', time_zone='UTC')
    """

    def __init__(
        self,
        table: Any,
        *,
        customer_id: str = "customer_id",
        occurred_at: str = "occurred_at",
        event: str = "event",
        channel: str | None = None,
        value: str | None = None,
        known_at: str | None = None,
        touchpoint_id: str | None = None,
        properties: Sequence[str] = (),
        constants: Mapping[str, str] | None = None,
        attributes: Any = None,
        attribute_columns: Sequence[str] = (),
        static_attributes: bool = False,
        attribute_dates: Sequence[str] = (),
        time_zone: str = "UTC",
        history_from: date | str | None = None,
        outbound: Sequence[str] = (),
        value_decimals: int = 2,
        reading: Mapping[str, Any] | None = None,
    ) -> None:
        names, faults = _column_names(table, "the table of touchpoints"), list[str]()
        given = {"channel": channel, "value": value, "known_at": known_at, "touchpoint_id": touchpoint_id}
        self.constants = dict(constants or {})
        wanted = {"customer_id": customer_id, "occurred_at": occurred_at, "event": event}
        wanted = {role: own for role, own in wanted.items() if role not in self.constants}
        wanted |= {role: own for role, own in given.items() if own is not None}
        # As in a source of a file: a column of a role's own name plays that role.
        wanted |= {role: role for role in TOUCHPOINT_ROLES if role not in {*wanted, *self.constants} and role in names}
        if isinstance(properties, str):
            properties = (properties,)
        wanted |= {name: name for name in properties}
        faults += [_absent(role, own, names, table) for role, own in wanted.items() if own not in names]
        if (attributes is None) != (not attribute_columns):
            faults.append(
                "attributes and attribute_columns belong together: give the table, and name what to use of it"
            )
        raise_all(ConfigError, "These touchpoints cannot be read:", faults)
        self.columns = wanted
        self.unused = tuple(name for name in names if name not in wanted.values())
        self.time_zone, self.outbound, self.value_decimals = time_zone, tuple(outbound), value_decimals
        self.history_from = history_from
        self.attribute_columns = (
            (attribute_columns,) if isinstance(attribute_columns, str) else tuple(attribute_columns)
        )
        self._reading = dict(reading or {})
        place = tempfile.TemporaryDirectory(prefix="cvj-ml-", ignore_cleanup_errors=True)
        self._folder = Path(place.name)
        weakref.finalize(self, place.cleanup)
        self._attributes: dict[str, Any] | None = None
        rows = _arrow(table, list(dict.fromkeys(wanted.values())), "the table of touchpoints")
        self.rows = len(rows)
        pq.write_table(rows, self._folder / "touchpoints.parquet")
        if attributes is not None:
            self._attributes = self._write_attributes(attributes, customer_id, static_attributes)
            self._attributes["dates"] = attribute_dates

    def __len__(self) -> int:
        """Return how many rows the table has, before any is refused."""
        return self.rows

    def __copy__(self) -> Touchpoints:
        """Return the same object: nothing in it changes."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Touchpoints:
        return self

    def __repr__(self) -> str:
        words = [f"{self.rows:,} rows", *(f"{role}={own!r}" for role, own in self.columns.items() if role != own)]
        words += [role for role, own in self.columns.items() if role == own]
        words += [f"{role}: {text!r}" for role, text in self.constants.items()]
        words += [f"history_from='{self.history_from}'"] if self.history_from else []
        words.append(f"time_zone={self.time_zone!r}")
        words += [f"unused: {', '.join(self.unused)}"] if self.unused else []
        return f"Touchpoints({', '.join(words)})"

    @property
    def named(self) -> frozenset[str]:
        """The canonical columns and properties that its rows have, in a column, as a constant or by a setting."""
        return frozenset((*self.columns, *self.constants, *(["known_at"] if "known_after" in self._reading else [])))

    def configure(self, settings: Mapping[str, Any]) -> Config:
        """Return the configuration of this table and of settings as in a configuration file (the journey among them).

        Store and results lie in a folder that goes with this object. Without ``history_from`` the history begins in
        1970: whoever has read the rows knows better. DataError where the rows are gone, with the object that a pickle
        was made of.
        """
        if not self._folder.is_dir():
            raise DataError(
                f"The {self.rows:,} rows of these touchpoints are gone: a pickle does not hold them, and they went with"
                " the process, or the object, that it was made of. Make new Touchpoints and give those."
            )
        table: dict[str, Any] = {
            "path": str(self._folder / "touchpoints.parquet"),
            "columns": self.columns,
            "constants": self.constants,
            **self._reading,
        }
        document = {
            "name": "touchpoints",
            "time_zone": self.time_zone,
            "history_from": _day(self.history_from) if self.history_from else _BEGINNING,
            "sources": {"touchpoints": table},
            "attributes": self._attributes,
            "outbound": self.outbound,
            "value_decimals": self.value_decimals,
            "out": str(self._folder / "out"),
            "mlflow": {"tracking_uri": f"sqlite:///{self._folder}/mlflow.db"},
            **settings,
        }
        return validated(Config, document, None)

    def _write_attributes(self, table: Any, customer_id: str, static: bool) -> dict[str, Any]:
        names = _column_names(table, "the table of attributes")
        own = customer_id if customer_id in names else "customer_id"
        wanted = {
            "customer_id": own,
            **({} if static else {"known_at": "known_at"}),
            **{one: one for one in self.attribute_columns},
        }
        faults = [_absent(role, name, names, table) for role, name in wanted.items() if name not in names]
        if not static and "known_at" not in names:
            faults.append(
                "if attributes never change, say static_attributes=True; today's value of what changes is a leak"
            )
        raise_all(ConfigError, "These attributes cannot be read:", faults)
        pq.write_table(
            _arrow(table, list(dict.fromkeys(wanted.values())), "the table of attributes"),
            self._folder / "attributes.parquet",
        )
        return {"path": str(self._folder / "attributes.parquet"), "columns": wanted, "static": static}


def _day(text: date | str) -> date | str:
    return text if isinstance(text, str) else date(text.year, text.month, text.day)


def _column_names(table: Any, what: str) -> list[str]:
    """Return the names of a table's columns; ConfigError for what is no table, or has names that are no text."""
    streams = hasattr(table, "__arrow_c_stream__") and hasattr(table, "columns")
    if isinstance(table, pa.RecordBatchReader) or not (streams or hasattr(table, "iloc")):
        raise ConfigError(
            f"Touchpoints take a DataFrame of pandas or Polars or a table of Arrow; {what} is {type(table).__name__}."
            " Of a lazy frame, give what collect() returns, of Spark df.toArrow(), of a reader read_all(); files are"
            " named in a configuration (cvj_ml.load_config)."
        )
    names = list(table.column_names if isinstance(table, pa.Table) else getattr(table, "columns", ()))
    if other := [name for name in names if not isinstance(name, str)]:
        raise ConfigError(
            f"{len(other)} column name(s) of {what} are no text, such as {other[0]!r}; rename the columns (of several"
            " levels, join them)."
        )
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{what}: several columns are called {', '.join(map(repr, repeated))}; rename them.")
    return names


def _absent(role: str, own: str, names: Sequence[str], table: Any) -> str:
    if own in [name for name in getattr(getattr(table, "index", None), "names", ()) if name is not None]:
        return f"{role}: {own!r} is the index and no column; call reset_index() first"
    found = nearest(own, names) or f" Columns: {', '.join(names)}"
    return f"{role}: there is no column {own!r}.{found}"


def _array(column: Any) -> pa.Array:
    """Return a column of pandas; instants with a zone are the same instants in UTC."""
    zone = getattr(column.dtype, "tz", None)
    if zone is None:
        return pa.Array.from_pandas(column)
    found = pa.Array.from_pandas(column.dt.tz_convert(None))
    return found.cast(pa.timestamp(found.type.unit, "UTC"))


def _arrow(table: Any, columns: Sequence[str], what: str) -> pa.Table:
    """Return some columns as Arrow; DataError where one mixes types, since any choice of one would be a guess."""
    if not hasattr(table, "iloc"):
        found = pa.table(table).select(list(columns))
    else:
        part = table[list(columns)]
        faults, arrays = list[str](), list[pa.ChunkedArray]()
        for name in columns:
            try:
                arrays.append(pa.chunked_array([_array(part[name])]))
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                kinds = sorted({type(one).__name__ for one in part[name].dropna().head(10_000)})
                faults.append(
                    f"{name} mixes types ({', '.join(kinds)}); make one of them, as with .astype(str) for ids or"
                    " pandas.to_datetime for times"
                )
        raise_all(DataError, f"Columns of {what} cannot be read:", faults)
        found = pa.table(arrays, list(columns))
    # Views are what newer readers make of text; Parquet files have none.
    plain = [field.with_type(pa.string()) if pa.types.is_string_view(field.type) else field for field in found.schema]
    return found.cast(pa.schema(plain))
