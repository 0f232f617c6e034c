"""Bad input: the whole message, the exit code, no traceback, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.trained import call

BASE = """\
name: shop
time_zone: Europe/London
history_from: 2024-01-01
burn_in: 30d
sources:
  orders:
    path: orders.csv
    columns: {customer_id: cust, occurred_at: ts, event: type, value: amount}
journey:
  name: own
  stages:
    - {name: Visitor, enter: {event: visit}}
    - {name: Buyer, enter: {event: purchase}}
horizons: [7d, 30d]
engine: {threads: 1, buckets: 4}
model: {max_rows: 20000}
"""
OWN = BASE[BASE.index("journey:") : BASE.index("horizons:")]
SOURCES = BASE[BASE.index("sources:") : BASE.index("journey:")]
DAY = "2024-11-01"
HEADER = "cust,ts,type,amount\n"


def rows(customers: int = 3, events: tuple[str, ...] = ("visit", "purchase"), start: str = "2024-01-01") -> str:
    """Touchpoints every ten days or so over 300 days, as CSV."""
    random = np.random.default_rng(7)
    lines = []
    for customer in range(customers):
        for day in np.sort(random.uniform(0, 300, 30)):
            at = pd.Timestamp(start) + pd.Timedelta(seconds=int(day * 86_400))
            event = events[0] if day < 60 else events[int(random.integers(len(events)))]
            lines.append(f"c{customer},{at:%Y-%m-%d %H:%M:%S},{event},{'10' if event == 'purchase' else ''}\n")
    return HEADER + "".join(lines)


@pytest.fixture
def told(tmp_path: Path):
    """Return a function that runs a command on a configuration and some rows and gives exit code and error.

    ``DIR`` stands for the folder in what is told. Stdout is empty after an error, and apart from the reusable store
    and the registry nothing is left.
    """

    def run(config: str, data: str | None = None, command: str = "check", as_of: str = DAY) -> tuple[int, str]:
        (tmp_path / "shop.yaml").write_text(config)
        (tmp_path / "orders.csv").write_text(rows() if data is None else data)
        ran = call(command, tmp_path / "shop.yaml", "--as-of", as_of)
        assert ran.code != 0
        assert ran.out == ""
        error = ran.err[ran.err.index("error: ") :].replace(str(tmp_path), "DIR").removesuffix("\n")
        assert "Traceback" not in ran.err
        assert not list(tmp_path.rglob("as_of=*")) and not list(tmp_path.rglob(".sta*"))
        return ran.code, error

    return run


def change(old: str, new: str, text: str = BASE) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


CONFIGURATIONS = {
    "a key that does not exist": (
        change("horizons:", "horizon:"),
        "error: DIR/shop.yaml: the configuration has a fault:\n"
        "  - unknown key 'horizon'. Did you mean 'horizons'?",
    ),
    "a key of a section that does not exist": (
        change("columns:", "column:"),
        "error: DIR/shop.yaml: the configuration has a fault:\n"
        "  - sources.orders: unknown key 'column'. Did you mean 'columns'?",
    ),
    "a key given twice": (
        change("burn_in: 30d", "burn_in: 30d\nburn_in: 60d"),
        "error: DIR/shop.yaml, line 5: the key 'burn_in' is given twice; keep one of them.",
    ),
    "a stage that does not exist": (
        BASE + "lists: [{from: Visitr, to: Buyer, horizon: 30d}]\n",
        "error: DIR/shop.yaml: the configuration has a fault:\n"
        "  - lists[0].from: unknown stage 'Visitr'. Did you mean 'Visitor'?",
    ),
    "a rule after a stage that does not exist": (
        change("{event: purchase}", "{event: purchase, after: Visitr}"),
        "error: DIR/shop.yaml: the configuration has a fault:\n"
        "  - journey: stage 'Buyer': after names the unknown stage 'Visitr'. Did you mean 'Visitor'?",
    ),
    "rules that wait for each other": (
        change("{event: purchase}", "{event: purchase, after: Visitor}").replace(
            "{event: visit}", "{event: visit, after: Buyer}"
        ),
        "error: DIR/shop.yaml: the configuration has a fault:\n"
        "  - journey: the stages Buyer, Visitor wait for each other through after; break the cycle",
    ),
    "a preset that does not exist": (
        change(OWN, "journey: cvj9\n"),
        "error: DIR/shop.yaml: the configuration has a fault:\n"
        "  - journey: unknown preset 'cvj9'. Did you mean 'cvj8'? Presets: cvj8, flowchart7, journey5, loyalty5,"
        " subscription5; or name a .yaml file, or write the stages here",
    ),
    "a journey file that does not exist": (
        change(OWN, "journey: mine.yaml\n"),
        "error: DIR/mine.yaml: cannot read the file: No such file or directory. Check the path.",
    ),
    "several faults at once": (
        change("history_from: 2024-01-01", "history_from: 01/02/2024")
        .replace("Europe/London", "Europe/Londn")
        .replace("{event: visit}", "{event: visit, where: {rating: {atleast: 4}}}")
        .replace("[7d, 30d]", "7d")
        .replace("burn_in: 30d", "burn_in: 30 days")
        .replace("threads: 1", "threads: 0"),
        "error: DIR/shop.yaml: the configuration has 6 faults:\n"
        "  - time_zone: unknown time zone 'Europe/Londn'. Did you mean 'Europe/London'?\n"
        "  - history_from: write a date, such as 2024-01-31\n"
        "  - burn_in: '30 days' is not a duration; write a positive whole number and a unit: 30d, 12h, 30min, 45s, 2w\n"
        "  - journey.stages[0].enter.where.rating.atleast: it should be 'eq', 'ne', 'gt', 'gte', 'lt', 'lte' or 'in'\n"
        "  - horizons: write a list, such as [a, b]\n"
        "  - engine.threads: it should be greater than or equal to 1",
    ),
    "something missing": (
        change("time_zone: Europe/London\n", ""),
        "error: DIR/shop.yaml: the configuration has a fault:\n  - time_zone: it is missing; add it",
    ),
    "sources without a source": (
        change(SOURCES, "sources:\n"),
        "error: DIR/shop.yaml: the configuration has a fault:\n  - sources: write a mapping, such as {key: value}",
    ),
    "nothing": (
        "",
        "error: DIR/shop.yaml: expected a mapping of settings (key: value), found nothing; see the README.",
    ),
    "no YAML": (
        change("burn_in: 30d", "burn_in: [30d"),
        "error: DIR/shop.yaml: this is not valid YAML: while parsing a flow sequence\n"
        '  in "DIR/shop.yaml", line 4, column 10:\n'
        "    burn_in: [30d\n"
        "             ^\n"
        "expected ',' or ']', but got ':'\n"
        '  in "DIR/shop.yaml", line 5, column 8:\n'
        "    sources:\n"
        "           ^",
    ),
    "a control character": (
        change("burn_in: 30d", "burn_in: 30d\x07"),
        "error: DIR/shop.yaml: this is not valid YAML: unacceptable character #x0007: special characters are not"
        ' allowed\n  in "DIR/shop.yaml", position 73',
    ),
    "a template that nobody filled in": (
        change("burn_in: 30d", "burn_in: {{ burn_in }}"),
        "error: DIR/shop.yaml, line 4: a key is a list or a mapping; put quotes around text that begins with a brace"
        " or a bracket.",
    ),
    "a secret that is not set": (
        BASE + "control: {salt: '${CVJ_ML_TEST_UNSET}'}\n",
        "error: DIR/shop.yaml: the environment variable CVJ_ML_TEST_UNSET is not set; export it before the run.",
    ),
    "two lists of one name, longer than the epoch": (
        BASE
        + "lists: [{from: Visitor, to: Buyer, horizon: 30d}, {from: Visitor, to: Buyer, horizon: 30d, capacity: 9}]\n"
        + "control: {epoch: month}\n",
        "error: DIR/shop.yaml: the configuration has 2 faults:\n"
        "  - lists: Visitor to Buyer in 30d is given twice; keep one\n"
        "  - control: the epoch 'month' can be shorter than the longest list horizon 30d; choose a longer epoch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_wrong_configuration_ends_with_2(told, name: str) -> None:
    config, message = CONFIGURATIONS[name]
    assert told(config) == (2, message)


def test_a_configuration_that_is_not_there(told, tmp_path: Path) -> None:
    ran = call("check", tmp_path / "shpo.yaml", "--as-of", DAY)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: {tmp_path}/shpo.yaml: cannot read the file: No such file or directory. Check the path.\n"


def test_a_configuration_that_is_no_text(told, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes("name: café".encode("latin-1"))
    ran = call("check", tmp_path / "shop.yaml", "--as-of", DAY)
    assert ran.err == f"error: {tmp_path}/shop.yaml: the file is not UTF-8 text. Save it as UTF-8.\n"
    assert ran.code == 2


def test_the_faults_of_a_journey_file_name_that_file(told, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nstages: [{name: Buyer, enter: {evnt: purchase}}]\n")
    assert told(change(OWN, "journey: mine.yaml\n")) == (
        2,
        "error: DIR/mine.yaml: the configuration has a fault:\n"
        "  - stages[0].enter: unknown key 'evnt'. Did you mean 'event'?",
    )


def test_an_instant_that_is_none(told) -> None:
    assert told(BASE, as_of="tomorrow") == (
        2,
        "error: --as-of 'tomorrow' is not a date; write it as 2024-12-31 or 2024-12-31T06:00.",
    )


def test_an_event_that_never_occurs(told) -> None:
    assert told(change("{event: purchase}", "{event: purchse}")) == (
        2,
        "error: The journey 'own' does not fit the data:\n"
        "  - stage 'Buyer': the event 'purchse' never occurs. Did you mean 'purchase'?",
    )


def test_a_file_that_is_not_there(told) -> None:
    assert told(change("path: orders.csv", "path: order.csv")) == (
        3,
        "error: The sources cannot be used:\n"
        "  - sources.orders: DIR/order.csv: there is no such file. Did you mean 'orders.csv'?",
    )


def test_a_column_that_is_not_there(told) -> None:
    assert told(change("occurred_at: ts", "occurred_at: tss")) == (
        3,
        "error: The sources cannot be used:\n"
        "  - sources.orders: columns.occurred_at: there is no column 'tss'. Did you mean 'ts'?",
    )


def test_a_table_without_rows(told) -> None:
    assert told(BASE, HEADER) == (
        3,
        "error: The sources cannot be used:\n"
        "  - sources.orders: 0 rows came in and none is left; is the export complete?",
    )


def test_a_file_without_a_byte(told) -> None:
    code, error = told(BASE, "")
    assert code == 3
    assert "sources.orders" in error and "DIR/orders.csv" in error and "header" in error


@pytest.mark.parametrize("command", ["check", "train", "score", "targets"])
def test_all_dates_in_the_future(told, command: str) -> None:
    assert told(BASE, rows(start="2030-01-01"), command) == (
        3,
        f"error: No touchpoint is visible before {DAY}: all 90 stored rows come later. Check --as-of, the time zone"
        " (times:) and known_at of the sources.",
    )


def test_too_little_memory_to_read_with(told) -> None:
    assert told(change("buckets: 4", "buckets: 4, memory_limit: 1MB")) == (
        1,
        "error: engine.memory_limit: 1MB is too little to read the sources; nothing was changed. Raise it, or read with"
        " fewer engine.threads, or into more engine.buckets.",
    )


def test_an_id_that_is_a_number_here_and_text_there(told, tmp_path: Path) -> None:
    web = pd.DataFrame({"cust": [1, 2], "ts": pd.Timestamp("2024-05-01"), "type": "visit"})
    web.to_parquet(tmp_path / "web.parquet")
    second = "  web: {path: web.parquet, columns: {customer_id: cust, occurred_at: ts, event: type}}\njourney:"
    assert told(change("journey:", second)) == (
        3,
        "error: The sources cannot be used:\n"
        "  - customer_id is text in sources.orders, a number in sources.web: 7 and 007 may or may not be one customer."
        " If the ids agree when numbers are written in decimal, say ids: text; else convert them in a query",
    )


def test_scoring_before_any_training(told) -> None:
    assert told(BASE, command="targets") == (
        4,
        "error: There is no model registry at DIR/mlflow.db. Run `cvj-ml train` first, or correct mlflow.tracking_uri.",
    )


def test_a_horizon_that_the_data_cannot_mature_is_named_alone(told) -> None:
    assert told(change("[7d, 30d]", "[7d, 300d]"), command="train") == (
        2,
        "error: Training at 2024-11-01 has too little history (from 2024-01-01 and a burn-in of 30d):\n"
        "  - the horizon 300d is not over for any training snapshot; shorten it, or give more history",
    )


def test_a_horizon_that_leaves_no_room_for_a_fold_is_named_alone(told) -> None:
    assert told(change("[7d, 30d]", "[7d, 200d]"), command="train") == (
        2,
        "error: The backtest at 2024-04-15 has too little history (from 2024-01-01 and a burn-in of 30d):\n"
        "  - the horizon 200d is not over for any training snapshot; shorten it, or give more history",
    )


def test_a_list_of_a_stage_that_the_data_does_not_show(told) -> None:
    """A preset's stages become unobserved with a warning; a list that was asked for is an error, and an early one."""
    config = change(OWN, "journey: cvj8\n") + "lists: [{from: Convert, to: Promote, horizon: 30d}]\n"
    for command in ("check", "train", "targets"):
        assert told(config, command=command) == (
            2,
            "error: These lists cannot be made:\n"
            "  - lists[0] (Convert to Promote): nothing in the data shows Promote; map its events, or drop this list",
        )


