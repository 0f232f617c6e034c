"""`cvj-ml init`: what files hold is guessed from names and content, told with its doubts, and readable at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.trained import Outcome, call

from cvj_ml.proposal.events import meanings, sent_by_business
from cvj_ml.proposal.roles import words


def init(folder: Path, *files: Path, **options: str) -> tuple[Outcome, dict, list[str]]:
    """Run the command and return what it told, the configuration, and the doubts."""
    named = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
    target = folder / "shop.yaml"
    done = call("init", *files, "--config", target, *named, "--json")
    assert done.code == 0, done.err
    return done, yaml.safe_load(target.read_text()), json.loads(done.out)["doubts"]


def checked(folder: Path, done: Outcome) -> dict:
    found = call("check", folder / "shop.yaml", "--as-of", json.loads(done.out)["as_of"], "--json")
    assert found.code == 0, found.err
    return json.loads(found.out)


@pytest.fixture
def shop(tmp_path: Path) -> pd.DataFrame:
    """A log of two years in which nothing has its canonical name."""
    random = np.random.default_rng(5)
    rows = 3000
    kinds = ["Page View", "Newsletter Signup", "Order Completed", "Order Cancelled", "Email Sent", "Support Call"]
    log = pd.DataFrame(
        {
            "EventID": np.arange(rows),
            "CustomerNo": random.integers(1, 200, rows),
            "EventTime": pd.Timestamp("2023-01-01") + pd.to_timedelta(random.uniform(0, 730, rows), unit="D"),
            "EventName": random.choice(kinds, rows),
            "Medium": random.choice(["web", "app"], rows),
            "Amount": random.uniform(1, 90, rows).round(2),
            "Store": random.choice(["N", "S"], rows),
        }
    ).sort_values("EventTime")
    return log.assign(EventTime=log["EventTime"].dt.floor("s"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_log_with_names_of_its_own_is_understood(tmp_path: Path, shop: pd.DataFrame, kind: str) -> None:
    file = tmp_path / f"events.{kind}"
    shop.to_csv(file, index=False) if kind == "csv" else shop.to_parquet(file)
    done, config, doubts = init(tmp_path, file, time_zone="Europe/London", column="customer_id=CustomerNo")
    assert config["sources"]["events"]["columns"] == {
        "customer_id": "CustomerNo",
        "occurred_at": "EventTime",
        "event": "EventName",
        "touchpoint_id": "EventID",
        "channel": "Medium",
        "value": "Amount",
    }
    assert config["events"] == {
        "purchase": ["Order Completed"],
        "signup": ["Newsletter Signup"],
        "visit": ["Page View"],
    }
    assert config["outbound"] == ["Email Sent"]
    assert (config["time_zone"], str(config["history_from"])) == ("Europe/London", "2023-01-01")
    [unmapped] = [line for line in (tmp_path / "shop.yaml").read_text().split("\n") if "mapped to nothing" in line]
    assert "Order Cancelled" in unmapped and "Support Call" in unmapped and unmapped.count("(") == 2
    assert doubts == []
    found = checked(tmp_path, done)
    assert found["customers"] == shop["CustomerNo"].nunique()
    assert found["used"] >= 0.99 * len(shop)


def test_daily_files_are_one_source_that_takes_those_to_come(tmp_path: Path, shop: pd.DataFrame) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    days = [shop.iloc[:1000], shop.iloc[1000:2000], shop.iloc[2000:]]
    for i, day in enumerate(days):
        day.rename(columns={"CustomerNo": "customer_id"}).to_parquet(folder / f"2024-01-0{i + 1}.parquet")
    done, config, _ = init(tmp_path, *sorted(folder.iterdir()))
    assert {name: source["path"] for name, source in config["sources"].items()} == {"exports": "exports/*.parquet"}
    assert checked(tmp_path, done)["customers"] == shop["CustomerNo"].nunique()


def test_lines_of_orders_become_one_touchpoint_an_order(tmp_path: Path) -> None:
    orders = pd.DataFrame(
        {
            "user_id": ["a", "a", "a", "a", "b", "b", "b", "b"],
            "order_id": [1, 1, 1, 2, 3, 3, None, None],
            "order_date": pd.to_datetime(["2024-01-05"] * 3 + ["2024-03-01"] + ["2024-02-01"] * 2 + ["2024-09-09"] * 2),
            "unit_price": [2.0, 3.0, 1.0, 9.0, 4.0, 4.0, 1.0, -1.5],
            "quantity": [1, 2, 1, 1, 1, 1, 1, 1],
        }
    )
    orders.to_parquet(tmp_path / "orders.parquet")
    done, config, doubts = init(tmp_path, tmp_path / "orders.parquet")
    assert config["sources"]["orders"]["files"] == {"lines": "orders.parquet"}
    assert len(doubts) == 4
    assert "so every row is taken for 'purchase'" in doubts[0] and "makes one touchpoint" in doubts[1]
    assert "unit_price is below zero in 1 rows" in doubts[2] and "short" in doubts[3]
    found = checked(tmp_path, done)
    assert found["events"] == {"purchase": 4}
    assert [one["customers"] for one in found["stages"] if one["stage"] == "Excite"] == [2]


def test_customers_with_a_time_came_then_and_without_one_are_attributes(tmp_path: Path, shop: pd.DataFrame) -> None:
    shop = shop.rename(columns={"CustomerNo": "customer_id"})
    shop.to_parquet(tmp_path / "events.parquet")
    people = pd.DataFrame({"id": sorted(shop["customer_id"].unique())})
    people.assign(country="DE", created_at=pd.Timestamp("2023-01-01")).to_parquet(tmp_path / "customers.parquet")
    people.assign(plan="basic").to_parquet(tmp_path / "members.parquet")
    done, config, doubts = init(
        tmp_path, *(tmp_path / f"{name}.parquet" for name in ("events", "customers", "members"))
    )
    assert config["sources"]["customers"]["constants"] == {"event": "signup"}
    assert config["attributes"] == {
        "path": "members.parquet",
        "columns": {"customer_id": "id", "plan": "plan"},
        "static": True,
    }
    assert any("declared static" in doubt for doubt in doubts)
    assert checked(tmp_path, done)["customers"] == len(people)


def test_what_cannot_be_guessed_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    pd.DataFrame({"person": ["a"], "hours": [3], "what": ["x"]}).to_parquet(tmp_path / "log.parquet")
    target = tmp_path / "shop.yaml"
    done = call("init", tmp_path / "log.parquet", "--config", target)
    assert done.code == 3 and done.out == "" and not target.exists()
    assert "log.parquet: no occurred_at found among person, hours, what" in done.err
    done = call(
        "init", tmp_path / "log.parquet", "--config", target, "--column", "customer_id=persn", "--column", "whom=x"
    )
    assert done.code == 2 and "'whom=x': write ROLE=COLUMN" in done.err
    done = call("init", tmp_path / "log.parquet", "--config", target, "--column", "customer_id=persn")
    assert done.code == 2 and "no file has a column 'persn'. Did you mean 'person'?" in done.err
    done = call("init", tmp_path / "log.parquet", "--config", target, "--time-zone", "Europe/Londn")
    assert done.code == 2 and "Did you mean 'Europe/London'?" in done.err
    done = call("init", tmp_path / "lost.parquet", "--config", target)
    assert done.code == 3 and "Did you mean 'log.parquet'?" in done.err
    target.write_text("mine")
    done = call("init", tmp_path / "log.parquet", "--config", target)
    assert done.code == 2 and target.read_text() == "mine"


def test_a_log_without_rows_is_refused(tmp_path: Path, shop: pd.DataFrame) -> None:
    shop.iloc[:0].to_parquet(tmp_path / "events.parquet")
    done = call("init", tmp_path / "events.parquet", "--config", tmp_path / "shop.yaml")
    assert done.code == 3 and "events.parquet: it holds no row" in done.err


def test_names_mean_what_they_say() -> None:
    assert words("InvoiceDate") == words("invoice_date") == ("invoice", "date")
    assert meanings(["order_paid", "order refunded", "purchase", "Referral Converted", "DEMO requested", "x"]) == {
        "referral_converted": ["Referral Converted"],
        "purchase": ["order_paid", "purchase"],
        "demo": ["DEMO requested"],
    }
    assert sent_by_business(["email_sent", "email_click", "Ad Impression", "order received", "offer received"]) == [
        "email_sent",
        "Ad Impression",
        "offer received",
    ]


@pytest.mark.parametrize("name", ["cdnow/cdnow_master.parquet", "stackexchange_vi/badges.parquet"])
def test_real_logs_are_read_whole(tmp_path: Path, dataset, name: str) -> None:
    file = dataset(name)
    done, _, _ = init(tmp_path, file)
    source = checked(tmp_path, done)["sources"][0]
    assert source["stored"] == source["rows_in"] > 20_000


def test_events_that_the_preset_hardly_knows_are_a_doubt(tmp_path: Path, shop: pd.DataFrame) -> None:
    shop = shop.assign(EventName=["Order Completed"] + ["Gold Badge"] * (len(shop) - 1))
    shop.to_parquet(tmp_path / "events.parquet")
    _, _, doubts = init(tmp_path, tmp_path / "events.parquet", column="customer_id=CustomerNo")
    assert len(doubts) == 1 and doubts[0].startswith("The preset knows 0% of the rows")


def test_files_of_other_systems_are_read_as_they_are_written(tmp_path: Path, shop: pd.DataFrame) -> None:
    """Times as a count, or by a format of the country; decimal commas; Latin-1; and no guess is silent."""
    seconds = shop["EventTime"].astype("datetime64[s]").astype("int64")
    clicks = pd.DataFrame({"timestamp": seconds * 1000, "visitorid": shop["CustomerNo"], "event": shop["EventName"]})
    orders = pd.DataFrame(
        {
            "Kunde": "Müller-" + shop["CustomerNo"].astype(str),
            "date": shop["EventTime"].dt.strftime("%d.%m.%Y %H:%M"),
            "Amount": shop["Amount"].map(lambda one: f"{one * 100:,.2f} €".translate(str.maketrans(",.", ".,"))),
            "event": shop["EventName"],
        }
    )
    for name, table, options, source in (
        ("clicks", clicks, {}, {"time_format": "epoch ms", "times": "utc"}),
        ("orders", orders, {"sep": ";", "encoding": "cp1252"},
         {"time_format": "%d.%m.%Y %H:%M", "decimal_mark": ",", "encoding": "windows-1252", "times": "local"}),
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        table.to_csv(folder / f"{name}.csv", index=False, **options)
        told = {"column": "customer_id=Kunde"} if name == "orders" else {}
        done, config, doubts = init(folder, folder / f"{name}.csv", **told)
        written = config["sources"][name]
        assert {key: written[key] for key in source} == source and doubts == []
        found = checked(folder, done)
        assert found["customers"] == shop["CustomerNo"].nunique() and found["used"] >= 0.99 * len(shop)


def test_rows_of_nobody_are_told_and_do_not_stop_the_rest(tmp_path: Path, shop: pd.DataFrame) -> None:
    log = shop.rename(columns={"CustomerNo": "customer_id"}).drop(columns="EventID")
    log["customer_id"] = log["customer_id"].where(np.arange(len(log)) % 5 > 0)
    log.to_csv(tmp_path / "log.csv", index=False)
    done, config, doubts = init(tmp_path, tmp_path / "log.csv")
    assert config["refused_share"] == 0.3
    assert any("customer_id is empty in 600 of 3,000 rows" in doubt for doubt in doubts)
    assert checked(tmp_path, done)["used"] >= 0.79 * len(shop)


def test_dates_that_a_parquet_file_holds_as_text(tmp_path: Path, shop: pd.DataFrame) -> None:
    text = shop["EventTime"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    log = pd.DataFrame({"customer": shop["CustomerNo"], "event": shop["EventName"], "at": text, "value": 1.5})
    log.to_parquet(tmp_path / "log.parquet")
    done, config, _ = init(tmp_path, tmp_path / "log.parquet")
    assert config["sources"]["log"]["columns"]["occurred_at"] == "at"
    assert "time_format" not in config["sources"]["log"]
    assert checked(tmp_path, done)["used"] >= 0.99 * len(shop)


def test_a_day_that_could_be_a_month_is_told(tmp_path: Path) -> None:
    days = [f"{day:02}/{month:02}/2024" for day in range(1, 13) for month in range(1, 13)]
    log = pd.DataFrame({"customer": np.arange(len(days)) % 9, "date": days, "event": "visit"})
    log.to_csv(tmp_path / "log.csv", index=False)
    _, config, doubts = init(tmp_path, tmp_path / "log.csv")
    assert config["sources"]["log"]["time_format"] == "%d/%m/%Y"
    assert any("as %d/%m/%Y and as %m/%d/%Y; the first is taken" in doubt for doubt in doubts)


def test_lines_of_orders_in_a_csv_file_of_another_country(tmp_path: Path) -> None:
    rows = ["Invoice;Customer ID;InvoiceDate;Price;Quantity"]
    rows += [
        f"{n};{n % 7}.0;{1 + n % 12}/{1 + n % 28}/2023 8:{n % 60:02};$1,000.50;2" for n in range(300) for _ in "ab"
    ]
    (tmp_path / "sales.csv").write_text("\n".join(rows) + "\n")
    done, config, doubts = init(tmp_path, tmp_path / "sales.csv")
    assert any("every Customer ID is written as 12.0" in doubt for doubt in doubts)
    assert "strptime" in config["sources"]["sales"]["query"]
    found = checked(tmp_path, done)
    assert found["events"] == {"purchase": 300} and found["customers"] == 7
    read = pd.concat(map(pd.read_parquet, tmp_path.rglob("bucket-*/touchpoints.parquet")))
    assert set(read["value"]) == {400200}
    assert set(read["customer_id"]) == set("0123456")


def test_an_order_line_that_comes_later_and_cannot_be_read_is_refused_and_counted(tmp_path: Path) -> None:
    """The proposed query was written for rows that all parse; the next file's need not."""
    rows = ["Invoice;Customer ID;InvoiceDate;Price;Quantity"]
    rows += [f"{n};{n % 7}.0;{1 + n % 12}/{1 + n % 28}/2023 8:{n % 60:02};10.5;2" for n in range(300) for _ in "ab"]
    file = tmp_path / "sales.csv"
    file.write_text("\n".join(rows) + "\n")
    done, _, _ = init(tmp_path, file)
    file.write_text("\n".join([*rows, "900;3.0;soon;10.5;2", "901;who?;1/2/2023 8:00;10.5;2"]) + "\n")
    found = checked(tmp_path, done)
    assert found["used"] == 300 and sum(sum(one["refused"].values()) for one in found["sources"]) == 2
