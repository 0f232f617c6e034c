"""Over two hundred ways to get a configuration wrong: each is told with its place, and nothing is begun."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.trained import AS_OF, SETTINGS, call

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
    "measure": {"min_lift": 1, "max_miscalibration": 2, "min_moved": 30},
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
