"""A published night in a real PostgreSQL server: whole or not there, never back in time, never in pieces."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.postgres import PASSWORD, Server, connected
from tests.trained import AS_OF, Trained, call

from cvj_ml.config import PostgresDelivery
from cvj_ml.errors import CvjError
from cvj_ml.night.delivery import deliver
from cvj_ml.schemas import INSTANT, TARGETS

pytest_plugins = ["tests.fixtures"]

HOSTILE = "o''hara\"; DROP TABLE scores; --__x__30d"


def spec(uri: str, schema: str = "cvj") -> PostgresDelivery:
    return PostgresDelivery.model_validate({"uri": uri, "schema": schema})


def night(
    folder: Path, as_of: str = "2024-11-01", digest: str = "a" * 12, *, rows: int = 3,
    lists: tuple[str, ...] = ("x__y__30d",), reach: tuple[str, ...] = ("p_reach_y_30d",), contact: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """Write the parts of a published night that a delivery reads."""
    made = folder / f"as_of={as_of}" / digest
    (made / "scores").mkdir(parents=True)
    (made / "targets").mkdir()
    ids = [f"c{i}" for i in range(rows)]
    instant = pa.array([1_730_419_200_000_000] * rows, INSTANT)
    columns: dict[str, Any] = {"customer_id": ids, "as_of": instant, "stage": ["x"] * (rows - 1) + [None]}
    columns |= {name: pa.array([0.25] * (rows - 1) + [None], pa.float64()) for name in reach}
    columns |= {"dormant": [True] * rows, "low_evidence": pa.array([["y"]] * rows, pa.list_(pa.string()))}
    columns |= {"model_version": [digest] * rows}
    pq.write_table(pa.table(columns), made / "scores" / "scores.parquet")
    filled = {"rank": [1], "customer_id": ["c0"], "from_stage": ["x"], "model_version": [digest]}
    for name in lists:
        table = pa.table(
            [pa.array(filled.get(column, [None]), kind) for column, kind in TARGETS.columns.items()],
            names=list(TARGETS.columns),
        )
        for column in contact:
            table = table.append_column(column, pa.array(["=1+1"], pa.string()))
        pq.write_table(table, made / "targets" / f"{name}.parquet")
    manifest = {"as_of": f"{as_of}T00:00:00+00:00", "model": digest * 5, "lists": [{"list": name} for name in lists]}
    (made / "MANIFEST.json").write_text(json.dumps(manifest))
    return made


def shown(server: Server, database: str) -> list[tuple[Any, ...]]:
    return server.rows("SELECT night, customers, listed FROM cvj.nights WHERE current", database)


def test_a_night_is_shown_with_its_lists_whatever_they_are_called(tmp_path: Path, postgres: Server) -> None:
    uri = postgres.database("names")
    made = night(tmp_path, lists=(HOSTILE, "x__y__30d"), contact=('e"mail', "customer"))
    weird = spec(uri, 'a"b;c')
    assert deliver(weird, made) == "delivered"
    assert deliver(weird, made) == "unchanged"
    rows = postgres.rows('SELECT list, rank, customer_id, "e""mail" FROM "a""b;c".targets ORDER BY list', "names")
    assert rows == [(HOSTILE, 1, "c0", "=1+1"), ("x__y__30d", 1, "c0", "=1+1")]
    scores = postgres.rows('SELECT * FROM "a""b;c".scores ORDER BY customer_id', "names")
    assert [
        tuple(row.values()) for row in pq.read_table(made / "scores" / "scores.parquet", partitioning=None).to_pylist()
    ] == scores


def test_an_older_night_does_not_replace_a_newer_one(tmp_path: Path, postgres: Server) -> None:
    where = spec(postgres.database("time"))
    assert deliver(where, night(tmp_path, "2024-11-02", "b" * 12)) == "delivered"
    assert deliver(where, night(tmp_path, "2024-11-01", "a" * 12)) == "kept"
    # Of the same instant the later delivery counts, but scores alone do not take the lists away.
    assert deliver(where, night(tmp_path, "2024-11-02", "c" * 12)) == "delivered"
    assert deliver(where, night(tmp_path, "2024-11-02", "d" * 12, lists=())) == "kept"
    assert shown(postgres, "time") == [("c" * 12, 3, 1)]
    assert deliver(where, night(tmp_path, "2024-11-03", "e" * 12, lists=())) == "delivered"
    assert shown(postgres, "time") == [("e" * 12, 3, 0)]
    assert postgres.rows("SELECT count(*) FROM cvj.targets", "time") == [(0,)]
    assert len(postgres.rows("SELECT night FROM cvj.nights", "time")) == 3


def test_other_columns_change_the_tables_and_keep_views_and_grants(tmp_path: Path, postgres: Server) -> None:
    where = spec(postgres.database("columns"))
    deliver(where, night(tmp_path, "2024-11-01", "a" * 12))
    postgres.run(
        "CREATE VIEW cvj.mine AS SELECT customer_id, stage FROM cvj.scores",
        "GRANT SELECT ON cvj.scores TO pg_read_all_stats",
        database="columns",
    )
    wider = night(tmp_path, "2024-11-02", "b" * 12, reach=("p_reach_z_7d", "p_reach_z_30d"), contact=("email",))
    assert deliver(where, wider) == "delivered"
    names = [name for (name, _, _) in postgres.rows(
        "SELECT column_name::text, 1, 1 FROM information_schema.columns WHERE table_schema = 'cvj'"
        " AND table_name = 'scores' ORDER BY column_name", "columns")]  # fmt: skip
    assert names == sorted(pq.read_schema(wider / "scores" / "scores.parquet").names)
    assert postgres.rows("SELECT count(stage) FROM cvj.mine", "columns") == [(2,)]
    granted = postgres.rows("SELECT has_table_privilege('pg_read_all_stats', 'cvj.scores', 'SELECT')", "columns")
    assert granted == [(True,)]
    postgres.run("CREATE VIEW cvj.tied AS SELECT p_reach_z_7d FROM cvj.scores", database="columns")
    with pytest.raises(CvjError, match="other objects, such as views, depend on a column"):
        deliver(where, night(tmp_path, "2024-11-03", "c" * 12))
    assert shown(postgres, "columns") == [("b" * 12, 3, 1)]


def test_an_effect_that_is_not_known_any_more_leaves_its_column_and_the_views_of_it(
    tmp_path: Path, postgres: Server
) -> None:
    where = spec(postgres.database("effects"))
    effect = "incremental_x__y__30d"
    deliver(where, night(tmp_path, "2024-11-01", "a" * 12, reach=("p_reach_y_30d", effect)))
    postgres.run(f"CREATE VIEW cvj.gain AS SELECT customer_id, {effect} FROM cvj.scores", database="effects")
    assert postgres.rows(f"SELECT count({effect}) FROM cvj.gain", "effects") == [(2,)]
    assert deliver(where, night(tmp_path, "2024-11-02", "b" * 12)) == "delivered"
    assert postgres.rows(f"SELECT count(*), count({effect}) FROM cvj.gain", "effects") == [(3, 0)]
    again = night(tmp_path, "2024-11-03", "c" * 12, reach=("p_reach_y_30d", effect))
    assert deliver(where, again) == "delivered"
    assert postgres.rows(f"SELECT count({effect}) FROM cvj.gain", "effects") == [(2,)]


def test_tables_of_somebody_else_are_not_touched(tmp_path: Path, postgres: Server) -> None:
    where = spec(postgres.database("foreign"), "public")
    postgres.run("CREATE TABLE scores AS SELECT 1 AS game", database="foreign")
    with pytest.raises(CvjError, match=r"tables of these names that no night was delivered to(?s:.)*- scores"):
        deliver(where, night(tmp_path))
    assert postgres.rows("SELECT game FROM scores", "foreign") == [(1,)]


def test_names_that_postgresql_would_cut_are_refused(tmp_path: Path, postgres: Server) -> None:
    long = "p_reach_" + "s" * 60 + "_30d"
    with pytest.raises(CvjError, match=f"cuts names after 63 bytes(?s:.)*{long}"):
        deliver(spec(postgres.uri()), night(tmp_path, reach=(long,)))


def test_readers_see_one_whole_night_at_every_moment(tmp_path: Path, postgres: Server) -> None:
    uri = postgres.database("readers")
    where = spec(uri)
    deliver(where, night(tmp_path, "2024-11-01", "a" * 12, rows=2000))
    seen: set[tuple[Any, ...]] = set()
    stop = threading.Event()

    def read() -> None:
        with connected(uri) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(
                    "SELECT n.night, (SELECT count(*) FROM cvj.scores), (SELECT min(model_version) FROM cvj.scores),"
                    " (SELECT max(model_version) FROM cvj.scores), (SELECT max(model_version) FROM cvj.targets)"
                    " FROM cvj.nights n WHERE current"
                )
                seen.update(tuple(row) for row in cursor.fetchall())

    reader = threading.Thread(target=read)
    reader.start()
    # A reader in a transaction of its own keeps the night that it began with.
    with connected(uri) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT night FROM cvj.nights WHERE current")
        assert cursor.fetchall() == [("a" * 12,)]
        for day, digest in (("02", "b" * 12), ("03", "c" * 12)):
            deliver(where, night(tmp_path, f"2024-11-{day}", digest, rows=2000))
        cursor.execute("SELECT count(*), max(model_version) FROM cvj.scores")
        assert cursor.fetchall() == [(2000, "a" * 12)]
        cursor.execute("ROLLBACK")
    time.sleep(0.1)
    stop.set()
    reader.join()
    whole = {(digest, 2000, digest, digest, digest) for digest in ("a" * 12, "b" * 12, "c" * 12)}
    assert seen <= whole and ("c" * 12, 2000, "c" * 12, "c" * 12, "c" * 12) in seen


def test_two_deliveries_at_once_are_one_after_the_other(tmp_path: Path, postgres: Server) -> None:
    where = spec(postgres.database("both"))
    nights = [night(tmp_path, f"2024-11-0{day}", digest * 12, rows=500) for day, digest in ((1, "a"), (2, "b"))]
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda one=one: outcomes.append(deliver(where, one))) for one in nights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) in (["delivered", "delivered"], ["delivered", "kept"])
    assert shown(postgres, "both") == [("b" * 12, 500, 1)]


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own, to be killed."""
    from tests.postgres import served

    with served() as server:
        yield server


