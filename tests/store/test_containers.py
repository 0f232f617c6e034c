"""One table, written as each kind of file that is read, gives one store; archives and workbooks hold what they say."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.test_formats import touchpoints

from cvj_ml.config import Config
from cvj_ml.customers import read_people
from cvj_ml.customers.id_tables import rows_naming
from cvj_ml.errors import DataError
from cvj_ml.store import Truncation, containers, ingest
from cvj_ml.store.customer_ids import CustomerIds

BEGIN = datetime(2024, 1, 1)
COLUMNS = ("customer_id", "occurred_at", "event", "value", "note")
# What every kind can hold: text without edges, amounts of two decimals, whole seconds.
WORDS = st.text(st.characters(categories=["L", "N"], include_characters=' ,;"|é€'), min_size=1, max_size=8).map(
    lambda text: f"w{text}w"
)
ROWS = st.lists(
    st.tuples(WORDS, st.integers(0, 10**8), WORDS, st.integers(-(10**6), 10**8), st.one_of(st.none(), WORDS)),
    min_size=1, max_size=6,
)  # fmt: skip


def at(number: int) -> str:
    """A second that is no midnight: a workbook has no other sign of a day without hours."""
    return str(BEGIN + timedelta(days=number // 40_000, seconds=number % 40_000 + 1))


def plain(rows: list[Any]) -> list[dict[str, Any]]:
    return [
        dict(zip(COLUMNS, (who, at(number), event, cents / 100, note), strict=True))
        for who, number, event, cents, note in rows
    ]


def zipped(*names: str, to: Path) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(to.parent / name, f"in/{name}")


def write_all(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Write the rows as every kind of file, and return the names."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.to_csv(folder / "log.csv", index=False)
    frame.to_csv(folder / "log.tsv", index=False, sep="\t")
    frame.to_csv(folder / "log.csv.gz", index=False)
    frame.to_parquet(folder / "log.parquet")
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "log.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    typed = frame.assign(occurred_at=pd.to_datetime(frame["occurred_at"]))
    typed.to_excel(folder / "log.xlsx", index=False, engine="xlsxwriter")
    zipped("log.csv", to=folder / "log.zip")
    zipped("log.jsonl", to=folder / "lines.zip")
    zipped("log.xlsx", to=folder / "sheets.zip")
    return [path.name for path in sorted(folder.iterdir()) if path.is_file()]


def config_of(folder: Path, name: str, **source: Any) -> Config:
    settings_ = {"path": name, "columns": {"note": "note"}} | source
    document = {
        "name": "t", "time_zone": "UTC", "history_from": "2024-01-01", "journey": "cvj8", "sources": {"log": settings_},
        "out": f"out/{name}", "refused_share": 0.9,
    }  # fmt: skip
    return Config.model_validate(document, context={"folder": folder})


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(ROWS)
def test_the_same_rows_in_any_file_are_the_same_store(tmp_path_factory: Any, rows: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("kinds")
    table = plain(rows)
    stores = {name: ingest(config_of(folder, name)) for name in write_all(folder, table)}
    first = touchpoints(stores.pop("log.csv"))
    assert sorted(first["value"]) == sorted(cents for _, _, _, cents, _ in rows)
    for name, store in stores.items():
        pd.testing.assert_frame_equal(
            touchpoints(store), first, obj=name, check_dtype=first["property_note"].count() > 0
        )


def test_the_past_of_every_kind_is_the_same(tmp_path: Path) -> None:
    rows = plain([(f"c{i % 3}", i * 40_000 * 3 + 5, "x", i, None) for i in range(10)])
    cut = int(datetime(2024, 1, 15, tzinfo=UTC).timestamp() * 1_000_000)
    for name in write_all(tmp_path, rows):
        (folder := tmp_path / f"past-{name}").mkdir()
        then = Truncation(config_of(tmp_path, name, columns={}), folder).before(cut)
        assert then is not None and ingest(then).counts["log"].stored == 5, name


def test_nothing_unpacked_stays(tmp_path: Path) -> None:
    rows = plain([("a", 5, "x", 1, None)])
    for name in write_all(tmp_path, rows):
        ingest(config_of(tmp_path, name))
    left = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left <= {".parquet", ".json", "", ".lock"}, left


def test_an_archive_that_grows_too_large_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.csv").write_text("customer_id,occurred_at,event\n" + "a,2024-01-01,x\n" * 300_000)
    zipped("log.csv", to=tmp_path / "log.zip")
    monkeypatch.setattr(containers, "_FROM_BYTES", 1 << 20)
    monkeypatch.setattr(containers, "_MOST_TIMES", 20)
    with pytest.raises(DataError, match="more than 64 GB or 20 times as much is not unpacked"):
        ingest(config_of(tmp_path, "log.zip"))
    # An archive can tell less than it holds.
    data = bytearray((tmp_path / "log.zip").read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "liar.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"is not unpacked|is damaged"):
        ingest(config_of(tmp_path, "liar.zip"))


def test_a_sheet_or_member_that_is_not_there(tmp_path: Path) -> None:
    write_all(tmp_path, plain([("a", 5, "x", 1, None)]))
    for name, source, words in (
        ("log.xlsx", {"sheet": "Sheet2"}, r"has no sheet 'Sheet2'\. Did you mean 'Sheet1'\? Its sheets are Sheet1"),
        ("log.zip", {"member": "lag.csv"}, r"without a file 'lag.csv'.*It holds in/log.csv"),
        ("log.csv", {"sheet": "x"}, "sheet: 'x' is of a workbook"),
        ("log.csv", {"member": "x"}, "member: 'x' is of a ZIP archive"),
    ):
        with pytest.raises(DataError, match=words):
            ingest(config_of(tmp_path, name, **source))


def test_cells_are_read_as_they_are_meant(tmp_path: Path, configure: Callable[..., Config]) -> None:
    rows = {
        "customer_id": [1001, 1002, 1003], "event": ["x", "y", "z"], "value": [1, 2.5, None],
        "occurred_at": [datetime(2024, 1, 5, 10, 30, 15), datetime(2024, 1, 6), datetime(2024, 1, 7, 0, 0, 1)],
        "note": ["line\nbreak", "007", True], "day": [datetime(2024, 1, 5).date()] * 3,
    }  # fmt: skip
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_excel(buffer, index=False, engine="xlsxwriter", startrow=2)
    (tmp_path / "log.xlsx").write_bytes(buffer.getvalue())
    source = {"path": "log.xlsx", "columns": {"note": "note", "day": "day"}}
    found = touchpoints(ingest(configure(sources={"log": source}))).sort_values("customer_id")
    assert list(found["customer_id"]) == ["1001", "1002", "1003"]
    assert list(found["property_note"]) == ["line\nbreak", "007", "true"]
    assert list(found["property_day"]) == ["2024-01-05"] * 3
    assert not found["date_only"].any()
    assert list(found["value"].fillna(-1)) == [100, 250, -1]


def test_a_table_of_people_can_be_any_kind_of_file(tmp_path: Path, configure: Callable[..., Config]) -> None:
    for name in write_all(tmp_path, plain([("b", 5, "x", 1, None), ("a", 7, "x", 1, None)])):
        config = configure(sources={"log": {"path": "log.csv"}}, suppression={"path": name})
        named = read_people(config).permissions.suppression
        assert named is not None and named.column("customer_id").to_pylist() == ["a", "b"], name
    (tmp_path / "broken.jsonl").write_text('{"customer_id": "a"}\n{"customer_id": "b"')
    config = configure(sources={"log": {"path": "log.csv"}}, suppression={"path": "broken.jsonl"})
    with pytest.raises(DataError, match=r"1 row\(s\): unreadable line"):
        read_people(config)
    assert rows_naming("suppression", config.suppression, "customer_id", config, CustomerIds.of(["b"], "exact")) == 1


def test_a_query_over_each_kind_is_cut_by_its_times(tmp_path: Path) -> None:
    rows = plain([(f"c{i % 3}", i * 40_000 * 3, "x", i, None) for i in range(10)])
    cut = int(datetime(2024, 1, 15, tzinfo=UTC).timestamp() * 1_000_000)
    for name in write_all(tmp_path, rows):
        if name == "log.parquet":  # text in a file of types is no time
            continue
        (folder := tmp_path / f"past-{name}").mkdir()
        source = {"path": None, "query": "SELECT customer_id, occurred_at, event FROM log", "files": {"log": name}}
        then = Truncation(config_of(tmp_path, name, columns={}, **source), folder).before(cut)
        assert then is not None and ingest(then).counts["log"].stored == 5, name


def sheet(path: Path, *rows: list[Any]) -> None:
    """Write rows as they are; an empty list is a blank row."""
    pd.DataFrame(rows).to_excel(path, index=False, header=False)


HEADER, SECOND = ["customer_id", "occurred_at", "event", "value"], ["customer_id", "refunded_at", "refund_no", "value"]
DATA = [[f"c{row}", BEGIN + timedelta(days=row), "purchase", 10 + row] for row in range(4)]


@pytest.mark.parametrize(
    ("below", "row"),
    [
        ([["Total", None, None, 46], [], SECOND, *DATA], 8),
        ([[], SECOND, *DATA], 7),
        ([[], ["Refunds"], ["Kunde", "Am", "Nr", "Betrag"], *DATA], 8),
        ([[], ["id", "since"], ["c1", BEGIN]], 7),
    ],
)
def test_a_second_table_below_the_first_is_refused(tmp_path: Path, configure: Any, below: list[Any], row: int) -> None:
    sheet(tmp_path / "log.xlsx", HEADER, *DATA, *below)
    with pytest.raises(DataError, match=rf"sheet Sheet1, row {row}: another table begins below the first \("):
        ingest(configure(sources={"log": {"path": "log.xlsx"}}, refused_share=1.0))


@pytest.mark.parametrize(
    "below",
    [
        [["Total", None, None, 46]],
        [[], ["Source: the shop"]],
        [[], ["Source", "the shop"], ["As of", "Monday"]],
        [[], *DATA],
        [[], HEADER, *DATA],
    ],
)
def test_rows_below_a_table_that_are_no_other_table_are_read_or_counted(
    tmp_path: Path, configure: Any, below: list[Any]
) -> None:
    sheet(tmp_path / "log.xlsx", ["Report of 2024"], [], HEADER, *DATA, *below)
    store = ingest(configure(sources={"log": {"path": "log.xlsx"}}, refused_share=1.0))
    more = sum(row in DATA for row in below)
    blank = sum(not row for row in below)
    assert store.counts["log"].stored == len(DATA) + more
    assert sum(store.counts["log"].refused.values()) == len(below) - more - blank


def test_tables_side_by_side_are_refused(tmp_path: Path, configure: Any) -> None:
    sheet(tmp_path / "log.xlsx", [*HEADER, None, "id", "since"], *([*row, None, "c1", BEGIN] for row in DATA))
    with pytest.raises(
        DataError, match="names no column in place 5; give every column a name, and of tables that stand"
    ):
        ingest(configure(sources={"log": {"path": "log.xlsx"}}))


def archive(path: Path, **files: str) -> None:
    with zipfile.ZipFile(path, "w") as to:
        for name, text in files.items():
            to.writestr(name.replace("__", "."), text)


ROW = "a,2024-03-01 10:00:00,purchase"


def test_months_of_an_archive_are_read_by_the_names_of_their_columns(tmp_path: Path, configure: Any) -> None:
    archive(
        tmp_path / "log.zip",
        orders_01__csv=f"customer_id,occurred_at,event,value\n{ROW},10\n",
        orders_02__csv="value,event,occurred_at,customer_id\n20,purchase,2024-03-02 10:00:00,b\n",
        orders_03__csv=f"customer_id,occurred_at,event,value,coupon\n{ROW.replace('a', 'c', 1)},30,X\n",
        README__txt="Exported in spring",
    )
    config = configure(sources={"log": {"path": "log.zip", "columns": {"coupon": "coupon"}}})
    rows = touchpoints(ingest(config)).sort_values("customer_id")
    assert rows[["customer_id", "value"]].to_numpy().tolist() == [["a", 1000], ["b", 2000], ["c", 3000]]
    assert rows["property_coupon"].isna().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "customers__csv",
            "id,name\n1,x\n",
            "it lacks 'customer_id', 'event', 'occurred_at'; it has besides 'id', 'name'",
        ),
        ("refunds_01__csv", f"customer_id,occurred_at,event,note\n{ROW},x\n", "it has besides 'note'"),
        (
            "orders_2__csv",
            "id,name\n1,x\n",
            "it lacks 'customer_id', 'event', 'occurred_at'; it has besides 'id', 'name'",
        ),
    ],
)
def test_another_table_in_an_archive_is_told_by_what_it_lacks(
    tmp_path: Path, configure: Any, name: str, text: str, told: str
) -> None:
    archive(tmp_path / "log.zip", orders_01__csv=f"customer_id,occurred_at,event\n{ROW}\n", **{name: text})
    with pytest.raises(DataError) as error:
        ingest(configure(sources={"log": {"path": "log.zip"}}))
    assert told in str(error.value) and "say which under member, as in member: orders_*.csv" in str(error.value)
