"""Tables in object stores: S3 by moto's server, the others by what a loopback port can tell of them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.object_store import KEY, SECRET, ObjectServer
from tests.postgres import free_port
from tests.trained import call

from cvj_ml.config import Config, load_config
from cvj_ml.customers import read_people
from cvj_ml.errors import ConfigError, CvjError, DataError
from cvj_ml.store import ingest, object_store
from cvj_ml.store.truncation import Truncation

pytest_plugins = ["tests.fixtures"]

HEADER = "customer_id,occurred_at,event,value\n"


def rows(first: int, number: int) -> str:
    return HEADER + "".join(
        f"c{i % 40:03d},2024-02-{1 + i % 28:02d} 08:{i % 60:02d}:00,{'purchase' if i % 3 else 'visit'},{i}.25\n"
        for i in range(first, first + number)
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.parquet"))
    }


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket of this test alone, in an environment that knows the store."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"b-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]}"
    object_server.put(name)
    return name


def refused(config: Config, kind: type[CvjError] = DataError) -> str:
    """Return what reading is refused with, of just that kind and without a secret; nothing is left behind."""
    with pytest.raises(CvjError) as caught:
        ingest(config)
    assert type(caught.value) is kind, caught.value
    told = "".join(traceback.format_exception(caught.value)) + repr(config) + config.model_dump_json()
    assert SECRET not in told and KEY not in told and "c001" not in told
    assert not list(Path(config.out).glob("store/.*/**/objects-*"))
    return str(caught.value)


def test_objects_give_the_bytes_of_the_same_files(
    tmp_path: Path, bucket: str, object_server: ObjectServer, configure: Callable[..., Config]
) -> None:
    (tmp_path / "log/jan").mkdir(parents=True)
    (tmp_path / "log/feb").mkdir()
    # Of the same name in two folders, as every warehouse exports them.
    (tmp_path / "log/jan/part-0.csv").write_text(rows(0, 200))
    (tmp_path / "log/feb/part-0.csv").write_text(rows(200, 100))
    here = {f"log/{month}/part-0.csv": tmp_path / "log" / month / "part-0.csv" for month in ("jan", "feb")}
    object_server.put(bucket, **here, **{"log/jan/other.txt": "no table"})
    from_files = ingest(configure(out="one", sources={"log": {"path": "log/*/part-0.csv"}}))
    from_objects = ingest(configure(out="two", sources={"log": {"path": f"s3://{bucket}/log/*/part-*.csv"}}))
    assert from_objects.key == from_files.key
    assert from_objects.counts == from_files.counts
    assert digests(from_objects.folder) == digests(from_files.folder)
    told = sorted((one["file"], one["sha256"], one["bytes"]) for one in from_objects.fingerprints["log"])
    assert told == sorted(
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size) for path in here.values()
    )
    assert not [path for path in (tmp_path / "two/store").iterdir() if path.name.startswith(".staging")]


def test_an_added_object_is_all_that_is_mapped_anew(
    tmp_path: Path, bucket: str, object_server: ObjectServer, configure: Callable[..., Config]
) -> None:
    object_server.put(bucket, **{"a/log.csv": rows(0, 300)})
    config = configure(sources={"log": {"path": f"s3://{bucket}/*/log.csv"}})
    ingest(config)
    object_server.put(bucket, **{"b/log.csv": rows(300, 60)})
    added = ingest(config)
    fresh = ingest(config.model_copy(update={"out": str(tmp_path / "fresh")}))
    assert added.key == fresh.key
    assert digests(added.folder) == digests(fresh.folder)
    assert added.counts["log"].rows_in == 360


def test_a_query_attributes_and_permissions_read_objects_too(
    tmp_path: Path, bucket: str, object_server: ObjectServer, configure: Callable[..., Config]
) -> None:
    attributes = "customer_id,plan\n" + "".join(f"c{i:03d},basic\n" for i in range(40))
    object_server.put(
        bucket, **{"log.csv": rows(0, 90), "people.csv": attributes, "stop.csv": "customer_id\nc007\nc011\n"}
    )
    config = configure(
        sources={
            "log": {
                "query": "SELECT customer_id, CAST(occurred_at AS TIMESTAMP) AS occurred_at, event FROM lines",
                "files": {"lines": f"s3://{bucket}/lo[g].csv"},
                "row_times": {"lines": "occurred_at"},
            }
        },
        attributes={"path": f"s3://{bucket}/people.csv", "columns": {"plan": "plan"}, "static": True},
        suppression={"path": f"s3://{bucket}/stop.csv"},
    )
    store = ingest(config)
    assert store.counts["log"].stored == 90
    people = read_people(config)
    assert people.permissions.suppression is not None
    assert people.permissions.suppression["customer_id"].to_pylist() == ["c007", "c011"]
    folder = tmp_path / "out" / "truncation"
    folder.mkdir()
    before = Truncation(config, folder).before(1_707_350_400_000_000)  # 2024-02-08
    assert before is not None
    kept = ingest(before)
    assert kept.counts["log"].stored == sum(1 for i in range(90) if 1 + i % 28 < 8)


def test_a_permission_that_changes_after_it_was_read_is_noticed(
    bucket: str, object_server: ObjectServer, configure: Callable[..., Config]
) -> None:
    from cvj_ml.customers.id_tables import read_customers

    object_server.put(bucket, **{"log.csv": rows(0, 9), "stop.csv": "customer_id\nc007\n"})
    config = configure(
        sources={"log": {"path": f"s3://{bucket}/log.csv"}}, suppression={"path": f"s3://{bucket}/stop.csv"}
    )
    assert config.suppression is not None
    table = read_customers("suppression", config.suppression, {"customer_id": "customer_id"}, config)
    assert [(one["file"], one["bytes"]) for one in table.files] == [("stop.csv", 17)]
    table.require_unchanged()
    object_server.put(bucket, **{"stop.csv": "customer_id\nc008\n"})
    with pytest.raises(DataError, match="a file changed after this run had begun"):
        table.require_unchanged()


def test_the_spool_is_private_and_tells_where_an_object_lies(
    tmp_path: Path, bucket: str, object_server: ObjectServer, configure: Callable[..., Config]
) -> None:
    odd = "x" * 180
    names = ["a/x.csv", "a", "a b/[x]*.csv", f"{odd}/{odd}/x.csv"]
    object_server.put(bucket, **{name: rows(i * 10, 10) for i, name in enumerate(names)})
    spec = configure(sources={"log": {"path": [f"s3://{bucket}/{name}" for name in names]}}).sources["log"]
    landed = object_store.fetched("sources.log", spec, tmp_path / "spool")
    assert landed.path is not None and len(set(landed.path)) == 4
    for path, name in zip(landed.path, names, strict=True):
        assert Path(path).read_text() == rows(names.index(name) * 10, 10)
        assert Path(path).name == name.rpartition("/")[2]
        for folder in (Path(path).parent, tmp_path / "spool"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert landed.path[0].endswith(f"s3:||{bucket}|a/x.csv")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("log/orderz.csv", "there is no such object. Did you mean 'orders.csv'?"),
        ("log", "a folder is there; name its objects, as in *.parquet."),
        ("log/*.parquet", "no object matches s3://"),
        ("elsewhere/*.csv", "no object matches s3://"),
        ("log/empty.csv", "is empty: 0 bytes"),
    ],
)
def test_what_is_not_there_is_told_with_its_place(
    name: str, words: str, bucket: str, object_server: ObjectServer, configure: Callable[..., Config]
) -> None:
    object_server.put(bucket, **{"log/orders.csv": rows(0, 9), "log/empty.csv": ""})
    told = refused(configure(sources={"log": {"path": f"s3://{bucket}/{name}"}}))
    assert words in told and "sources.log: " in told


def test_faults_of_all_tables_are_told_at_once(bucket: str, configure: Callable[..., Config]) -> None:
    paths = {"one": f"s3://{bucket}/a.csv", "two": "s3://no-such-bucket-here/b.csv"}
    told = refused(configure(sources={name: {"path": path} for name, path in paths.items()}))
    assert f"sources.one: {paths['one']}: there is no such object" in told
    assert f"sources.two: {paths['two']}: there is no such bucket" in told


def test_a_store_that_lets_nobody_in(
    bucket: str, object_server: ObjectServer, configure: Callable[..., Config]
) -> None:
    object_server.put(bucket, **{"log.csv": rows(0, 9)})
    with object_server.closed():
        told = refused(configure(sources={"log": {"path": f"s3://{bucket}/log.csv"}}))
        assert "these credentials may not read it; grant them listing the bucket and reading its objects" in told
        told = refused(configure(sources={"log": {"path": f"s3://{bucket}/*.csv"}}))
        assert "may not read it" in told


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(object_store, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(object_store, "ANSWER_SECONDS", 1)
    object_store._opened.cache_clear()
    yield
    object_store._opened.cache_clear()


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:{free}", "no server listens there; look at the endpoint and the network"),
        ("http://store.invalid", "the host's name is unknown; look at the endpoint and the network"),
        ("http://127.0.0.1:{silent}", "the store does not answer in time"),
        ("http://127.0.0.1:{cut}", "the connection was lost; run again when it is back"),
        ("http://127.0.0.1:{stall}", "the store does not answer in time"),
    ],
)
def test_a_store_that_cannot_be_reached_is_a_failure_in_bounded_time(
    endpoint: str, words: str, bucket: str, impatient: None, monkeypatch: pytest.MonkeyPatch,
    configure: Callable[..., Config],
) -> None:  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = {"free": free_port(), "silent": silent.getsockname()[1]}
        ports |= {"cut": sends(b"x" * 50, 100), "stall": sends(b"", 100, 60)}
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.format(**ports))
        began = time.monotonic()
        told = refused(configure(sources={"log": {"path": f"s3://{bucket}/log.csv"}}), CvjError)
    assert time.monotonic() - began < 30
    assert told.startswith(f"sources.log: s3://{bucket}/log.csv: {words}")


def sends(body: bytes, promised: int, pause: float = 0, tags: Iterator[str] | None = None) -> int:
    """Return the port of a store that promises so many bytes of an object, sends others, then waits and closes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        asked = connection.recv(1 << 16)
        tag = next(tags) if tags else "t"
        connection.sendall(
            f'HTTP/1.1 200 OK\r\nContent-Length: {promised}\r\nETag: "{tag}"\r\nConnection: close\r\n'
            "Last-Modified: Sun, 28 Jan 2024 00:00:00 GMT\r\n\r\n".encode()
        )
        if asked.startswith(b"GET"):
            connection.sendall(body)
            time.sleep(pause)
        connection.close()

    def listen() -> None:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    return int(listening.getsockname()[1])


