"""Lists, page and workbook for businesses that nobody has seen: something sensible, or a refusal that says why."""

from __future__ import annotations

import itertools
from importlib.resources import files
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from tests.trained import AS_OF, SETTINGS, Outcome, Trained, call

from cvj_ml.io import read_csv

pytest_plugins = ["tests.fixtures"]

STAGES = ("Aware", "Engage", "Subscribe", "Convert", "Excite", "Ascend", "Advocate", "Promote")


def look(ran: Outcome, out: Path) -> dict[str, dict[str, Any]]:
    """Return the summary by list, after a look at every file: counts add up, nothing is a formula, lists are named."""
    assert ran.code == 0, ran.err
    (folder,) = (one.parent for one in out.glob("as_of=*/*/_SUCCESS"))
    summary = {
        row["list"]: row for row in pq.read_table(folder / "targets" / "summary.parquet", partitioning=None).to_pylist()
    }
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 2_000_000
    for wrong in ("None", "nan", "NaN", "inf", "Undefined"):
        assert f">{wrong}<" not in page and f" {wrong} " not in page.split("<main")[1].split("<script")[0], wrong
    book = openpyxl.load_workbook(folder / "targets" / "lists.xlsx")
    assert len(set(book.sheetnames)) == len(summary) + 6
    assert all(len(name) <= 31 for name in book.sheetnames)
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert {cell.data_type for cell in cells} <= {"s", "n"}
    assert not {cell.value for cell in cells} & {"None", "nan", "NaN"}
    for number, (name, row) in enumerate(summary.items(), 1):
        assert f'id="list-{name}"' in page
        listed = pq.read_table(folder / "targets" / f"{name}.parquet", partitioning=None)
        assert len(listed) == row["listed"] == len(pd.read_csv(folder / "targets" / f"{name}.csv", dtype=str))
        assert book.worksheets[number].max_row == 1 + max(row["target"], 1)
    assert (folder / "report" / "worksheet.md").read_text(encoding="utf-8").startswith("# Value Journey worksheet")
    return summary


def made(trained: Trained, out: Path, **settings: Any) -> Outcome:
    return call("targets", trained.variant(out, **settings), "--as-of", AS_OF)


def everybody(trained: Trained) -> list[str]:
    return sorted(pd.read_parquet(trained.folder / "touchpoints.parquet")["customer_id"].unique())


def test_without_lists_consecutive_stages_are_listed(trained: Trained, tmp_path: Path) -> None:
    found = look(made(trained, tmp_path / "out", lists=None), tmp_path / "out")
    assert list(found) == [f"{a}__{b}__30d".lower() for a, b in itertools.pairwise(STAGES)]


def test_twenty_lists(trained: Trained, tmp_path: Path) -> None:
    pairs = list(itertools.combinations(STAGES, 2))[:20]
    lists = [{"from": a, "to": b, "horizon": "7d"} for a, b in pairs]
    found = look(made(trained, tmp_path / "out", lists=lists, eligibility={"one_list": False}), tmp_path / "out")
    assert len(found) == 20 and sum(row["listed"] for row in found.values()) > 100


def test_everybody_suppressed_gives_empty_lists_that_say_why(trained: Trained, tmp_path: Path) -> None:
    pd.DataFrame({"customer_id": everybody(trained)}).to_csv(tmp_path / "no.csv", index=False)
    ran = made(trained, tmp_path / "out", suppression={"path": str(tmp_path / "no.csv")})
    for row in look(ran, tmp_path / "out").values():
        assert row["listed"] == 0 and row["suppressed"] == row["in_stage"]


def test_an_empty_consent_file_lists_nobody(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "yes.csv").write_text("customer_id\n")
    ran = made(trained, tmp_path / "out", consent={"path": str(tmp_path / "yes.csv")})
    for row in look(ran, tmp_path / "out").values():
        assert row["listed"] == 0 and row["no_consent"] == row["in_stage"]


def test_a_business_without_channels_plays_and_values(trained: Trained, tmp_path: Path) -> None:
    """A log of who, when and what, and a journey of which nobody has said what to do."""
    journey = yaml.safe_load((files("cvj_ml.journey") / "presets" / "cvj8.yaml").read_text())
    journey["stages"] = [{k: v for k, v in stage.items() if k != "plays"} for stage in journey["stages"]]
    (source,) = SETTINGS["sources"].values()
    kept = {k: v for k, v in source["columns"].items() if k not in ("channel", "value")}
    sources = {"touchpoints": {**source, "columns": kept}}
    bare = {"journey": journey, "sources": sources, "stage_value": {}}
    found = look(made(trained, tmp_path / "out", **bare), tmp_path / "out")
    assert sum(row["listed"] for row in found.values()) > 0
    (file,) = (tmp_path / "out").glob("as_of=*/*/targets/convert__ascend__30d.parquet")
    rows = pq.read_table(file, partitioning=None)
    assert all(rows[name].null_count == len(rows) for name in ("channel", "play", "expected_value"))


