"""What MLflow registers is used from MLflow: loaded, served and in Spark, with the night's scores to the last bit."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from tests import spark
from tests.mlflow_server import scoring_server, tracking_server
from tests.trained import AS_OF, SETTINGS, Trained, call

from cvj_ml.errors import ConfigError, DataError
from cvj_ml.models.bundle.bundle import Bundle
from cvj_ml.scoring.frames import tables_of
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.scoring.serving import interface_of, score_frame

pytest_plugins = ["tests.fixtures"]

Change = Callable[[pd.DataFrame], pd.DataFrame]


def rows_of(folder: Path) -> pd.DataFrame:
    """Both tables in one frame, as their files hold them."""
    touchpoints = pd.read_parquet(folder / "touchpoints.parquet").assign(table="touchpoints")
    attributes = pd.read_parquet(folder / "customers.parquet").assign(table="attributes")
    return pd.concat([touchpoints, attributes], ignore_index=True)


def as_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows as JSON can hold them: times as text with an offset, and null."""
    written = rows.astype(object).where(rows.notna(), None)
    for name in ("occurred_at", "known_at"):
        local = rows[name].dt.tz_convert("Asia/Tokyo")
        written[name] = pd.Series([None if pd.isna(one) else one.isoformat() for one in local], dtype=object)
    return written


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal to the last bit, in whatever form instants and the names of stages travelled."""
    assert list(found.columns) == list(expected.columns)
    for name in expected.columns:
        if expected[name].dtype == np.float64:
            np.testing.assert_array_equal(found[name].to_numpy(np.float64, na_value=np.nan), expected[name].to_numpy())
        elif name in ("as_of", "next_purchase"):
            told = found[name].where(found[name].notna() & (found[name].astype(str) != ""), None)
            # Arrow names the zone by another object where pytz is installed, and `equals` asks for the same one.
            ours, theirs = (
                pd.to_datetime(one, utc=True, format="ISO8601").dt.as_unit("us").dt.tz_convert("UTC")
                for one in (told, expected[name])
            )
            assert ours.equals(theirs), name
        else:
            ours, theirs = (
                [list(one) if isinstance(one, list | np.ndarray) else None if pd.isna(one) else one for one in column]
                for column in (found[name], expected[name])
            )
            assert ours == theirs, name


@pytest.fixture(scope="module")
def bundle(trained: Trained) -> Bundle:
    return open_bundle(trained.bundle)


@pytest.fixture(scope="module")
def rows(trained: Trained) -> pd.DataFrame:
    return rows_of(trained.folder)


@pytest.fixture(scope="module")
def scores(bundle: Bundle, rows: pd.DataFrame) -> pd.DataFrame:
    return score_frame(bundle, rows, AS_OF)


def night_of(file: Path, out: Path) -> pd.DataFrame:
    """The SCORES that a night publishes."""
    published = call("nightly", file, "--as-of", AS_OF)
    assert published.code == 0, published.err
    (found,) = out.rglob("scores/*.parquet")
    return pq.read_table(found, partitioning=None).to_pandas()


def test_a_frame_is_scored_as_the_night_scores_it(trained: Trained, scores: pd.DataFrame, tmp_path: Path) -> None:
    expected = night_of(trained.variant(tmp_path), tmp_path)
    pd.testing.assert_frame_equal(scores, expected, check_exact=True)


@pytest.fixture(scope="module")
def few(rows: pd.DataFrame) -> pd.DataFrame:
    """Ten customers, at whole seconds, so that no unit loses anything."""
    chosen = rows[rows["customer_id"] < "c000010"]
    return chosen.assign(**{name: chosen[name].dt.floor("s") for name in ("occurred_at", "known_at")})


@pytest.fixture(scope="module")
def scores_of_few(bundle: Bundle, few: pd.DataFrame) -> pd.DataFrame:
    return score_frame(bundle, few, AS_OF)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/St_Johns"])
def test_times_are_read_in_any_unit_and_zone_and_naive_ones_are_utc(
    bundle: Bundle, few: pd.DataFrame, scores_of_few: pd.DataFrame, unit: str, zone: str | None
) -> None:
    turned = {name: few[name].dt.tz_convert(zone).dt.as_unit(unit) for name in ("occurred_at", "known_at")}
    pd.testing.assert_frame_equal(score_frame(bundle, few.assign(**turned), AS_OF), scores_of_few, check_exact=True)


def test_times_are_read_as_text_and_as_objects(bundle: Bundle, rows: pd.DataFrame, scores: pd.DataFrame) -> None:
    same(score_frame(bundle, as_text(rows), AS_OF), scores)
    objects = rows.assign(occurred_at=[one.to_pydatetime() for one in rows["occurred_at"]])
    same(score_frame(bundle, objects, AS_OF), scores)


def test_whole_numbers_and_the_order_of_rows_and_columns_change_nothing(
    bundle: Bundle, rows: pd.DataFrame, scores: pd.DataFrame
) -> None:
    shuffled = rows.sample(frac=1, random_state=3)[sorted(rows.columns)]
    whole = shuffled.assign(rating=shuffled["rating"].astype("Int64"), age=shuffled["age"].astype("Int64"))
    same(score_frame(bundle, whole.assign(colour="red"), AS_OF), scores)


def test_a_row_a_customer_is_answered_row_by_row(bundle: Bundle, rows: pd.DataFrame, scores: pd.DataFrame) -> None:
    """In the order of the question, and empty for who has no touchpoint yet."""
    lists = [
        {"customer_id": name, "rows": part.drop(columns="customer_id").to_dict("records")}
        for name, part in as_text(rows).groupby("customer_id")
    ]
    asked = pd.DataFrame([*reversed(lists), {"customer_id": "nobody", "rows": []}])
    found = score_frame(bundle, asked, AS_OF)
    assert found["customer_id"].tolist() == asked["customer_id"].tolist()
    same(found[:-1][::-1].reset_index(drop=True), scores)
    assert found.iloc[-1].drop(["customer_id", "as_of"]).isna().all()
    assert (found["as_of"] == scores["as_of"][0]).all()
    only_attributes = [{"table": "attributes", "customer_id": "c000001", "known_at": "2025-01-01"}]
    for nothing in ([], only_attributes):
        silent = score_frame(bundle, pd.DataFrame({"customer_id": ["c000001"], "rows": [nothing]}), AS_OF)
        assert silent["stage"].isna().all() and len(silent) == 1


def dropped(*names: str) -> Change:
    return lambda rows: rows.drop(columns=list(names))


def changed(name: str, value: object) -> Change:
    return lambda rows: rows.astype({name: object}).assign(**{name: [value, *rows[name][1:]]})


WRONG: dict[str, tuple[Change, str]] = {
    "no table": (dropped("table"), r"no column 'table', and the model uses attributes"),
    "unknown table": (changed("table", "clicks"), r"1 row\(s\) name another table"),
    "no attributes": (lambda rows: rows[rows["table"] == "touchpoints"], r"there is no row of attributes"),
    "no attribute of one": (
        lambda rows: rows[(rows["table"] == "touchpoints") | (rows["customer_id"] != "c000003")],
        r"1 of 120 customer\(s\) have no row of attributes",
    ),
    "a column of the attributes": (dropped("plan", "age"), r"(?s)'age' for the attributes.*'plan' for the attributes"),
    "a property of a rule": (dropped("rating"), r"no column 'rating' for the touchpoints"),
    "when it was known": (dropped("known_at"), r"no column 'known_at' for the touchpoints"),
    "the channel": (
        lambda rows: rows.rename(columns={"channel": "chanel"}),
        r"'channel' for the touchpoints.*'chanel'",
    ),
    "the value": (dropped("value"), r"no column 'value' for the touchpoints"),
    "no touchpoints": (lambda rows: rows[rows["table"] == "attributes"], r"there is no row of touchpoints"),
    "no rows": (lambda rows: rows[:0], r"there is no row of touchpoints"),
    "a time that is none": (changed("occurred_at", "yesterday"), r"unreadable occurred_at: 1"),
    "a number as time": (changed("occurred_at", 17), r"occurred_at of the touchpoints holds what is no time"),
    "a null time": (changed("known_at", None), r"no known_at: 1"),
    "text in a number": (changed("rating", "five"), r"rating of the touchpoints mixes types"),
    "numbers in text": (lambda rows: rows.assign(plan=1.5), r"plan of the attributes holds double, and the model"),
    "lists": (lambda rows: rows.assign(channel=[[1]] * len(rows)), r"channel of the touchpoints holds list"),
    "no customer": (changed("customer_id", None), r"no customer_id: 1"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_the_model_needs_and_is_not_there_is_an_error(bundle: Bundle, rows: pd.DataFrame, fault: str) -> None:
    change, words = WRONG[fault]
    with pytest.raises(DataError, match=words) as raised:
        score_frame(bundle, change(rows), AS_OF)
    assert "c000" not in str(raised.value)


def learned_otherwise(bundle: Bundle, **vocabulary: Any) -> Bundle:
    """The same model with another memory of what training found."""
    definition = bundle.predictor.definition
    catalogue = replace(definition.catalogue, vocabulary=replace(definition.catalogue.vocabulary, **vocabulary))
    return replace(bundle, predictor=replace(bundle.predictor, definition=replace(definition, catalogue=catalogue)))


def test_a_day_is_no_midnight(bundle: Bundle, few: pd.DataFrame) -> None:
    """Where training knew days without hours, a timestamp at midnight could be either."""
    columns = {**bundle.predictor.definition.catalogue.vocabulary.columns, "date_only": "instants"}
    learned = learned_otherwise(bundle, columns=columns)
    days = few.assign(occurred_at=few["occurred_at"].dt.floor("D"))
    score_frame(bundle, days, AS_OF)
    with pytest.raises(DataError, match=r"timestamp\(s\) stand at midnight"):
        score_frame(learned, days, AS_OF)
    written = days.assign(occurred_at=days["occurred_at"].dt.strftime("%Y-%m-%d"))
    objects = days.assign(occurred_at=[None if pd.isna(one) else one.date() for one in days["occurred_at"]])
    expected = score_frame(learned, written, AS_OF)
    pd.testing.assert_frame_equal(score_frame(learned, objects, AS_OF), expected, check_exact=True)


def test_a_model_without_attributes_asks_for_touchpoints_alone(bundle: Bundle, few: pd.DataFrame) -> None:
    definition = learned_otherwise(bundle, numbers=(), categories={}).predictor.definition
    touchpoints = few[few["table"] == "touchpoints"]
    plain = tables_of(definition, touchpoints.drop(columns=["table", "plan", "age", "country"]))
    assert plain.keys() == {"touchpoints"} and plain == tables_of(definition, few)


def test_static_attributes_need_no_time(bundle: Bundle, few: pd.DataFrame) -> None:
    definition = learned_otherwise(bundle, static=True).predictor.definition
    timeless = few.assign(known_at=few["known_at"].where(few["table"] == "touchpoints"))
    assert "known_at" not in tables_of(definition, timeless)["attributes"].column_names


def test_rows_in_a_list_are_one_customers(bundle: Bundle) -> None:
    row = {"customer_id": "b", "table": "touchpoints", "occurred_at": "2025-01-01", "event": "visit"}
    with pytest.raises(DataError, match=r"(?s)1 row\(s\) repeat a customer.*2 row\(s\) stand in the list of another"):
        score_frame(bundle, pd.DataFrame({"customer_id": ["a", "a"], "rows": [[row], [row]]}), AS_OF)
    with pytest.raises(DataError, match="every row has a customer_id"):
        score_frame(bundle, pd.DataFrame({"rows": [[row]]}), AS_OF)


def test_the_example_is_scored_as_the_canary(bundle: Bundle) -> None:
    interface = interface_of(bundle)
    canary = bundle.canary.scores.to_pandas().set_index("customer_id")
    found = score_frame(bundle, interface.example, interface.as_of)
    assert 1 <= len(found) <= 2 and list(found.columns) == list(interface.scores.columns)
    expected = canary.loc[found["customer_id"]].reset_index()
    pd.testing.assert_frame_equal(found.drop(columns="model_version"), expected, check_exact=True)


@dataclass(frozen=True)
class Registered:
    """A registry behind a server, the rows that its champion was trained on, and the scores of the night."""

    registry: str
    model: str
    rows: pd.DataFrame
    scores: pd.DataFrame


@pytest.fixture(scope="module")
def registered(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    """A model trained against a real server, whose attributes also say whose tracking is complete."""
    folder = tmp_path_factory.mktemp("registered")
    with tracking_server(folder) as registry:
        file = folder / "served.yaml"
        settings = {
            "name": "served",
            "mlflow": {"tracking_uri": registry},
            "coverage": {"Advocate": 0.6},
            "complete_when": {"attribute": "plan", "eq": "premium"},
            "out": str(folder / "out"),
        }
        for name in ("touchpoints", "customers"):
            (folder / f"{name}.parquet").symlink_to(trained.folder / f"{name}.parquet")
        file.write_text(yaml.safe_dump({**SETTINGS, **settings}))
        training = call("train", file, "--as-of", AS_OF)
        assert training.code == 0, training.err
        yield Registered(registry, "models:/served@champion", rows_of(folder), night_of(file, folder / "out"))


@pytest.fixture(scope="module")
def loaded(registered: Registered) -> Any:
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registered.registry)
    try:
        return mlflow.pyfunc.load_model(registered.model)
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.slow
def test_a_model_loaded_from_the_server_scores_as_the_night(loaded: Any, registered: Registered) -> None:
    asked = {"as_of": AS_OF}
    pd.testing.assert_frame_equal(loaded.predict(registered.rows, asked), registered.scores, check_exact=True)
    naive = registered.rows.assign(
        **{name: registered.rows[name].dt.tz_localize(None).dt.as_unit("ns") for name in ("occurred_at", "known_at")}
    )
    pd.testing.assert_frame_equal(loaded.predict(naive, asked), registered.scores, check_exact=True)
    same(loaded.predict(as_text(registered.rows), asked), registered.scores)


@pytest.mark.slow
def test_a_loaded_model_never_asks_about_now(loaded: Any, registered: Registered) -> None:
    for params in (None, {}, {"as_of": None}):
        with pytest.raises(ConfigError, match="needs the instant that is asked about"):
            loaded.predict(registered.rows, params)
    with pytest.raises(ConfigError, match="is not a date"):
        loaded.predict(registered.rows, {"as_of": "today"})


@pytest.fixture(scope="module")
def server(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with scoring_server(tmp_path_factory.mktemp("scoring"), registered.registry, registered.model) as address:
        yield address


def ask(server: str, question: dict[str, Any]) -> tuple[int, str]:
    """Return the status and text of an answer of the scoring server."""
    body = json.dumps(question, allow_nan=False).encode()
    request = urllib.request.Request(f"{server}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def answered(server: str, question: dict[str, Any], as_of: str = AS_OF) -> pd.DataFrame:
    status, text = ask(server, {**question, "params": {"as_of": as_of}})
    assert status == 200, text
    return pd.DataFrame(json.loads(text, parse_constant=no_constant)["predictions"])


def split(rows: pd.DataFrame) -> dict[str, Any]:
    return {"columns": list(rows.columns), "data": rows.to_numpy(dtype=object).tolist()}


FORMS: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
    "dataframe_split": lambda rows: {"dataframe_split": split(rows)},
    "dataframe_records": lambda rows: {"dataframe_records": rows.to_dict("records")},
    "records without nulls": lambda rows: {
        "dataframe_records": [
            {name: one for name, one in record.items() if one is not None} for record in rows.to_dict("records")
        ]
    },
    "inputs by column": lambda rows: {"inputs": rows.to_dict("list")},
    "inputs by row": lambda rows: {"inputs": rows.to_dict("records")},
    "instances": lambda rows: {"instances": rows.to_dict("records")},
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_served_model_scores_as_the_night_in_every_form_of_the_protocol(
    server: str, registered: Registered, form: str
) -> None:
    same(answered(server, FORMS[form](as_text(registered.rows))), registered.scores)


@pytest.mark.slow
def test_a_served_model_says_what_is_missing(server: str, registered: Registered) -> None:
    rows = as_text(registered.rows)
    touchpoints = rows[rows["table"] == "touchpoints"]
    for question, params, words in (
        (rows, {}, "needs the instant that is asked about"),
        (touchpoints, {"as_of": AS_OF}, "there is no row of attributes"),
        (rows.drop(columns="table"), {"as_of": AS_OF}, "no column 'table'"),
    ):
        status, text = ask(server, {"dataframe_split": split(question), "params": params})
        assert status == 400 and words in text


@pytest.mark.slow
def test_the_logged_example_is_answered_and_is_of_nobody(server: str, registered: Registered, tmp_path: Path) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registered.registry)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(registered.model, dst_path=str(tmp_path)))
    finally:
        mlflow.set_tracking_uri(before)
    text = (folder / "serving_input_example.json").read_text()
    example = json.loads(text, parse_constant=no_constant)
    assert example["params"]["as_of"].startswith(AS_OF)
    status, answer = ask(server, example)
    assert status == 200 and json.loads(answer)["predictions"]
    named = set(registered.rows["customer_id"]) | set(registered.rows["touchpoint_id"].dropna())
    assert not [one for one in named if one in text]


@pytest.mark.slow
def test_a_spark_udf_scores_as_the_night(
    registered: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Customers lie in several partitions, and the session's zone is far from UTC."""
    spark.require_java()
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    import mlflow
    from pyspark.errors import PythonException
    from pyspark.sql import SparkSession, functions

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registered.registry)
    builder = SparkSession.builder.master(spark.MASTER).config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.session.timeZone", "Asia/Tokyo").config("spark.sql.shuffle.partitions", "3")
    session = builder.getOrCreate()
    try:
        as_text(registered.rows).to_parquet(tmp_path / "rows.parquet")
        rows = session.read.parquet(str(tmp_path / "rows.parquet"))
        udf = mlflow.pyfunc.spark_udf(session, registered.model, env_manager="local", params={"as_of": AS_OF})
        customers = rows.groupBy("customer_id").agg(functions.collect_list(functions.struct("*")).alias("rows"))
        scores = customers.select(udf(functions.struct("customer_id", "rows")).alias("scores")).select("scores.*")
        found = scores.toPandas().sort_values("customer_id", ignore_index=True)
        same(found, registered.scores)
        with pytest.raises(PythonException, match="Spark cuts a table into batches anywhere"):
            rows.select(udf(functions.struct(*rows.columns))).collect()
    finally:
        session.stop()
        mlflow.set_tracking_uri(before)
