"""Features of one's own: only the past reaches them, they take the one path of all features, and nothing is guessed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from tests import own_features, spark
from tests.oracles import examples
from tests.oracles.blocks import to_block
from tests.oracles.cases import WINDOWS, a_definition, a_journey
from tests.oracles.histories import Customer, Touch, as_known
from tests.trained import AS_OF, Outcome, Trained, call

from cvj_ml.config.model import CustomFeature
from cvj_ml.errors import ConfigError, ModelError
from cvj_ml.features import CustomColumns, compile_catalogue, custom, require_functions
from cvj_ml.features.selection import NEEDED
from cvj_ml.models.bundle.bundle import load
from cvj_ml.models.hazard.linear import HISTORY
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.snapshots import eligible

pytest_plugins = ["tests.fixtures"]

ROOT = Path(__file__).resolve().parents[2]
OWN: list[dict[str, Any]] = [
    {"name": "busiest_day", "function": "tests.own_features:most_in_a_day"},
    {
        "name": "rated",
        "function": "tests.own_features:ratings",
        "columns": ["mean", "number"],
        "properties": ["rating"],
    },
]
FUNCTIONS = [one["function"] for one in OWN]


def with_custom(*specs: dict[str, Any]) -> ModelSpec:
    definition = a_definition(a_journey(One={"event": "*"}))
    catalogue = compile_catalogue(
        definition.catalogue.vocabulary,
        ["One"],
        tuple(WINDOWS.values()),
        None,
        definition.catalogue.session_gap,
        2,
        custom=CustomColumns.of([CustomFeature.model_validate(one) for one in specs]),
    )
    return replace(definition, catalogue=catalogue)


def live(known: Customer) -> list[Touch]:
    """The rows of what is known that no newer version has replaced."""
    return [row for row in known.touches if row.superseded is None]


def answers(
    definition: ModelSpec, customers: list[Customer], instants: list[int]
) -> dict[tuple[int, int], list[float]]:
    """The custom columns of every eligible snapshot, by customer and instant."""
    block = to_block(customers)
    snapshots = eligible(block.touchpoints, np.array(instants))
    x = definition.features(block, definition.stays(block), snapshots)
    own = [i for i, one in enumerate(definition.catalogue.features) if one.group == "custom"]
    asked = zip(snapshots.customer.tolist(), snapshots.as_of.tolist(), strict=True)
    return dict(zip(asked, x[:, own].tolist(), strict=True))


@settings(max_examples=40)
@given(examples.customers(most=3), examples.instants(), examples.instants())
def test_a_function_is_given_what_was_visible_before_and_nothing_else(
    customers: list[Customer], one: int, other: int
) -> None:
    definition = with_custom({"name": "rows", "function": "tests.own_features:watched"})
    own_features.CALLS.clear()
    found = answers(definition, customers, sorted({one, other}))
    assert sorted(past.as_of for past in own_features.CALLS) == sorted({as_of for _, as_of in found})
    for past in own_features.CALLS:
        known = [as_known(each, past.as_of) for each in customers]
        expected = [each for i, each in enumerate(known) if (i, past.as_of) in found]
        rows = [row for each in expected for row in live(each)]
        assert past.occurred_at.tolist() == [row.occurred for row in rows]
        assert past.event.tolist() == [row.event for row in rows]
        assert all(at < past.as_of for at in past.occurred_at.tolist())
        assert np.diff(past.offsets).tolist() == [len(live(each)) for each in expected]
        with pytest.raises(ValueError, match="read-only"):
            past.occurred_at[:] = 0
    assert [value for (value,) in found.values()] == [len(live(as_known(customers[i], as_of))) for i, as_of in found]


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("tests.own_features:too_short", "has to be an array of 2 numbers, one a customer; found float64"),
        ("tests.own_features:endless", "is infinite for 2 of 2 customers; return NaN"),
        ("tests.own_features:fails", "failed with ValueError in line 62 of own_features.py"),
        ("tests.own_features:ratings", "failed with KeyError"),
        ("tests.own_features:nobody", "tests.own_features has no function 'nobody'"),
        ("tests.not_there:nobody", r"tests.not_there cannot be imported: ModuleNotFoundError \(no module"),
        ("sys:exit", "sys has no file, so nobody can tell whether it has changed"),
    ],
)
def test_what_is_wrong_with_a_function_is_told_without_a_customers_data(function: str, told: str) -> None:
    customers = [one for one in examples.close_histories(seed=3, number=20) if one.touches][:2]
    last = max(row.visible for one in customers for row in one.touches) + 1
    with pytest.raises(ConfigError, match=told) as caught:
        answers(with_custom({"name": "mine", "function": function}), customers, [last])
    assert not any(row.event in str(caught.value).split() for one in customers for row in one.touches)


def test_a_function_that_returns_other_columns_is_refused() -> None:
    customers = examples.close_histories(seed=3, number=20)[:2]
    last = max(row.visible for one in customers for row in one.touches) + 1
    spec = {"name": "mine", "function": "tests.own_features:most_in_a_day", "columns": ["a", "b"]}
    with pytest.raises(ConfigError, match="an array for each of a, b, by name; it returned ndarray"):
        answers(with_custom(spec), customers, [last])


def test_a_bundle_alone_has_nothing_imported_and_a_changed_source_is_refused() -> None:
    (one,) = CustomColumns.of([CustomFeature.model_validate(OWN[0])])
    require_functions([one], FUNCTIONS, "bundle")
    with pytest.raises(ModelError, match="is not named by the configuration, so it is not imported"):
        require_functions([one], [], "bundle")
    with pytest.raises(ModelError, match="not the one that the model was trained with"):
        require_functions([replace(one, digest="0" * 64)], FUNCTIONS, "bundle")
    gone = replace(one, spec=one.spec.model_copy(update={"function": "not_there:nobody"}))
    with pytest.raises(ModelError, match="not_there cannot be imported"):
        require_functions([gone], ["not_there:nobody"], "bundle")


def test_the_function_of_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "shop_features.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    (setting,) = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)[0])["features"]["custom"]
    definition = with_custom(setting)
    close = enumerate(examples.close_histories(3, 40))
    customers = [replace(one, touches=tuple(on_both(one.touches[: 1 + i % 3]))) for i, one in close]
    customers = [one for one in customers if one.touches]
    end = max(row.visible for one in customers for row in one.touches) + 1
    told = [value for (value,) in answers(definition, customers, [end]).values()]
    for one, value in zip(customers, told, strict=True):
        last = {row.channel: row.occurred for row in live(as_known(one, end))}
        expected = (last["shop"] - last["web"]) / own_features.DAY if len(last) == 2 else np.nan
        assert value == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert 0 < np.isnan(told).sum() < len(told)


def on_both(touches: Iterable[Touch]) -> Iterator[Touch]:
    for i, row in enumerate(touches):
        yield replace(row, channel=("web", "shop")[i % 2])


def test_what_the_line_looks_up_cannot_be_left_out() -> None:
    assert set(HISTORY) < set(NEEDED)


# Through the commands


def audit(trained: Trained, folder: Path, function: str) -> tuple[Outcome, dict[str, Any]]:
    own_features.REMEMBERED.clear()
    custom = {"custom": [{"name": "mine", "function": f"tests.own_features:{function}"}]}
    file = trained.variant(folder, features=custom)
    run = call("audit", file, "--as-of", AS_OF, "--cut-offs", 2, "--json")
    return run, json.loads(run.out) if run.out else {}


@pytest.mark.parametrize("function", ["remembers", "above_average"])
def test_the_audit_finds_a_function_that_cheats(trained: Trained, tmp_path: Path, function: str) -> None:
    run, found = audit(trained, tmp_path, function)
    assert run.code == 5
    assert {(one["check"], one["name"]) for one in found["leaks"]} >= {("repetition", "custom_mine")}


@pytest.mark.slow
def test_the_audit_passes_an_honest_function(trained: Trained, tmp_path: Path) -> None:
    run, found = audit(trained, tmp_path, "most_in_a_day")
    assert (run.code, found["leaks"]) == (0, []), run.err


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (
            {"exclude": ["recency_event_purchas"]},
            "is called 'recency_event_purchas'. Did you mean 'recency_event_purchase'?",
        ),
        ({"exclude": ["rythm"]}, "Did you mean 'rhythm'? Groups: counts, "),
        ({"exclude": ["tenure"]}, "'tenure' stays: the method itself reads it by name"),
        ({"custom": [{**OWN[1], "properties": ["ratng"]}]}, "no property 'ratng'. Did you mean 'rating'?"),
        ({"custom": [{**OWN[0], "function": "tests.gone:f"}]}, "tests.gone cannot be imported"),
        ({"custom": [{**OWN[0], "function": "tests/own.py"}]}, "features.custom[0].function"),
        ({"custom": [OWN[0], OWN[0]]}, "several columns are called busiest_day"),
    ],
)
def test_what_is_not_there_is_an_error_before_anything_is_learned(
    trained: Trained, tmp_path: Path, features: dict[str, Any], told: str
) -> None:
    run = call("check", trained.variant(tmp_path, features=features), "--as-of", AS_OF)
    assert run.code == 2
    assert told in " ".join(run.err.split())


@pytest.fixture(scope="module")
def own(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A configuration with features of its own and a registry of its own, a champion of it, and the bundle of that."""
    folder = tmp_path_factory.mktemp("own")
    features = {"custom": OWN, "exclude": ["values", "attribute_age", "trend_*", "rhythm"]}
    registry = {"tracking_uri": f"sqlite:///{folder / 'own.db'}"}
    file = trained.variant(folder / "out", features=features, mlflow=registry)
    training = call("train", file, "--as-of", AS_OF, "--json")
    assert training.code == 0, training.err
    assert call("models", "export", file, 1, folder / "bundle").code == 0
    yield file, folder / "bundle"


