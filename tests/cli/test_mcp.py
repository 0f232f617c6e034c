"""``cvj-ml mcp``: a client of the protocol asks about two published nights, in a process of its own or in this one."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mlflow_server import wait_until
from tests.required import absent
from tests.trained import Trained, call

from cvj_ml.commands.night_answers import LEAST, NightAnswers
from cvj_ml.config import load_config
from cvj_ml.night.reading import current_night

pytest_plugins = ["tests.fixtures"]

NIGHTS = ("2025-06-24", "2025-06-25")
LIST = "advocate__promote__30d"
SMALL = "convert__ascend__30d"
TOOLS = ("nights", "plan", "list_rows", "measured", "model_card")


@pytest.fixture(scope="module")
def config_file(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nights, of the second of which a list has fewer than five customers; measurements as `measure` keeps them."""
    file = trained.variant(tmp_path_factory.mktemp("mcp"))
    for day in NIGHTS:
        done = call("nightly", file, "--as-of", day)
        assert done.code == 0, done.err
    groups = {"target_n": [40, 3], "control_n": [12, 9], "untouched_n": [200, 90], "difference": [0.1, 0.2]}
    rows = {"list": [LIST, LIST], "epoch": "2025-quarter-2", "night": [*NIGHTS], "until": "2025-08-01", **groups}
    history = Path(load_config(file).out, "measure", "history.parquet")
    history.parent.mkdir()
    pd.DataFrame({**rows, "observed_over_expected": [1.1, float("nan")]}).to_parquet(history)
    return file


def require_sdk() -> None:
    if importlib.util.find_spec("mcp") is None:
        absent("mcp", "the SDK of the Model Context Protocol is not installed: pip install 'cvj-ml[mcp]'")


def client(server: Any, questions: Callable[[Any], Awaitable[Any]]) -> Any:
    """Connect a client of the SDK to a server, and return what its questions find."""
    from mcp import Client

    async def connected() -> Any:
        async with Client(server) as found:
            return await questions(found)

    return asyncio.run(connected())


def started(*arguments: object) -> Any:
    """Return how a client starts the command, in a process whose streams are the connection."""
    from mcp import StdioServerParameters

    command = ["-m", "cvj_ml", "mcp", *map(str, arguments)]
    return StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))


def ask(config_file: Path, tool: str, *, ids: bool = False, **arguments: Any) -> Any:
    """Return what a tool answers, in this process; the text of its error as a text."""
    require_sdk()
    from cvj_ml.cli.mcp import server_of

    async def one(found: Any) -> Any:
        answer = await found.call_tool(tool, arguments)
        text = answer.content[0].text
        return text if answer.is_error or tool == "model_card" else json.loads(text)

    return client(server_of(NightAnswers(load_config(config_file), ids)), one)


def customers(config_file: Path) -> set[str]:
    """Return the ids of everybody in the current night."""
    night = current_night(Path(load_config(config_file).out))
    assert night is not None
    scores = pq.read_table(night / "scores" / "scores.parquet", columns=["customer_id"], partitioning=None)
    return set(scores["customer_id"].to_pylist())


@pytest.mark.slow
def test_a_client_over_stdio_is_told_of_nights_and_of_no_customer(config_file: Path) -> None:
    require_sdk()
    questions: list[tuple[str, Mapping[str, Any]]] = [
        ("nights", {}),
        *((tool, {"night": day}) for tool in ("plan", "model_card") for day in NIGHTS),
        *(("list_rows", {"list_name": name, "night": day}) for name in (LIST, SMALL) for day in NIGHTS),
        ("measured", {}),
        ("plan", {"night": "../../*"}),
        ("list_rows", {"list_name": "../scores/scores"}),
    ]

    async def asked(found: Any) -> tuple[list[Any], list[str], str]:
        tools = (await found.list_tools()).tools
        return tools, [str(await found.call_tool(*one)) for one in questions], found.instructions

    tools, answers, instructions = client(started(config_file), asked)
    assert [one.name for one in tools] == [*TOOLS]
    assert all(one.annotations.read_only_hint and len(one.description) > 100 for one in tools)
    assert "control must not be" in instructions
    named = customers(config_file)
    assert len(named) == 120
    assert not [one for text in answers for one in named if one in text]
    assert [text for text in answers if "is_error=True" in text] == answers[-2:]


@pytest.mark.slow
def test_a_signal_ends_a_server_whose_client_says_nothing(config_file: Path) -> None:
    require_sdk()
    command = [sys.executable, "-m", "cvj_ml", "mcp", str(config_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "cvj-ml"
        process.terminate()
        assert process.wait(30) == 143


@pytest.mark.slow
def test_over_http_only_this_machine_may_ask(config_file: Path) -> None:
    require_sdk()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cvj_ml", "mcp", str(config_file), "--http", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None and f"http://127.0.0.1:{port}/mcp" in process.stderr.readline()
            wait_until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), 30)

            async def tools(found: Any) -> list[str]:
                return [one.name for one in (await found.list_tools()).tools]

            assert client(f"http://127.0.0.1:{port}/mcp", tools) == [*TOOLS]
            for name, value, code in (("Host", "evil.example", 421), ("Origin", "http://evil.example", 403)):
                asked = http.client.HTTPConnection("127.0.0.1", port)
                asked.request("POST", "/mcp", "{}", {"Content-Type": "application/json", name: value})
                assert asked.getresponse().status == code
            # The whole of 127.0.0.0/8 is this machine: an address that is not listened on shows that not all are.
            assert socket.socket().connect_ex(("127.0.0.2", port))
            again = call("mcp", config_file, "--http", port)
            assert (again.code, "Name another port" in again.err) == (1, True)
        finally:
            process.terminate()


