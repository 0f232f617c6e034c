"""A made-up business as the exports of tools would show it: one log of what happened, and a writer for each export.

Seeded, so that every run writes the same files. What is right is counted in the log itself, never in what was written.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

CUSTOMERS = 400
BEGIN, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 12, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Happened:
    """What one customer did, or what was done to them: visit, view, signup, email, click, purchase, refund, cancel."""

    number: int
    customer: int
    at: datetime
    event: str
    value: float = 0.0


def happenings(customers: int = CUSTOMERS, seed: int = 11) -> list[Happened]:
    """Return a year of a shop, in order: people come, look, leave an address, buy, buy again; some send things back."""
    random = np.random.default_rng(seed)
    found: list[tuple[int, datetime, str, float]] = []
    for customer in range(customers):
        keen = random.uniform(0.2, 1.0)
        at = BEGIN + timedelta(seconds=int(random.uniform(0, 300 * 86_400)))
        signed, bought = False, 0
        while at < END:
            found.append((customer, at, "visit", 0.0))
            views = int(random.poisson(2 * keen))
            found += [(customer, at + timedelta(minutes=1 + view), "view", 0.0) for view in range(views)]
            if not signed and random.random() < 0.3 * keen:
                signed = True
                found.append((customer, at + timedelta(minutes=20), "signup", 0.0))
            if signed and random.random() < 0.15 * keen * (1 + views):
                bought += 1
                value = round(float(random.uniform(5, 120)), 2)
                found.append((customer, at + timedelta(minutes=30), "purchase", value))
                if random.random() < 0.06:
                    back = "cancel" if random.random() < 0.5 else "refund"
                    found.append((customer, at + timedelta(days=2, minutes=30), back, value))
            if signed and random.random() < 0.6:
                found.append((customer, at + timedelta(days=3), "email", 0.0))
                if random.random() < 0.4 * keen:
                    found.append((customer, at + timedelta(days=3, hours=2), "click", 0.0))
            at += timedelta(seconds=int(random.exponential(20 / keen) * 86_400))
    kept = sorted(one for one in found if one[1] < END)
    ordered = sorted(kept, key=lambda one: (one[1], one[0], one[2]))
    return [Happened(number, *one) for number, one in enumerate(ordered)]


@dataclass(frozen=True)
class Export:
    """Files as a tool exports them, and what is right of them."""

    files: list[Path]
    customers: int
    events: dict[str, int]
    value: float


Writer = Callable[[list[Happened], Path], Export]


def _table(path: Path, header: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, header.split(","), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Seen:
    """A happening as a collector sees it: on which device, and under which login, if there is one."""

    one: Happened
    device: str
    login: str | None


def _seen(log: list[Happened], names: Mapping[str, str]) -> list[Seen]:
    """Return the happenings that a tool names: every third customer has two devices; who has signed up is logged in."""
    found, signed = [], set[int]()
    for one in log:
        if one.event == "signup":
            signed.add(one.customer)
        if one.event in names:
            second = one.customer % 3 == 0 and one.at.day % 2 == 0
            login = f"u{one.customer}" if one.customer in signed else None
            found.append(Seen(one, f"d{one.customer}{'x' if second else ''}", login))
    return found


def _people(seen: Iterable[Seen]) -> int:
    """Return how many people there are to whoever joins a login with the devices on which it was seen."""
    person = {one.device: one.login for one in seen if one.login}
    return len({person.get(one.device, one.device) for one in seen})


def _counted(files: list[Path], log: Iterable[Happened], names: Mapping[str, str], *, paid: str = "purchase") -> Export:
    """Return what the log says of these happenings, under a tool's names."""
    told = [one for one in log if one.event in names]
    events: dict[str, int] = {}
    for one in told:
        events[names[one.event]] = events.get(names[one.event], 0) + 1
    value = round(sum(one.value for one in told if one.event == paid), 2)
    return Export(files, len({one.customer for one in told}), events, value)


