"""What changed over a fortnight of published nights: everybody and every number, also after backfill and erasure."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.trained import SETTINGS, Trained, call

from cvj_ml.lists import BASES
from cvj_ml.lists.changes import DROPPED, NOT_COMPARABLE, SUMMARY_PARTS
from cvj_ml.lists.standing import BETWEEN
from cvj_ml.night.base_nights import TREND
from cvj_ml.night.layout import NightFolder
from cvj_ml.night.verifying import verify_night
from cvj_ml.night.writing import seal

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.slow

FIRST = date(2025, 6, 6)
ERASED, GONE = 9, 11
"""After so many nights one customer is erased, and one deleted from the sources without being erased."""

PAIRS = [("Engage", "Subscribe"), ("Convert", "Ascend"), ("Convert", "Excite"), ("Advocate", "Promote")]


def day(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


@dataclass
class Shop:
    """A configuration, its own copy of the data, and its nights by number; ``before``: as they were first."""

    file: Path
    data: Path
    out: Path
    nights: list[Path] = field(default_factory=list)
    before: list[Path] = field(default_factory=list)
    erased: str = ""
    gone: str = ""


def publish(file: Path, *arguments: str) -> list[dict[str, Any]]:
    ran = call("nightly", file, *arguments, "--json")
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)["nights"]
    return found


def settings_of(data: Path) -> dict[str, Any]:
    source = SETTINGS["sources"]["touchpoints"] | {"path": str(data / "touchpoints.parquet")}
    return {
        "sources": {"touchpoints": source},
        "attributes": SETTINGS["attributes"] | {"path": str(data / "customers.parquet")},
        "lists": [{"from": a, "to": b, "horizon": "30d", "capacity": 6} for a, b in PAIRS],
        "eligibility": {"contact_caps": {"max": 3, "within": "7d"}},
        "mlflow": {"tracking_uri": f"sqlite:///{data / 'own.db'}"},
    }


def delete(data: Path, customer: str) -> None:
    for name in ("touchpoints", "customers"):
        table = pq.read_table(data / f"{name}.parquet", partitioning=None)
        pq.write_table(table.filter(pc.not_equal(table["customer_id"], customer)), data / f"{name}.parquet")


@pytest.fixture(scope="module")
def shop(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Fourteen nights, one after the other; not to be changed."""
    folder = tmp_path_factory.mktemp("fortnight")
    for name in ("touchpoints", "customers"):
        shutil.copy(trained.folder / f"{name}.parquet", folder)
    # Nights by a model that has seen what followed contacted nobody, so they would hold nobody back.
    made = Shop(trained.variant(folder / "out", **settings_of(folder)), folder, folder / "out")
    assert call("train", made.file, "--as-of", day(-1), "--promote", "always").code == 0
    for first, last in ((0, ERASED), (ERASED, GONE), (GONE, 14)):
        found = publish(made.file, "--backfill", f"{day(first)}..{day(last - 1)}")
        assert {one["outcome"] for one in found} == {"published"}
        made.nights += [Path(one["night"]) for one in found]
        victim = sorted(plan_of(made.nights[-1]))[0]
        if last == ERASED:
            kept = Path(shutil.copytree(made.out, folder / "before"))
            made.before = [kept / one.relative_to(made.out) for one in made.nights]
            made.erased = victim
            delete(folder, victim)
            (folder / "ids.txt").write_text(f"{victim}\n")
            done = call("forget", made.file, "--customers", folder / "ids.txt")
            assert done.code == 0, done.err
        elif last == GONE:
            made.gone = victim
            delete(folder, victim)
    return made


