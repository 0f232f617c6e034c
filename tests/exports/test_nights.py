"""Exports of real nights: in the manifest, verified, erased with the forgotten, and told to a web address once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.trained import AS_OF, SETTINGS, Trained, call

from cvj_ml.config import load_config
from cvj_ml.lists.control import epoch_name, in_control
from cvj_ml.night import webhook
from cvj_ml.night.verifying import verify_night

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.slow

BEFORE = "2025-06-23"
LOG = SETTINGS["sources"]["touchpoints"]
EXPORTS = {
    "email": "email",
    "phone": "phone",
    "first_name": "first_name",
    "default_country": "US",
    "files": {"email": "all", "google_customer_match": "all", "klaviyo": "all", "calls": "all", "channels": "all"},
}


@pytest.fixture
def shop(tmp_path: Path, trained: Trained) -> dict[str, Any]:
    """Return settings that publish into a folder of the test, with contacts and exports."""
    return {
        "out": tmp_path / "out",
        "contact": {"path": str(trained.folder / "contact.parquet"), "columns": ["email", "phone", "first_name"]},
        "exports": EXPORTS,
    }


def write(trained: Trained, settings: dict[str, Any], **more: Any) -> Path:
    given = {**settings, **more}
    return trained.variant(given.pop("out"), **given)


def night_of(file: Path, *options: str, as_of: str = AS_OF) -> tuple[Path, dict[str, Any], str]:
    run = call("targets", file, "--as-of", as_of, "--json", *options)
    assert run.code == 0, run.err
    told = json.loads(run.out)
    return Path(told["night"]), told, run.err


def manifest_of(night: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((night / "MANIFEST.json").read_text())
    return found


def test_a_night_has_its_exports_in_the_manifest(trained: Trained, shop: dict[str, Any]) -> None:
    file = write(trained, shop)
    night, told, _ = night_of(file)
    manifest = manifest_of(night)
    verify_night(night)
    counted = {one["export"]: one for one in manifest["exports"]}
    listed = sum(one["listed"] for one in manifest["lists"])
    assert told["exports"] == {name: one["written"] for name, one in counted.items()}
    assert counted["email"]["looked_at"] == counted["channels"]["looked_at"] == listed
    assert counted["email"]["control"] == sum(one["control"] for one in manifest["lists"])
    assert manifest["files"]["exports/email.csv"]["rows"] == counted["email"]["written"] > 0
    # The exclusion is of everybody in SCORES, by the draw itself.
    config = load_config(file)
    scores = pq.read_table(night / "scores" / "scores.parquet", columns=["customer_id"], partitioning=None)
    epoch = epoch_name("quarter", trained.as_of, config.zone)
    drawn = in_control(scores["customer_id"].to_pylist(), "tiny", epoch, 0.2)
    assert counted["google_customer_match_exclusion"]["looked_at"] == drawn.sum()
    assert counted["google_customer_match_exclusion"]["epoch"] == epoch


def test_the_same_night_has_the_same_exports(trained: Trained, shop: dict[str, Any], tmp_path: Path) -> None:
    first, _, _ = night_of(write(trained, shop))
    second, _, _ = night_of(write(trained, shop, out=tmp_path / "other"))
    assert manifest_of(first)["files"] == manifest_of(second)["files"]


def test_a_changed_export_is_no_whole_night(trained: Trained, shop: dict[str, Any]) -> None:
    night, _, _ = night_of(write(trained, shop))
    file = night / "exports" / "email.csv"
    file.write_text(file.read_text().replace("example.com", "example.org", 1))
    run = call("verify", night)
    assert run.code == 4 and "exports/email.csv was changed" in run.err


def test_a_night_is_compared_with_the_one_before(trained: Trained, shop: dict[str, Any]) -> None:
    file = write(trained, shop)
    after, _, _ = night_of(file)
    assert {one["added"] for one in manifest_of(after)["exports"]} == {None}
    before, told, _ = night_of(file, as_of=BEFORE)  # backfilled: the current night stays what it is
    assert not told["current"]
    # The night of now has another base, so it is another night.
    again, told, _ = night_of(file)
    assert again != after and told["current"]
    members = {night: pq.read_table(night / "exports" / "members.parquet", partitioning=None).to_pylist()
               for night in (before, again)}  # fmt: skip
    for one in manifest_of(again)["exports"]:
        keys = {
            night: {tuple(row.values())[1:4] for row in rows
                    if row["export"] == one["export"] and row["change"] != "removed"}
            for night, rows in members.items()
        }  # fmt: skip
        assert one["added"] == len(keys[again] - keys[before])
        assert one["removed"] + one["still_in"] == len(keys[before] - keys[again])
    assert (again / "exports" / "email_adds.csv").is_file()


def test_a_damaged_night_stops_no_exports(trained: Trained, shop: dict[str, Any]) -> None:
    file = write(trained, shop)
    before, _, _ = night_of(file, as_of=BEFORE)
    email = before / "exports" / "email.csv"
    email.write_text(email.read_text() + "one@example.com\n")
    again, _, err = night_of(file)
    assert "not compared with the night before: it is damaged" in err
    assert {one["added"] for one in manifest_of(again)["exports"]} == {None}
    assert not list((again / "exports").glob("*_removes.csv"))


def test_scores_alone_have_no_exports(trained: Trained, shop: dict[str, Any]) -> None:
    run = call("score", write(trained, shop), "--as-of", AS_OF, "--json")
    assert run.code == 0, run.err
    assert not (Path(json.loads(run.out)["night"]) / "exports").exists()


def test_the_forgotten_are_in_no_export(trained: Trained, shop: dict[str, Any], tmp_path: Path) -> None:
    """Somebody who has only left an export since the night before is named there, and found."""
    for name in ("touchpoints", "customers", "contact"):
        table = pq.read_table(trained.folder / f"{name}.parquet", partitioning=None)
        pq.write_table(table, tmp_path / f"{name}.parquet")
    mine = {
        "sources": {"touchpoints": {**LOG, "path": str(tmp_path / "touchpoints.parquet")}},
        "attributes": {**SETTINGS["attributes"], "path": str(tmp_path / "customers.parquet")},
        "contact": {**shop["contact"], "path": str(tmp_path / "contact.parquet")},
        "control": {"share": 0.0, "salt": "tiny"},
    }
    file = write(trained, shop, **mine)
    before, _, _ = night_of(file, as_of=BEFORE)
    members = pq.read_table(before / "exports" / "members.parquet", partitioning=None).to_pylist()
    victim = next(row["customer_id"] for row in members if row["export"] == "email")
    for name in ("touchpoints", "customers", "contact"):
        table = pq.read_table(tmp_path / f"{name}.parquet", partitioning=None)
        pq.write_table(table.filter(pc.not_equal(table["customer_id"], victim)), tmp_path / f"{name}.parquet")
    after, _, _ = night_of(file)
    scores = pq.read_table(after / "scores" / "scores.parquet", partitioning=None)
    assert victim not in scores["customer_id"].to_pylist()
    assert f"customer.{victim}@example.com" in (after / "exports" / "email_removes.csv").read_text()
    (tmp_path / "ids.txt").write_text(f"{victim}\n")
    run = call("forget", file, "--customers", tmp_path / "ids.txt")
    assert run.code == 0, run.err
    for night in (before, after):
        verify_night(night)
        assert not (night / "exports").exists()
        assert "exports/email.csv" in manifest_of(night)["forgotten"]["removed"]
        assert "exports" not in manifest_of(night)


# The web address.


@contextmanager
def server(*codes: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve on a loopback port: the codes one after the other, then 200; yield the address and what was posted."""
    posted, left = list[dict[str, Any]](), list(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            code = left.pop(0) if left else 200
            self.send_response(code)
            if code == 302:
                self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{serving.server_port}/hook?token=secret-token", posted
    finally:
        serving.shutdown()
        serving.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_PAUSE", 0.0)


def test_the_summary_of_the_current_night_is_posted_once(
    trained: Trained, shop: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with server() as (url, posted):
        monkeypatch.setenv("SHOP_HOOK", url)
        file = write(trained, shop, deliver={"webhook": "${SHOP_HOOK}"})
        run = call("nightly", file, "--as-of", AS_OF, "--watched", "--dry-run")
        assert run.code == 0 and not posted, run.err
        night, told, _ = night_of(file)
        assert len(posted) == 1
        night_of(file)  # found again
        night_of(file, as_of=BEFORE)  # a backfill
        assert len(posted) == 1
        run = call("nightly", file, "--backfill", f"{BEFORE}..{AS_OF}", "--watched")
        assert run.code == 0, run.err
    (summary, *later) = posted
    assert (summary["use"], summary["night"], summary["lists"]) == ("tiny", night.name, told["lists"])
    assert len(later) == 1 and later[0]["as_of"] == AS_OF  # with another base it is another night
    customers = pq.read_table(night / "scores" / "scores.parquet", partitioning=None)["customer_id"].to_pylist()
    text = json.dumps(posted)
    assert not any(one in text for one in customers) and "example.com" not in text
    assert str(night.parent) not in text


def test_a_web_address_that_fails_changes_nothing(trained: Trained, shop: dict[str, Any]) -> None:
    with server(500, 503) as (url, posted):
        file = write(trained, shop, deliver={"webhook": url})
        night, told, err = night_of(file)
        assert told["outcome"] == "published" and told["current"] and len(posted) == 2
        assert "deliver.webhook" in err and "503" in err and "secret-token" not in err
        verify_night(night)
        _, told, err = night_of(file)  # the same command again
        assert told["outcome"] == "unchanged" and len(posted) == 3 and "deliver.webhook" not in err


def test_one_failure_is_tried_again(trained: Trained, shop: dict[str, Any]) -> None:
    with server(500) as (url, posted):
        _, _, err = night_of(write(trained, shop, deliver={"webhook": url}))
    assert len(posted) == 2 and "deliver.webhook" not in err


def test_a_redirect_is_not_followed(trained: Trained, shop: dict[str, Any]) -> None:
    with server(302, 302) as (url, posted):
        _, _, err = night_of(write(trained, shop, deliver={"webhook": url}))
    assert len(posted) == 2 and "302" in err


def test_nobody_there_is_a_warning(trained: Trained, shop: dict[str, Any]) -> None:
    with server() as (url, _):
        pass
    _, told, err = night_of(write(trained, shop, deliver={"webhook": url}))
    assert told["current"] and "no connection (ConnectionRefusedError)" in err
