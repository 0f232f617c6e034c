"""Customers who are forgotten are nowhere: every file under ``out``, the registry and the database are searched."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.postgres import Server, connected, free_port
from tests.trained import AS_OF, SETTINGS, Trained, call

from cvj_ml import tracking
from cvj_ml.commands.forget import Forgotten, forget
from cvj_ml.config import Config, load_config
from cvj_ml.errors import DataError
from cvj_ml.models.bundle.verification import FORMAT
from cvj_ml.night import champion
from cvj_ml.night.layout import exchange
from cvj_ml.night.verifying import verify_night
from cvj_ml.run import Silent
from cvj_ml.store import ingest

pytest_plugins = ["tests.fixtures"]

FORGET = import_module("cvj_ml.commands.forget")
"""The package has a function of that name, too."""

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
    log = pq.read_table(trained.folder / "touchpoints.parquet", partitioning=None)
    people = pq.read_table(trained.folder / "customers.parquet", partitioning=None)
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
    scores = pq.read_table(
        Path(json.loads(run.out)["night"]) / "scores" / "scores.parquet", partitioning=None
    ).to_pandas()
    assert config.journey.names[-1] == "Promote"
    standing = scores[scores["stage"].isin(STAGES)].sort_values("p_reach_promote_30d")
    return str(standing["customer_id"].iloc[-1])


def without_the_canary(folder: Path) -> None:
    for name in ("touchpoints", "customers", "contact"):
        table = pq.read_table(folder / f"{name}.parquet", partitioning=None)
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
    scores = pq.read_table(night / "scores" / "scores.parquet", partitioning=None)
    assert database_holds(uri, ID, EMAIL)

    ids = tmp_path / "ids.txt"
    ids.write_text(f"{ID}\r\n")
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
    left = pq.read_table(night / "scores" / "scores.parquet", partitioning=None)
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
    ids = pq.read_table(trained.folder / "touchpoints.parquet", columns=["customer_id"], partitioning=None)[
        "customer_id"
    ].unique()
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


def test_models_from_before_the_rule_are_refused(trained: Trained, shop: Path, tmp_path: Path) -> None:
    """They may hold a name or a number of one customer, and nothing in a model can be erased: retrain."""
    ids = tmp_path / "ids.txt"
    ids.write_text("nobody-of-that-name\n")
    config = load_config(shop)
    assert call("check", shop, "--as-of", AS_OF).code == 0
    old = Path(config.out, "models", "0" * 64)
    old.mkdir(parents=True)
    (old / "manifest.json").write_text(json.dumps({"format": 1, "files": {}}))
    run = call("forget", shop, "--customers", ids)
    assert run.code == 4 and "retrain" in run.err and str(old) in run.err and "Nothing was removed" in run.err
    shutil.rmtree(old)
    (found,) = (one for one in tracking.list_versions(config) if "champion" in one.aliases)
    assert found.bundle_format == FORMAT
    champion.require_no_old_models(config)


def test_two_folders_change_places(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    exchange(tmp_path / "one", tmp_path / "two")
    assert [(tmp_path / name / "file").read_text() for name in ("one", "two")] == ["two", "one"]


# What is searched, and what is known: small files, no model.

LOG = "customer_id,occurred_at,event\nx1,2024-05-01,visit\nx2,2024-05-01,visit\n1,2024-05-02,visit\n"
KNOWN = "customer_id,known_at,plan\n"
LABELS = "customer_id,as_of,known_at,stage\n"


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Config]:
    """Return a function from settings to a Config; the files are ``log.csv`` and whatever a test writes."""
    (tmp_path / "log.csv").write_text(LOG)

    def make(**settings: Any) -> Config:
        journey = {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "purchase"}}]}
        found = {"name": "small", "time_zone": "UTC", "history_from": "2024-01-01", "journey": journey, "out": "out"}
        found |= {"sources": {"log": {"path": "log.csv"}}, "refused_share": 0.9}
        return Config.model_validate(found | settings, context={"folder": tmp_path})

    return make


def erase(config: Config, tmp_path: Path, *ids: str, allow_unknown: bool = False) -> Forgotten:
    (tmp_path / "ids.txt").write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")
    return forget(config, tmp_path / "ids.txt", Silent(), allow_unknown=allow_unknown)


def leave(tmp_path: Path, *names: str) -> None:
    """Delete the lines of customers from the log."""
    lines = LOG.splitlines(keepends=True)
    kept = [line for line in lines if line.split(",")[0] not in names]
    (tmp_path / "log.csv").write_text("".join(kept))


@pytest.mark.parametrize(
    ("table", "content", "spec"),
    [
        ("attributes", KNOWN + "gone,2024-01-01,gold\n", {"columns": {"plan": "plan"}}),
        ("attributes", KNOWN + "gone,when?,gold\nx1,2024-01-01,gold\n", {"columns": {"plan": "plan"}}),
        ("attributes", "id,known_at,plan\nx1,2024-01-01,a\n gone ,2024-01-01,b,c\n",
         {"columns": {"plan": "plan", "customer_id": "id"}}),
        ("stage_labels", LABELS + "gone,2024-01-01,2024-01-01,Buyer\n", {}),
        ("consent", "id\nx1\ngone\n", {"customer_id": "id"}),
        ("contact", "customer_id,email\nx1,a\ngone,b\n", {"columns": ["email"]}),
        ("contact", "customer_id,email\nx1,a\ngone,b,c\n", {"columns": ["email"]}),
    ],
)  # fmt: skip
def test_every_table_but_the_suppression_is_searched(
    table: str, content: str, spec: dict[str, Any], tmp_path: Path, small: Callable[..., Config]
) -> None:
    """Silent error 57: rows of customers without touchpoints are in no store, and would stay unseen."""
    (tmp_path / "table.csv").write_text(content)
    (tmp_path / "stop.csv").write_text("customer_id\ngone\n")
    settings: dict[str, Any] = {"suppression": {"path": "stop.csv"}, "ids": {"match": "trimmed"}}
    if table == "stage_labels":
        settings["coverage"] = {"Buyer": 0.5}
    config = small(**settings, **{table: {"path": "table.csv", **spec}})
    with pytest.raises(DataError, match=rf"\n  - {table}: 1 row\(s\)$"):
        erase(config, tmp_path, "gone")
    assert erase(small(**settings), tmp_path, "gone", allow_unknown=True).customers == 1


def test_a_refused_row_is_known_by_its_id_as_it_was_read(tmp_path: Path, small: Callable[..., Config]) -> None:
    frame = pd.DataFrame({"customer_id": [1445.0, 7.0, np.nan], "occurred_at": ["when?", "2024-05-01", "2024-05-01"]})
    frame.assign(event="visit").to_parquet(tmp_path / "log.parquet")
    config = small(sources={"log": {"path": "log.parquet"}})
    with pytest.raises(DataError, match=r"\n  - log \(refused rows\): 1 row\(s\)$"):
        erase(config, tmp_path, "1445")
    frame.assign(event="visit")[1:].to_parquet(tmp_path / "log.parquet")
    assert erase(config, tmp_path, "1445").customers == 1
    assert not [
        path
        for path in (tmp_path / "out").rglob("quarantine.parquet")
        if "1445" in str(pq.read_table(path, partitioning=None))
    ]


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ("17,2024-05-01,visit,1", False),  # a field too many, but not where an id can be
        ("x2,1", False),  # fields are missing at the end
        ("a1b,2024-05-01,visit,x,y", False),
        ("1,2024-05-01,visit,x", True),
        ("oops,1,2024-05-01,visit", True),  # a field too many before the id
        ('"1,2024-05-01,visit', True),  # a quotation mark that nothing closes
        ("1,when?,visit", True),
        (",1,visit", True),  # no id at all: every value may be it
    ],
)
def test_a_malformed_line_is_searched_where_an_id_can_stand(
    line: str, held: bool, tmp_path: Path, small: Callable[..., Config]
) -> None:
    """Silent error 57: neither is another customer's line taken for theirs, nor theirs for another's."""
    config = small()
    ingest(config)
    leave(tmp_path, "1")
    with (tmp_path / "log.csv").open("a") as log:
        log.write(line + "\n")
    if held:
        with pytest.raises(DataError, match=r"\n  - log \(refused rows\): 1 row\(s\)$"):
            erase(config, tmp_path, "1")
    else:
        assert erase(config, tmp_path, "1").leftovers["stores"] == 1


def test_ids_that_nothing_knows_are_told_by_their_lines(tmp_path: Path, small: Callable[..., Config]) -> None:
    config = small()
    ingest(config)
    leave(tmp_path, "x1")
    with pytest.raises(DataError) as caught:
        erase(config, tmp_path, "x1", "stranger", "", "x1 ")
    assert "ids.txt: 2 id(s) are known to no source, store, night or server" in str(caught.value)
    assert "(line(s) 2, 4). Nothing was removed." in str(caught.value) and "stranger" not in str(caught.value)
    assert len(list((tmp_path / "out" / "store").glob("[0-9a-f]*"))) == 2
    done = erase(config, tmp_path, "x1", "stranger", allow_unknown=True)
    assert (done.customers, done.unknown) == (2, 1)


@pytest.mark.slow
def test_a_repeat_is_known_and_a_half_done_run_can_be_repeated(
    tmp_path: Path, small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of earlier calls is a digest: it names nobody, and holds for the same ids only."""
    config = small(ids={"match": "trimmed"})
    ingest(config)
    leave(tmp_path, "x1", "x2")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk has gone"):
        patch.setattr(FORGET, "clear_leftovers", _fails_after(FORGET.clear_leftovers))
        erase(config, tmp_path, "x1", "x2")
    assert erase(config, tmp_path, " x2", "x1", "x1").customers == 2
    again = erase(config, tmp_path, "x1", "x2")
    assert (again.unknown, again.leftovers["stores"]) == (0, 0)
    for other in (("x1",), ("x1", "x3"), ("x1", "x2", "x3")):
        with pytest.raises(DataError, match="known to no source"):
            erase(config, tmp_path, *other)
    kept = (tmp_path / "out" / "forgotten.json").read_text()
    assert "x1" not in kept and len(json.loads(kept)["digests"]) == 1
    assert (tmp_path / "out" / "forgotten.json").stat().st_mode & 0o077 == 0


def _fails_after(real: Callable[..., Any]) -> Callable[..., Any]:
    def failing(*arguments: Any) -> None:
        real(*arguments)
        raise OSError("the disk has gone")

    return failing


def test_another_reading_of_ids_still_finds_what_was_kept_under_the_old_one(
    tmp_path: Path, small: Callable[..., Config]
) -> None:
    (tmp_path / "log.csv").write_text(LOG + "Abc ,2024-05-02,visit\n")
    ingest(small())
    leave(tmp_path)
    done = erase(small(ids={"match": "folded"}), tmp_path, "ABC")
    assert (done.unknown, done.leftovers["stores"]) == (0, 1)