@pytest.fixture(scope="module")
def french(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new business in another language: three stages, one customer in each, one horizon of a day."""
    folder = tmp_path_factory.mktemp("français")
    rows = [("zoé", "visite", 1), ("zoé", "visite", 9), ("=élan", "visite", 2), ("=élan", "commande", 40)]
    rows += [("ñandú", "visite", 3), ("ñandú", "commande", 30), ("ñandú", "avis", 70)]
    at = pd.Timestamp("2025-01-01", tz="UTC")
    pd.DataFrame([(who, at + pd.Timedelta(days=day, hours=9), what) for who, what, day in rows]).set_axis(
        ["client", "quand", "quoi"], axis=1
    ).to_parquet(folder / "journal.parquet")
    stages = [("Découverte", "visite"), ("Première commande", "commande"), ("Fidélité", "avis")]
    settings = {
        "name": "epicerie",
        "time_zone": "Europe/Paris",
        "history_from": "2025-01-01",
        "burn_in": "10d",
        "sources": {
            "journal": {
                "path": "journal.parquet",
                "columns": {"customer_id": "client", "occurred_at": "quand", "event": "quoi"},
            }
        },
        "journey": {"name": "trois", "stages": [{"name": name, "enter": {"event": event}} for name, event in stages]},
        "horizons": ["1d"],
        "out": "out",
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    ran = call("train", folder / "c.yaml", "--as-of", "2025-04-01")
    assert ran.code == 0, ran.err
    return folder


def test_three_stages_in_another_language_with_a_customer_each(french: Path) -> None:
    ran = call("targets", french / "c.yaml", "--as-of", "2025-04-01")
    found = look(ran, french / "out")
    assert [(row["from_stage"], row["horizon_days"], row["in_stage"]) for row in found.values()] == [
        ("Découverte", 1, 1), ("Première commande", 1, 1)
    ]  # fmt: skip
    (page,) = (french / "out").glob("as_of=*/*/report/index.html")
    text = page.read_text(encoding="utf-8")
    assert "<bdi>Découverte</bdi> → <bdi>Première commande</bdi>" in text and "=élan" in text
    assert "within 1 day<" in text and "1 days" not in text


def test_a_suppression_of_strangers_is_refused(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "no.csv").write_text("customer_id\nnobody\n")
    ran = made(trained, tmp_path / "out", suppression={"path": str(tmp_path / "no.csv")})
    assert ran.code == 3 and "names a customer of the log, so nobody would be held back" in ran.err
    assert not list((tmp_path / "out").glob("as_of=*"))


def test_contacts_with_line_breaks_and_formulas_are_published_and_verify(trained: Trained, tmp_path: Path) -> None:
    """Silent error 51: a bare carriage return broke a line of CSV in two, and its second half began a formula."""
    people, out = everybody(trained), tmp_path / "out"
    contact = {
        "customer_id": people,
        "=name": [f"A\r=1+1,{one}" for one in people],
        "e\rmail": ["\r\n=2"] * len(people),
    }
    pd.DataFrame(contact).to_parquet(tmp_path / "contact.parquet")
    settings = {"contact": {"path": str(tmp_path / "contact.parquet"), "columns": ["=name", "e\rmail"]}}
    summary = look(made(trained, out, **settings), out)
    found = call("verify", out)
    assert (found.code, found.err) == (0, "")
    assert sum(row["listed"] for row in summary.values()) > 5
    for file in out.glob("as_of=*/*/targets/*__*.csv"):
        heading, *lines = read_csv(file)
        control = [line[heading.index("group")] == "control" for line in lines]
        assert heading[-2:] == ["'=name", "e\rmail"], "whoever is in control has no address in any file"
        assert [line[-1] for line in lines] == ["" if one else "'\r\n=2" for one in control]
        names = ["" if one else f"A\r=1+1,{line[1]}" for line, one in zip(lines, control, strict=True)]
        assert [line[-2] for line in lines] == names
    (before,) = out.glob("as_of=*/*/run.json")
    stamp = before.stat().st_mtime_ns
    assert made(trained, out, **settings).code == 0 and before.stat().st_mtime_ns == stamp
