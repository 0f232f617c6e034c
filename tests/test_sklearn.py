"""The package in scikit-learn: features as a transformer, outcomes as y, folds in time."""

from __future__ import annotations

import doctest
import io
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import validate_data
from tests.oracles.cases import Blocks
from threadpoolctl import threadpool_limits

import cvj_ml.sklearn
from cvj_ml.config import DAY, Config, load_config
from cvj_ml.errors import ConfigError, DataError, ModelError
from cvj_ml.evaluation.folds import rolling
from cvj_ml.inputs import Histories, open_touchpoints
from cvj_ml.journey import Journey
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import Panel, build_panel
from cvj_ml.run import Run, Silent
from cvj_ml.simulate import Simulation, simulate
from cvj_ml.sklearn import JourneyFeatures, TimeFolds, outcomes, snapshots
from cvj_ml.touchpoints import Touchpoints
from cvj_ml.windows import midnight, parse_as_of, to_datetime, to_microseconds

ZONE = ZoneInfo("Europe/London")
MONTHS = [f"2024-{month:02}-01" for month in range(5, 13)] + ["2025-01-01", "2025-02-01", "2025-03-01"]
UNTIL = "2025-05-01"

pytestmark = pytest.mark.filterwarnings("ignore:.* is unobserved:UserWarning")


def touchpoints_of(table: pd.DataFrame, customers: pd.DataFrame, **changes: Any) -> Touchpoints:
    roles: dict[str, Any] = {
        "properties": ["rating"],
        "attributes": customers,
        "attribute_columns": ["country", "age", "plan"],
        "outbound": ["email_sent", "ad_impression"],
        "time_zone": "Europe/London",
        "history_from": "2024-01-01",
        "reading": {"arrival_delay": "2d"},
    }
    return Touchpoints(table, **{**roles, **changes})


@pytest.fixture(scope="module")
def simulated() -> Simulation:
    return simulate(customers=200, seed=4)


@pytest.fixture(scope="module")
def touchpoints(simulated: Simulation) -> Touchpoints:
    return touchpoints_of(simulated.touchpoints, simulated.customers)


@pytest.fixture(scope="module")
def histories(touchpoints: Touchpoints) -> Histories:
    return open_touchpoints(touchpoints, Journey("cvj8"), {}, Silent())


@pytest.fixture(scope="module")
def rows(touchpoints: Touchpoints) -> pd.DataFrame:
    return snapshots(touchpoints, MONTHS)


@pytest.fixture(scope="module")
def panel(histories: Histories) -> Panel:
    """What training would see of the same customers at the same instants."""
    instants = np.array([parse_as_of(day, ZONE) for day in MONTHS], dtype=np.int64)
    config, store = histories.config, histories.store
    definition = define(config, histories.visible.journey, histories.engine(), int(instants[-1]))
    return build_panel(definition, histories.engine(), instants, parse_as_of(UNTIL, ZONE), store.arrival_delay)


def same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)


# What the answers are.