@pytest.mark.slow
def test_a_server_killed_while_a_night_is_written_shows_the_night_before(tmp_path: Path, mortal: Server) -> None:
    where = spec(mortal.database("killed"))
    deliver(where, night(tmp_path, "2024-11-01", "a" * 12))
    large = night(tmp_path, "2024-11-02", "b" * 12, rows=1_000_000)

    def kill_when_it_writes() -> None:
        for _ in range(400):
            copying = mortal.rows("SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed > 1000")
            if copying != [(0,)]:
                break
            time.sleep(0.01)
        mortal.kill()

    killer = threading.Thread(target=kill_when_it_writes)
    killer.start()
    with pytest.raises(CvjError) as caught:
        deliver(where, large)
    killer.join()
    told = str(caught.value)
    assert caught.value.exit_code == 1
    assert "the connection to the server was lost" in told and "still shows the night before" in told
    assert PASSWORD not in told
    mortal.start()
    assert shown(mortal, "killed") == [("a" * 12, 3, 1)]
    assert mortal.rows("SELECT count(*) FROM cvj.scores", "killed") == [(3,)]
    assert deliver(where, large) == "delivered"
    assert shown(mortal, "killed") == [("b" * 12, 1_000_000, 1)]


@pytest.mark.slow
def test_a_night_from_and_to_the_server_by_the_command_line(
    tmp_path: Path, trained: Trained, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CVJ_PG", postgres.database("night"))
    load(postgres.uri("night"), "log", trained.folder / "touchpoints.parquet")
    load(postgres.uri("night"), "people", trained.folder / "customers.parquet")
    settings = {"deliver": {"postgres": {"uri": "${CVJ_PG}"}}}
    tables = trained.config().model_dump(mode="json")
    source = {"postgres": {"uri": "${CVJ_PG}", "table": "log"}, "times": "utc", "arrival_delay": "2d",
              "columns": tables["sources"]["touchpoints"]["columns"]}  # fmt: skip
    people = {"postgres": {"uri": "${CVJ_PG}", "table": "people"}, "times": "utc"}
    people["columns"] = tables["attributes"]["columns"]
    from_files = call("targets", trained.variant(tmp_path / "files"), "--as-of", AS_OF, "--json")
    assert from_files.code == 0, from_files.err
    config = trained.variant(tmp_path / "served", sources={"touchpoints": source}, attributes=people, **settings)
    run = call("targets", config, "--as-of", AS_OF, "--json")
    assert run.code == 0, run.err
    here, there = json.loads(run.out)["night"], json.loads(from_files.out)["night"]
    for name in ("scores/scores.parquet", "targets/convert__ascend__30d.parquet"):
        assert (Path(here) / name).read_bytes() == (Path(there) / name).read_bytes()
    table = pq.read_table(Path(here) / "scores" / "scores.parquet", partitioning=None)
    assert postgres.rows("SELECT count(*), sum(p_return_30d) FROM cvj.scores", "night") == [
        (len(table), pytest.approx(sum(table["p_return_30d"].to_pylist())))
    ]
    assert call("targets", config, "--as-of", AS_OF).code == 0  # a rerun changes nothing
    held = [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert not held and PASSWORD not in run.err + run.out

    # The server's own message would quote the whole row.
    postgres.run("ALTER TABLE cvj.scores ADD CONSTRAINT never CHECK (p_return_30d > 2) NOT VALID", database="night")
    failed = call("targets", config, "--as-of", "2025-06-25", "--json")
    assert failed.code == 1
    assert re.search(r"The night is published in \S+as_of=2025-06-25", failed.err)
    current = json.loads((tmp_path / "served" / "CURRENT.json").read_text())
    assert current["as_of"] == "2025-06-25"
    assert "PostgreSQL fails (SQLSTATE 23514); its log says why." in failed.err
    assert not any(secret in failed.err for secret in (PASSWORD, table["customer_id"][0].as_py()))
    assert postgres.rows("SELECT count(*) FROM cvj.scores", "night") == [(len(table),)]


def load(uri: str, table: str, file: Path) -> None:
    """Copy a Parquet file into a new table."""
    with connected(uri) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(table, pq.read_table(file, partitioning=None), mode="create")
