"""The Python interface: what it offers, that its examples run, and that it answers as the commands do."""

from __future__ import annotations

import doctest
import importlib
import inspect
import warnings
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.trained import AS_OF, SETTINGS, Trained

import cvj_ml as cvj
from cvj_ml.errors import ConfigError, DataError, ModelError
from cvj_ml.models.uplift.effect_model import Experiment, fit_effect_model
from cvj_ml.models.uplift.list_effect import EffectGroups, ListEffect, column_of

pytest_plugins = ["tests.fixtures"]

SURFACE = {
    "Config": "",
    "CvjError": "",
    "Journey": "(stages, unobserved=(), value_decimals=2, *, events=None)",
    "Model": "(journey=None, **settings)",
    "Model.backtest": "(self, data, until, folds=3, *, spacing=None, estimator=None)",
    "Model.explain": "(self, customer_id, as_of, data=None)",
    "Model.fit": "(self, data, as_of=None, *, estimator=None)",
    "Model.load": "(source, *, functions=())",
    "Model.panel": "(self, data, as_of)",
    "Model.save": "(self, folder)",
    "Model.score": "(self, data, as_of)",
    "Model.targets": "(self, as_of, data=None)",
    "Panel": "",
    "Panel.from_frame": "(self, frame)",
    "Panel.to_frame": "(self)",
    "PastTouchpoints": "",
    "Touchpoints": "(table, *, customer_id='customer_id', occurred_at='occurred_at', event='event', channel=None,"
    " value=None, known_at=None, touchpoint_id=None, properties=(), constants=None, attributes=None,"
    " attribute_columns=(), static_attributes=False, attribute_dates=(), time_zone='UTC', history_from=None,"
    " outbound=(), value_decimals=2, reading=None)",
    "load_config": "(path)",
}
"""Every public name with its parameters: what is added, renamed or taken away has to be meant."""


def found(name: str) -> Any:
    what: Any = cvj
    for part in name.split("."):
        what = getattr(what, part)
    return what


def test_the_public_names_are_these_and_no_others() -> None:
    assert sorted(cvj.__all__) == sorted(name for name in SURFACE if "." not in name)
    assert dir(cvj) == cvj.__all__
    public = {
        f"Model.{name}"
        for name, what in vars(cvj.Model).items()
        if not name.startswith("_") and (inspect.isroutine(what) or isinstance(what, classmethod))
    }
    assert public == {name for name in SURFACE if name.startswith("Model.")}


@pytest.mark.parametrize("name", SURFACE)
def test_every_public_name_has_its_signature_and_a_docstring(name: str) -> None:
    what = found(name)
    first = (inspect.getdoc(what) or "").split("\n")[0]
    assert first.endswith((".", ":")), "one line says what it is"
    if SURFACE[name]:
        signature = inspect.signature(what)
        bare = signature.replace(
            parameters=[one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()],
            return_annotation=inspect.Signature.empty,
        )
        assert str(bare) == SURFACE[name]


@pytest.mark.parametrize("module", ["api", "journey.observability", "touchpoints"])
def test_the_examples_in_docstrings_run(module: str) -> None:
    done = doctest.testmod(importlib.import_module(f"cvj_ml.{module}"))
    assert done.attempted and not done.failed


def table(trained: Trained) -> pd.DataFrame:
    return pd.read_parquet(trained.folder / "touchpoints.parquet")


def touchpoints(trained: Trained, rows: Any = None, **changes: Any) -> cvj.Touchpoints:
    """The customers of the fixture from memory, as its configuration reads them."""
    settings: dict[str, Any] = {
        "properties": ["rating"],
        "attributes": pd.read_parquet(trained.folder / "customers.parquet"),
        "attribute_columns": ["country", "age", "plan"],
        "outbound": SETTINGS["outbound"],
        "history_from": SETTINGS["history_from"],
        "reading": {"arrival_delay": "2d"},
    }
    return cvj.Touchpoints(table(trained) if rows is None else rows, **{**settings, **changes})


@pytest.fixture(scope="module")
def loaded(trained: Trained) -> cvj.Model:
    return cvj.Model.load(trained.bundle)


@pytest.fixture(scope="module")
def expected(trained: Trained, loaded: cvj.Model) -> pd.DataFrame:
    return loaded.score(trained.config(), AS_OF)


