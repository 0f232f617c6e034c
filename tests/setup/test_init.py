"""`cvj-ml init`: what files hold is guessed from names and content, told with its doubts, and readable at once."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.trained import Outcome, call

from cvj_ml.setup.columns import words
from cvj_ml.setup.events import alike, meaning, meanings, sent_by_business, unsure

ROOT = Path(__file__).resolve().parents[2]


def init(folder: Path, *files: Path, **options: str) -> tuple[Outcome, dict, list[str]]:
    """Run the command, accept every doubt, and return what it told, the configuration, and the doubts."""
    named = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
    target = folder / "shop.yaml"
    done = call("init", *files, "--config", target, *named, "--yes", "--json")
    assert done.code == 0, done.err
    return (
        done,
        yaml.safe_load(target.read_text()),
        [f"{one['about']}: {one['text']}" for one in json.loads(done.out)["doubts"]],
    )


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
        "order_cancelled": ["Order Cancelled"],
    }
    assert config["outbound"] == ["Email Sent"]
    assert (config["time_zone"], str(config["history_from"])) == ("Europe/London", "2023-01-01")
    [unmapped] = [line for line in (tmp_path / "shop.yaml").read_text().split("\n") if "mapped to nothing" in line]
    assert "Support Call" in unmapped and unmapped.count("(") == 1
    assert len(doubts) == 1 and "Amount also stands in" in doubts[0]
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
    said = "\n".join(doubts)
    assert "so every row is taken for 'purchase'" in said and "makes one touchpoint" in said
    assert "unit_price or quantity is below zero in 1 of 8 rows" in said and "short" in said
    found = checked(tmp_path, done)
    assert found["events"] == {"purchase": 3, "refund": 1}
    assert [one["customers"] for one in found["stages"] if one["stage"] == "Excite"] == [1]


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
    assert "log.parquet: no occurred_at found among person (1 different in 1 rows), hours" in done.err
    done = call(
        "init", tmp_path / "log.parquet", "--config", target, "--column", "customer_id=persn", "--column", "whom=x"
    )
    assert done.code == 2 and "'whom=x': write ROLE=COLUMN or FILE:ROLE=COLUMN" in done.err
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
        "refund": ["order refunded"],
    }
    assert words("Käufer-Straße") == ("kaufer", "strasse")
    for name in (
        "payment_info_entered",
        "invoice_sent",
        "trial_expired",
        "demo_no_show",
        "order_updated",
        "Ticket Order",
    ):
        assert meaning(name) is None
    assert unsure("Placed Order") == "purchase" and not unsure("Order Shipped") and alike("Order Shipped")
    assert sent_by_business(["email_sent", "email_click", "Ad Impression", "order received", "offer received"]) == [
        "email_sent",
        "Ad Impression",
        "offer received",
    ]


def test_where_an_event_comes_from_changes_no_meaning() -> None:
    braze = ["users.behaviors.Purchase", "users.messages.email.Click", "users.behaviors.app.SessionStart"]
    assert [meaning(name) for name in braze] == ["purchase", "email_click", "visit"]
    for name in (
        "users.draft.order",
        "ticket.order",
        "users.behaviors.CustomEvent",
        "invoice.payment_failed",
        "users.",
    ):
        assert meaning(name) is None
    assert meaning("user.created") == "account_created"
    sends = ["users.messages.pushnotification.Send", "users.messages.inappmessage.Impression"]
    sends += ["users.messages.email.Delivery", "users.messages.email.Bounce"]
    assert sent_by_business([*sends, *braze, "users.messages.email.Open"]) == sends


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
    assert any("The preset knows 0% of the rows" in doubt for doubt in doubts)


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
        ("clicks", clicks, {}, {"time_format": "epoch ms"}),
        ("orders", orders, {"sep": ";", "encoding": "cp1252"},
         {"time_format": "%d.%m.%Y %H:%M", "decimal_mark": ",", "encoding": "windows-1252", "times": "local"}),
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        table.to_csv(folder / f"{name}.csv", index=False, **options)
        told = {"column": "customer_id=Kunde"} if name == "orders" else {}
        done, config, doubts = init(folder, folder / f"{name}.csv", **told)
        written = config["sources"][name]
        assert {key: written[key] for key in source} == source
        known = ("events", "preset", "hold a word", *(["have no value"] if name == "clicks" else []))
        assert [doubt for doubt in doubts if not any(word in doubt for word in known)] == []
        found = checked(folder, done)
        assert found["customers"] == shop["CustomerNo"].nunique() and found["used"] >= 0.99 * len(shop)


def test_rows_of_nobody_are_told_and_do_not_stop_the_rest(tmp_path: Path, shop: pd.DataFrame) -> None:
    log = shop.rename(columns={"CustomerNo": "customer_id"}).drop(columns="EventID")
    log["customer_id"] = log["customer_id"].where(np.arange(len(log)) % 5 > 0)
    log.to_csv(tmp_path / "log.csv", index=False)
    done, config, doubts = init(tmp_path, tmp_path / "log.csv")
    assert config["refused_share"] == 0.2
    assert any("600 of 3,000 rows (20.0%) cannot be used" in doubt for doubt in doubts)
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
    asked = call("init", tmp_path / "log.csv", "--config", tmp_path / "asked.yaml")
    assert asked.code == 3 and "--accept log.day-or-month" in asked.err, (
        "a day for a month makes every date another one"
    )
    _, config, doubts = init(tmp_path, tmp_path / "log.csv")
    assert config["sources"]["log"]["time_format"] == "%d/%m/%Y"
    assert any("as %d/%m/%Y and as %m/%d/%Y; the first is taken" in doubt for doubt in doubts)


def test_days_of_a_spreadsheet_and_months_are_told(tmp_path: Path) -> None:
    """Silent error 182: what is told of a month was known when it was over, so its first day would know the future."""
    rows = range(400)
    days = pd.DataFrame({"customer": [n % 40 for n in rows], "Order Date": [44000 + n for n in rows], "total": 1.5})
    days.to_csv(tmp_path / "days.csv", index=False)
    done, config, doubts = init(tmp_path, tmp_path / "days.csv")
    assert config["sources"]["days"]["time_format"] == "days since 1899-12-30"
    assert any("days since 1899-12-30): 2020-06-18 to 2021-07-22" in doubt for doubt in doubts)
    assert checked(tmp_path, done)["used"] == 400
    months = pd.period_range("2021-01", periods=30, freq="M")
    written = {"%Y-%m": ("month", str), "%b %Y": ("when", str), "%Y%m": ("yearmonth", int)}
    for pattern, (name, kind) in written.items():
        folder = tmp_path / name
        folder.mkdir()
        log = pd.DataFrame({"customer": np.repeat(np.arange(20), 30), name: np.tile(months.strftime(pattern), 20),
                            "total": 2.5})  # fmt: skip
        log.astype({name: kind}).to_csv(folder / "log.csv", index=False)
        done, config, doubts = init(folder, folder / "log.csv")
        assert any(f"{name} names months ({pattern}); each row is read as of the last day" in one for one in doubts)
        assert not any("say so with known_after" in one for one in doubts)
        assert checked(folder, done)["used"] == 600
        facts = call("check", folder / "shop.yaml", "--as-of", "2021-02-28", "--json")
        assert json.loads(facts.out)["used"] == 20, "February is known when it is over"


def test_a_customer_that_no_name_tells_is_asked_about(tmp_path: Path) -> None:
    """Not a sum, a day or the number of a row, and nothing that few rows share."""
    rows = range(400)
    days, sums = 20240101 + pd.Series(rows) % 28, 100 + pd.Series(rows) % 90
    log = pd.DataFrame({"msno": [n % 40 for n in rows], "transaction_date": days, "amount": sums, "row_no": rows})
    log["plan"] = [n % 3 for n in rows]
    log.to_csv(tmp_path / "log.csv", index=False)
    refused = call("init", tmp_path / "log.csv", "--config", tmp_path / "c.yaml")
    assert refused.code == 3
    assert "Is msno the customer? If so: --column log.csv:customer_id=msno." in " ".join(refused.err.split())


def test_a_count_from_a_day_that_nobody_tells_is_asked(tmp_path: Path) -> None:
    log = pd.DataFrame({"household": [n % 40 for n in range(400)], "DAY": [1 + n for n in range(400)], "sales": 1.5})
    log.to_csv(tmp_path / "log.csv", index=False)
    refused = call("init", tmp_path / "log.csv", "--config", tmp_path / "c.yaml")
    said = (
        "Does DAY count days, hours or seconds? Then say from which day: --column log.csv:occurred_at=DAY --time-format"
    )
    assert refused.code == 3 and said in " ".join(refused.err.split())
    options = ["--column", "log.csv:occurred_at=DAY", "--time-format"]
    for wrong, message in (
        ("days since 2017-02-31", "'days since 2017-02-31': day is out of range for month"),
        ("%d.%m.%Y", "log.csv: no DAY is written as '%d.%m.%Y'"),
        ("nowhere.csv:epoch s", "there is no file 'nowhere.csv'"),
    ):
        told = call("init", tmp_path / "log.csv", "--config", tmp_path / "c.yaml", *options, wrong)
        assert told.code == 2 and message in " ".join(told.err.split())
    without = call("init", tmp_path / "log.csv", "--config", tmp_path / "c.yaml", *options[2:], "epoch s")
    assert without.code == 2 and "which column is written so?" in " ".join(without.err.split())
    done, config, _ = init(tmp_path, tmp_path / "log.csv", column=options[1], time_format="days since 2016-12-31")
    assert config["sources"]["log"]["time_format"] == "days since 2016-12-31"
    assert checked(tmp_path, done)["used"] == 400


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


def told(folder: Path, table: pd.DataFrame | dict[str, pd.DataFrame], *arguments: object, **options: object) -> Outcome:
    """Run the command on tables written as CSV, without accepting anything; the configuration is folder/shop.yaml."""
    tables = table if isinstance(table, dict) else {"log": table}
    for name, one in tables.items():
        one.to_csv(folder / f"{name}.csv", index=False, **options)
    (folder / "shop.yaml").unlink(missing_ok=True)
    return call("init", *(folder / f"{name}.csv" for name in tables), "--config", folder / "shop.yaml", *arguments)


def open_doubts(done: Outcome) -> dict[str, dict]:
    found = {one["name"]: one for one in json.loads(done.out)["doubts"] if one["blocking"]}
    assert all("? If so: " in one["way_out"] for one in found.values()), "a doubt ends in a question"
    return found


def config_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "shop.yaml").read_text())


@pytest.fixture
def orders() -> pd.DataFrame:
    """Orders of one shop, each with its number and amount."""
    random = np.random.default_rng(7)
    rows = 400
    return pd.DataFrame(
        {
            "order_id": np.arange(1000, 1000 + rows),
            "customer_id": [f"c{n}" for n in random.integers(0, 90, rows)],
            "created_at": (pd.Timestamp("2023-01-01") + pd.to_timedelta(random.uniform(0, 700, rows), unit="D")).floor(
                "s"
            ),
            "total": random.uniform(5, 90, rows).round(2),
        }
    )


def test_a_doubt_blocks_until_it_is_accepted_by_its_name(tmp_path: Path, orders: pd.DataFrame) -> None:
    orders.loc[:9, "total"] *= -1
    done = told(tmp_path, orders, "--json")
    assert done.code == 3 and not (tmp_path / "shop.yaml").exists()
    [(name, doubt)] = open_doubts(done).items()
    assert (name, doubt["numbers"]) == ("log.negative", {"rows": 10, "of": 400})
    assert json.loads(done.out)["open"] == [name] and "--accept log.negative" in done.err
    done = told(tmp_path, orders, "--accept", "log.negativ")
    assert done.code == 2 and "Did you mean 'log.negative'?" in done.err
    done = told(tmp_path, orders, "--accept", name)
    assert done.code == 0 and "# accepted log.negative: " in (tmp_path / "shop.yaml").read_text()
    assert told(tmp_path, orders, "--yes").code == 0
    found = call("check", tmp_path / "shop.yaml", "--as-of", "2025-01-01", "--json")
    assert json.loads(found.out)["events"] == {"purchase": 390, "refund": 10}


def test_placeholders_are_nobody_and_no_share_hides_a_fault(tmp_path: Path, orders: pd.DataFrame) -> None:
    for rows, blocks in ((2, False), (6, False), (40, True)):
        log = orders.copy()
        log.loc[: rows - 1, "customer_id"] = ["null", "(not set)"] * (rows // 2)
        done = told(tmp_path, log, "--yes", "--json")
        assert done.code == 0, done.err
        assert set(open_doubts(done)) == {"log.nobody"} | ({"log.refused"} if blocks else set())
        config = config_of(tmp_path)
        assert set(config["sources"]["log"]["null_values"]) == {"null", "(not set)"}
        assert config.get("refused_share") == {2: None, 6: 0.015, 40: 0.1}[rows]
        found = json.loads(call("check", tmp_path / "shop.yaml", "--as-of", "2025-01-01", "--json").out)
        assert found["customers"] == log["customer_id"].nunique() - 2 and found["used"] == 400 - rows


def test_a_fuller_id_wins_unless_everybody_is_known_by_the_other(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    device = random.integers(0, 100, 800)
    log = pd.DataFrame(
        {
            "anonymousId": [f"a{n}" for n in device],
            "userId": [f"u{n}" for n in device],
            "timestamp": (pd.Timestamp("2024-01-01") + pd.to_timedelta(random.uniform(0, 300, 800), unit="D")).floor(
                "s"
            ),
            "event": random.choice(["Order Completed", "Page Viewed"], 800),
        }
    )
    few = log.assign(userId=log["userId"].where(device < 20))
    assert told(tmp_path, few, "--yes").code == 0
    assert config_of(tmp_path)["sources"]["log"]["columns"]["customer_id"] == "anonymousId"
    late = log.assign(userId=log["userId"].where(np.arange(800) % 4 > 0))
    done = told(tmp_path, late, "--yes", "--json")
    assert config_of(tmp_path)["sources"]["log"]["columns"]["customer_id"] == "userId"
    assert open_doubts(done)["log.customer-rivals"]["rivals"] == ["anonymousId"]


@pytest.fixture
def visitors() -> pd.DataFrame:
    """A log of 60 people with a phone and a laptop, logged in from the third visit of a device on; 20 never log in."""
    random = np.random.default_rng(4)
    device = np.repeat(np.arange(140), 6)
    person = np.where(device < 120, device // 2, device)
    log = pd.DataFrame(
        {
            "anonymous_id": [f"a{n}" for n in device],
            "user_id": [f"u{n}" for n in person],
            "created_at": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(np.arange(len(device)) * 7919 % 86_400, unit="min"),
            "event": random.choice(["Order Completed", "Page Viewed"], len(device)),
            "value": random.uniform(1, 50, len(device)).round(2),
        }
    ).sort_values(["anonymous_id", "created_at"], ignore_index=True)
    visit = log.groupby("anonymous_id").cumcount()
    known = log["anonymous_id"].str[1:].astype(int) < 120
    return log.assign(user_id=log["user_id"].where(known & (visit >= 2)))


def test_ids_of_a_device_and_a_login_are_a_question_and_joined_if_it_is_answered(
    tmp_path: Path, visitors: pd.DataFrame
) -> None:
    done = told(tmp_path, visitors, "--json")
    doubt = open_doubts(done)["log.customer-rivals"]
    assert doubt["numbers"]["devices"] == doubt["numbers"]["of_one_person"] == 120
    assert "120 of 120 anonymous_id with a user_id have one alone" in doubt["text"]
    answer = "log.csv:customer_id=user_id,anonymous_id"
    assert f"Are both one person's? If so: --column {answer} (" in doubt["way_out"]
    done = told(tmp_path, visitors, "--yes")
    assert done.code == 0 and isinstance(config_of(tmp_path)["sources"]["log"]["columns"]["customer_id"], str)
    done = told(tmp_path, visitors, "--column", answer, "--yes", "--json")
    assert done.code == 0, done.err
    assert config_of(tmp_path)["sources"]["log"]["columns"]["customer_id"] == ["user_id", "anonymous_id"]
    assert "log.customer-rivals" not in open_doubts(done) and "refused_share" not in config_of(tmp_path)
    found = checked(tmp_path, done)
    assert (found["customers"], found["used"]) == (80, len(visitors))
    assert found["events"] == visitors["event"].value_counts().to_dict()


def test_two_ids_stay_two_columns_where_a_query_is_needed(tmp_path: Path, visitors: pd.DataFrame) -> None:
    visitors.loc[visitors.index[visitors["event"] == "Order Completed"][:5], "value"] *= -1
    done = told(tmp_path, visitors, "--column", "customer_id=user_id,anonymous_id", "--yes", "--json")
    assert done.code == 0, done.err
    source = config_of(tmp_path)["sources"]["log"]
    assert "query" in source and source["columns"]["customer_id"] == ["customer_id", "anonymous_id"]
    found = checked(tmp_path, done)
    assert (found["customers"], found["used"], found["events"]["refund"]) == (80, len(visitors), 5)


def test_a_device_of_many_people_is_not_offered_to_be_joined(tmp_path: Path, visitors: pd.DataFrame) -> None:
    tills = visitors["anonymous_id"].str[1:].astype(int) % 12
    done = told(tmp_path, visitors.assign(anonymous_id=[f"a{n}" for n in tills]), "--json")
    assert "user_id,anonymous_id" not in open_doubts(done)["log.customer-rivals"]["way_out"]


def test_a_column_whose_name_has_a_comma_is_one_column(tmp_path: Path, visitors: pd.DataFrame) -> None:
    log = visitors.rename(columns={"anonymous_id": "user_id,device"})
    done = told(tmp_path, log, "--column", "customer_id=user_id,device", "--yes")
    assert done.code == 0, done.err
    assert config_of(tmp_path)["sources"]["log"]["columns"]["customer_id"] == "user_id,device"
    done = told(tmp_path, visitors, "--column", "customer_id=user_id,anonymus_id", "--yes")
    assert done.code == 2 and "no file has a column 'anonymus_id'. Did you mean 'anonymous_id'?" in done.err


def test_an_owner_is_no_customer_and_words_of_a_country_are_understood(tmp_path: Path, orders: pd.DataFrame) -> None:
    log = orders.rename(columns={"customer_id": "Kundennummer", "created_at": "Bestelldatum", "total": "Gesamtbetrag"})
    log["Contact owner"] = ["Ann Lee", "Bo Chan", "Cy Dunn", "Di Ford"] * 100
    log["Bestelldatum"] = log["Bestelldatum"].dt.strftime("%d.%m.%Y %H:%M:%S")
    log["Gesamtbetrag"] = log["Gesamtbetrag"].map(lambda one: f"{one:.2f} €".replace(".", ","))
    done = told(tmp_path, log, sep=";")
    assert done.code == 0, done.err
    source = config_of(tmp_path)["sources"]["log"]
    assert {"customer_id": "Kundennummer", "occurred_at": "Bestelldatum", "value": "Gesamtbetrag"}.items() <= source[
        "columns"
    ].items()
    assert (source["time_format"], source["decimal_mark"]) == ("%d.%m.%Y %H:%M:%S", ",")


def test_orders_that_came_to_nothing_are_no_purchases(tmp_path: Path, orders: pd.DataFrame) -> None:
    orders["Financial Status"] = ["paid"] * 350 + ["voided"] * 20 + ["failed"] * 20 + ["refunded"] * 10
    done = told(tmp_path, orders, "--yes", "--json")
    assert open_doubts(done).keys() == {"log.states"}
    found = json.loads(call("check", tmp_path / "shop.yaml", "--as-of", "2025-01-01", "--json").out)
    assert found["events"] == {"purchase": 360, "purchase_undone": 40}


def test_one_payment_in_several_events_counts_once(tmp_path: Path, orders: pd.DataFrame) -> None:
    both = pd.concat([orders.assign(event="Order Completed"), orders[:100].assign(event="payment succeeded")])
    done = told(tmp_path, both, "--yes", "--json")
    assert open_doubts(done)["log.one-payment"]["numbers"] == {"orders": 100}
    assert config_of(tmp_path)["events"] == {"purchase": ["Order Completed"]}


def test_an_amount_that_every_line_repeats_is_the_orders_and_not_summed(tmp_path: Path, orders: pd.DataFrame) -> None:
    lines = orders.loc[orders.index.repeat(3)].assign(sku=["a", "b", "c"] * 400)
    assert told(tmp_path, lines, "--yes").code == 0
    call("check", tmp_path / "shop.yaml", "--as-of", "2025-01-01")
    read = pd.concat(map(pd.read_parquet, tmp_path.rglob("bucket-*/touchpoints.parquet")))
    assert len(read) == 400 and read["value"].sum() == round(100 * orders["total"].sum())


@pytest.mark.slow
def test_times_with_offsets_and_in_two_formats(tmp_path: Path, orders: pd.DataFrame) -> None:
    at = orders["created_at"]
    for written in ("%Y-%m-%d %H:%M:%S -0500", "%Y-%m-%dT%H:%M:%S.000-0500", "%d/%m/%Y %H:%M:%S -0500"):
        done = told(tmp_path, orders.assign(created_at=at.dt.strftime(written)))
        assert done.code == 0, done.err
        call("check", tmp_path / "shop.yaml", "--as-of", "2025-01-01")
        read = pd.concat(map(pd.read_parquet, tmp_path.rglob("bucket-*/touchpoints.parquet")))
        assert read["occurred_at"].min() == (at.min() + pd.Timedelta("5h")).tz_localize("UTC"), written
    mixed = at.dt.strftime("%Y-%m-%d %H:%M:%S").where(orders.index % 10 > 0, at.dt.strftime("%d.%m.%Y %H:%M:%S"))
    done = told(tmp_path, orders.assign(created_at=mixed), "--yes", "--json")
    assert open_doubts(done)["log.two-formats"]["numbers"] == {"first": 360, "second": 40}
    found = json.loads(call("check", tmp_path / "shop.yaml", "--as-of", "2025-01-01", "--json").out)
    assert found["used"] == 400


def test_dates_side_by_side_are_read_each_in_its_own_zone(tmp_path: Path) -> None:
    """A query has one type a column: of a local time and one in a zone, the local one would be read as UTC."""
    local = pd.date_range("2024-03-01 09:00", periods=40, freq="5h")
    zoned = (local + pd.Timedelta(days=1)).tz_localize("UTC")
    people = pd.DataFrame({"customer_id": [f"c{i}" for i in range(40)], "signup_date": local, "purchase_date": zoned})
    people.to_parquet(tmp_path / "people.parquet")
    config = tmp_path / "shop.yaml"
    done = call("init", tmp_path / "people.parquet", "--config", config, "--time-zone", "America/New_York", "--yes")
    assert done.code == 0, done.err
    assert call("check", config, "--as-of", "2024-06-01").code == 0
    read = pd.concat(map(pd.read_parquet, tmp_path.rglob("bucket-*/touchpoints.parquet")))
    first = read.groupby("event", observed=True)["occurred_at"].min()
    assert sorted(first) == [local.min().tz_localize("America/New_York"), zoned.min()]


def test_amounts_with_several_currency_signs_are_no_value(tmp_path: Path, orders: pd.DataFrame) -> None:
    """Read without their signs, 12 dollars and 12 yen would be added up."""
    one = orders["total"].map("€ {:,.2f}".format)
    assert "log.currencies" not in open_doubts(told(tmp_path, orders.assign(total=one), "--yes", "--json"))
    two = one.where(orders.index % 4 > 0, orders["total"].map("{:,.2f}$".format))
    done = told(tmp_path, orders.assign(total=two), "--yes", "--json")
    assert open_doubts(done)["log.currencies"]["numbers"] == {"€": 300, "$": 100}
    assert "value" not in config_of(tmp_path)["sources"]["log"].get("columns", {})


def test_ids_are_compared_between_files(tmp_path: Path, orders: pd.DataFrame) -> None:
    people = pd.DataFrame(
        {"account_no": range(90), "kennung": [f"c{n}" for n in range(90)], "created_at": "2022-12-01"}
    )
    done = told(tmp_path, {"orders": orders, "people": people.rename(columns={"kennung": "crm_id"})}, "--yes", "--json")
    assert done.code == 0, done.err
    assert config_of(tmp_path)["sources"]["people"]["columns"]["customer_id"] == "crm_id"
    done = told(tmp_path, {"orders": orders, "people": people[["account_no", "created_at"]]}, "--json")
    assert done.code == 3 and "people.shares-nobody" in open_doubts(done)
    done = told(tmp_path, {"orders": orders, "people": people}, "--yes", "--column", "people.csv:customer_id=kennung")
    assert done.code == 0 and config_of(tmp_path)["sources"]["people"]["columns"]["customer_id"] == "kennung"


def test_a_pattern_matches_no_file_of_another_kind(tmp_path: Path, orders: pd.DataFrame) -> None:
    halves = {"north": orders[:200], "south": orders[200:]}
    (tmp_path / "readme.csv").write_text("a,b\n1,2\n")
    assert told(tmp_path, halves, "--yes").code == 0
    assert all("*" not in str(one["path"]) for one in config_of(tmp_path)["sources"].values())


def test_ids_that_a_spreadsheet_rounded_or_that_are_names_are_asked_about(tmp_path: Path, orders: pd.DataFrame) -> None:
    rounded = orders.assign(customer_id=[f"1.{n % 9}2E+15" for n in range(400)])
    assert open_doubts(told(tmp_path, rounded, "--json"))["log.scientific-ids"]["numbers"] == {"rows": 400}
    names = orders.assign(customer_id=[f"{first} {last}" for first in ("Ann", "Bob") for last in ("Lee", "Fox") * 100])
    assert "log.names-as-ids" in open_doubts(told(tmp_path, names, "--json"))
    house = orders.assign(customer_id=orders["customer_id"].where(orders.index % 3 > 0, "till"))
    assert "log.one-id" in open_doubts(told(tmp_path, house, "--json"))


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 3), ("", 3)])
def test_on_a_terminal_each_doubt_is_asked(tmp_path: Path, orders: pd.DataFrame, answer: str, code: int) -> None:
    orders.assign(total=orders["total"].where(orders.index % 5 > 0, -orders["total"])).to_csv(
        tmp_path / "log.csv", index=False
    )
    blocking = len(open_doubts(call("init", tmp_path / "log.csv", "--config", tmp_path / "x.yaml", "--json")))
    assert blocking
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "cvj_ml", "init", str(tmp_path / "log.csv")]
    command += ["--config", str(tmp_path / "shop.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        seen = b""
        try:
            while part := os.read(master, 4096):
                asked = part.count(b"[y/N]")
                seen += part
                os.write(master, f"{answer}\n".encode() * asked)
        except OSError:  # how Linux says that nobody holds the other end any more
            pass
    os.close(master)
    assert process.returncode == code, seen.decode()
    assert seen.count(b"Go on with this? [y/N]") == blocking
    assert (tmp_path / "shop.yaml").exists() == (code == 0)


def test_nothing_of_the_files_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies in UTF-8, out of archives or as Parquet are gone with the look at them."""
    beside = tmp_path / "temporary"
    beside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(beside))
    rows = "customer_id,occurred_at,event\n" + "".join(f"ü{i % 9},2024-01-0{1 + i % 9},purchase\n" for i in range(40))
    (tmp_path / "old.csv").write_bytes(rows.encode("windows-1252"))
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("log.csv", rows)
    for name in ("old.csv", "log.zip"):
        done = call("init", tmp_path / name, "--config", tmp_path / f"{name}.yaml", "--yes")
        assert done.code == 0, done.err
    assert [*beside.iterdir()] == []


