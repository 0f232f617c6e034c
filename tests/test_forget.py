"""Customers who are forgotten are nowhere: every file under ``out``, the registry and the database are searched."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.postgres import Server, connected, free_port
from tests.trained import AS_OF, SETTINGS, Trained, call

from cvj_ml.config import load_config
from cvj_ml.publish import verify_night
from cvj_ml.publish.files import exchange
from cvj_ml.sources import ingest

pytest_plugins = ["tests.fixtures"]

ID, EMAIL, NAME = "canary-id-93517", "canary.mail@example.org", "Canary Name-Surname"


def holders(root: Path, *canaries: str) -> set[str]:
    """Return the files under a folder that hold a canary: as bytes, in a column, or in a part of an archive."""
    found = set()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        for text in texts(path):
            if any(canary.encode() in text for canary in canaries):
                found.add(path.relative_to(root).as_posix())
    return found


def texts(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield pq.read_table(path, partitioning=None).to_pandas().to_csv().encode()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    elif path.suffix == ".db":
        with sqlite3.connect(path) as database:
            yield "\n".join(database.iterdump()).encode()


@pytest.fixture
def shop(tmp_path: Path, trained: Trained) -> Path:
    """Write a configuration whose log, attributes, contacts and refused rows hold the canary; return its file."""
    log = pq.read_table(trained.folder / "touchpoints.parquet")
    people = pq.read_table(trained.folder / "customers.parquet")
    victim = busiest_converted(trained)
    for name, table in (("touchpoints", log), ("customers", people)):
        place = table.column_names.index("customer_id")
        renamed = pc.if_else(pc.equal(table["customer_id"], victim), ID, table["customer_id"])
        pq.write_table(table.set_column(place, "customer_id", renamed), tmp_path / f"{name}.parquet")
    ids = sorted({*log["customer_id"].to_pylist(), ID} - {victim})
    contact = {"customer_id": ids, "email": [EMAIL if one == ID else f"{one}@example.com" for one in ids]}
    # A carriage return in a cell once made nights that `verify` called damaged, and so nobody could be forgotten.
    contact["=name"] = [f"{NAME}\r=1+1" if one == ID else "some\rbody" for one in ids]
    pq.write_table(pa.table(contact), tmp_path / "contact.parquet")
    (tmp_path / "broken.csv").write_text(
        f"customer_id,occurred_at,event,known_at\n{ID},when?,visit,2025-01-01\n"
        + "".join(f"{ids[0]},2025-01-0{day},visit,2025-01-0{day}\n" for day in range(1, 9))
    )
    settings = SETTINGS | {
        "mlflow": {"tracking_uri": f"sqlite:///{trained.folder / 'mlflow.db'}"},
        "sources": SETTINGS["sources"] | {"broken": {"path": "broken.csv", "times": "utc"}},
        "contact": {"path": "contact.parquet", "columns": ["email", "=name"]},
        "refused_share": 0.2,
        "lists": [{"from": one, "to": "Promote", "horizon": "30d"} for one in STAGES],
        "control": {"share": 0.0, "salt": "tiny"},
    }
    settings |= extra(tmp_path)
    file = tmp_path / "shop.yaml"
    file.write_text(json.dumps(settings))
    return file


STAGES = ("Aware", "Engage", "Subscribe", "Convert", "Excite", "Ascend", "Advocate")


def extra(folder: Path) -> dict[str, Any]:
    found = folder / "extra.json"
    return json.loads(found.read_text()) if found.exists() else {}


def busiest_converted(trained: Trained) -> str:
    """Return a customer of many touchpoints who has not reached the last stage, so is on a list."""
    config = load_config(trained.variant(trained.folder / "looked-up"))
    run = call("score", trained.variant(trained.folder / "looked-up"), "--as-of", AS_OF, "--json")
    scores = pq.read_table(Path(json.loads(run.out)["night"]) / "scores" / "scores.parquet").to_pandas()
    assert config.journey.names[-1] == "Promote"
    standing = scores[scores["stage"].isin(STAGES)].sort_values("p_reach_promote_30d")
    return str(standing["customer_id"].iloc[-1])


def without_the_canary(folder: Path) -> None:
    for name in ("touchpoints", "customers", "contact"):
        table = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(table.filter(pc.not_equal(table["customer_id"], ID)), folder / f"{name}.parquet")
    lines = (folder / "broken.csv").read_text().splitlines(keepends=True)
    (folder / "broken.csv").write_text("".join(line for line in lines if ID not in line))


@pytest.mark.slow
def test_the_forgotten_are_nowhere_and_the_nights_still_verify(
    tmp_path: Path, trained: Trained, shop: Path, postgres: Server
) -> None:
    out = tmp_path / "out"
    uri = postgres.database("forget")
    config = json.loads(shop.read_text()) | {"deliver": {"postgres": {"uri": uri}}}
    shop.write_text(json.dumps(config))
    for day in ("2025-06-23", AS_OF):
        run = call("targets", shop, "--as-of", day, "--json")
        assert run.code == 0, run.err
    night = Path(json.loads(run.out)["night"])
    # What failed and killed runs left behind holds customers, too.
    for name in ("quarantine", "work"):
        (out / name).mkdir(mode=0o700, exist_ok=True)
    shutil.copy(next(out.glob("store/*/quarantine.parquet")), out / "quarantine" / "failed.parquet")
    shutil.copytree(night / "scores", out / ".audit-killed")
    shutil.copytree(night / "scores", out / "work" / "abc" / "blocks")
    before = holders(out, ID)
    kinds = {name.split("/")[0].split("=")[0] for name in before}
    assert {"store", "as_of", "quarantine", ".audit-killed", "work"} <= kinds
    assert {"index.html", "lists.xlsx", "scores.parquet", "quarantine.parquet"} <= {Path(name).name for name in before}
    assert holders(out, EMAIL) and holders(out, NAME)
    scores = pq.read_table(night / "scores" / "scores.parquet")
    assert database_holds(uri, ID, EMAIL)

    ids = tmp_path / "ids.txt"
    ids.write_text(f"{ID}\r\nnobody-of-that-name\n")
    refused = call("forget", shop, "--customers", ids)
    assert refused.code == 3
    for source in ("sources.touchpoints", "attributes", "contact", "broken (refused rows)"):
        assert f"- {source}: " in refused.err
    assert ID not in refused.err and holders(out, ID) == before

    without_the_canary(tmp_path)
    page = (night / "report" / "index.html").read_bytes()
    (night / "report" / "index.html").write_bytes(page + b" ")
    damaged = call("forget", shop, "--customers", ids)
    assert damaged.code == 4 and "report/index.html was changed" in damaged.err
    assert holders(out / "as_of=2025-06-23", ID) and holders(out / "quarantine", ID)
    (night / "report" / "index.html").write_bytes(page)
    done = call("forget", shop, "--customers", ids, "--json")
    assert done.code == 0, done.err
    assert ID not in done.out + done.err
    counts = json.loads(done.out)
    assert counts["nights"] == 2 and counts["scores"] == 2 and counts["listed"] >= 2
    assert counts["delivered"] == {"scores": 1, "targets": 1}
    assert holders(out, ID, EMAIL, NAME) == set()
    assert not database_holds(uri, ID, EMAIL, NAME)
    # No customer is in the registry, its files, the champion or what was logged of the training.
    assert holders(trained.folder / "bundle", *some_customers(trained)) == set()
    database = trained.folder / "mlflow.db"
    assert not any(one.encode() in text for one in some_customers(trained) for text in texts(database))

    assert [verify_night(one.parent).files for one in out.glob("as_of=*/*/_SUCCESS")]
    assert call("verify", out).code == 0
    left = pq.read_table(night / "scores" / "scores.parquet")
    assert left.equals(scores.filter(pc.not_equal(scores["customer_id"], ID)))
    manifest = json.loads((night / "MANIFEST.json").read_text())
    assert manifest["forgotten"]["customers"] == 1
    assert {"report/index.html", "targets/lists.xlsx"} <= set(manifest["forgotten"]["removed"])
    assert json.loads((out / "CURRENT.json").read_text())["night"] == night.relative_to(out).as_posix()
    assert ID not in {one for block in blocks_of(shop) for one in block}

    # Whatever the commands made is for its owner only.
    assert [path for path in (out, *out.rglob("*")) if path.stat().st_mode & 0o077] == []

    again = call("forget", shop, "--customers", ids, "--json")
    assert again.code == 0 and json.loads(again.out)["nights"] == 0
    away = config | {"deliver": {"postgres": {"uri": postgres.uri().replace(str(postgres.port), str(free_port()))}}}
    shop.write_text(json.dumps(away))
    half = call("forget", shop, "--customers", ids)
    assert half.code == 1
    assert "these customers are forgotten, in PostgreSQL they are not; run the same command again." in half.err
    measured = call("measure", shop, "--until", "2025-06-25", "--json")
    assert measured.code == 0, measured.err


def blocks_of(file: Path) -> Iterator[tuple[str, ...]]:
    store = ingest(load_config(file))
    for bucket in range(store.buckets):
        yield store.read(bucket).customers


def some_customers(trained: Trained) -> list[str]:
    ids = pq.read_table(trained.folder / "touchpoints.parquet", columns=["customer_id"])["customer_id"].unique()
    # Short ids occur in anything; those that do not look like a word or a number do not.
    found = [one for one in ids.to_pylist() if len(one) >= 6][:20]
    assert found
    return found


def database_holds(uri: str, *canaries: str) -> bool:
    with connected(uri) as connection, connection.cursor() as cursor:
        for table in ("scores", "targets", "nights"):
            cursor.execute(f"SELECT t::text FROM cvj.{table} AS t")
            if any(canary in row for (row,) in cursor.fetchall() for canary in canaries):
                return True
    return False


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read the file"), (b"\n\r\n", "it names nobody"), (b"\xff\xfe", "it is not UTF-8 text")],
)
def test_a_file_that_names_nobody_is_a_wrong_call(
    content: bytes | None, words: str, tmp_path: Path, trained: Trained
) -> None:
    if content is not None:
        (tmp_path / "ids.txt").write_bytes(content)
    done = call("forget", trained.config_file, "--customers", tmp_path / "ids.txt")
    assert done.code == 2 and words in done.err


def test_two_folders_change_places(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    exchange(tmp_path / "one", tmp_path / "two")
    assert [(tmp_path / name / "file").read_text() for name in ("one", "two")] == ["two", "one"]