class Stream:
    """What is neither pandas nor Polars, and hands over an Arrow stream."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self.columns = rows.column_names

    def select(self, names: list[str]) -> Stream:
        return Stream(self._rows.select(names))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._rows.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("kind", ["pandas", "arrow", "stream", "polars"])
def test_a_table_in_memory_scores_as_the_files_do(
    kind: str, trained: Trained, loaded: cvj.Model, expected: pd.DataFrame
) -> None:
    rows: Any = table(trained)
    if kind == "polars":
        rows = polars.from_pandas(rows)
    elif kind != "pandas":
        rows = pa.Table.from_pandas(rows, preserve_index=False)
        rows = Stream(rows) if kind == "stream" else rows
    scores = loaded.score(touchpoints(trained, rows), AS_OF)
    pd.testing.assert_frame_equal(scores, expected, check_exact=True)
    assert set(scores["model_version"]) == {loaded.score(trained.config(), AS_OF)["model_version"][0]}


def test_the_day_may_be_text_a_date_or_an_instant(trained: Trained, loaded: cvj.Model, expected: pd.DataFrame) -> None:
    rows = touchpoints(trained)
    for day in (date.fromisoformat(AS_OF), datetime.fromisoformat(AS_OF), pd.Timestamp(AS_OF)):
        pd.testing.assert_frame_equal(loaded.score(rows, day), expected, check_exact=True)
    with pytest.raises(ConfigError, match="as_of 'tomorrow' is not a date"):
        loaded.score(rows, "tomorrow")


def test_the_champion_of_a_configuration_is_the_model_of_its_nights(trained: Trained, expected: pd.DataFrame) -> None:
    champion = cvj.Model.load(trained.config())
    pd.testing.assert_frame_equal(champion.score(trained.config(), AS_OF), expected, check_exact=True)
    assert champion.card == (trained.bundle / "card.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_fits_the_model_that_the_command_fits(trained: Trained, tmp_path: Path) -> None:
    """All files of both bundles are the same bytes, but for the card, which tells the verdict, and the digests."""
    settings = {name: SETTINGS[name] for name in ("horizons", "model", "lists", "stage_value", "control", "engine")}
    from_memory = cvj.Model("cvj8", **settings).fit(touchpoints(trained), AS_OF)
    from_config = cvj.Model().fit(trained.config(), AS_OF)
    for name, model in (("memory", from_memory), ("config", from_config)):
        digest = model.save(tmp_path / name)
        assert len(digest) == 64 and digest[:12] in repr(model)
        files = {path.name for path in trained.bundle.rglob("*") if path.is_file()}
        for path in sorted(trained.bundle.rglob("*")):
            beside = tmp_path / name / path.relative_to(trained.bundle)
            if path.is_file() and path.name not in ("card.md", "manifest.json"):
                assert beside.read_bytes() == path.read_bytes(), (name, path.name)
        assert files == {path.name for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert "Not compared with any other model" in from_memory.card
    assert set(from_memory.metrics["contender"]) > {"model"}
    again = cvj.Model.load(tmp_path / "memory")
    own = from_memory.targets(AS_OF)
    assert own.keys() == {"convert__ascend__30d", "advocate__promote__30d"}, "the lists of its settings"
    assert any(frame["reason_1"].notna().any() for frame in own.values())
    assert "aware__engage__30d" in again.targets(AS_OF, touchpoints(trained)), "a bundle has none: each next stage"


def test_an_effect_that_ranks_the_nights_lists_ranks_those_of_the_interface(trained: Trained) -> None:
    """A model that knows whom a contact harms lists them nowhere, and ranks by what a contact changes."""
    name, rows = "convert__ascend__30d", touchpoints(trained)
    model = cvj.Model.load(trained.bundle)
    model.settings = {"lists": [{"from": "Convert", "to": "Ascend", "horizon": "30d"}]}
    fitted = model._fitted
    assert fitted is not None and fitted.bundle is not None
    predictor, bundle = fitted.predictor, fitted.bundle
    random = np.random.default_rng(1)
    x = random.normal(size=(600, len(predictor.definition.catalogue.names) + 1)).astype(np.float32)
    arm, both = random.integers(0, 2, 600), np.full((600, 2), 0.5)
    learned = fit_effect_model(Experiment(x, arm, (arm * (x[:, 0] > 0)).astype(float), both, np.arange(600)), 1, 1)
    told = (1.0, 0.9, 1.1)

    def lists_where(low: float, high: float) -> pd.DataFrame:
        groups = EffectGroups(np.zeros(0), *(np.array([one]) for one in ((low + high) / 2, low, high)))
        effect = ListEffect(
            *(name, "reach", {"Convert": "p_reach_ascend_30d"}, learned, groups, 0.0, True, "", told, told, None)
        )
        taught = replace(predictor, effects=(effect,))
        model._fitted = replace(fitted, predictor=taught, bundle=replace(bundle, predictor=taught))
        return model.targets(AS_OF, rows)[name]

    helped = lists_where(0.1, 0.3)
    assert len(helped) and set(helped["response_type"]) == {"persuadable"}
    change = model.score(rows, AS_OF).set_index("customer_id")[column_of(name)]
    assert helped["customer_id"].map(change).is_monotonic_decreasing
    assert lists_where(-0.3, -0.1).empty, "a contact harms every one of them"


def test_facts_add_up_and_their_probabilities_are_those_of_the_scores(
    trained: Trained, loaded: cvj.Model, expected: pd.DataFrame
) -> None:
    rows = touchpoints(trained)
    for stage in ("Engage", "Convert"):
        person = expected[expected["stage"] == stage].iloc[0]
        facts = loaded.explain(person["customer_id"], AS_OF, rows)
        assert len(facts)
        for (to, days), group in facts.groupby(["to", "horizon_days"]):
            first = group.iloc[0]
            assert group["contribution"].sum() == pytest.approx(first["margin"] - first["base"], abs=1e-9)
            assert first["probability"] == person[f"p_reach_{str(to).lower()}_{days}d"]
            assert (np.diff(group["contribution"].abs()) <= 0).all(), "the weightiest first"
        assert facts["reason"].notna().any()
    with pytest.raises(DataError, match="nothing to explain"):
        loaded.explain("nobody", AS_OF, rows)
    with pytest.raises(ConfigError, match="whose touchpoints"):
        loaded.explain(person["customer_id"], AS_OF)


def small(trained: Trained) -> tuple[cvj.Touchpoints, cvj.Model]:
    settings = {**SETTINGS["model"], "max_rows": 3000}
    return touchpoints(trained), cvj.Model("cvj8", horizons=["7d", "30d"], model=settings, engine={"threads": 1})


@pytest.mark.slow
def test_a_panel_goes_to_a_frame_and_back(trained: Trained) -> None:
    rows, model = small(trained)
    panel = model.panel(rows, AS_OF)
    frame = panel.to_frame()
    back = panel.from_frame(frame.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(back.to_frame(), frame, check_exact=True)
    one, other = (cvj.Model().fit(each).score(rows, AS_OF) for each in (panel, back))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    some = panel.from_frame(frame[frame["as_of"] < "2024-12-01"])
    assert 0 < len(some) < len(panel) and (some.to_frame()["as_of"] < "2024-12-01").all()
    assert (frame["days_until_return"].dropna() < frame.loc[frame["days_until_return"].notna(), "follow_up_days"]).all()
    assert frame.loc[~frame["at_risk_reach_ascend"], "days_until_reach_ascend"].isna().all()

    wrong = pd.concat([frame, frame.head(1), frame.head(1).assign(customer_id="stranger", observed_stage="Fan")])
    with pytest.raises(DataError) as told:
        panel.from_frame(wrong)
    for fault in ("1 row(s) name a customer", "1 row(s) repeat", "1 row(s) name an observed_stage"):
        assert fault in str(told.value)
    with pytest.raises(DataError, match="no column 'recency'"):
        panel.from_frame(frame.drop(columns="recency"))
    with pytest.raises(DataError, match="'mine' is not part"):
        panel.from_frame(frame.assign(mine=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingClassifier(max_iter=10, random_state=1),
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=200)),
    ],
    ids=["trees", "pipeline"],
)
def test_an_estimator_of_ones_own_stands_in_for_the_trees(estimator: Any, trained: Trained, tmp_path: Path) -> None:
    rows, model = small(trained)
    metrics = model.backtest(rows, AS_OF, folds=1, estimator=estimator)
    contenders = set(metrics["contender"])
    assert contenders > {"model", type(estimator).__name__}
    counts = metrics.groupby("contender")["n"].sum()
    assert counts.nunique() == 1, "all are judged on the same customers"

    panel = model.panel(rows, AS_OF)
    own = cvj.Model(model={"seed": 1}).fit(panel, estimator=estimator)
    scores = own.score(rows, AS_OF)
    assert scores.filter(like="p_reach").stack().dropna().between(0, 1).all()
    assert not scores["p_return_30d"].equals(cvj.Model().fit(panel).score(rows, AS_OF)["p_return_30d"])
    assert not hasattr(estimator, "classes_"), "a copy is fitted, what was given stays as it was"
    for refused in (lambda: own.save(tmp_path / "bundle"), lambda: own.card, lambda: own.explain("c", AS_OF, rows)):
        with pytest.raises(ModelError):
            refused()
    assert not (tmp_path / "bundle").exists()
    assert own.targets(AS_OF, rows).keys()


class Wrong:
    """A classifier that gives no probabilities."""

    def fit(self, x: pd.DataFrame, y: Any) -> Wrong:
        return self

    def predict_proba(self, x: pd.DataFrame) -> Any:
        return np.full(len(x), 2.0)


def test_what_gives_no_probabilities_is_told(trained: Trained) -> None:
    rows, model = small(trained)
    with pytest.raises(ModelError, match="predict_proba of Wrong gave an array of shape"):
        cvj.Model().fit(model.panel(rows, AS_OF), estimator=Wrong())


def test_what_cannot_know_a_year_ago_says_so(trained: Trained) -> None:
    rows, model = small(trained)
    asked = cvj.Model(model={"year_ago_level": True})
    with pytest.raises(ConfigError, match="A panel does not hold what was known a year ago"):
        asked.fit(model.panel(rows, AS_OF))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda rows: cvj.Model("cvj9"), "unknown preset 'cvj9'. Did you mean 'cvj8'?"),
        (lambda rows: cvj.Model("cvj8", horizon=["3d"]), "horizon: a model has no such setting. Did you mean"),
        (lambda rows: cvj.Model().fit(rows, AS_OF), "journey: name one, as in Model('cvj8')"),
        (lambda rows: cvj.Model("cvj8").fit(rows), "as_of: say up to which day"),
        (
            lambda rows: cvj.Model("cvj8").fit(pd.DataFrame(), AS_OF),
            "data: give Touchpoints or a Config, not DataFrame",
        ),
        (lambda rows: cvj.Model("cvj8", horizons=["3x"]).fit(rows, AS_OF), "horizons"),
        (lambda rows: cvj.Model("cvj8").backtest(rows, AS_OF, spacing="90 days"), "spacing: '90 days' is not a du"),
        (lambda rows: cvj.Journey("cvj8", unobserved=["Awre"]), "unknown stage 'Awre'. Did you mean 'Aware'?"),
        (lambda rows: cvj.Journey("cvj8", events={"bought": "x"}), "no rule of the journey uses 'bought'"),
        (lambda rows: cvj.Journey({"One": {"events": "x"}}), "enter"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(call: Any, told: str, trained: Trained) -> None:
    with pytest.raises(ConfigError) as error:
        call(touchpoints(trained))
    assert told in str(error.value)


def test_a_model_is_not_asked_about_what_it_does_not_mean(trained: Trained, loaded: cvj.Model) -> None:
    with pytest.raises(ModelError, match="the time zone differs"):
        loaded.score(touchpoints(trained, time_zone="Europe/London"), AS_OF)
    with pytest.raises(ModelError, match="other events are outbound"):
        loaded.score(touchpoints(trained, outbound=[]), AS_OF)
    with pytest.raises(DataError) as told:
        bare = table(trained).drop(columns="channel")
        loaded.score(touchpoints(trained, bare, attributes=None, attribute_columns=[]), AS_OF)
    assert "the model uses 'channel'" in str(told.value) and "the attribute 'plan'" in str(told.value)


def test_what_became_known_by_a_setting_needs_no_column(trained: Trained, loaded: cvj.Model) -> None:
    bare = table(trained).drop(columns="known_at")
    with pytest.raises(DataError, match="the model uses 'known_at'"):
        loaded.score(touchpoints(trained, bare), AS_OF)
    reading = {"known_after": "1d", "arrival_delay": "2d"}
    assert len(loaded.score(touchpoints(trained, bare, reading=reading), AS_OF))


def test_a_history_that_begins_too_late_is_told(trained: Trained, loaded: cvj.Model) -> None:
    with pytest.raises(DataError, match="history_from is 2025-01-01, and the model counts from 2024-01-01 on"):
        loaded.score(touchpoints(trained, history_from="2025-01-01"), AS_OF)


def test_columns_that_are_wrong_are_told_all_at_once() -> None:
    rows = pd.DataFrame({"cust": ["a"], "when": ["2024-01-01"], "what": ["buy"]}).set_index("cust")
    with pytest.raises(ConfigError) as told:
        cvj.Touchpoints(rows, customer_id="cust", occurred_at="wen", event="what", attribute_columns=["plan"])
    for fault in ("'cust' is the index", "'wen'. Did you mean 'when'?", "attributes and attribute_columns belong"):
        assert fault in str(told.value)
    mixed = pd.DataFrame({"customer_id": ["a", 1], "occurred_at": "2024-01-01", "event": "buy"})
    with pytest.raises(DataError, match="customer_id mixes types"):
        cvj.Touchpoints(mixed)
    with pytest.raises(ConfigError, match="never change, say static_attributes"):
        cvj.Touchpoints(
            mixed.astype(str), attributes=pd.DataFrame({"customer_id": ["a"], "plan": "x"}), attribute_columns="plan"
        )
    with pytest.raises(ConfigError, match="several columns are called 'event'"):
        cvj.Touchpoints(pd.DataFrame([["a", "b"]], columns=["event", "event"]))
    with pytest.raises(ConfigError, match="join them"):
        cvj.Touchpoints(pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])))
    with pytest.raises(ConfigError, match=r"df\.toArrow"):
        cvj.Touchpoints([{"customer_id": "a"}])
    with pytest.raises(ConfigError, match=r"what collect\(\) returns"):
        cvj.Touchpoints(polars.from_pandas(mixed.astype(str)).lazy())


@pytest.mark.slow
def test_rows_that_are_there_twice_are_told(trained: Trained) -> None:
    _, model = small(trained)
    twice = pd.concat([table(trained)] * 2).drop(columns="touchpoint_id")
    with pytest.warns(UserWarning, match="rows repeat another one exactly, and each counts"):
        model.panel(touchpoints(trained, twice), AS_OF)
    once = cvj.Model("cvj8", **model.settings, drop_duplicates=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        panel = once.panel(touchpoints(trained, twice), AS_OF)
    assert len(panel)


def test_a_relation_of_duckdb_is_a_table(trained: Trained, loaded: cvj.Model, expected: pd.DataFrame) -> None:
    with duckdb.connect() as connection:
        rows = connection.from_arrow(pa.Table.from_pandas(table(trained), preserve_index=False))
        scores = loaded.score(touchpoints(trained, rows), AS_OF)
    pd.testing.assert_frame_equal(scores, expected, check_exact=True)


def test_a_few_wrong_dates_do_not_decide_when_the_history_begins(trained: Trained) -> None:
    rows = table(trained)
    rows.loc[rows.index[0], ["occurred_at", "known_at"]] = pd.Timestamp("1970-01-01", tz="UTC")
    with pytest.raises(DataError, match="lie between 1970-01-01 and 2024"):
        cvj.Model("cvj8").panel(touchpoints(trained, rows, history_from=None), AS_OF)
    assert len(small(trained)[1].panel(touchpoints(trained, rows), AS_OF)), "with history_from it is the user's word"


def test_what_a_command_would_warn_of_is_a_warning(trained: Trained) -> None:
    _, model = small(trained)
    few = table(trained).query("event not in ['referral', 'review', 'testimonial']")
    with pytest.warns(UserWarning, match="unobserved"):
        model.panel(touchpoints(trained, few), AS_OF)


def test_the_table_goes_with_its_object(trained: Trained) -> None:
    rows = touchpoints(trained)
    folder = Path(rows.configure({"journey": "cvj8"}).out).parent
    assert folder.is_dir() and len(rows) == len(table(trained))
    del rows
    assert not folder.exists()