def test_ids_name_those_to_contact_and_nobody_in_control(config_file: Path) -> None:
    rows = ask(config_file, "list_rows", list_name=SMALL, night=NIGHTS[0], ids=True, first=2)["rows"]
    night = next(Path(load_config(config_file).out, f"as_of={NIGHTS[0]}").iterdir())
    table = pq.read_table(night / "targets" / f"{SMALL}.parquet", partitioning=None).to_pandas()
    assert {"target", "control"} == {*table["group"]}
    assert [one["customer_id"] for one in rows] == table.loc[table["group"] == "target", "customer_id"].tolist()[:2]
    assert rows[0]["reason_1"] and "group" not in rows[0]


def test_counts_that_could_single_somebody_out_are_left_out(config_file: Path) -> None:
    told, exact = (
        {one["list"]: one for one in ask(config_file, "plan", ids=ids)["lists"]}[SMALL] for ids in (False, True)
    )
    assert 0 < exact["target"] <= exact["listed"] < LEAST
    assert [told[name] for name in ("listed", "target", "expected_moves")] == [None] * 3
    answer = ask(config_file, "list_rows", list_name=SMALL)
    assert answer["by_probability"] == [] and answer["rows"] is None
    assert answer["by_channel"] == [{"others": True, "customers": None}]


@given(st.lists(st.integers(0, 30), max_size=6))
def test_nobody_can_subtract_what_was_left_out(numbers: list[int]) -> None:
    counts = {str(place): number for place, number in enumerate(numbers)}
    told = NightAnswers(config=None)._division(counts)  # type: ignore[arg-type]
    hidden = [counts[name] for name, count in told.items() if count is None]
    assert all(count is None or count == counts[name] for name, count in told.items())
    assert all(told[name] is None for name, count in counts.items() if 0 < count < LEAST)
    shown = [count for count in told.values() if count]
    # Either several are left out, of enough people together, or nothing is left to subtract from.
    assert not hidden or not shown or (len(hidden) > 1 and sum(hidden) >= LEAST)


def test_what_changed_since_the_night_before_adds_up(config_file: Path) -> None:
    changes = ask(config_file, "plan", ids=True)["changes"]
    assert changes["since"].startswith(NIGHTS[0])
    for one in (changes["people"], changes["plan"], *changes["stages"].values(), *changes["lists"].values()):
        assert one["before"] + one["entered"] - one["left"] == one["now"]
    assert ask(config_file, "plan", night=NIGHTS[0])["changes"] == {"not_comparable": "no_night"}


def test_measurements_come_newest_first_and_without_those_of_a_few(config_file: Path) -> None:
    few, many = ask(config_file, "measured", list_name=LIST)["rows"]
    assert few == {"list": LIST, "epoch": "2025-quarter-2", "night": NIGHTS[1], "until": "2025-08-01", "left_out": True}
    assert (many["night"], many["difference"]) == (NIGHTS[0], 0.1)
    assert ask(config_file, "measured", ids=True)["rows"][0]["observed_over_expected"] is None


def test_the_model_card_is_that_of_the_night(config_file: Path) -> None:
    assert ask(config_file, "model_card").startswith("# Model card: tiny")


def test_a_damaged_night_is_told_and_answers_nothing(config_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(load_config(config_file).out, out)
    copied = config_file.with_name(f"{config_file.stem}-damaged.yaml")
    copied.write_text(config_file.read_text().replace(load_config(config_file).out, str(out)))
    newest = current_night(out)
    assert newest is not None
    with (newest / "targets" / f"{LIST}.parquet").open("ab") as file:
        file.write(b"x")
    told = ask(copied, "list_rows", list_name=LIST)
    assert "this is not what was published" in told and f"{LIST}.parquet was changed" in told
    (newest / "MANIFEST.json").write_text("{}")
    first, second = ask(copied, "nights")["nights"]
    assert "MANIFEST.json was changed" in first["damaged"] and second["customers"] == 120
    assert "MANIFEST.json was changed" in ask(copied, "plan")


def test_a_wrong_question_is_told_what_there_is(config_file: Path) -> None:
    assert f"the newest is {NIGHTS[1]}" in ask(config_file, "plan", night="2025-06-2*")
    assert f"there are {SMALL}, {LIST}" in ask(config_file, "list_rows", list_name="x")
    assert "Extra inputs are not permitted" in ask(config_file, "plan", date=NIGHTS[0])


def test_without_the_sdk_the_extra_is_named(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["mcp", *(one for one in sys.modules if one.startswith("mcp."))]:
        monkeypatch.setitem(sys.modules, name, None)
    done = call("mcp", config_file)
    assert (done.code, "pip install 'cvj-ml[mcp]'" in done.err) == (1, True)
