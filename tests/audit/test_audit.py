"""The leakage audit: it passes what is honest, finds what is not, and shows that it looked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from tests.oracles import examples
from tests.oracles.blocks import to_block, to_customers
from tests.oracles.cases import a_definition, a_journey
from tests.oracles.histories import Customer, as_known
from tests.trained import AS_OF, CUSTOMERS, SETTINGS, Outcome, Trained, call

from cvj_ml.audit.arrivals import arrival_warnings
from cvj_ml.audit.leakage import run_audit
from cvj_ml.audit.outputs import compare_outputs, outputs_at
from cvj_ml.audit.perturbation import another_future
from cvj_ml.audit.sample import draw_blocks, draw_cut_offs
from cvj_ml.audit.target_leakage import target_leaks
from cvj_ml.commands.train import training_panel
from cvj_ml.config import Config, ValueSpec, load_config
from cvj_ml.errors import ConfigError
from cvj_ml.features import compute
from cvj_ml.inputs import open_histories
from cvj_ml.journey import outcomes_of
from cvj_ml.run import Silent
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.store import Truncation, ingest
from cvj_ml.windows import happened_within, parse_as_of

pytest_plugins = ["tests.fixtures"]

MONTH = 30 * 86_400_000_000


def audit(trained: Trained, folder: Path, *more: object, **changed: Any) -> tuple[Outcome, dict[str, Any]]:
    """Audit the small customers with some settings changed; returns the outcome and the JSON object."""
    run = call("audit", trained.variant(folder, **changed), "--as-of", AS_OF, "--cut-offs", 2, "--json", *more)
    return run, json.loads(run.out) if run.out else {}


def names(found: dict[str, Any], check: str) -> set[str]:
    return {one["name"] for one in found["leaks"] if one["check"] == check}


def touchpoints(**columns: str) -> dict[str, Any]:
    """The simulated source, read by a query that adds or replaces columns."""
    shown = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    source = {key: value for key, value in SETTINGS["sources"]["touchpoints"].items() if key != "path"}
    return source | {
        "files": {"log": "touchpoints.parquet"},
        "query": f"SELECT * REPLACE ({shown}) FROM log",
        "row_times": {"log": "known_at"},
    }


# Another future changes what it says, and nothing else


@settings(max_examples=60)
@given(examples.customers(most=3), examples.instants())
def test_another_future_leaves_the_past_and_changes_the_future_of_everybody(
    customers: list[Customer], cut_off: int
) -> None:
    block = to_block(customers)
    other, change = another_future(block, cut_off, "UTC", np.random.default_rng(1))
    changed = to_customers(other)
    assert [as_known(one, cut_off) for one in to_customers(block)] == [as_known(one, cut_off) for one in changed]
    for one, before in zip(changed, to_customers(block), strict=True):
        known = [row for row in before.touches if row.visible < cut_off]
        new = [row for row in one.touches if row.visible >= cut_off]
        assert any(row.occurred == row.visible == cut_off for row in new)
        assert any(row.occurred > cut_off for row in new)
        assert any(row.occurred < cut_off <= row.visible for row in new)
        assert list(one.touches) == sorted(one.touches, key=lambda row: row.occurred)
        assert len(one.touches) == len(known) + len(new)
        if before.versions:
            assert any(version.known == cut_off for version in one.versions)
    rows = len(block.touchpoints)
    assert len(other.touchpoints) == rows - change.deleted + change.added
    assert change.added == 3 * len(customers)
    assert change.deleted + change.altered <= (block.touchpoints.visible_at >= cut_off).sum()


def test_another_future_deletes_alters_and_replaces() -> None:
    block = to_block(examples.close_histories(seed=3, number=200))
    cut_off = int(np.median(block.touchpoints.visible_at))
    _, change = another_future(block, cut_off, "UTC", np.random.default_rng(1))
    future = int((block.touchpoints.visible_at >= cut_off).sum())
    assert change.deleted / future == pytest.approx(1 / 3, abs=0.05)
    assert change.altered / future == pytest.approx(1 / 3, abs=0.05)
    assert 0 < change.replaced < 0.2 * len(block.touchpoints)


@settings(max_examples=20)
@given(examples.customers(most=2), examples.settings_of_journey(), examples.instants())
def test_answers_about_the_cut_off_agree_and_later_ones_do_not(
    customers: list[Customer], setting: examples.Setting, cut_off: int
) -> None:
    bought = ValueSpec(events=("buy",), refunds=("review",))
    definition = a_definition(setting.journey.model_copy(update={"value": bought}), setting.hidden)
    asked = outcomes_of(definition.journey, examples.EVENTS, examples.OUTBOUND)
    definition = replace(definition, outcomes=tuple(replace(one, same_as=None) for one in asked))
    block = to_block(customers)
    told = {name for kind, name in outputs_at(definition, None, block, cut_off).columns if kind == "label"}
    assert {"return", "kept", "purchase", "value_2d", "refunds_9d", "purchases_5d"} <= told
    other, _ = another_future(block, cut_off, "UTC", np.random.default_rng(1))
    assert not compare_outputs(*(outputs_at(definition, None, one, cut_off) for one in (block, other))).different
    later = compare_outputs(*(outputs_at(definition, None, one, cut_off + MONTH + 1) for one in (block, other)))
    assert {kind for kind, _ in later.different} & {"feature", "customer"}


def test_a_single_changed_number_is_a_difference() -> None:
    definition = a_definition(a_journey(One={"event": "*"}))
    block = to_block(examples.close_histories(seed=3, number=20))
    one = outputs_at(definition, None, block, int(block.touchpoints.visible_at.max()))
    for name, column in one.columns.items():
        changed = column.copy()
        changed[7] = 0 if column[7] != 0 else 1
        other = replace(one, columns={**one.columns, name: changed})
        assert compare_outputs(one, other).different == {name: 1}
    assert compare_outputs(one, one).different == {}


# The command


@pytest.mark.slow
def test_an_honest_configuration_passes_with_scores_compared(trained: Trained, tmp_path: Path) -> None:
    run, found = audit(trained, tmp_path)
    assert run.code == 0, run.err
    assert (found["leaks"], found["warnings"]) == ([], [])
    assert len(found["model_version"]) == 12
    assert [one["replayed"] for one in found["cut_offs"]] == [True, True]
    assert all(one["noticed"] > 0.9 * one["compared"] > 0 for one in found["cut_offs"])
    assert run.err.splitlines()[-4:] == [
        "Changing the future",
        "Reading the sources as they stood",
        "Looking for backfilled columns",
        "Judging single features",
    ]
    assert not list(tmp_path.glob(".audit-*"))
    again = audit(trained, tmp_path, "--model", trained.bundle)[1]
    assert again == found


@pytest.mark.slow
def test_without_a_model_features_are_audited(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path, mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'none.db'}"})
    run = call("audit", file, "--as-of", AS_OF, "--cut-offs", 1)
    assert run.code == 0, run.err
    assert "no scores (nothing is trained yet)" in run.out
    assert "No leak found at 1 cut-off(s)." in run.out


@pytest.mark.slow
def test_a_kernel_that_sees_the_touchpoint_at_as_of_is_caught(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = compute.__globals__["run"]

    def peeking(*arguments: Any) -> None:
        honest(*arguments[:11], arguments[11] + 1, *arguments[12:])

    monkeypatch.setitem(compute.__globals__, "run", peeking)
    run, found = audit(trained, tmp_path, mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'none.db'}"})
    assert run.code == 5
    assert {"recency", "count_event_visit_all"} <= names(found, "perturbation")
    assert not names(found, "replay")
    assert "docs/audit.md" in run.err


def test_scores_that_see_the_touchpoint_at_as_of_are_caught(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = open_bundle(trained.bundle).predictor  # its canary would notice a changed kernel before the audit does
    honest = compute.__globals__["run"]
    monkeypatch.setitem(compute.__globals__, "run", lambda *given: honest(*given[:11], given[11] + 1, *given[12:]))
    config = trained.config()
    store = ingest(config)
    found = run_audit(
        config,
        store,
        predictor.definition,
        predictor,
        trained.as_of,
        cut_offs=1,
        customers=CUSTOMERS,
        seed=1,
        threads=1,
        step=Silent().step,
    )
    assert {one.kind for one in found.leaks} == {"feature", "score"}
    assert found.scored


LEAKY = {
    "value": "sum(value) OVER (PARTITION BY customer_id)",
    "rating": "count(*) OVER (PARTITION BY customer_id)",
    "channel": "last_value(channel) OVER (PARTITION BY customer_id ORDER BY occurred_at"
    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)",
}


@pytest.mark.slow
@pytest.mark.parametrize("column", sorted(LEAKY))
def test_a_query_that_sums_up_the_whole_log_is_caught(trained: Trained, tmp_path: Path, column: str) -> None:
    """Silent error 21, in a source: no block shows it, the sources as they stood do."""
    run, found = audit(trained, tmp_path, sources={"touchpoints": touchpoints(**{column: LEAKY[column]})})
    assert run.code == 5
    assert not names(found, "perturbation")
    leaks = names(found, "replay")
    assert f"touchpoints.{column}" in leaks
    # No feature is made of this property, and no rule of these customers depends on it.
    feature = {"value": "value_sum_all", "channel": "last_channel"}.get(column)
    assert feature is None or feature in leaks


@pytest.mark.slow
def test_the_same_query_over_the_past_only_passes(trained: Trained, tmp_path: Path) -> None:
    running = "sum(value) OVER (PARTITION BY customer_id ORDER BY known_at, touchpoint_id)"
    run, found = audit(trained, tmp_path, sources={"touchpoints": touchpoints(value=running)})
    assert (run.code, found["leaks"]) == (0, [])
    assert [(one["file"], one["column"]) for one in found["files"]] == [("log", "known_at")]


@pytest.mark.slow
@pytest.mark.parametrize("static", [True, False])
def test_an_attribute_of_the_whole_log_is_caught_in_a_query(trained: Trained, tmp_path: Path, static: bool) -> None:
    """Silent error 21: static or dated back, the query over the past gives another number."""
    known = {} if static else {"known_at": "known_at"}
    table = {
        "files": {"log": "touchpoints.parquet"},
        "times": "utc",
        "query": "SELECT customer_id, min(occurred_at) AS known_at, median(value) AS worth FROM log GROUP BY ALL",
        "row_times": {"log": "known_at"},
        "columns": {"customer_id": "customer_id", "worth": "worth", **known},
        "static": static,
    }
    registry = {"tracking_uri": f"sqlite:///{tmp_path / 'no.db'}"}
    run, found = audit(trained, tmp_path / "out", attributes=table, mlflow=registry)
    assert run.code == 5
    assert {"attributes.worth", "attribute_worth"} <= names(found, "replay")


@pytest.mark.slow
def test_an_exported_column_dated_back_is_caught_as_backfilled(trained: Trained, tmp_path: Path) -> None:
    """Silent error 21: a file whose rows look honest, and a column that knows the whole log."""
    log = pd.read_parquet(trained.folder / "touchpoints.parquet")
    grouped = log.groupby("customer_id")
    frame = pd.DataFrame({"known_at": grouped["known_at"].min(), "lifetime": grouped.size()}).reset_index()
    frame["age"] = np.arange(len(frame)) % 50
    frame.to_parquet(tmp_path / "dump.parquet")
    columns = {name: name for name in ("customer_id", "known_at", "lifetime", "age")}
    table = {"path": str(tmp_path / "dump.parquet"), "times": "utc", "columns": columns}
    registry = {"tracking_uri": f"sqlite:///{tmp_path / 'no.db'}"}
    run, found = audit(trained, tmp_path / "out", attributes=table, mlflow=registry)
    assert run.code == 5
    assert names(found, "backfill") == {"attribute lifetime is the number of touchpoints of the whole log"}
    assert any("one version, known from their first touchpoint on" in warning for warning in found["warnings"])


@pytest.mark.slow
def test_a_query_that_asks_chance_is_named_and_not_called_a_leak(trained: Trained, tmp_path: Path) -> None:
    run, found = audit(trained, tmp_path, sources={"touchpoints": touchpoints(value="random()")})
    assert (run.code, found["leaks"]) == (0, [])
    assert any("touchpoints.value: the same files give another touchpoint" in one for one in found["warnings"])
    assert any("asks the clock or chance (random)" in one for one in found["warnings"])


@pytest.mark.slow
def test_a_table_of_leaks_holds_no_customer(trained: Trained, tmp_path: Path) -> None:
    file = trained.variant(tmp_path, sources={"touchpoints": touchpoints(value=LEAKY["value"])})
    run = call("audit", file, "--as-of", AS_OF, "--cut-offs", 1)
    assert run.code == 5
    assert "Leaks: answers about the past that change with what came later" in run.out
    assert "touchpoints.value" in run.out
    assert "c0000" not in run.out + run.err


def test_no_cut_off_is_exit_3(trained: Trained, tmp_path: Path) -> None:
    run, _ = audit(trained, tmp_path, burn_in="600d")
    assert run.code == 3
    assert "No cut-off can be drawn" in run.err


# Parts


def test_cut_offs_stand_at_the_time_of_day_of_as_of_and_blocks_are_drawn_whole(trained: Trained) -> None:
    config = trained.config()
    store = ingest(config)
    sample = draw_blocks(store, 1, 1, seed=1)
    assert len(sample.buckets) == 1
    assert draw_blocks(store, 10**6, 1, seed=1).customers == store.customers
    as_of = parse_as_of("2025-06-24T06:30", config.zone)
    drawn = draw_cut_offs(config, sample, as_of, 5, seed=1)
    assert drawn == draw_cut_offs(config, sample, as_of, 5, seed=1) != draw_cut_offs(config, sample, as_of, 5, seed=2)
    assert len(drawn) == 5
    assert all(one < as_of and (as_of - one) % 86_400_000_000 == 0 for one in drawn)


def test_a_planted_feature_is_too_good_and_honest_ones_are_not(trained: Trained) -> None:
    histories = open_histories(trained.config(), Silent())
    panel = training_panel(histories, trained.as_of)
    assert target_leaks(panel) == []
    x, column = panel.x.copy(), panel.definition.catalogue.names.index("attribute_age")
    x[:, column] = -happened_within(panel.labels.times[:, 0], panel.definition.horizons[1]).astype(np.float32)
    (one,) = target_leaks(replace(panel, x=x))
    assert (one.feature, one.target, one.horizon_days) == ("attribute_age", "return", 30)
    assert one.auc > 0.99
    assert one.converters >= 30


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Config]:
    def make(rows: pd.DataFrame, **source: Any) -> Config:
        rows.to_parquet(tmp_path / "log.parquet")
        document = {
            "name": "log",
            "time_zone": "UTC",
            "history_from": "2024-01-01",
            "sources": {"log": {"path": "log.parquet", **source}},
            "journey": {"name": "one", "stages": [{"name": "Buyer", "enter": {"event": "buy"}}]},
            "out": "out",
        }
        (tmp_path / "log.yaml").write_text(yaml.safe_dump(document))
        return load_config(tmp_path / "log.yaml")

    return make


def rows(number: int = 400) -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=number, freq="6h")
    return pd.DataFrame({"customer_id": [str(i % 7) for i in range(number)], "occurred_at": times, "event": "buy"})


def warned(config: Config) -> list[str]:
    store = ingest(config)
    return arrival_warnings(config, store, range(store.buckets))


def test_ordinary_rows_are_not_suspected(log: Callable[..., Config]) -> None:
    assert warned(log(rows().assign(known_at=lambda frame: frame["occurred_at"] + pd.Timedelta(hours=3)))) == []


def test_a_load_a_short_delay_and_a_placeholder_are_told(log: Callable[..., Config]) -> None:
    loaded = rows().assign(known_at=pd.Timestamp("2024-06-01"))
    assert any("in the same second of 2024-06-01" in one for one in warned(log(loaded)))
    late = rows().assign(known_at=lambda frame: frame["occurred_at"] + pd.Timedelta(days=2))
    assert any(
        "400 of 400 rows became known more than arrival_delay (1d)" in one
        for one in warned(log(late, arrival_delay="1d"))
    )
    misdated = rows()
    misdated.loc[0, "occurred_at"] = pd.Timestamp("1970-01-01")
    misdated.loc[1, "occurred_at"] = pd.Timestamp("2099-01-01")
    told = warned(log(misdated))
    assert ["before all others" in told[0], "after all others" in told[1]] == [True, True]


def test_sources_as_they_stood_hold_what_was_visible_and_no_more(log: Callable[..., Config], tmp_path: Path) -> None:
    frame = rows().assign(known_at=lambda frame: frame["occurred_at"] + pd.Timedelta(days=1))
    config = log(frame)
    cut_off = parse_as_of("2024-02-01", config.zone)
    (tmp_path / "work").mkdir()
    truncation = Truncation(config, tmp_path / "work")
    reduced = truncation.before(cut_off)
    assert reduced is not None
    expected = int((frame["known_at"] < pd.Timestamp("2024-02-01")).sum())
    assert ingest(reduced).counts["log"].stored == expected
    assert truncation.before(parse_as_of("1999-01-01", config.zone)) is None


@pytest.mark.parametrize("query", [False, True])
@pytest.mark.parametrize("days", [1, 3])
@pytest.mark.parametrize("asked", ["2024-01-31", "2024-02-01T06:00"])
def test_days_as_they_stood_are_those_that_had_ended(
    log: Callable[..., Config], tmp_path: Path, query: bool, days: int, asked: str
) -> None:
    """Silent error 69: what the store says was visible is what the truncated sources hold, to the last day."""
    frame = rows().assign(occurred_at=lambda frame: frame["occurred_at"].dt.floor("s"))
    if not query:
        frame["occurred_at"] = frame["occurred_at"].dt.date
    config = log(frame, known_after=f"{days}d")
    if query:
        source = config.sources["log"]
        text = "SELECT * REPLACE (CAST(occurred_at AS DATE) AS occurred_at) FROM log"
        read = {"path": None, "query": text, "files": {"log": source.path}}
        config = config.model_copy(update={"sources": {"log": source.model_copy(update=read)}})
    cut_off = parse_as_of(asked, config.zone)
    store = ingest(config)
    visible = sum(int((store.read(i).touchpoints.visible_at < cut_off).sum()) for i in store.buckets_of(None))
    (tmp_path / "work").mkdir()
    reduced = Truncation(config, tmp_path / "work").before(cut_off)
    assert reduced is not None
    assert ingest(reduced).counts["log"].stored == visible > 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_only_time_of_a_file_is_found_and_several_are_not_guessed(
    log: Callable[..., Config], tmp_path: Path, kind: str
) -> None:
    frame = rows().rename(columns={"occurred_at": "at"}).assign(code="2024", later=pd.Timestamp("2024-05-05"))
    file = tmp_path / f"raw.{kind}"
    query = 'SELECT customer_id, CAST("at" AS TIMESTAMP) AS occurred_at, event FROM raw'
    source = {"path": None, "query": query, "files": {"raw": file.name}}

    def found(columns: list[str], **more: Any) -> tuple[str | None, bool]:
        part = frame[columns]
        part.to_csv(file, index=False) if kind == "csv" else part.to_parquet(file)
        work = tmp_path / "-".join(["work", *columns, *more])
        work.mkdir()
        (one,) = Truncation(log(rows(), **source, **more), work).files
        return one.column, one.undecided

    named = ["customer_id", "event", "code", "at"]
    assert found(named) == ("at", False)
    assert found([*named, "later"]) == (None, True)
    assert found([*named, "later"], row_times={"raw": "at"}) == ("at", False)
    with pytest.raises(ConfigError, match=r"row_times.raw: there is no column 'att'. Did you mean 'at'\?"):
        found(named, row_times={"raw": "att"})
    with pytest.raises(ConfigError, match="row_times: 'rawe' is not among the files"):
        log(rows(), **source, row_times={"rawe": "at"})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "as_of"), [("online_retail", "2011-12-09"), ("complete_journey", "2018-01-01")])
def test_real_configurations_pass(
    name: str, as_of: str, dataset: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CVJ_ML_DATA", os.fspath(dataset(name).parent))
    file = Path(__file__).resolve().parents[2] / "configs" / name / "config.yaml"
    document = yaml.safe_load(file.read_text()) | {"out": str(tmp_path / "out")}
    document["mlflow"] = {"tracking_uri": f"sqlite:///{tmp_path / 'none.db'}"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    run = call("audit", tmp_path / "config.yaml", "--as-of", as_of, "--cut-offs", 1, "--customers", 600, "--json")
    assert run.code == 0, run.err
    found = json.loads(run.out)
    assert (found["leaks"], found["warnings"]) == ([], [])