def test_rows_are_the_snapshots_of_the_panel(rows: pd.DataFrame, panel: Panel) -> None:
    assert rows["customer_id"].tolist() == [panel.names[i] for i in panel.customer]
    assert [stamp.value // 1000 for stamp in rows["as_of"].dt.as_unit("ns")] == panel.as_of.tolist()
    assert str(rows["as_of"].dt.tz) == "Europe/London"


def test_features_are_those_of_the_panel_in_the_order_of_the_rows(
    touchpoints: Touchpoints, rows: pd.DataFrame, panel: Panel
) -> None:
    order = np.random.default_rng(1).permutation(len(rows))
    features = JourneyFeatures(touchpoints)
    x = features.fit_transform(rows.iloc[order])
    assert x.dtype == np.float32
    assert same(x, panel.x[order][:, features.known_])
    assert np.isnan(panel.x[:, ~features.known_]).all()
    names = np.array(panel.definition.catalogue.names)
    assert features.get_feature_names_out().tolist() == names[features.known_].tolist()
    assert same(JourneyFeatures(touchpoints).fit(rows).transform(rows.iloc[order]), x)
    # Repeated rows, and any part of them.
    some = rows.iloc[[5, 3, 5, 70]]
    assert same(features.transform(some), panel.x[[5, 3, 5, 70]][:, features.known_])


@pytest.mark.parametrize("to", ["return", "Ascend", "Promote"])
@pytest.mark.parametrize("horizon", [7, 90])
def test_outcomes_are_the_labels_of_the_panel(
    touchpoints: Touchpoints, rows: pd.DataFrame, panel: Panel, to: str, horizon: int
) -> None:
    y = outcomes(rows, touchpoints, to=to, horizon=f"{horizon}d", until=UNTIL)
    target = 0 if to == "return" else 1 + panel.definition.journey.index(to)
    times, asked = panel.labels.times[:, target], panel.labels.at_risk[:, target]
    whole = panel.as_of + (horizon + 2) * DAY <= parse_as_of(UNTIL, ZONE)
    assert same(np.isnan(y), ~(asked & whole))
    assert same(y[asked & whole], (times < horizon * DAY)[asked & whole].astype(float))
    assert 0 < np.nanmean(y) < 1
    if horizon == 90:
        assert whole.any() and not whole.all()


def test_a_config_gives_the_features_of_its_touchpoints(
    simulated: Simulation, touchpoints: Touchpoints, rows: pd.DataFrame, tmp_path: Path
) -> None:
    simulated.write(tmp_path)
    columns = ["customer_id", "occurred_at", "known_at", "touchpoint_id", "event", "channel", "value", "rating"]
    document = {
        "name": "shop",
        "time_zone": "Europe/London",
        "history_from": "2024-01-01",
        "sources": {"log": {"path": "touchpoints.parquet", "columns": {one: one for one in columns}}},
        "attributes": {
            "path": "customers.parquet",
            "columns": {one: one for one in ("customer_id", "known_at", "country", "age", "plan")},
        },
        "outbound": ["email_sent", "ad_impression"],
        "journey": "cvj8",
    }
    document["sources"]["log"]["times"] = document["attributes"]["times"] = "utc"  # type: ignore[index]
    (tmp_path / "shop.yaml").write_text(json.dumps(document))
    features = JourneyFeatures(load_config(tmp_path / "shop.yaml"))
    assert same(features.fit_transform(rows), JourneyFeatures(touchpoints).fit_transform(rows))
    assert isinstance(clone(features).touchpoints, Config)
    with pytest.raises(ConfigError, match="a journey and settings of its own"):
        clone(features).set_params(journey="cvj8").fit(rows)


def test_settings_are_those_of_a_configuration(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    changed = JourneyFeatures(touchpoints, settings={"features": {"windows": ["14d"], "trend": "14d"}})
    names = changed.fit(rows).get_feature_names_out()
    assert any("14d" in name for name in names) and not any("30d" in name for name in names)
    for wrong in ({"feature": {}}, {"horizons": ["30d"]}):
        with pytest.raises(ConfigError, match=r"settings: .* changes nothing here"):
            JourneyFeatures(touchpoints, settings=wrong).fit(rows)
    with pytest.raises(ConfigError, match=r"touchpoints: give Touchpoints.*found DataFrame"):
        JourneyFeatures(rows).fit(rows)


# What they do not know.


def test_what_comes_later_changes_nothing(simulated: Simulation, rows: pd.DataFrame) -> None:
    """Silent errors 3 and 4: another future, with names of its own, leaves names and numbers as they are."""
    cut = pd.Timestamp("2024-09-01", tz="Europe/London")
    early = rows[rows["as_of"] <= cut]
    table = simulated.touchpoints
    past = table[table["known_at"].fillna(table["occurred_at"]) < cut]
    future = table[table["occurred_at"] >= cut]
    other = future.assign(
        event=np.random.default_rng(2).permutation(future["event"]),
        channel="a channel of the future",
        value=future["value"] * 7,
        touchpoint_id="other-" + future["touchpoint_id"],
    )
    novel = other.assign(event="an event of the future", touchpoint_id="new-" + other["touchpoint_id"])
    answers = []
    for one in (table, pd.concat([past, other, novel])):
        features = JourneyFeatures(touchpoints_of(one, simulated.customers))
        answers.append((features.fit_transform(early), features.get_feature_names_out().tolist(), features))
    assert same(answers[0][0], answers[1][0])
    assert answers[0][1] == answers[1][1]
    # Asked about later rows, what was learned before stays: the new names are others.
    assert answers[1][2].fit(early).get_feature_names_out().tolist() == answers[0][1]
    assert any("future" in name for name in answers[1][2].fit(rows).get_feature_names_out())


def test_names_are_those_of_the_training_customers(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    """Of fewer than min_customers (20) no name is told: the vocabulary is learned from nobody but those of X."""
    few = rows[rows["customer_id"].isin(rows["customer_id"].unique()[:15])]
    assert JourneyFeatures(touchpoints).fit(few).definition_.catalogue.vocabulary.events == ()
    assert JourneyFeatures(touchpoints).fit(rows).definition_.catalogue.vocabulary.events


def test_rows_of_whom_nothing_was_known_are_an_error(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    features = JourneyFeatures(touchpoints).fit(rows)
    wrong = pd.DataFrame({"customer_id": ["nobody", "no one", *rows["customer_id"][:3]], "as_of": ["2024-01-01"] * 5})
    for ask in (features.transform, lambda x: outcomes(x, touchpoints, to="return", horizon="7d", until=UNTIL)):
        with pytest.raises(DataError) as raised:
            ask(pd.concat([wrong, rows.astype({"as_of": object})]))
        assert f"Of {len(rows) + 5:,} rows, 5 ask about" in str(raised.value)
        assert "2 of customers who have no touchpoint at all" in str(raised.value)
        assert "3 of customers whose first touchpoint was not yet visible" in str(raised.value)
        assert "nobody" not in str(raised.value).split("snapshots")[1], "no id is told"


# How rows are written.


def test_frames_of_any_kind_and_times_of_any_kind(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    features = JourneyFeatures(touchpoints).fit(rows)
    day = rows[rows["as_of"] == pd.Timestamp("2024-07-01", tz="Europe/London")]
    expected = features.transform(day)
    naive = day.assign(as_of=pd.Timestamp("2024-07-01"))
    midnight_there = datetime(2024, 6, 30, 23, tzinfo=UTC)
    for written in ("2024-07-01", "2024-07-01T00:00", "2024-06-30T23:00Z", date(2024, 7, 1), midnight_there):
        assert same(features.transform(day.assign(as_of=written)), expected)
    mixed = naive.astype({"as_of": object})
    mixed.iloc[0, 1] = "2024-07-01"
    for frame in (naive, mixed, day.assign(more="ignored"), pl.from_pandas(naive), pa.Table.from_pandas(naive)):
        assert same(features.transform(frame), expected)
    assert features.transform(day.iloc[:0]).shape == (0, expected.shape[1])


def test_faults_of_rows_are_told_at_once_and_without_a_customer(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    features = JourneyFeatures(touchpoints)
    frame = pd.DataFrame({"customer_id": ["secret", None, 1.5], "as_of": ["soon", "2024-05-01", None]}, dtype=object)
    with pytest.raises(DataError) as raised:
        features.fit(frame)
    assert "customer_id of 2 row(s)" in str(raised.value) and "as_of of 2 row(s)" in str(raised.value)
    assert "secret" not in str(raised.value)
    for wrong, told in (
        (rows.rename(columns={"as_of": "as_off"}), "there is no column 'as_of'. Did you mean 'as_off'?"),
        (rows.set_index("as_of"), "'as_of' is the index and no column"),
        (pd.concat([rows, rows[["as_of"]]], axis=1), "several columns are called 'as_of'"),
        (rows.to_numpy(), "X is a frame of pandas, Polars or Arrow"),
        (None, "found NoneType"),
    ):
        with pytest.raises(ConfigError) as told_of:
            features.fit(wrong)
        assert told in str(told_of.value)
    with pytest.raises(DataError, match="X has no rows"):
        features.fit(rows.iloc[:0])


def test_questions_that_cannot_be_asked(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    with pytest.raises(ConfigError) as raised:
        outcomes(rows, touchpoints, to="Ascent", horizon="soon", until="later")
    assert "Did you mean 'Ascend'?" in str(raised.value)
    assert "horizon: 'soon' is not a duration" in str(raised.value) and "until" in str(raised.value)
    hidden = Journey("cvj8", unobserved=["Promote"])
    with pytest.raises(ConfigError, match="Promote is unobserved"):
        outcomes(rows, touchpoints, hidden, to="Promote", horizon="7d", until=UNTIL)
    with pytest.raises(DataError, match="as_of of 1 row"):
        snapshots(touchpoints, ["2024-05-01", "May"])


def test_ids_are_read_as_in_every_table() -> None:
    table = pd.DataFrame({"customer_id": [7, 7, 8], "occurred_at": ["2024-01-01", "2024-02-01", "2024-01-05"]})
    log = Touchpoints(table, constants={"event": "order"})
    journey = Journey({"Buyer": {"event": "order"}})
    features = JourneyFeatures(log, journey)
    x = features.fit_transform(pd.DataFrame({"customer_id": ["7", "8"], "as_of": ["2024-03-01"] * 2}))
    for ids in ([7, 8], [7.0, 8.0]):
        assert same(features.transform(pd.DataFrame({"customer_id": ids, "as_of": ["2024-03-01"] * 2})), x)
    trimmed = JourneyFeatures(log, journey, settings={"ids": {"match": "trimmed"}})
    assert same(trimmed.fit_transform(pd.DataFrame({"customer_id": [" 7", "8 "], "as_of": ["2024-03-01"] * 2})), x)


# Conventions of scikit-learn.


def test_names_and_frames_come_out(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    some = rows.set_axis(range(100, 100 + len(rows)))
    features = JourneyFeatures(touchpoints)
    with pytest.raises(NotFittedError):
        features.get_feature_names_out()
    with pytest.raises(NotFittedError):
        features.transform(some)
    x = features.fit_transform(some)
    frame = features.set_output(transform="pandas").fit_transform(some)
    assert frame.columns.tolist() == features.get_feature_names_out().tolist()
    assert frame.index.equals(some.index) and same(frame.to_numpy(), x)
    of_polars = features.set_output(transform="polars").transform(pl.from_pandas(rows))
    assert isinstance(of_polars, pl.DataFrame) and same(of_polars.to_numpy(), x)
    assert features.n_features_in_ == len(features.feature_names_in_) == 2


def test_a_clone_has_the_same_touchpoints_and_nothing_that_was_learned(
    touchpoints: Touchpoints, rows: pd.DataFrame
) -> None:
    fitted = JourneyFeatures(touchpoints, {"Buyer": {"event": "purchase"}}, settings={"burn_in": "60d"}).fit(rows)
    cloned = clone(fitted)
    assert cloned.touchpoints is touchpoints and cloned.journey == fitted.journey
    assert not hasattr(cloned, "definition_")
    assert same(cloned.fit(rows).transform(rows), fitted.transform(rows))


@pytest.mark.slow
def test_a_pickle_holds_what_was_learned_and_no_customer(
    simulated: Simulation, rows: pd.DataFrame, tmp_path: Path
) -> None:
    table = simulated.touchpoints
    fitted = JourneyFeatures(touchpoints_of(table, simulated.customers)).fit(rows)
    x = fitted.transform(rows)
    content = io.BytesIO()
    joblib.dump(fitted, content)
    assert not [one for one in rows["customer_id"].unique() if one.encode() in content.getvalue()]
    again = joblib.load(io.BytesIO(content.getvalue()))
    assert same(again.transform(rows), x), "the rows are still there"
    del fitted
    lonely = joblib.load(io.BytesIO(content.getvalue()))
    with pytest.raises(DataError, match="rows of these touchpoints are gone"):
        lonely.transform(rows)
    assert same(lonely.set_params(touchpoints=touchpoints_of(table, simulated.customers)).transform(rows), x)
    # In another process, which is given a few customers of today.
    one = rows[rows["customer_id"] == rows["customer_id"].iloc[-1]]
    (tmp_path / "fitted").write_bytes(content.getvalue())
    table[table["customer_id"].isin(one["customer_id"])].to_parquet(tmp_path / "few.parquet")
    simulated.customers.to_parquet(tmp_path / "customers.parquet")
    one.to_parquet(tmp_path / "rows.parquet")
    script = f"""if True:
        import joblib, numpy, pandas
        from cvj_ml.touchpoints import Touchpoints
        log = Touchpoints(pandas.read_parquet("few.parquet"), properties=["rating"], time_zone="Europe/London",
            attributes=pandas.read_parquet("customers.parquet"), attribute_columns=["country", "age", "plan"],
            outbound={("email_sent", "ad_impression")!r}, history_from="2024-01-01")
        fitted = joblib.load("fitted").set_params(touchpoints=log)
        numpy.save("x.npy", fitted.transform(pandas.read_parquet("rows.parquet")))
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(cvj_ml.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert same(np.load(tmp_path / "x.npy"), x[rows["customer_id"] == one["customer_id"].iloc[0]])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"history_from": "2024-03-01"}, "the history begins on 2024-03-01, that of the fit on 2024-01-01"),
        ({"time_zone": "UTC"}, "the time zone differs"),
        ({"outbound": []}, "other events are outbound"),
        ({"attribute_columns": ["age"]}, "there is no country, no plan"),
        ({"value_decimals": 3}, "value_decimals differ"),
    ],
)
def test_touchpoints_unlike_those_of_the_fit_are_refused(
    touchpoints: Touchpoints, simulated: Simulation, rows: pd.DataFrame, changes: dict[str, Any], told: str
) -> None:
    fitted = JourneyFeatures(touchpoints).fit(rows)
    other = touchpoints_of(simulated.touchpoints, simulated.customers, **changes)
    with pytest.raises(ModelError) as raised:
        fitted.set_params(touchpoints=other).transform(rows)
    assert told in str(raised.value)
    assert str(raised.value).count("\n  - ") == 1


@pytest.mark.slow
def test_a_pipeline_is_cross_validated_in_time(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    y = outcomes(rows, touchpoints, to="return", horizon="30d", until=UNTIL)
    x, y = rows[~np.isnan(y)], y[~np.isnan(y)]
    folds = TimeFolds(2, horizon="30d", arrival_delay="2d", time_zone="Europe/London")

    def judged(frame: Any, *steps: Any) -> npt.NDArray[np.float64]:
        pipeline = make_pipeline(JourneyFeatures(touchpoints), *steps)
        found = cross_validate(pipeline, frame, y, cv=folds, scoring="roc_auc", error_score="raise")["test_score"]
        assert found.shape == (2,) and (found > 0.75).all()
        return np.asarray(found)

    trees = HistGradientBoostingClassifier(max_iter=5, random_state=1)
    # One thread: on a busy machine those of OpenMP wait for each other.
    with threadpool_limits(1):
        by_trees = judged(x, trees)
        judged(x, SimpleImputer(), StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        assert same(judged(pl.from_pandas(x), trees), by_trees)
        search = GridSearchCV(
            make_pipeline(JourneyFeatures(touchpoints), trees),
            {"journeyfeatures__settings": [None, {"features": {"windows": ["7d"]}}]},
            cv=folds,
            scoring="roc_auc",
            error_score="raise",
        ).fit(x, y)
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(by_trees.mean())


@pytest.mark.slow
def test_processes_read_the_same_touchpoints(touchpoints: Touchpoints, rows: pd.DataFrame) -> None:
    y = outcomes(rows, touchpoints, to="return", horizon="30d", until=UNTIL)
    x, y = rows[~np.isnan(y)], y[~np.isnan(y)]
    pipeline = make_pipeline(JourneyFeatures(touchpoints), HistGradientBoostingClassifier(max_iter=5, random_state=1))
    scores = [
        cross_validate(
            pipeline, x, y, cv=TimeFolds(2, horizon="30d"), scoring="roc_auc", n_jobs=jobs, error_score="raise"
        )["test_score"]
        for jobs in (None, 2)
    ]
    assert same(*scores)


# Scikit-learn's own checks, which make up numbers: each row of numbers stands for a row (customer_id, as_of).


class OnNumbers(JourneyFeatures):
    """`JourneyFeatures` behind numbers; what the checks ask about arrays of numbers is answered here, not there."""

    def rows_of(self, X: Any, *, reset: bool) -> pd.DataFrame:
        numbers = validate_data(self, X, reset=reset, dtype=np.float64)
        keys = [sum(one.tobytes()) for one in numbers.round(6)]
        names = [f"c{1 + key % 40:06}" for key in keys]
        return pd.DataFrame({"customer_id": names, "as_of": [MONTHS[key % len(MONTHS)] for key in keys]})

    def _learn(self, X: Any) -> Any:
        rows = self.rows_of(X, reset=True)
        width = self.n_features_in_
        x = super()._learn(rows)
        self.n_features_in_ = width
        del self.feature_names_in_  # numbers have no names
        return x

    def transform(self, X: Any) -> Any:
        return super().transform(self.rows_of(X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags


NOT_OURS = dict.fromkeys(
    [
        "check_complex_data",
        "check_dtype_object",
        "check_estimators_empty_data_messages",
        "check_estimators_nan_inf",
        "check_estimator_sparse_array",
        "check_estimator_sparse_matrix",
        "check_estimator_sparse_tag",
        "check_f_contiguous_array_estimator",
        "check_fit1d",
        "check_fit2d_1feature",
        "check_fit2d_predict1d",
        "check_n_features_in",
        "check_n_features_in_after_fitting",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
    ],
    "asks how arrays of numbers are taken, and X holds ids and times; of those, see the faults of rows above",
) | {
    "check_array_api_input": "asks for arrays on other devices, and X holds ids and times",
    "check_array_api_same_namespace": "asks for arrays on other devices, and X holds ids and times",
}
CHECKS = [check for _, check in estimator_checks_generator(OnNumbers(None))]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def early_customers() -> Touchpoints:
    """Forty customers, all of whom something was known of before any instant of the checks."""
    table = simulate(customers=60, seed=4).touchpoints.drop(columns=["touchpoint_id", "known_at"])
    first = table.drop_duplicates("customer_id").assign(occurred_at=pd.Timestamp("2024-01-02", tz="UTC"))
    return Touchpoints(pd.concat([first, table]), properties=["rating"], time_zone="Europe/London")


@pytest.mark.parametrize(
    "check",
    [one for one in CHECKS if one.func.__name__ not in NOT_OURS],
    ids=lambda one: "-".join([one.func.__name__, *map(str, one.keywords.values())]),
)
def test_the_checks_of_scikit_learn_pass(check: Any, early_customers: Touchpoints) -> None:
    check(OnNumbers(early_customers))


def test_checks_that_are_left_out_exist() -> None:
    names = {check.func.__name__ for check in CHECKS}
    # Which checks of devices there are depends on the version.
    assert {name for name in NOT_OURS if "array_api" not in name} <= names
    assert len(names - {*NOT_OURS}) >= 25


# Folds.


def instants_of(x: pd.DataFrame) -> npt.NDArray[np.int64]:
    return np.array([parse_as_of(str(day), ZONE) for day in x["as_of"]], dtype=np.int64)


@settings(max_examples=150)
@given(
    days=st.lists(st.integers(0, 200), min_size=1, max_size=60),
    n_splits=st.integers(1, 4),
    horizon=st.integers(1, 60),
    delay=st.integers(0, 9),
)
def test_no_outcome_of_a_training_row_reaches_beyond_the_fold(
    days: list[int], n_splits: int, horizon: int, delay: int
) -> None:
    """Silent errors 2 and 18, over both changes of the clock."""
    first = date(2024, 2, 15)
    x = pd.DataFrame({"as_of": [first + pd.Timedelta(days=day) for day in days], "customer_id": "c"})
    as_of = instants_of(x)
    folds = TimeFolds(n_splits, horizon=f"{horizon}d", arrival_delay=f"{delay}d", time_zone="Europe/London")
    needed = (horizon + delay) * DAY
    # Greedily, from the last day on, as the definition says it.
    expected, possible = list[int](), sorted(set(days))
    while possible and len(expected) < n_splits:
        day = possible[-1]
        if not (as_of + needed <= midnight(first + pd.Timedelta(days=day), ZONE)).any():
            break
        expected.insert(0, day)
        possible = [one for one in possible if one <= day - horizon]
    if len(expected) < n_splits:
        with pytest.raises(ConfigError, match=f"enough for {len(expected)} fold"):
            list(folds.split(x))
        return
    found = list(folds.split(x))
    assert len(found) == folds.get_n_splits(x) == n_splits
    for day, (train, test) in zip(expected, found, strict=True):
        cut = midnight(first + pd.Timedelta(days=day), ZONE)
        assert len(train) and len(test)
        assert (as_of[test] == cut).all() and (as_of == cut).sum() == len(test)
        assert (as_of[train] + needed <= cut).all() and (as_of + needed <= cut).sum() == len(train)


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("until", ["2024-11-15", "2025-01-01", "2025-06-10"])
def test_folds_stand_where_those_of_a_backtest_stand(until: str, delay: int) -> None:
    config = Config.model_validate(
        {
            "name": "shop",
            "time_zone": "Europe/London",
            "history_from": "2023-06-01",
            "sources": {"log": {"path": "log.csv"}},
            "journey": "cvj8",
            "horizons": ["7d", "30d"],
        }
    )
    run = Run(config, Journey(config.journey), Blocks([]), delay * DAY, 1)
    backtest = rolling(run, parse_as_of(until, ZONE), 6)
    assert len(backtest) == 6
    grid = pd.date_range("2023-08-30", to_datetime(backtest[-1].cut, ZONE).date(), freq="D", tz=ZONE)
    x = pd.DataFrame({"as_of": grid, "customer_id": "c"})
    folds = TimeFolds(6, horizon="30d", arrival_delay=f"{delay}d", time_zone="Europe/London")
    cuts = [to_microseconds(grid[test[0]].to_pydatetime()) for _, test in folds.split(x)]
    assert cuts == [one.cut for one in backtest]


def test_folds_say_what_is_missing() -> None:
    x = pd.DataFrame({"customer_id": "c", "as_of": pd.date_range("2024-01-01", "2024-06-01", freq="MS")})
    assert [x["as_of"][test].tolist() for _, test in TimeFolds(2, horizon="30d").split(x)] == [
        [pd.Timestamp("2024-05-01")],
        [pd.Timestamp("2024-06-01")],
    ]
    with pytest.raises(ConfigError) as raised:
        list(TimeFolds(5, horizon="30d", arrival_delay="2d").split(x))
    assert "6 instant(s), 2024-01-01 to 2024-06-01, enough for 4 fold(s)" in str(raised.value)
    assert "A fold at 2024-01-01 has nothing to train on" in str(raised.value)
    assert "rows at 2023-11-30 or before" in str(raised.value)
    with pytest.raises(ConfigError, match="has no rows"):
        list(TimeFolds(1, horizon="30d").split(x.iloc[:0]))
    with pytest.raises(ConfigError, match="no column 'as_of'"):
        list(TimeFolds(1, horizon="30d").split(x[["customer_id"]]))
    with pytest.raises(DataError, match="as_of of 1 row"):
        list(TimeFolds(1, horizon="30d").split(pd.DataFrame({"as_of": ["2024-01-01", None]})))
    with pytest.raises(ConfigError) as wrong:
        list(TimeFolds(0, horizon="36h", arrival_delay="soon", time_zone="Mars").split(x))
    assert str(wrong.value).count("\n  - ") == 4
    assert repr(TimeFolds(2, horizon="30d")) == (
        "TimeFolds(arrival_delay='0d', horizon='30d', n_splits=2, time_zone='UTC')"
    )


def test_the_examples_of_the_module_run() -> None:
    found = doctest.testmod(cvj_ml.sklearn)
    assert found.attempted and not found.failed
