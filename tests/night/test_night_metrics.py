"""The metrics of a night are text that Prometheus reads: names, escapes, one block a metric."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvj_ml.gates.verdicts import GateVerdict
from cvj_ml.night.prometheus import Gauge, as_text, last_success, write_metrics
from cvj_ml.night.timings import Stations
from cvj_ml.run import Silent

NIGHT = {
    "instant": "2025-06-24T00:00:00+02:00",
    "customers": 7,
    "model_version": "0123456789ab",
    "model_source": 'registry down, copy of "2025"\\\n',
    "lists": {"a__b__30d": 3},
    "people": {"suppression": {"rows": 60, "nobody": 2}},
    "rows": {"rows_in": 9, "used": 8, "not_yet_visible": 0, "superseded": 0, "duplicates": 1, "refused": 0},
}
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\} (\S+)')


def parse(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Read the text format strictly: HELP, TYPE, then samples of that metric and no other, each once."""
    assert text.endswith("\n")
    seen: set[str] = set()
    name = ""
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in seen, "a metric stands in one block"
            seen.add(name)
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {name} gauge"
        else:
            found = SAMPLE.fullmatch(line)
            assert found and found[1] == name, line
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2])
            unescaped = {key: re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), text) for key, text in pairs}
            yield name, unescaped, float(found[3])


def run_of(*verdicts: GateVerdict) -> Stations:
    run = Stations(Silent())
    with run.step("Scoring"):
        pass
    run.nights.append(dict(NIGHT))
    run.verdicts += verdicts
    return run


def test_every_sample_is_readable_and_stands_once(tmp_path: Path) -> None:
    run = run_of(
        GateVerdict("rows:orders", "warn", 0.07, 0.05, "fewer", 3), GateVerdict("model_age", "pass", None, None, "", 5)
    )
    write_metrics(tmp_path, "shop", run, 0)
    samples = list(parse((tmp_path / "metrics.prom").read_text()))
    assert len({(name, tuple(sorted(labels.items()))) for name, labels, _ in samples}) == len(samples)
    assert all(labels["use"] == "shop" and name.startswith("cvj_ml_night_") for name, labels, _ in samples)
    values = {
        (name.removeprefix("cvj_ml_night_"), *list(labels.values())[1:]): value for name, labels, value in samples
    }
    assert values["exit_code",] == 0
    assert values["as_of_timestamp_seconds",] == 1750716000
    assert values["rows", "duplicates"] == 1 and ("rows", "rows_in") not in values
    assert values["listed", "a__b__30d"] == 3
    assert values["gate_level", "rows:orders"] == 1 and values["gate_level", "model_age"] == 0
    assert values["gate_value", "rows:orders"] == 0.07 and ("gate_value", "model_age") not in values
    assert values["model_info", "0123456789ab", 'registry down, copy of "2025"\\\n'] == 1
    assert ("station_duration_seconds", "Scoring") in values
    assert values["last_success_timestamp_seconds",] <= values["last_run_timestamp_seconds",] + 1


def test_rows_by_outcome_add_up_to_the_rows_that_came_in(tmp_path: Path) -> None:
    write_metrics(tmp_path, "shop", run_of(), 0)
    rows = [value for name, _, value in parse((tmp_path / "metrics.prom").read_text()) if name == "cvj_ml_night_rows"]
    assert sum(rows) == NIGHT["rows"]["rows_in"]  # type: ignore[index]


def test_a_failed_run_keeps_when_the_last_good_one_was(tmp_path: Path) -> None:
    file = tmp_path / "metrics.prom"
    write_metrics(tmp_path, "shop", Stations(Silent()), 3)
    assert last_success(file) is None
    assert "last_success" not in file.read_text(), "nothing was ever published"
    write_metrics(tmp_path, "shop", run_of(), 0)
    good = last_success(file)
    write_metrics(tmp_path, "shop", Stations(Silent()), 143)
    assert last_success(file) == good is not None
    values = {name: value for name, _, value in parse(file.read_text())}
    assert values["cvj_ml_night_exit_code"] == 143
    assert "cvj_ml_night_customers" not in values, "a run that scored nobody says nothing of customers"


def test_the_collector_may_read_what_holds_no_customer(tmp_path: Path) -> None:
    write_metrics(tmp_path, "shop", run_of(), 0)
    assert stat.S_IMODE((tmp_path / "metrics.prom").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.prom"], "it was written beside and renamed"


@given(st.text(), st.floats(allow_nan=False))
def test_any_label_and_value_come_back(text: str, value: float) -> None:
    written = as_text([Gauge("cvj_ml_night_x", "Help.", [({"gate": text}, value)])])
    assert list(parse(written)) == [("cvj_ml_night_x", {"gate": text}, value)]


@pytest.mark.parametrize("text", ["", "nonsense\n", "cvj_ml_night_last_success_timestamp_seconds 3\n"])
def test_what_cannot_be_read_tells_no_last_success(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.prom").write_text(text)
    assert last_success(tmp_path / "metrics.prom") is None