def _plain(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _states(log: list[Happened]) -> dict[int, str]:
    """Return by the number of a purchase whether it came back: cancel or refund, two days later."""
    back = {(one.customer, one.at - timedelta(days=2)): one.event for one in log if one.event in ("refund", "cancel")}
    return {one.number: back.get((one.customer, one.at), "") for one in log if one.event == "purchase"}


def shopify(log: list[Happened], folder: Path) -> Export:
    zone, states, rows = timezone(timedelta(hours=-5)), _states(log), []
    for one in (one for one in log if one.event == "purchase"):
        local = one.at.astimezone(zone)
        written = local.strftime("%Y-%m-%d %H:%M:%S %z")
        cancelled = (local + timedelta(days=2)).strftime("%Y-%m-%d %H:%M:%S %z")
        state = states[one.number]
        first = {
            "Financial Status": "refunded" if state else "paid",
            "Paid at": written,
            "Currency": "EUR",
            "Total": f"{one.value:.2f}",
            "Cancelled at": cancelled if state == "cancel" and one.at + timedelta(days=2) < END else "",
            "Refunded Amount": f"{one.value if state else 0:.2f}",
        }
        for line in range(1 + one.number % 3):
            same = {"Name": f"#{1000 + one.number}", "Email": f"c{one.customer}@example.test", "Created at": written}
            item = {"Lineitem quantity": 1, "Lineitem name": f"Item {line}", "Lineitem price": "5.00"}
            rows.append({**same, **item, **(first if line == 0 else {})})
    header = (
        "Name,Email,Financial Status,Paid at,Currency,Total,Created at,Lineitem quantity,Lineitem name,Lineitem price,"
        "Cancelled at,Refunded Amount"
    )
    names = {"purchase": "order", "cancel": "order_cancelled"}
    return _counted([_table(folder / "orders_export.csv", header, rows)], log, names)


def woocommerce(log: list[Happened], folder: Path) -> Export:
    states, orders = _states(log), []
    for one in (one for one in log if one.event == "purchase"):
        # What was cancelled was never paid: it is told by the log's cancellation alone.
        state = states[one.number]
        at, changed = one.at.strftime("%Y-%m-%dT%H:%M:%S"), (one.at + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%S")
        orders.append({
            "id": one.number, "parent_id": 0, "number": str(one.number),
            "status": {"": "completed", "refund": "refunded", "cancel": "cancelled"}[state],
            "currency": "EUR", "date_created": at, "date_created_gmt": at, "date_modified_gmt": changed,
            "total": f"{one.value:.2f}", "customer_id": 0, "billing": {"email": f"c{one.customer}@example.test"},
            "line_items": [{"name": "Item", "quantity": 1}],
        })  # fmt: skip
    path = folder / "orders.json"
    path.write_text(json.dumps(orders), encoding="utf-8")
    kept = [one for one in log if one.event == "cancel" or states.get(one.number) in ("", "refund")]
    lost = [one for one in log if one.event == "purchase" and states[one.number] == "cancel"]
    kept += [one for one in _later(lost) if one.at >= END]
    return _counted([path], kept, {"purchase": "order", "cancel": "order_cancelled"})


def _later(log: Iterable[Happened]) -> list[Happened]:
    return [Happened(one.number, one.customer, one.at + timedelta(days=2), "cancel", one.value) for one in log]


def ga4(log: list[Happened], folder: Path) -> Export:
    names = {"visit": "page_view", "view": "view_item", "signup": "sign_up", "purchase": "purchase", "refund": "refund"}
    files: dict[str, list[Any]] = {}
    seen = _seen(log, names)
    for one, device, login in ((each.one, each.device, each.login) for each in seen):
        bought = one.event == "purchase"
        files.setdefault(one.at.strftime("%Y%m") + "01", []).append({
            "event_date": one.at.strftime("%Y%m%d"), "event_timestamp": str(int(one.at.timestamp()) * 1_000_000),
            "event_name": names[one.event],
            "event_params": [
                {"key": "page_location", "value": {"string_value": f"https://shop.test/{one.event}"}},
                {"key": "value", "value": {"double_value": one.value + 1}},
            ],
            "user_pseudo_id": device, "user_id": login,
            "traffic_source": {"name": "(direct)", "medium": "(none)", "source": "(direct)"},
            "ecommerce": {"purchase_revenue": one.value if bought else None, "transaction_id": None},
        })  # fmt: skip
    paths = [_lines(folder / f"events_{day}.json", rows) for day, rows in sorted(files.items())]
    return replace(_counted(paths, log, names), customers=_people(seen))


def segment(log: list[Happened], folder: Path) -> Export:
    names = {
        "visit": "page_view", "view": "Product Viewed", "signup": "Signed Up", "purchase": "Order Completed",
        "refund": "Order Refunded", "email": "Email Delivered", "click": "Email Link Clicked",
    }  # fmt: skip
    calls, seen = [], _seen(log, names)
    for one, device, login in ((each.one, each.device, each.login) for each in seen):
        late = timedelta(hours=3) if one.number % 50 == 0 else timedelta(seconds=2)
        page = one.event == "visit"
        calls.append({
            "type": "page" if page else "track", **({} if page else {"event": names[one.event]}),
            "messageId": f"m{one.number}", "anonymousId": device, "userId": login,
            "timestamp": _iso(one.at), "receivedAt": _iso(one.at + late), "originalTimestamp": _iso(one.at),
            "context": {"campaign": {"medium": "email"}},
            "properties": {"total": one.value, "currency": "EUR"} if one.event == "purchase" else {"path": "/"},
        })  # fmt: skip
    return replace(_counted([_lines(folder / "calls.jsonl", calls)], log, names), customers=_people(seen))


def amplitude(log: list[Happened], folder: Path) -> Export:
    names = {"visit": "session_start", "view": "Product Viewed", "signup": "Sign Up", "purchase": "Order Completed"}
    seen = _seen(log, names)

    def row(one: Happened, device: str, login: str | None) -> dict[str, Any]:
        at, known = (f"{when:%Y-%m-%d %H:%M:%S}.000000" for when in (one.at, one.at + timedelta(seconds=4)))
        paid = {"$revenue": one.value, "$quantity": 1} if one.event == "purchase" else {}
        return {
            "$insert_id": f"i{one.number}", "uuid": f"u{one.number}", "amplitude_id": 900_000 + one.customer,
            "user_id": login, "device_id": device, "event_type": names[one.event], "event_time": at,
            "client_event_time": at, "server_upload_time": known, "processed_time": known, "platform": "Web",
            "event_properties": paid, "user_properties": {}, "groups": {},
        }  # fmt: skip

    rows = [row(each.one, each.device, each.login) for each in seen]
    file = _lines(folder / "123456_2024-01-01_0#0.json", rows)
    return replace(_counted([file], log, names), customers=_people(seen))


def mixpanel(log: list[Happened], folder: Path) -> Export:
    names = {"visit": "$mp_web_page_view", "view": "Product Viewed", "signup": "Sign Up", "purchase": "Order Completed"}
    seen = _seen(log, names)
    rows = [
        {
            "event": names[one.event],
            "properties": {
                "time": int(one.at.timestamp()), "distinct_id": login or f"$device:{device}", "$device_id": device,
                **({"$user_id": login} if login else {}), "$insert_id": f"i{one.number}",
                "mp_processing_time_ms": int(one.at.timestamp()) * 1000 + 5,
                **({"amount": one.value} if one.event == "purchase" else {}),
            },
        }
        for one, device, login in ((each.one, each.device, each.login) for each in seen)
    ]  # fmt: skip
    return replace(_counted([_lines(folder / "export.jsonl", rows)], log, names), customers=_people(seen))


def snowplow(log: list[Happened], folder: Path) -> Export:
    names = {"visit": "page_view", "view": "add_to_cart", "signup": "submit_form", "purchase": "transaction"}
    seen = _seen(log, names)
    rows = [
        {
            "event_id": f"e{one.number}", "event": "unstruct", "event_name": names[one.event],
            "collector_tstamp": _plain(one.at + timedelta(seconds=1)), "derived_tstamp": _plain(one.at),
            "load_tstamp": _plain(one.at + timedelta(minutes=10)), "domain_userid": device,
            "user_id": login or "",
            "tr_total": one.value if one.event == "purchase" else "", "mkt_medium": "cpc", "page_urlpath": "/",
        }
        for one, device, login in ((each.one, each.device, each.login) for each in seen)
    ]  # fmt: skip
    return replace(
        _counted([_table(folder / "events.csv", ",".join(rows[0]), rows)], log, names), customers=_people(seen)
    )


def stripe(log: list[Happened], folder: Path) -> Export:
    names = {"signup": "customer.created", "purchase": "charge.succeeded", "refund": "charge.refunded"}
    rows = []
    for one in (one for one in log if one.event in names):
        customer, cents = f"cus_{one.customer}", round(one.value * 100)
        paid = {"customer": customer, "currency": "eur", "amount": cents, "payment_intent": f"pi_{one.number}"}
        objects = {
            "signup": {"id": customer, "object": "customer"},
            "purchase": {"id": f"ch_{one.number}", "object": "charge", **paid},
            "refund": {"id": f"ch_{one.number}", "object": "charge", **paid, "amount_refunded": cents},
        }
        told = [(names[one.event], objects[one.event])]
        if one.event == "purchase":
            told.append(("payment_intent.succeeded", {"id": f"pi_{one.number}", "object": "payment_intent", **paid}))
        rows += [
            {
                "id": f"evt_{one.number}_{place}", "object": "event", "api_version": "2023-10-16", "type": kind,
                "created": int(one.at.timestamp()), "data": {"object": body}, "livemode": True,
            }
            for place, (kind, body) in enumerate(told)
        ]  # fmt: skip
    found = _counted([_lines(folder / "events.jsonl", rows)], log, names)
    # Each payment is told twice and each refund once, all with the amount.
    refunds = sum(one.value for one in log if one.event == "refund")
    again = {"payment_intent.succeeded": found.events["charge.succeeded"]}
    return Export(found.files, found.customers, found.events | again, round(2 * found.value + refunds, 2))


def klaviyo(log: list[Happened], folder: Path) -> Export:
    names = {
        "visit": "Active on Site", "view": "Viewed Product", "signup": "Subscribed to List", "purchase": "Placed Order",
        "refund": "Refunded Order", "cancel": "Cancelled Order", "email": "Received Email", "click": "Clicked Email",
    }  # fmt: skip
    rows = [
        {
            "id": f"e{one.number}", "uuid": f"u{one.number}", "datetime": _plain(one.at), "type": names[one.event],
            "metric_id": one.event, "person_id": f"p{one.customer}",
            "property_value": one.value if one.event == "purchase" else "",
        }
        for one in log if one.event in names
    ]  # fmt: skip
    path = _table(folder / "event.csv", "id,uuid,datetime,type,metric_id,person_id,property_value", rows)
    return _counted([path], log, names)


def _firsts(log: list[Happened]) -> dict[int, dict[str, Happened]]:
    """Return the first happening of each kind of every customer."""
    found: dict[int, dict[str, Happened]] = {}
    for one in log:
        found.setdefault(one.customer, {}).setdefault(one.event, one)
    return found


def hubspot(log: list[Happened], folder: Path) -> Export:
    dates = {
        "visit": "Create Date", "signup": "Became a Subscriber Date", "click": "Became a Lead Date",
        "purchase": "Became a Customer Date",
    }  # fmt: skip
    contacts = [
        {"Record ID": 1000 + customer, "Email": f"c{customer}@example.test", "Lifecycle Stage": "Lead"}
        | {dates[event]: one.at.strftime("%Y-%m-%d %H:%M") for event, one in first.items() if event in dates}
        for customer, first in _firsts(log).items()
    ]
    deals = [
        {
            "Record ID": 9000 + one.number, "Deal Name": f"Deal {one.number}", "Deal Stage": "Closed Won",
            "Amount": one.value, "Close Date": one.at.strftime("%Y-%m-%d %H:%M"),
            "Create Date": (one.at - timedelta(minutes=10)).strftime("%Y-%m-%d %H:%M"),
            "Associated Contact IDs": 1000 + one.customer,
        }
        for one in log if one.event == "purchase"
    ]  # fmt: skip
    header = f"Record ID,Email,Lifecycle Stage,{','.join(dates.values())}"
    files = [
        _table(folder / "contacts.csv", header, contacts),
        _table(folder / "deals.csv", ",".join(deals[0]), deals),
    ]
    names = {"visit": "created", "signup": "subscriber", "click": "lead", "purchase": "customer"}
    firsts = [one for first in _firsts(log).values() for one in first.values()]
    found, won = _counted(files, firsts, names), _counted(files, log, {"purchase": "deal_won"})
    made = {"deal_created": won.events["deal_won"]}
    return Export(files, found.customers, found.events | won.events | made, won.value)


def salesforce(log: list[Happened], folder: Path) -> Export:
    names = {"signup": "Prospecting", "view": "Qualification", "purchase": "Closed Won"}
    rows = [
        {
            "Id": f"017{one.number:012}", "Opportunity.AccountId": f"001{one.customer:012}", "Field": "StageName",
            "CreatedDate": one.at.strftime("%Y-%m-%dT%H:%M:%S.000+0000"), "OldValue": "x", "NewValue": names[one.event],
        }
        for one in log if one.event in names
    ]  # fmt: skip
    rows += [rows[0] | {"Id": "017X", "Field": "Amount", "NewValue": "12.5"}]
    found = _counted([_table(folder / "history.csv", ",".join(rows[0]), rows)], log, names)
    return Export(found.files, found.customers, found.events, 0.0)


WRITERS: Mapping[str, Writer] = {
    "amplitude": amplitude,
    "ga4": ga4, "hubspot": hubspot, "klaviyo": klaviyo, "mixpanel": mixpanel, "salesforce": salesforce,
    "segment": segment, "shopify": shopify, "snowplow": snowplow, "stripe": stripe, "woocommerce": woocommerce,
}  # fmt: skip
