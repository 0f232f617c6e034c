"""Nights of people with several ids: each is one customer, in the lists, in every table beside them and in erasure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.trained import AS_OF, SETTINGS, Trained, call

from cvj_ml.config import load_config
from cvj_ml.customers import Identities
from cvj_ml.lists.control import drawn_tonight
from cvj_ml.store import ingest
from cvj_ml.windows import parse_as_of

pytest_plugins = ["tests.fixtures"]

BEFORE = "2025-06-10"
"""A night before the last people were known to be one."""

STAGES = ("Convert", "Excite", "Ascend", "Advocate")


@dataclass(frozen=True)
class Shop:
    """A copy of the small customers in which half of them were somebody unknown until they logged in."""

    folder: Path
    people: tuple[str, ...]

    @property
    def file(self) -> Path:
        return self.folder / "shop.yaml"

    def alias(self, person: str) -> str:
        return f"visitor-{person}"

    def write(self, **settings: Any) -> Path:
        read = self.folder / "all.yaml"
        settings = json.loads(read.read_text()) | settings
        self.file.write_text(json.dumps(settings))
        return self.file

    def night(self, day: str) -> Path:
        run = call("nightly", self.file, "--as-of", day, "--json")
        assert run.code == 0, run.err
        return Path(json.loads(run.out)["nights"][0]["night"])


@pytest.fixture
def shop(tmp_path: Path, trained: Trained) -> Shop:
    log = pq.read_table(trained.folder / "touchpoints.parquet", partitioning=None).to_pandas()
    log = log.sort_values("known_at", kind="stable")
    names = sorted(log["customer_id"].unique())
    people = tuple(names[::2])
    told, ids = [], log["customer_id"].copy()
    for number, name in enumerate(people):
        mine = log[log["customer_id"] == name]
        if number % 5 == 0:  # known only after the earlier night
            at = pd.Timestamp("2025-06-15", tz=mine["known_at"].dt.tz)
        else:
            at = mine["known_at"].iloc[len(mine) // 2]
        ids[mine.index[mine["known_at"] < at]] = f"visitor-{name}"
        told.append({"alias": f"visitor-{name}", "customer": name, "known_at": at})
    log["customer_id"] = ids
    # What a shared device did after both had logged in is nobody's.
    shared = log.iloc[-3:].assign(customer_id="kiosk", touchpoint_id=["k1", "k2", "k3"])
    log = pd.concat([log, shared], ignore_index=True)
    begins = log["known_at"].min()
    told += [
        {"alias": "kiosk", "customer": one, "known_at": begins + pd.Timedelta(days=day)}
        for day, one in enumerate(names[1:4:2])
    ]
    log.to_parquet(tmp_path / "touchpoints.parquet", index=False)
    pd.DataFrame(told).to_parquet(tmp_path / "ids.parquet", index=False)
    (tmp_path / "customers.parquet").write_bytes((trained.folder / "customers.parquet").read_bytes())
    settings = SETTINGS | {
        "mlflow": {"tracking_uri": f"sqlite:///{trained.folder / 'mlflow.db'}"},
        "identities": {"path": "ids.parquet", "times": "utc"},
        "lists": [
            {"from": one, "to": "Promote", "horizon": "30d"} for one in ("Convert", "Excite", "Ascend", "Advocate")
        ],
        "control": {"share": 0.3, "salt": "tiny"},
        "eligibility": {"recent_contact": None, "unhappy": None, "exclude": {"dormant_for": None}},
    }
    (tmp_path / "all.yaml").write_text(json.dumps(settings))
    made = Shop(tmp_path, people)
    made.write()
    return made


def scored(night: Path) -> set[str]:
    return set(pq.read_table(night / "scores" / "scores.parquet", partitioning=None)["customer_id"].to_pylist())


def listed(night: Path) -> pd.DataFrame:
    files = sorted((night / "targets").glob("*__*.parquet"))
    return pd.concat([pq.read_table(one, partitioning=None).to_pandas() for one in files])


@pytest.mark.slow
def test_a_person_is_one_customer_in_every_table(shop: Shop) -> None:
    """Silent error 90: nobody twice, suppressed under any id, reached by any, and in control as whoever came first."""
    night = shop.night(AS_OF)
    first = listed(night)
    chosen = [name for name in first["customer_id"] if name in shop.people]
    assert chosen and not first["customer_id"].str.startswith("visitor").any()
    manifest = json.loads((night / "MANIFEST.json").read_text())
    assert sum(one["unassigned"] for one in manifest["counts"].values()) == 3
    assert not any(name.startswith("visitor") for name in scored(shop.night(AS_OF)))
    suppressed, reached = chosen[0], chosen[-1]
    (shop.folder / "no.csv").write_text(f"customer_id\n{shop.alias(suppressed)}\n")
    (shop.folder / "contact.csv").write_text(
        f"customer_id,email\n{shop.alias(reached)}\tx@example.com\n".replace("\t", ",")
    )
    shop.write(suppression={"path": "no.csv"}, contact={"path": "contact.csv", "columns": ["email"]})
    night = shop.night(AS_OF)
    rows = listed(night)
    assert suppressed in {*first["customer_id"]} - {*rows["customer_id"]}
    book = pd.read_csv(next((night / "targets").glob("*.csv")), dtype=str)
    assert "email" in book.columns
    config = load_config(shop.file)
    as_of = parse_as_of(AS_OF, config.zone)
    store = ingest(config)
    identities = Identities.at(store, as_of)
    drawn = drawn_tonight(
        config, [shop.alias(name) if name in shop.people else name for name in rows["customer_id"]], as_of
    )
    assert [*(rows["group"] == "control")] == [*drawn]
    assert (drawn != drawn_tonight(config, rows["customer_id"], as_of)).any(), "or the test shows nothing"
    assert identities.person[shop.alias(reached)] == reached


@pytest.mark.slow
def test_who_is_found_to_be_somebody_known_is_told_so(shop: Shop) -> None:
    before, tonight = shop.night(BEFORE), shop.night(AS_OF)
    aliases = {name for name in scored(before) if name.startswith("visitor")}
    assert aliases and not aliases & scored(tonight)
    manifest = json.loads((tonight / "MANIFEST.json").read_text())
    change = manifest["changes"]["last"]
    people = change["people"]
    assert people["before"] == len(scored(before)) and people["now"] == len(scored(tonight))
    new = {name for name in scored(tonight) if not {name, shop.alias(name)} & scored(before)}
    assert (people["left"], people["entered"]) == (0, len(new)), "who has another id now has neither come nor gone"
    assert sum(change["dropped"].values()) == change["plan"]["left"]


@pytest.mark.slow
def test_all_ids_of_a_person_are_forgotten(shop: Shop) -> None:
    """One id is named, and every table and night under the other one is searched as well."""
    before = shop.night(BEFORE)
    person = next(name for name in shop.people if shop.alias(name) in scored(before))
    shop.night(AS_OF)
    (shop.folder / "ids.txt").write_text(f"{person}\n")
    refused = call("forget", shop.file, "--customers", shop.folder / "ids.txt")
    assert refused.code == 3 and "- identities: " in refused.err and person not in refused.err
    for name in ("touchpoints", "customers", "ids"):
        table = pd.read_parquet(shop.folder / f"{name}.parquet")
        column = "customer" if name == "ids" else "customer_id"
        table[~table[column].isin([person, shop.alias(person)])].to_parquet(
            shop.folder / f"{name}.parquet", index=False
        )
    done = call("forget", shop.file, "--customers", shop.folder / "ids.txt", "--json")
    assert done.code == 0, done.err
    counts = json.loads(done.out)
    assert (counts["customers"], counts["other_ids"], counts["nights"]) == (1, 1, 2)
    assert shop.alias(person) not in scored(before)
    assert not (shop.folder / "out" / ".forget-ids.json").exists()


@pytest.mark.slow
def test_the_audit_tells_naive_stitching_from_merges_that_know_their_day(shop: Shop) -> None:
    """Silent error 90: joined without a date, yesterday's answers know who logs in tomorrow."""
    honest = call("audit", shop.file, "--as-of", AS_OF, "--cut-offs", 2, "--json")
    assert honest.code == 0, honest.out
    source = {key: value for key, value in SETTINGS["sources"]["touchpoints"].items() if key != "path"}
    stitched = source | {
        "files": {"log": "touchpoints.parquet", "ids": "ids.parquet"},
        "query": (
            "SELECT log.* REPLACE (coalesce(ids.customer, log.customer_id) AS customer_id)"
            " FROM log LEFT JOIN ids ON log.customer_id = ids.alias"
        ),
        "row_times": {"log": "known_at", "ids": "known_at"},
    }
    shop.write(sources={"touchpoints": stitched}, identities=None)
    naive = call("audit", shop.file, "--as-of", AS_OF, "--cut-offs", 2, "--json")
    assert naive.code == 5, naive.err
    assert {one["check"] for one in json.loads(naive.out)["leaks"]}