@pytest.mark.slow
def test_features_of_ones_own_go_where_all_features_go(
    trained: Trained, own: tuple[Path, Path], tmp_path: Path
) -> None:
    file, folder = own
    bundle = open_bundle(folder, functions=FUNCTIONS)
    catalogue = bundle.predictor.definition.catalogue
    assert catalogue.names[-3:] == ["custom_busiest_day", "custom_rated_mean", "custom_rated_number"]
    assert "attribute_age" in catalogue.excluded
    assert "attribute_age" not in catalogue.names
    assert "value_sum_all" in catalogue.names, "amounts are made of it"
    assert "value_mean_all" not in catalogue.names
    assert not [one for one in catalogue.names if one.startswith("trend_")]
    assert [one.name for one in catalogue.features if one.group == "rhythm" and not one.name.startswith("touch")] == [
        "active_days_all"
    ]
    assert "tests.own_features:ratings, source" in bundle.card
    assert "value_sum_all" not in catalogue.excluded
    night = call("nightly", file, "--as-of", AS_OF, "--json")
    assert night.code == 0, night.err
    assert call("audit", file, "--as-of", AS_OF, "--cut-offs", 2).code == 0


@pytest.mark.slow
def test_a_bundle_whose_function_is_not_there_refuses_with_exit_code_4(
    own: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = own
    assert bundle_functions(folder), "loading executes nothing"
    with pytest.raises(ModelError, match="not named by the configuration"):
        open_bundle(folder)
    source = Path(own_features.__file__).read_bytes()
    assert bundle_functions(folder)[0].digest == hashlib.sha256(source).hexdigest()
    assert call("models", "verify", file).code == 0
    monkeypatch.setattr(custom, "_digest", lambda function: hashlib.sha256(source + b"# changed").hexdigest())
    run = call("models", "verify", file)
    assert run.code == 4
    assert "is not the one that the model was trained with" in " ".join(run.err.split())


def bundle_functions(folder: Path) -> tuple[CustomColumns, ...]:
    return load(folder).predictor.definition.catalogue.custom


@pytest.mark.slow
def test_spark_gives_the_same_numbers(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spark.require_java()
    from tests.engines.test_spark import assert_same_panel

    from cvj_ml.commands.train import training_panel
    from cvj_ml.inputs import open_histories
    from cvj_ml.run import Silent

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    panels = [
        training_panel(
            open_histories(trained.config(trained.variant(tmp_path, features={"custom": OWN}, **engine)), Silent()),
            trained.as_of,
        )
        for engine in ({}, {"engine": spark.engine()})
    ]
    assert "custom_rated_mean" in panels[0].definition.catalogue.names
    assert_same_panel(*panels)