def rows_of(night: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(night / f"{name}.parquet", partitioning=None).to_pylist()
    return rows


def manifest(night: Path) -> dict[str, Any]:
    return NightFolder(night).manifest()


def stages_of(night: Path) -> dict[str, str | None]:
    return {row["customer_id"]: row["stage"] for row in rows_of(night, "scores/scores")}


def plan_of(night: Path) -> dict[str, frozenset[str]]:
    lists: dict[str, set[str]] = {}
    for one in manifest(night)["lists"]:
        for row in rows_of(night, f"targets/{one['list']}"):
            lists.setdefault(row["customer_id"], set()).add(one["list"])
    return {who: frozenset(names) for who, names in lists.items()}


def lists_in(text: str | None) -> frozenset[str]:
    return frozenset(text.split(BETWEEN)) if text else frozenset()


def assert_adds_up(night: Path, base: str, before: Path) -> Mapping[str, Any]:
    """Follow every row of the changes from the base night's files, and end at tonight's; return the numbers."""
    rows = {row["customer_id"]: row for row in rows_of(night, "targets/changes") if row["base"] == base}
    numbers: dict[str, Any] = manifest(night)["changes"][base]
    stages, plan = stages_of(before), plan_of(before)
    now, planned = stages_of(night), plan_of(night)
    gone = stages.keys() - now.keys()
    # plan(t) = plan(base) + new − dropped
    new = {who for who, row in rows.items() if row["plan_change"] == "new"}
    dropped = {who for who, row in rows.items() if row["plan_change"] == "dropped"}
    assert planned.keys() == (plan.keys() | new) - dropped - gone
    assert not new & plan.keys() and dropped <= plan.keys()
    followed = {who: lists for who, lists in plan.items() if who not in gone}
    for who, row in rows.items():
        assert followed.pop(who, frozenset()) == lists_in(row["from_list"])
        followed[who] = lists_in(row["to_list"])
    assert {who: lists for who, lists in followed.items() if lists} == planned
    assert numbers["plan"] == {
        "before": len(plan), "entered": len(new), "left": len(dropped) + len(plan.keys() & gone), "now": len(planned)
    }  # fmt: skip
    # stage(t) = stage(base) + in − out
    standing = {who: stage for who, stage in stages.items() if who not in gone}
    for who, row in rows.items():
        if row["stage_change"]:
            assert (row["stage_change"] == "new") == (who not in stages)
            assert standing.pop(who, None) == row["from_stage"]
            standing[who] = row["to_stage"]
    assert standing == now
    then, tonight = Counter(stages.values()), Counter(now.values())
    for stage, one in numbers["stages"].items():
        came = sum(1 for row in rows.values() if row["stage_change"] and row["to_stage"] == (stage or None))
        went = sum(
            1 for row in rows.values() if row["stage_change"] == "moved" and row["from_stage"] == (stage or None)
        )
        went += sum(1 for who in gone if stages[who] == (stage or None))
        assert one == {"before": then[stage or None], "entered": came, "left": went, "now": tonight[stage or None]}
    assert numbers["people"] == {
        "before": len(stages), "entered": len(now.keys() - stages.keys()), "left": len(gone), "now": len(now)
    }  # fmt: skip
    # Dropped, and why.
    why = Counter(rows[who]["why"] for who in dropped) + Counter({"gone": len(plan.keys() & gone)})
    assert numbers["dropped"] == dict(why) and why.keys() <= DROPPED.keys()
    for who in dropped:
        assert (rows[who]["why"] == "moved_on") == (rows[who]["from_stage"] != rows[who]["to_stage"])
    for one in rows_of(night, "targets/summary"):
        at = {name: one[f"{name}_{base}"] for name in SUMMARY_PARTS}
        assert at["listed"] == sum(one["list"] in lists for lists in plan.values())
        assert one["listed"] == at["listed"] + at["new"] - at["dropped"]
        assert at["in_stage"] == then[one["from_stage"]]
        assert one["in_stage"] == at["in_stage"] + at["entered"] - at["left"]
    return numbers


def test_every_night_of_a_fortnight_adds_up(shop: Shop) -> None:
    """Until the erasure as the nights were then; from then on without whoever was erased, in the base nights, too."""
    reasons, moved, new_people = Counter[str](), 0, 0
    for number, night in enumerate(shop.nights):
        verify_night(night)
        nights = shop.before if number < ERASED else shop.nights
        facts = manifest(nights[number])
        assert facts["stages"] == Counter(stage or "" for stage in stages_of(nights[number]).values())
        assert [one["as_of"][:10] for one in facts["trend"]] == [day(i) for i in range(number)][1 - TREND :]
        for base, place in {"last": number - 1, "week": number - 7}.items():
            if place < 0:
                assert facts["changes"][base] == {"as_of": None, "not_comparable": "no_night"}
                assert facts["bases"][base] == {"problem": "no_night"}
                continue
            before = nights[place]
            assert facts["bases"][base]["night"] == f"{before.parent.name}/{before.name}"
            numbers = assert_adds_up(nights[number], base, before)
            assert numbers["erased"] == (place < ERASED <= number)
            assert numbers["people"]["left"] == (place < GONE <= number)
            reasons += Counter(numbers["dropped"])
            moved += numbers["moved_stage"]
            new_people += numbers["people"]["entered"]
    assert {"moved_on", "list_full", "contact_cap", "gone"} <= reasons.keys() and moved and new_people


def test_the_erased_are_nowhere_and_the_gone_are_counted(shop: Shop) -> None:
    for number, night in enumerate(shop.nights):
        rows = rows_of(night, "targets/changes")
        assert len(rows) == manifest(night)["files"]["targets/changes.csv"]["rows"]
        for name in ("changes.parquet", "changes.csv"):
            assert shop.erased.encode() not in (night / "targets" / name).read_bytes()
        named = {row["customer_id"] for row in rows}
        assert shop.erased not in named and (number < GONE or shop.gone not in named)
        assert named <= stages_of(night).keys()
        for one in rows_of(night, "targets/summary"):  # they add up without the erased, too
            for base in BASES:
                if one[f"listed_{base}"] is not None:
                    assert one["listed"] == one[f"listed_{base}"] + one[f"new_{base}"] - one[f"dropped_{base}"]
                    assert one["in_stage"] == one[f"in_stage_{base}"] + one[f"entered_{base}"] - one[f"left_{base}"]
    first = (shop.nights[ERASED] / "report" / "index.html").read_text()
    assert "erased since: 1." in first
    assert "not in them any more: 1." in (shop.nights[GONE] / "report" / "index.html").read_text()


def test_the_page_and_the_groups_tell_the_same(shop: Shop) -> None:
    night = shop.nights[-1]
    plain = html.unescape(re.sub("<[^>]+>", " ", (night / "report" / "index.html").read_text()))
    text = " ".join(plain.split())
    changes = manifest(night)["changes"]
    for base in BASES:
        plan = changes[base]["plan"]
        assert f"Since {BASES[base]}, {changes[base]['as_of'][:10]}" in text
        assert f"On the plan, control included: {plan['now']}, {plan['entered']} of them new" in text
        for reason, number in changes[base]["dropped"].items():
            assert f"{number} {DROPPED[reason]}" in text
    assert f"The last {TREND} nights" in text
    groups = {
        row["customer_id"]: row["group"]
        for one in manifest(night)["lists"]
        for row in rows_of(night, f"targets/{one['list']}")
    }
    # Whoever takes the file for a list must see who is not to be contacted.
    assert all(row["group"] == groups.get(row["customer_id"]) for row in rows_of(night, "targets/changes"))


@pytest.fixture
def copied(trained: Trained, shop: Shop, tmp_path: Path) -> Shop:
    out = Path(shutil.copytree(shop.out, tmp_path / "out"))
    file = trained.variant(out, **settings_of(shop.data))
    return Shop(file, shop.data, out, [out / one.relative_to(shop.out) for one in shop.nights])


def test_a_backfilled_base_makes_another_night(copied: Shop) -> None:
    """And the base that was there before makes the same one again: what a night is made from is all in its facts."""
    *_, between, last = copied.nights
    kept = last.rename(copied.out.parent / "kept")
    original = between.rename(copied.out.parent / "between")
    (other,) = publish(copied.file, "--as-of", day(13))
    assert Path(other["night"]) != last
    assert_adds_up(Path(other["night"]), "last", copied.nights[-3])
    (backfilled,) = publish(copied.file, "--as-of", day(12))
    assert Path(backfilled["night"]) == between
    assert (between / "MANIFEST.json").read_bytes() == (original / "MANIFEST.json").read_bytes()
    (again,) = publish(copied.file, "--as-of", day(13))
    assert (Path(again["night"]), again["outcome"], again["current"]) == (last, "published", True)
    assert (last / "MANIFEST.json").read_bytes() == (kept / "MANIFEST.json").read_bytes()
    assert_adds_up(last, "last", between)
    assert_adds_up(last, "week", copied.nights[6])
    (found,) = publish(copied.file, "--as-of", day(13))
    assert (Path(found["night"]), found["outcome"]) == (last, "unchanged")


@pytest.mark.parametrize("problem", ["journey", "damaged"])
def test_what_cannot_be_compared_is_said_and_has_no_rows(copied: Shop, problem: str) -> None:
    between = copied.nights[-2]
    if problem == "damaged":
        with (between / "scores" / "scores.parquet").open("ab") as file:
            file.write(b" ")
    else:
        facts = manifest(between)
        rows = {name: one["rows"] for name, one in facts.pop("files").items()}
        run = NightFolder(between).run()
        for name in ("MANIFEST.json", "run.json", "_SUCCESS"):
            (between / name).unlink()
        seal(between, facts | {"journey": "another"}, run, rows)
    ran = call("nightly", copied.file, "--as-of", day(13), "--json")
    assert ran.code == 0, ran.err
    assert f"warning: not compared with {BASES['last']}: {NOT_COMPARABLE[problem]}." in ran.err
    night = Path(json.loads(ran.out)["nights"][0]["night"])
    assert night != copied.nights[-1]
    told = manifest(night)["changes"]
    assert told["last"] == {"as_of": f"{day(12)}T00:00:00+00:00", "not_comparable": problem}
    assert {row["base"] for row in rows_of(night, "targets/changes")} == {"week"}
    assert all(one[f"{name}_last"] is None for one in rows_of(night, "targets/summary") for name in SUMMARY_PARTS)
    words = (night / "report" / "index.html").read_text()
    assert NOT_COMPARABLE[problem].split("`")[0] in words
    assert_adds_up(night, "week", copied.nights[6])


def test_files_are_there_without_any_base(shop: Shop) -> None:
    first = shop.nights[0]
    assert pq.read_schema(first / "targets" / "changes.parquet") == pa.schema(
        pq.read_schema(shop.nights[-1] / "targets" / "changes.parquet")
    )
    assert rows_of(first, "targets/changes") == []
