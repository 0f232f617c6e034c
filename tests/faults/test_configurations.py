"""Over two hundred ways to get a configuration wrong: each is told with its place, and nothing is begun."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from tests.trained import AS_OF, SETTINGS, call

from cvj_ml.config import load_config
from cvj_ml.config.documents import read_yaml
from cvj_ml.errors import ConfigError

WHOLE: dict[str, Any] = {
    **SETTINGS,
    "burn_in": "90d",
    "ids": "text",
    "value_decimals": 2,
    "drop_duplicates": False,
    "refused_share": 0.01,
    "contact": {"path": "contact.csv", "columns": ["email"], "customer_id": "customer_id"},
    "suppression": {"path": "suppressed.csv", "customer_id": "customer_id"},
    "consent": {"path": "consent.csv", "customer_id": "customer_id"},
    "unobserved": ["Aware"],
    "targets": {"next": 3},
    "snapshots": {"every": "14d", "back": "730d"},
    "features": {
        "windows": ["7d", "30d"],
        "trend": "30d",
        "top_events": 30,
        "top_channels": 12,
        "session_gap": "30min",
    },
    "model": {"max_rows": 8000, "seed": 1},
    "lists": [
        {
            "from": "Convert",
            "to": "Ascend",
            "horizon": "30d",
            "capacity": 5,
            "by": "probability",
            "min_probability": 0.1,
        }
    ],
    "eligibility": {"one_list": True, "min_probability": 0.0, "exclude": {"dormant_for": "90d", "low_evidence": True}},
    "control": {"share": 0.2, "salt": "tiny", "epoch": "quarter"},
    "measure": {"min_lift": 1, "max_miscalibration": 2, "min_converted": 30},
    "report": {"period": "30d", "segment": "country", "rating": "rating"},
    "mlflow": {"tracking_uri": "sqlite:///mlflow.db", "experiment": "tiny"},
    "engine": {"threads": 1, "buckets": 4, "memory_limit": "1GB"},
    "out": "out",
}
FREE = {("sources",), ("sources", "touchpoints", "columns"), ("attributes", "columns")}
"""Mappings whose keys are the user's own."""

Place = tuple[str | int, ...]