def test_a_quoted_pattern_is_the_files_that_it_names(tmp_path: Path, shop: pd.DataFrame) -> None:
    """A shell that leaves a pattern alone, as PowerShell and quotes do, changes nothing; a real name comes first."""
    for day, name, rows in (("2024-01-01", "part.csv", shop[:900]), ("2024-02-01", "part-[2].csv", shop[900:])):
        folder = tmp_path / f"date={day}"
        folder.mkdir()
        rows.rename(columns={"CustomerNo": "customer_id"}).to_csv(folder / name, index=False)
    done, config, _ = init(tmp_path, tmp_path / "date=*" / "*.csv")
    assert sum(one["stored"] for one in checked(tmp_path, done)["sources"]) == len(shop)
    assert {name: one["path"] for name, one in config["sources"].items()} == {"part": "date=*/part*.csv"}
    none = call("init", tmp_path / "*.parquet", "--config", tmp_path / "other.yaml")
    assert none.code == 3 and "no file matches" in none.err


@pytest.mark.parametrize("name", ["123456_2024", "on", "1e5"])
def test_a_source_called_like_a_number_or_a_yaml_value_can_be_read(
    tmp_path: Path, orders: pd.DataFrame, name: str
) -> None:
    assert told(tmp_path, {name: orders}).code == 0
    assert call("check", tmp_path / "shop.yaml", "--as-of", "2025-01-01").code == 0


def test_a_time_that_a_query_leaves_unreadable_is_counted_as_check_does(tmp_path: Path, orders: pd.DataFrame) -> None:
    orders = orders.assign(created_at=orders["created_at"].astype(str), status=["paid"] * 380 + ["voided"] * 20)
    orders.loc[:9, "created_at"] = "refund_date"
    orders.loc[10:14, "created_at"] = None
    done = told(tmp_path, orders, "--yes", "--json")
    assert "query" in config_of(tmp_path)["sources"]["log"] and config_of(tmp_path)["refused_share"] == 0.038
    found = checked(tmp_path, done)
    assert sum(found["sources"][0]["refused"].values()) == 15


def test_a_format_that_a_person_told_is_not_doubted(tmp_path: Path) -> None:
    rows = range(400)
    days = pd.DataFrame({"customer": [n % 40 for n in rows], "Order Date": [44000 + n for n in rows], "total": 1.5})
    days.to_csv(tmp_path / "days.csv", index=False)
    told = {"column": "occurred_at=Order Date", "time_format": "days since 1899-12-30"}
    _, _, doubts = init(tmp_path, tmp_path / "days.csv", **told)
    assert not any("spreadsheet" in one for one in doubts)
