"""Touchpoints, attributes and permissions from a real PostgreSQL server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.postgres import PASSWORD, Server, free_port

from cvj_ml.config import Config
from cvj_ml.customers import read_people
from cvj_ml.errors import ConfigError, CvjError, DataError
from cvj_ml.store import ingest

pytest_plugins = ["tests.fixtures"]

ORDERS = (
    "CREATE TABLE orders (customer_id text, occurred_at timestamptz, known_at timestamptz, event varchar(20),"
    " channel text, value numeric(12,2), rating int, weight numeric, ref uuid, note jsonb, gift boolean, day date,"
    " tags text[])",
    "INSERT INTO orders SELECT 'c' || lpad((i % 50)::text, 3, '0'), "
    " timestamptz '2024-02-01 08:00+01' + i * interval '7 h',"
    " timestamptz '2024-02-02 08:00+01' + i * interval '7 h', CASE WHEN i % 3 = 0 THEN 'purchase' ELSE 'visit' END,"
    " CASE WHEN i % 4 > 0 THEN 'web' END, CASE WHEN i % 3 = 0 THEN i * 1.005 END, i % 5, i / 7.0,"
    " md5(i::text)::uuid, jsonb_build_object('k', i % 3), i % 2 = 0, date '2024-03-01' + i % 9, ARRAY['x']"
    " FROM generate_series(1, 600) AS i",
)
MAPPED = {name: name for name in ("rating", "weight", "ref", "note", "gift", "day")}


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.parquet"))
    }


def from_server(configure: Callable[..., Config], uri: str, **source: Any) -> Config:
    return configure(
        sources={"orders": {"postgres": {"uri": uri, "table": "public.orders"}, "columns": MAPPED} | source}
    )


def test_a_table_gives_the_bytes_of_the_same_rows_in_parquet(
    tmp_path: Path, postgres: Server, configure: Callable[..., Config]
) -> None:
    uri = postgres.database("same")
    postgres.run(*ORDERS, database="same")
    from_table = ingest(from_server(configure, uri))
    frame = pd.DataFrame(
        postgres.rows("SELECT customer_id, occurred_at, known_at, event, channel, value::float8, rating,"
                      " weight::float8, ref::text, note::text, gift, day FROM orders ORDER BY random()", "same"),
        columns=["customer_id", "occurred_at", "known_at", "event", "channel", "value", *MAPPED],
    )  # fmt: skip
    frame.to_parquet(tmp_path / "orders.parquet")
    from_file = ingest(configure(out="other", sources={"orders": {"path": "orders.parquet", "columns": MAPPED}}))
    assert from_table.counts == from_file.counts
    assert from_table.property_kinds == from_file.property_kinds
    assert fingerprint(from_table.folder) == fingerprint(from_file.folder)


def test_the_order_of_the_rows_on_the_server_does_not_matter(
    postgres: Server, configure: Callable[..., Config]
) -> None:
    uri = postgres.database("order")
    postgres.run(*ORDERS, database="order")
    config = from_server(configure, uri)
    first = ingest(config)
    postgres.run(
        "CREATE TABLE shuffled AS SELECT * FROM orders ORDER BY random()",
        "DROP TABLE orders",
        "ALTER TABLE shuffled RENAME TO orders",
        database="order",
    )
    again = ingest(config)
    assert again.key == first.key
    postgres.run("UPDATE orders SET value = value + 0.01 WHERE rating = 1", database="order")
    assert ingest(config).key != first.key


def test_all_tables_of_a_reading_are_as_of_one_instant(postgres: Server, configure: Callable[..., Config]) -> None:
    uri = postgres.database("instant")
    postgres.run(*ORDERS, "CREATE TABLE other AS SELECT * FROM orders LIMIT 10", database="instant")
    # Reading the first table takes long enough for the second to be emptied meanwhile, by another connection.
    slow = {"uri": uri, "query": "SELECT orders.* FROM orders, pg_sleep(1.5) AS pause"}
    both = {
        "slow": {"postgres": slow, "columns": MAPPED},
        "other": {"postgres": {"uri": uri, "table": "other"}, "columns": MAPPED},
    }
    import threading

    emptied = threading.Timer(0.7, lambda: postgres.run("DELETE FROM other", database="instant"))
    emptied.start()
    store = ingest(configure(sources=both))
    emptied.join()
    assert postgres.rows("SELECT count(*) FROM other", "instant") == [(0,)]
    assert {name: counts.rows_in for name, counts in store.counts.items()} == {"slow": 600, "other": 10}


def test_people_come_from_the_server_too(postgres: Server, configure: Callable[..., Config]) -> None:
    uri = postgres.database("people")
    postgres.run(
        *ORDERS,
        "CREATE TABLE people (id int, email text, stop bool)",
        "INSERT INTO people VALUES (7, 'a@example.org', true), (8, NULL, false)",
        database="people",
    )
    table = {"uri": uri, "table": "people"}
    config = configure(
        sources={"orders": {"postgres": {"uri": uri, "table": "orders"}}},
        contact={"postgres": table, "customer_id": "id", "columns": ["email"]},
        suppression={"postgres": {"uri": uri, "query": "SELECT id FROM people WHERE stop;"}, "customer_id": "id"},
    )
    people = read_people(config)
    assert people.contact.to_pydict() == {"customer_id": ["7", "8"], "email": ["a@example.org", None]}
    suppressed = people.permissions.suppression
    assert suppressed is not None and suppressed["customer_id"].to_pylist() == ["7"]


def test_numbers_keep_their_decimals_and_odd_names_are_quoted(
    postgres: Server, configure: Callable[..., Config]
) -> None:
    uri = postgres.database("types")
    postgres.run(
        'CREATE SCHEMA "We""ird"',
        "CREATE TYPE mood AS ENUM ('good')",
        'CREATE TABLE "We""ird"."or;ders" ("Who?" numeric(20,0), at timestamp, "a""b" numeric(38,2), c char(9),'
        " m mood)",
        'INSERT INTO "We""ird"."or;ders" VALUES (12345678901234567890, \'2024-02-01\', 1234567890123.45,'
        " 'buy', 'good'),"
        " (1, '2024-02-02', 'NaN', 'buy', 'good'), (NULL, '2024-02-02', 0, 'buy', 'good'),"
        " (2, 'infinity', 0, 'buy', NULL)",
        database="types",
    )
    mapping = {"customer_id": "Who?", "occurred_at": "at", "value": 'a"b', "event": "c", "mood": "m"}
    source = {"postgres": {"uri": uri, "table": 'We"ird.or;ders'}, "columns": mapping}
    store = ingest(configure(sources={"orders": source}, refused_share=0.5))
    rows = pa.concat_tables(
        pq.read_table(path, partitioning=None) for path in sorted(store.folder.glob("bucket-*/touchpoints.parquet"))
    )  # fmt: skip
    found = {row["customer_id"]: (row["value"], row["event"], row["property_mood"]) for row in rows.to_pylist()}
    assert found == {"12345678901234567890": (123456789012345, "buy", "good"), "1": (None, "buy", "good")}
    assert store.counts["orders"].refused == {"no customer_id": 1, "no occurred_at": 1}


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ({"table": "orderz"}, DataError, "sources.orders.postgres: there is no such table"),
        ({"table": "nowhere.orders"}, DataError, "there is no such"),
        ({"table": "hidden"}, DataError, "the role lacks a privilege"),
        ({"query": "SELECT nothing FROM orders"}, ConfigError, "a column that is named there does not exist"),
        ({"query": "SELEC 1"}, ConfigError, "no SELECT that PostgreSQL understands"),
        ({"query": "SELECT 1) AS q; DROP TABLE orders; --"}, ConfigError, "no SELECT that PostgreSQL understands"),
        ({"query": "SELECT nextval('counter') AS value FROM orders"}, ConfigError, "it would change something"),
        ({"query": "SELECT 1 / (rating - 1) AS rating FROM orders"}, DataError, "it fails on a row"),
        ({"query": "SELECT customer_id AS a, event AS A FROM orders"}, ConfigError, "columns have to differ"),
        ({"query": "SELECT *, pg_sleep(9) FROM orders"}, CvjError, "cancelled, by statement_timeout"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_without_its_rows(
    source: dict[str, str], kind: type[CvjError], words: str, broken: str, configure: Callable[..., Config]
) -> None:
    config = configure(sources={"orders": {"postgres": {"uri": broken, **source}}})
    with pytest.raises(CvjError) as caught:
        ingest(config)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert_no_secret(config, caught.value)


@pytest.fixture
def broken(postgres: Server) -> str:
    """The URI of a role with few rights and little patience."""
    if not postgres.rows("SELECT 1 FROM pg_database WHERE datname = 'broken'"):
        postgres.database("broken")
        postgres.run(
            *ORDERS,
            "CREATE TABLE hidden (customer_id text)",
            "CREATE SEQUENCE counter",
            f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'",
            "ALTER ROLE reader SET statement_timeout = '500ms'",
            "GRANT SELECT ON orders TO reader",
            "GRANT ALL ON SEQUENCE counter TO reader",
            database="broken",
        )
    return postgres.uri("broken", user="reader")


def assert_no_secret(config: Config, error: BaseException) -> None:
    import traceback

    told = "".join(traceback.format_exception(error)) + repr(config) + config.model_dump_json()
    assert PASSWORD not in told
    assert "c001" not in told


def test_faults_of_all_tables_are_told_at_once(broken: str, configure: Callable[..., Config]) -> None:
    tables = {name: {"postgres": {"uri": broken, "table": name}} for name in ("orderz", "hidden", "orders")}
    with pytest.raises(DataError) as caught:
        ingest(configure(sources=tables))
    assert "sources.orderz.postgres: there is no such table" in str(caught.value)
    assert "sources.hidden.postgres: the role lacks a privilege" in str(caught.value)


def test_columns_that_cannot_be_read_are_named_where_they_are_asked_for(
    broken: str, configure: Callable[..., Config]
) -> None:
    source = {"postgres": {"uri": broken, "table": "orders"}}
    assert ingest(configure(sources={"orders": source})).customers == 50
    with pytest.raises(DataError, match=r"tags is _text; cast it in a query"):
        ingest(configure(sources={"orders": source | {"columns": {"tags": "tags"}}}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "wr0ng"}, "the server refuses the user or the password"),
        ({"user": "nobody-here"}, "the server refuses the user or the password"),
        ({"database": "nowhere"}, "there is no such database or role"),
        ({"password": "sla/sh"}, "the URI is wrong, or no server answers"),
    ],
)
def test_a_server_that_does_not_let_in_is_no_broken_contract(
    change: dict[str, str], words: str, postgres: Server, configure: Callable[..., Config]
) -> None:
    config = from_server(configure, postgres.uri(**change))
    with pytest.raises(CvjError) as caught:
        ingest(config)
    assert caught.value.exit_code == 1
    assert words in str(caught.value)
    assert not any(secret in str(caught.value) + repr(config) for secret in (PASSWORD, "wr0ng", "sla"))


def test_a_server_that_is_down_is_a_failure(postgres: Server, configure: Callable[..., Config]) -> None:
    config = from_server(configure, postgres.uri().replace(str(postgres.port), str(free_port())))
    with pytest.raises(CvjError, match="no server listens at that host and port") as caught:
        ingest(config)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("uri", ["", "host=localhost password=hush", "mysql://user:hush@host/db"])
def test_a_uri_that_is_none_is_not_shown(uri: str, configure: Callable[..., Config]) -> None:
    with pytest.raises(ValueError, match="write postgresql://") as caught:
        from_server(configure, uri)
    assert not uri or "hush" not in str(caught.value.errors(include_input=False))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_large_table_is_read_in_flat_memory(tmp_path: Path, postgres: Server) -> None:
    import subprocess
    import sys

    uri = postgres.database("large")
    postgres.run(
        "CREATE TABLE small AS SELECT md5(i::text) AS customer_id, now() AS occurred_at, 'visit' AS event,"
        " repeat('x', 100) || i AS note FROM generate_series(1, 100000) AS i",
        "CREATE TABLE large AS SELECT md5(i::text) AS customer_id, now() AS occurred_at, 'visit' AS event,"
        " repeat('x', 100) || i AS note FROM generate_series(1, 1500000) AS i",
        database="large",
    )
    program = (
        "import resource, sys; from pathlib import Path; import pyarrow.parquet as pq\n"
        "from cvj_ml.config import Config, SourceSpec; from cvj_ml.store.postgres_source import Databases\n"
        "from cvj_ml.ownership import claim\n"
        "uri, table, folder = sys.argv[1:]; claim(Path(folder))\n"
        "config = Config.model_validate(dict(name='x', time_zone='UTC', history_from='2024-01-01', journey='cvj8',\n"
        "    sources={'s': {'postgres': {'uri': uri, 'table': table}}},\n"
        "    engine={'memory_limit': '100MB', 'threads': 1}))\n"
        "with Databases(config, Path(folder)) as databases:\n"
        "    spec = databases.landed('s', config.sources['s'])\n"
        "print(pq.read_metadata(spec.path[0]).num_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    peaks = {}
    for table, rows in (("small", 100_000), ("large", 1_500_000)):
        (tmp_path / table).mkdir()
        command = [sys.executable, "-c", program, uri, table, str(tmp_path / table)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found, peaks[table] = map(int, done.stdout.split()[-2:])
        assert found == rows
    # 220 MB of text would double the peak if it were held.
    assert peaks["large"] - peaks["small"] < 150, peaks