def test_an_object_that_changes_while_it_is_read_is_noticed(
    bucket: str, monkeypatch: pytest.MonkeyPatch, configure: Callable[..., Config]
) -> None:
    body = rows(0, 9).encode()
    config = configure(sources={"log": {"path": f"s3://{bucket}/log.csv"}})
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{sends(body, len(body))}")
    assert ingest(config).counts["log"].rows_in == 9
    # It is asked what it is, opened, read and asked again: the last answer is of another version.
    numbers = iter(range(100))
    tags = ("old" if next(numbers) < 3 else "new" for _ in range(100))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{sends(body, len(body), tags=tags)}")
    assert "the object changed while it was read; run again when it is complete" in refused(config)


CANARY = "hunter2-canary"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"s3://AKIA:{CANARY}@bucket/log.csv", "it holds more than a place"),
        (f"s3://{CANARY}@bucket/log.csv", "it holds more than a place"),
        (f"s3://bucket/log.csv?access_key=a&secret_key={CANARY}", "it holds more than a place"),
        (f"gs://user:{CANARY}@bucket/log.csv", "it holds more than a place"),
        (f"abfss://data:{CANARY}@account.dfs.core.windows.net/x", "it holds more than a place"),
        (f"abfss://data@{CANARY}@account.dfs.core.windows.net/x", "it holds more than a place"),
        (f"abfss://data@account.dfs.core.windows.net/x?sv=2024&sig={CANARY}", "it holds more than a place"),
        (f"https://bucket.example/log.csv?X-Amz-Signature={CANARY}", "https:// is not read; write a file, or one of"),
        ("s3a://bucket/log.csv", "s3a:// is not read; write a file, or one of s3://bucket/name"),
        ("s3://bucket", "after the bucket comes the name of an object"),
        ("s3://bucket/a//b.csv", "without empty parts"),
        ("s3://bu*/b.csv", "the bucket is named in full"),
        ("abfss://account.dfs.core.windows.net/x", "the host is no container of an account"),
        ("abfss://data@elsewhere.example/x", "the host is no container of an account"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secret(
    path: str, words: str, tmp_path: Path, configure: Callable[..., Config]
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        configure(sources={"log": {"path": path}})
    assert isinstance(caught.value, ValidationError)
    assert CANARY not in str(caught.value.errors(include_input=False))
    settings = {"name": "x", "time_zone": "UTC", "history_from": "2024-01-01", "journey": "cvj8"}
    (tmp_path / "cvj.yaml").write_text(json.dumps(settings | {"sources": {"log": {"path": path}}}))
    with pytest.raises(ConfigError, match=words) as told:
        load_config(tmp_path / "cvj.yaml")
    assert CANARY not in "".join(traceback.format_exception(told.value))


def test_results_stay_on_this_machine(configure: Callable[..., Config]) -> None:
    with pytest.raises(ValueError, match="s3:// is no folder of this machine"):
        configure(sources={"log": {"path": "log.csv"}}, out="s3://bucket/out")


def test_init_looks_at_files_of_this_machine(tmp_path: Path) -> None:
    ran = call("init", f"s3://key:{CANARY}@bucket/log.csv", "--config", tmp_path / "cvj.yaml")
    assert ran.code == 2 and "init looks at files of this machine" in ran.err and CANARY not in ran.err


@pytest.mark.slow
def test_check_reads_objects(
    tmp_path: Path, bucket: str, object_server: ObjectServer, configure: Callable[..., Config]
) -> None:
    object_server.put(bucket, **{"2024/log.csv.gz": gzipped(rows(0, 400)), "2025/log.csv.gz": gzipped(rows(400, 50))})
    (tmp_path / "cvj.yaml").write_text(
        "name: shop\ntime_zone: Europe/London\nhistory_from: 2024-01-01\nburn_in: 7d\njourney: cvj8\n"
        f"sources:\n  log:\n    path: s3://{bucket}/**/*.csv.gz\n"
    )
    command = [sys.executable, "-m", "cvj_ml", "check", "cvj.yaml", "--as-of", "2024-03-05", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [one["rows_in"] for one in json.loads(done.stdout)["sources"]] == [450]
    environment = os.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and "no server listens there" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def gzipped(text: str) -> bytes:
    import gzip

    return gzip.compress(text.encode(), mtime=0)


def test_a_build_of_pyarrow_without_a_store_is_told(
    bucket: str, monkeypatch: pytest.MonkeyPatch, configure: Callable[..., Config]
) -> None:
    import pyarrow.fs

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("The pyarrow installation is not built with support for 'S3FileSystem'")

    monkeypatch.setattr(pyarrow.fs, "S3FileSystem", missing)
    object_store._opened.cache_clear()
    told = refused(configure(sources={"log": {"path": f"s3://{bucket}/log.csv"}}), CvjError)
    assert "this build of pyarrow cannot read s3://" in told


NAMES = st.lists(st.sampled_from(["a", "b", ".a", "ab", "x.csv", ".x.csv"]), min_size=1, max_size=4)
PATTERNS = st.lists(st.sampled_from(["a", "*", "**", "a*", "?", "[ab]", "*.csv", ".*"]), min_size=1, max_size=4)


@given(paths=st.lists(NAMES, max_size=8), pattern=PATTERNS)
def test_a_pattern_matches_objects_as_it_matches_files(
    paths: list[list[str]], pattern: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    import glob

    root = tmp_path_factory.mktemp("glob")
    for parts in paths:
        file = root.joinpath(*parts)
        if not any(one.is_file() for one in file.parents) and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    files = [one for one in root.rglob("*") if one.is_file()]
    found = {Path(one) for one in glob.glob(str(root.joinpath(*pattern)), recursive=True) if Path(one).is_file()}
    told = {one for one in files if object_store._matches(list(one.relative_to(root).parts), pattern)}
    assert told == found


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, impatient: None) -> Iterator[dict[str, str]]:
    """Objects by name in the bucket ``data``, told by the documented JSON interface of Cloud Storage.

    The client is pyarrow's own; the server is as much of the interface as reading needs.
    """
    import http.server
    from urllib.parse import parse_qs, unquote, urlsplit

    objects: dict[str, str] = {}

    class Storage(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            _, _, name = asked.path.partition("/b/data/o")
            name = unquote(name.removeprefix("/")) or asked.path.removeprefix("/data/")
            found = [self.described(one) for one in sorted(objects) if one.startswith(parse_qs(asked.query).get(
                "prefix", [""])[0])]  # fmt: skip
            if asked.path.endswith("/b/data/o"):
                self.answer(200, json.dumps({"kind": "storage#objects", "items": found}))
            elif name not in objects:
                self.answer(404 if name else 403, json.dumps({"error": {"code": 404, "message": SECRET}}))
            elif "alt=media" in asked.query or asked.path.startswith("/data/"):
                self.answer(200, objects[name])
            else:
                self.answer(200, json.dumps(self.described(name)))

        def described(self, name: str) -> dict[str, str]:
            made = "2024-01-28T00:00:00Z"
            return {
                "kind": "storage#object", "name": name, "bucket": "data", "size": str(len(objects[name])),
                "generation": str(len(objects)), "updated": made, "timeCreated": made,
            }  # fmt: skip

        def answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("x-goog-generation", str(len(objects)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    yield objects
    server.shutdown()


@pytest.mark.slow
def test_the_client_of_google_cloud_storage_reads_objects(
    tmp_path: Path, google: dict[str, str], configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    google |= {"log/a/x.csv": rows(0, 60), "log/b/x.csv": rows(60, 30), "log/other.txt": "no table"}
    store = ingest(configure(sources={"log": {"path": "gs://data/log/**/x.csv"}}))
    assert store.counts["log"].rows_in == 90
    told = refused(configure(sources={"log": {"path": "gs://data/log/a/y.csv"}}))
    assert "there is no such object. Did you mean 'x.csv'?" in told
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    told = refused(configure(sources={"log": {"path": "gs://data/log/a/x.csv"}}), CvjError)
    assert "no server listens there" in told


@pytest.mark.slow
def test_an_account_of_azure_that_is_not_there_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, configure: Callable[..., Config]
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", base64.b64encode(SECRET.encode()).decode())
    told = refused(configure(sources={"log": {"path": "abfss://data@account.dfs.cvj.invalid/log.csv"}}), CvjError)
    assert told.startswith("sources.log: abfss://data@account.dfs.cvj.invalid/log.csv: ")
    assert "look at the endpoint and the network" in told