def places(node: Any, path: Place = ()) -> Iterator[Place]:
    """Yield where each key of a document stands."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(node, dict):
            yield (*path, key)
        yield from places(value, (*path, key))


def changed(path: Place, change: Any) -> dict[str, Any]:
    """Return the document with the parent of a key changed by a function of parent and key."""
    document = copy.deepcopy(WHOLE)
    node: Any = document
    for part in path[:-1]:
        node = node[part]
    change(node, path[-1])
    return document


def misspell(parent: dict[str, Any], key: str) -> None:
    parent[f"{key}q"] = parent.pop(key)


def retype(parent: dict[str, Any], key: str) -> None:
    parent[key] = {"unheard of": [1]}


def empty(parent: dict[str, Any], key: str) -> None:
    parent[key] = [[]]


def cases() -> Iterator[tuple[str, Place, dict[str, Any]]]:
    for path in places(WHOLE):
        if tuple(path[:-1]) not in FREE:
            yield "misspelt", path, changed(path, misspell)
        yield "a mapping", path, changed(path, retype)
        yield "a list", path, changed(path, empty)
    for name in ("name", "time_zone", "history_from", "sources", "journey"):
        yield "missing", (name,), {key: value for key, value in WHOLE.items() if key != name}


CASES = list(cases())


def test_there_are_two_hundred() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize(("kind", "path", "document"), CASES, ids=[f"{k}-{'.'.join(map(str, p))}" for k, p, _ in CASES])
def test_a_wrong_configuration(kind: str, path: Place, document: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    ran = call("nightly", file, "--as-of", AS_OF)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert "Traceback" not in ran.err
    assert str(file) in ran.err
    named = [str(part) for part in path if isinstance(part, str)]
    assert named[-1] in ran.err or (len(named) > 1 and named[-2] in ran.err), ran.err
    assert [one.name for one in tmp_path.iterdir()] == ["shop.yaml"]


@pytest.mark.parametrize(
    "path", [path for path in places(WHOLE) if all(isinstance(one, str) for one in path)], ids=".".join
)
def test_a_key_given_twice(path: tuple[str, ...], tmp_path: Path) -> None:
    marker = "twice-here"
    text = yaml.safe_dump(changed(path, lambda parent, key: parent.update({marker: 1})), sort_keys=False)
    file = tmp_path / "shop.yaml"
    file.write_text(text.replace(marker, path[-1]))
    ran = call("nightly", file, "--as-of", AS_OF)
    assert ran.code == 2
    assert f"the key {path[-1]!r} is given twice" in ran.err
    assert [one.name for one in tmp_path.iterdir()] == ["shop.yaml"]


HOSTILE: tuple[Any, ...] = (
    None, True, False, -1, 10**30, 2**63 - 1, 1e300, math.inf, -math.inf, math.nan, "", " ", "banana", "~nobody_here/x",
    "\0", "a\x1bb", "x" * 5000, "[a]*?", "${CVJ_NOT_SET_HERE}", "<<", "9" * 400, "36501d", "999999999999999d", "\ud800",
    date(1, 1, 1), date(9999, 12, 31), datetime(2024, 1, 1, 5), [None], {"a": {"b": [1]}}, {1: 2}, b"x", 0, "1e9", "٣d",
)  # fmt: skip


def hostile(seed: int, number: int) -> Iterator[tuple[Place, Any, str]]:
    """Yield settings with a hostile value at a random place, as YAML."""
    random = Random(seed)
    everywhere = list(places(WHOLE))
    for _ in range(number):
        path, value = random.choice(everywhere), random.choice(HOSTILE)
        document = changed(path, lambda parent, key, value=value: parent.__setitem__(key, value))
        yield path, value, yaml.safe_dump(document, sort_keys=False)


def refused(file: Path) -> bool:
    """Return whether the loader refuses a file, in words that can be printed; any other end fails the test."""
    try:
        load_config(file)
    except ConfigError as error:
        assert str(file) in str(error).encode("utf-8").decode()
        return True
    return False


@pytest.mark.slow
def test_hostile_values_end_in_words(tmp_path: Path) -> None:
    file, number = tmp_path / "shop.yaml", 0
    for _, _, text in hostile(1, 300):
        file.write_text(text)
        number += refused(file)
    assert number > 150


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("path", [("refused_share",), ("value_decimals",), ("engine", "threads"), ("control", "share")])
def test_a_switch_is_no_number(path: Place, value: bool, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(changed(path, lambda parent, key: parent.__setitem__(key, value))))
    with pytest.raises(ConfigError, match=f"{path[-1]}: true and false are no value here"):
        load_config(file)


def laughs(levels: int) -> str:
    return "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, levels))


DOCUMENTS: dict[str, tuple[str, str]] = {
    "an alias inside of itself": ("name: &a [*a]", "line 1: an alias (*name) stands inside of what it repeats"),
    "a mapping inside of itself": ("a: &a\n  b: *a", "stands inside of what it repeats"),
    "a billion laughs": (laughs(40), "its aliases (*name) repeat too much"),
    "a merge key": ("base: &b {name: x}\nengine:\n  <<: *b", "line 3: `<<` is not read here"),
    "nested too deeply": ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "a date that does not exist": ("history_from: 2024-13-45", "is none that YAML can read"),
    "a number of thousands of digits": (f"value_decimals: {'9' * 5000}", "is none that YAML can read"),
    "a wrong tag": ("name: !!int x", "is none that YAML can read"),
    "a wrong switch": ("name: !!bool x", "is none that YAML can read"),
    "a tag of Python": ("name: !!python/object/apply:os.system [ls]", "not valid YAML"),
    "bytes": ("name: !!binary aGk=", "name: bytes (!!binary); write text"),
    "a zero in text": ('name: "a\\0b"', "name: it holds a control character"),
    "half a character": ('name: "\\ud800"', "name: it holds a control character"),
    "a control character in a key": ('"na\\x1bme": x', "a key: it holds a control character"),
    "two documents": ("a: 1\n---\nb: 2", "not valid YAML"),
    "a key that is a list": ("[a]: 1", "a key is a list or a mapping"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_hostile_document(case: str, tmp_path: Path) -> None:
    text, words = DOCUMENTS[case]
    file = tmp_path / "shop.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert words in str(caught.value) and str(file) in str(caught.value)


def test_an_alias_is_read(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("outbound: &sent [mailing, letter]\nevents: {visit: *sent}\n")
    assert read_yaml(file) == {"outbound": ["mailing", "letter"], "events": {"visit": ["mailing", "letter"]}}


@pytest.mark.parametrize("limit", ["banana", "0GB", "-1GB", "4", "1e3MB", "9999999TB", ""])
def test_an_amount_of_memory_that_is_none(limit: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        yaml.safe_dump(changed(("engine", "memory_limit"), lambda parent, key: parent.update({key: limit})))
    )
    with pytest.raises(ConfigError, match="is no amount of memory; write a number and KB, MB, GB or TB"):
        load_config(file)


@pytest.mark.slow
def test_what_is_accepted_can_be_run(tmp_path: Path) -> None:
    """300 settings: whatever the loader accepts is done, or refused with exit code 2 or 3."""
    (tmp_path / "log.csv").write_text("customer_id,occurred_at,event\na,2024-01-01,purchase\nb,2024-02-01,visit\n")
    read = ("sources", "out", "engine", "time_zone", "history_from", "burn_in", "value_decimals", "outbound")
    file, ran = tmp_path / "shop.yaml", 0
    for path, value, text in hostile(2, 300):
        if path[0] not in read:
            continue
        document = yaml.safe_load(text)
        if path not in [("sources",), ("sources", "touchpoints"), ("sources", "touchpoints", "path")]:
            document["sources"]["touchpoints"]["path"] = "log.csv"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        found = call("check", file, "--as-of", "2024-03-01")
        assert found.code in (0, 2, 3), (path, value, found.err)
        assert "Traceback" not in found.err and "unforeseen" not in found.err, (path, value, found.err)
        ran += 1
    assert ran > 40
