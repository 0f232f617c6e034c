"""Tables from elsewhere; those of PostgreSQL servers are read into Parquet files that are sources like any other."""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.config import Config, PostgresSource, TableSpec
from cvj_ml.errors import ConfigError, DataError, raise_all
from cvj_ml.ownership import remove
from cvj_ml.postgres import attempt, quoted, transaction
from cvj_ml.schemas import TOUCHPOINT_ROLES
from cvj_ml.store.object_store import fetched
from cvj_ml.store.sql import as_named, connect_duckdb, identifier

if TYPE_CHECKING:
    from cvj_ml.postgres import Connection

Spec = TypeVar("Spec", bound=TableSpec)

_PLAIN = {"int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar"}
# `infinity` is no instant: as null its row is refused where an instant is needed.
_FINITE = {"date", "timestamp", "timestamptz"}
# As text on the server: `char(n)` loses the spaces that PostgreSQL itself takes for none.
_TEXT = {"bpchar", "name", "uuid", "json", "jsonb"}
# The driver names the types that it met when it connected, others by their number.
_MORE_TEXT = (
    "SELECT unnest(ARRAY[CAST(typname AS text), 'unnamed<oid:' || oid || '>']) FROM pg_type"
    " WHERE typtype = 'e' OR typname = 'citext'"
)
_DECIMAL_DIGITS = 38


class Databases:
    """What one reading gets from elsewhere; whatever is read from one server is as of the same instant."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._open = ExitStack()
        self._connections: dict[str, Connection] = {}
        self._landed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def landed(self, label: str, spec: Spec) -> Spec:
        """Return a spec whose paths are files with what a server or an object store holds now; one of files as it is.

        Raises DataError and ConfigError for what is wrong with the table, the query or the objects, CvjError for the
        server or the store.
        """
        if spec.postgres is None:
            self._landed += 1
            return fetched(label, spec, self._folder / f"objects-{self._landed}")
        place = f"{label}.postgres"
        uri = spec.postgres.uri
        connection = self._connections.get(uri.get_secret_value())
        if connection is None:
            connection = self._open.enter_context(transaction(place, uri, read_only=True))
            self._connections[uri.get_secret_value()] = connection
        folder = self._folder / f"postgres-{self._landed}"
        self._landed += 1
        folder.mkdir(parents=True, mode=0o700)
        target = folder / "postgres.parquet"
        self._sort(_read(place, spec, connection, folder / "rows.parquet"), folder, target)
        return spec.model_copy(update={"postgres": None, "path": (str(target),)})

    def _sort(self, decimals: Mapping[str, str], folder: Path, target: Path) -> None:
        """Write the rows in the order of their content, so that equal tables are equal files."""
        rows = folder / "rows.parquet"
        columns = [
            f"CAST({identifier(name)} AS {decimals[name]}) AS {identifier(name)}"
            if name in decimals
            else identifier(name)
            for name in pq.read_schema(rows).names
        ]
        with connect_duckdb(self._config, folder / "spill") as connection:
            ordered = f"SELECT {', '.join(columns)} FROM read_parquet({as_named(rows)}) ORDER BY ALL"
            reader = connection.sql(ordered).to_arrow_reader()
            with pq.ParquetWriter(target, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
        remove(rows)


def _read(place: str, spec: TableSpec, connection: Connection, rows: Path) -> dict[str, str]:
    """Write the rows of a table as they come; return the DuckDB types of columns that came as text."""
    assert spec.postgres is not None
    source = _from(spec.postgres)
    # One table's fault does not end the transaction, so that those of the others are told with it.
    with attempt(place, connection) as cursor:
        cursor.execute(_MORE_TEXT)
        texts = {*_TEXT, *(str(kind) for (kind,) in cursor.fetchall())}
        columns, decimals = _columns(place, spec, texts, cursor.adbc_execute_schema(f"SELECT * FROM {source}"))
        cursor.execute(f"SELECT {', '.join(columns)} FROM {source}")
        reader = cursor.fetch_record_batch()
        with pq.ParquetWriter(rows, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    return decimals


def _from(spec: PostgresSource) -> str:
    if spec.table is not None:
        return f"{quoted(*spec.table.split('.'))} AS source"
    # The line break ends a comment in the query's last line.
    return f"({(spec.query or '').strip().removesuffix(';')}\n) AS source"


def _columns(place: str, spec: TableSpec, texts: Set[str], schema: pa.Schema) -> tuple[list[str], dict[str, str]]:
    """Return SQL of the columns that can be read, and the decimals among them, which come as text."""
    columns, decimals, faults = list[str](), dict[str, str](), list[str]()
    lower = [name.lower() for name in schema.names]
    repeated = sorted({name for name in schema.names if lower.count(name.lower()) > 1})
    raise_all(ConfigError, f"{place}: names of columns have to differ, not by case alone:", repeated)
    for field in schema:
        told = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        kind, name = told.get("POSTGRESQL:type", str(field.type)), f"source.{quoted(field.name)}"
        if kind == "numeric":
            if (exact := _decimal(int(told.get("POSTGRESQL:typmod", "-1")))) is None:
                columns.append(f"CAST({name} AS float8) AS {quoted(field.name)}")
            else:
                decimals[field.name] = exact
                columns.append(f"CAST(nullif({name}, 'NaN') AS text) AS {quoted(field.name)}")
        elif kind in _PLAIN:
            columns.append(name)
        elif kind in _FINITE:
            columns.append(f"CASE WHEN isfinite({name}) THEN {name} END AS {quoted(field.name)}")
        elif kind in texts:
            columns.append(f"CAST({name} AS text) AS {quoted(field.name)}")
        elif field.name in _wanted(spec):
            faults.append(f"{field.name} is {kind}; cast it in a query, for example to text, or leave it out")
    raise_all(DataError, f"{place}: columns of types that cannot be read:", faults)
    if not columns:
        raise DataError(f"{place}: it has no column that can be read.")
    return columns, decimals


def _decimal(modifier: int) -> str | None:
    """Return the DuckDB type of ``numeric(digits, scale)``; None where it is not declared so, or cannot be kept so."""
    digits, scale = (modifier - 4) >> 16, (modifier - 4) & 0x7FF
    return f"DECIMAL({digits}, {scale})" if modifier >= 4 and scale <= digits <= _DECIMAL_DIGITS else None


def _wanted(spec: TableSpec) -> set[str]:
    """Return the names of the columns that a mapping asks for."""
    columns = getattr(spec, "columns", ())
    named = columns.values() if isinstance(columns, Mapping) else columns
    return {*named, *TOUCHPOINT_ROLES, getattr(spec, "customer_id", ""), getattr(spec, "channel", "")}
