"""Amounts of several currencies: made one by rates of the day, or refused; and what a minor unit of each is.

A rate is what one unit of a currency is worth in the currency of the values. That of a day holds until the next, for
at most a week (banks quote none on holidays); what lies ahead of an amount never counts for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from cvj_ml.config import CurrencySpec, SourceSpec
from cvj_ml.errors import DataError
from cvj_ml.io import sha256_of
from cvj_ml.store.fields import Field, find_field, plain_text
from cvj_ml.store.formats import is_text, require_table
from cvj_ml.store.headers import read_layout
from cvj_ml.store.scanning import Plain, scan
from cvj_ml.store.source_location import SourceLocation
from cvj_ml.store.sql import identifier, literal

_HOLDS = timedelta(days=7)
# ISO 4217; of every other currency a minor unit is a hundredth.
_NO_MINOR = (
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF",
    "XPF",
)  # fmt: skip
_THOUSANDTHS = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")

RATES = pa.schema([("code", pa.string()), ("day", pa.int64()), ("rate", pa.float64())])
"""``day`` is the local midnight of the day, as microseconds of its wall time."""


@dataclass(frozen=True, slots=True)
class Currency:
    """In which currency a row's amount is (SQL of its code), what all are made, and by which rates, if by any."""

    code: str
    field: Field
    to: str
    rates: pa.Table | None = None
    digest: str | None = None

    def converted(self, rows: str, local_day: str, connection: duckdb.DuckDBPyConnection) -> str:
        """Return SQL of rows with ``code`` and their value in one currency, and ``currency_fault``, why not.

        A value that was not made into another currency is null; a row without a value needs no currency.
        """
        if self.rates is None:
            fault = f"WHEN code <> {literal(self.to)} THEN 'another currency'"
            source, factor = f"({rows}) AS money", "1"
        else:
            connection.register("rates", self.rates)
            connection.execute("CREATE OR REPLACE TEMP TABLE rates_held AS SELECT code AS of, day, rate FROM rates")
            connection.unregister("rates")
            fault = f"WHEN code <> {literal(self.to)} AND rate IS NULL THEN 'no rate of its currency'"
            source = f"({rows}) AS money LEFT JOIN rates_held ON of = code AND day = {local_day}"
            factor = f"CASE WHEN code = {literal(self.to)} THEN 1 ELSE rate END"
        made = f"TRY_CAST(round(money.value * {factor}) AS BIGINT)"
        value = "" if self.rates is None else f" REPLACE ({made} AS value)"
        fault += "" if self.rates is None else f" WHEN {made} IS NULL THEN 'unreadable value'"
        why = f"CASE WHEN money.value IS NULL THEN NULL WHEN code IS NULL THEN 'no currency' {fault} END"
        return f"SELECT money.*{value}, {why} AS currency_fault FROM {source}"


def map_currency(location: SourceLocation, spec: SourceSpec, faults: list[str]) -> Currency | None:
    """Return how the amounts of a source are made one currency; None where it says nothing about it."""
    if spec.currency is None:
        return None
    found = find_field(location, spec.currency.column)
    if isinstance(found, str):
        faults.append(f"{location.label}: currency.column: {found}")
        return None
    code = f"nullif(upper(trim({plain_text(found)})), '')"
    if spec.currency.rates is None:
        return Currency(code, found, spec.currency.to)
    path = Path(spec.currency.rates)
    rates = _read_rates(f"{location.label}: currency.rates", path, spec.currency)
    return Currency(code, found, spec.currency.to, rates, sha256_of(path))


def scale_of(currency: Currency | None, spec: SourceSpec, decimals: int) -> str | None:
    """Return SQL by what an amount is multiplied to be in minor units of ``decimals``; None for plain amounts."""
    if not spec.minor_units:
        return None
    if currency is None:
        return f"(1e{decimals} / 1e2)"
    cases = f"WHEN {currency.code} IN ({', '.join(map(literal, _NO_MINOR))}) THEN 1e0"
    cases += f" WHEN {currency.code} IN ({', '.join(map(literal, _THOUSANDTHS))}) THEN 1e3"
    return f"(1e{decimals} / CASE {cases} ELSE 1e2 END)"


def _read_rates(where: str, path: Path, spec: CurrencySpec) -> pa.Table:
    """Return a rate for every day that has one, or a rate of the week before."""
    if not path.is_file():
        raise DataError(f"{where}: {path}: there is no such file.")
    require_table(where, path, "utf-8")
    layout = read_layout(where, path, "utf-8") if is_text(path) else None
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        held = connection.sql(f"SELECT * FROM {scan([Plain(path, layout)])}")
        if missing := [name for name in ("date", "currency", "rate") if name not in held.columns]:
            raise DataError(
                f"{where}: {path} has no column {missing[0]!r}; it needs date, currency and rate (what one of the"
                f" currency is worth in {spec.to})."
            )
        columns = ", ".join(map(identifier, ("date", "currency", "rate")))
        connection.execute(
            "CREATE TABLE given AS SELECT TRY_CAST(date AS DATE) AS day, upper(trim(currency)) AS code,"
            f" TRY_CAST(rate AS DOUBLE) AS rate FROM (SELECT {columns} FROM {scan([Plain(path, layout)])})"
        )
        wrong, twice = connection.execute(
            "SELECT count(*) FILTER (WHERE NOT coalesce(day IS NOT NULL AND code <> '' AND rate > 0 AND isfinite(rate),"
            " FALSE)), count(*) - count(DISTINCT (day, code)) FROM given"
        ).fetchall()[0]
        if wrong or twice:
            told = f"{wrong:,} row(s) without a date, a currency or a rate above zero" if wrong else ""
            told = told or f"{twice:,} day(s) with two rates of a currency"
            raise DataError(f"{where}: {path} has {told}; correct it.")
        filled = (
            "SELECT code, unnest(generate_series(CAST(day AS TIMESTAMP),"
            f" least(CAST(coalesce(later, day + {_HOLDS.days + 1}) - 1 AS TIMESTAMP),"
            f" CAST(day + {_HOLDS.days} AS TIMESTAMP)), INTERVAL 1 DAY)) AS day, rate FROM"
            " (SELECT *, lead(day) OVER (PARTITION BY code ORDER BY day) AS later FROM given)"
        )
        table = connection.sql(f"SELECT code, epoch_us(day) AS day, rate FROM ({filled}) ORDER BY ALL").to_arrow_table()
    return table.cast(RATES)