def test_a_list_beyond_the_predicted_stages(told) -> None:
    own = OWN + "    - {name: Regular, enter: {event: purchase, count: 3}}\n"
    config = change(OWN, own) + "targets: {next: 1}\nlists: [{from: Visitor, to: Regular, horizon: 7d}]\n"
    assert told(config) == (
        2,
        "error: These lists cannot be made:\n"
        "  - lists[0] (Visitor to Regular): Regular is 2 stages ahead, but only the next 1 are predicted; raise"
        " targets.next, or drop this list",
    )


def test_a_preset_none_of_whose_events_occurs_warns_of_each_stage(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(change(OWN, "journey: cvj8\n"))
    (tmp_path / "orders.csv").write_text(rows(events=("opened", "closed")))
    ran = call("check", tmp_path / "shop.yaml", "--as-of", DAY)
    assert ran.code == 0
    warnings = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 7
    assert warnings[0] == (
        "warning: Engage is unobserved: none of visit, content_view, search, email_click, product_view, event_attended"
        " occurs with what its rule needs. Map your events to these names (events:), or name the stage under"
        " unobserved to silence this."
    )


def test_a_preset_without_a_stage_that_any_touchpoint_enters(told) -> None:
    code, error = told(change(OWN, "journey: cvj8\nunobserved: [Aware]\n"), rows(events=("opened", "closed")))
    assert (code, error) == (
        2,
        "error: The journey 'cvj8' does not fit the data:\n"
        "  - no stage is observed; map your events with events:, or write your own journey",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("customers", "events"),
    [(1, ("visit", "purchase")), (40, ("visit",)), (40, ("purchase",))],
    ids=["one customer", "one class: nobody moves", "one class: everybody has moved"],
)
def test_very_little_data_trains_and_says_what_it_rests_on(
    tmp_path: Path, customers: int, events: tuple[str, ...]
) -> None:
    config = BASE
    if len(events) == 1:
        config = change("{event: visit}", "{event: '*'}").replace("{event: purchase}", "{event: '*', count: 1000}")
    (tmp_path / "shop.yaml").write_text(config)
    (tmp_path / "orders.csv").write_text(rows(customers, events))
    ran = call("train", tmp_path / "shop.yaml", "--as-of", DAY)
    assert ran.code == 0, ran.err
    warnings = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    told = [line for line in warnings if "too few customers moved to learn from, so these targets rest on base" in line]
    assert len(told) == 1, "once, beside what nobody has lived through"
    few = [line for line in warnings if line.startswith(f"warning: {customers} customer(s) are fewer than model.min_c")]
    assert len(few) == (customers < 20)
    assert "Registered shop version 1 (challenger, champion)" in ran.out
    if customers < 10:
        assert (
            "On the last matured fold (2024-10-02): too few customers moved in every transition, so nothing can be"
            " judged." in ran.out
        )
    night = call("targets", tmp_path / "shop.yaml", "--as-of", DAY)
    assert night.code == 0, night.err
    assert f"Scored {customers} customers" in night.out
