"""MLflow: what a training leaves there, how versions move, and that nothing else is touched."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import pytest
from matplotlib.figure import Figure
from tests.mlflow_server import tracking_server, wait_until

import cvj_ml
from cvj_ml import tracking
from cvj_ml.commands.compare import compare_versions
from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, CvjError, LockedError, ModelError, RegistryError
from cvj_ml.run import Effort
from cvj_ml.scoring.serving import Interface
from cvj_ml.tracking import TrainingRecord, connection

DIGESTS = [digit * 64 for digit in "abcd"]
INTERFACE = Interface(
    required=("occurred_at", "event"),
    optional=("channel",),
    example=pd.DataFrame({"customer_id": ["canary-1"], "occurred_at": ["2024-03-01T10:00:00Z"], "event": ["visit"]}),
    as_of="2024-05-01",
    scores=pd.DataFrame({"customer_id": pd.Series(dtype="str"), "p": pd.Series(dtype="float64")}),
)


def make_config(uri: str, name: str) -> Config:
    journey = {"name": "short", "stages": [{"name": "Convert", "enter": {"event": "purchase"}}]}
    return Config.model_validate(
        {
            "name": name,
            "time_zone": "Europe/London",
            "history_from": "2024-01-01",
            "sources": {"orders": {"path": "orders.csv"}},
            "journey": journey,
            "mlflow": {"tracking_uri": uri, "experiment": "tests"},
        }
    )


def make_record(folder: Path) -> TrainingRecord:
    """A tiny training with a fake bundle: text files and one Parquet file in a subfolder."""
    bundle = folder / "fake_bundle"
    if not bundle.exists():
        (bundle / "canary").mkdir(parents=True)
        (bundle / "manifest.json").write_text("{}")
        (bundle / "journey.yaml").write_text("name: short\n")
        pd.DataFrame({"x": [1, 2]}).to_parquet(bundle / "canary" / "touchpoints.parquet")
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    return TrainingRecord(
        parameters={"max_rows": 1_500_000, "targets": "all", "share/of it": 0.5},
        cut="2024-06-01T00:00:00+01:00",
        inputs={"orders": [{"file": "/srv/private/orders.csv", "sha256": "ab" * 32, "bytes": 12}]},
        metrics={"test.log_loss.convert__ascend.30d": 0.18, "test.auc.b\u00e9b\u00e9": 0.8},
        judged_at="2024-05-02T00:00:00+01:00",
        bundle=bundle,
        digest=DIGESTS[0],
        interface=INTERFACE,
        tables={"backtest": pd.DataFrame({"fold": [1], "log_loss": [0.18]})},
        figures={"calibration": figure},
        effort=Effort(),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def fetch_champion(config: Config, folder: Path) -> tuple[Path, tracking.ModelVersion]:
    version = tracking.current_champion(config)
    return tracking.fetch(config, version, folder), version


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(scope="module")
def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/a registry/mlflow.db"


@pytest.fixture(scope="module")
def record(folder: Path) -> TrainingRecord:
    return make_record(folder)


@pytest.fixture(scope="module")
def logged(uri: str, record: TrainingRecord) -> tuple[Config, tracking.ModelVersion]:
    """One training in a new registry; tests that change versions use another name in the same file."""
    config = make_config(uri, "shop")
    return config, tracking.log_training(config, record)


@pytest.fixture
def config(uri: str, logged: object, request: pytest.FixtureRequest) -> Config:
    """A name of the test's own in the shared registry."""
    return make_config(uri, re.sub(r"\W", "-", request.node.name))


def client_of(config: Config) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(config.mlflow.tracking_uri, config.mlflow.tracking_uri)


@pytest.mark.slow
def test_commands_are_imported_without_what_only_some_need() -> None:
    code = "import sys, cvj_ml.commands; print(sorted({'mlflow', 'matplotlib', 'pyspark', 'mcp'} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_the_first_version_is_challenger_and_champion(logged: tuple[Config, tracking.ModelVersion]) -> None:
    config, version = logged
    assert (version.name, version.version, version.digest) == ("shop", 1, DIGESTS[0])
    assert version.aliases == ("challenger", "champion")
    assert version.cut == "2024-06-01T00:00:00+01:00"
    assert pd.Timestamp(version.created).tzinfo is not None
    assert tracking.list_versions(config) == [version]


def test_the_run_holds_parameters_metrics_inputs_and_artifacts(logged: tuple[Config, tracking.ModelVersion]) -> None:
    config, version = logged
    client = client_of(config)
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"max_rows": "1500000", "targets": "all", "share_of it": "0.5"}
    used = {name: value for name, value in run.data.metrics.items() if name.startswith("system/")}
    assert {*used} == {f"system/{name}" for name in ("wall_seconds", "cpu_seconds", "peak_memory_megabytes")}
    assert all(value >= 0 for value in used.values()) and used["system/peak_memory_megabytes"] > 50
    assert {name: value for name, value in run.data.metrics.items() if name not in used} == {
        "test.log_loss.convert__ascend.30d": 0.18,
        "test.auc.b_b_": 0.8,
    }
    tags = run.data.tags
    assert (tags["mlflow.source.name"], tags["journey"], tags["cut"]) == ("cvj-ml train", "short", version.cut)
    assert tags["mlflow.user"] and re.fullmatch("[0-9a-f]{40}", tags["mlflow.source.git.commit"])
    dataset, evaluation = [one.dataset for one in run.inputs.dataset_inputs]
    assert dataset.name == "orders" and len(dataset.digest) == 32
    assert json.loads(dataset.profile) == {"files": 1, "bytes": 12}
    columns = json.loads(dataset.schema)["mlflow_colspec"]
    assert {one["name"]: one["type"] for one in columns}["occurred_at"] == "datetime"
    assert evaluation.name == "evaluation 2024-05-02"
    logged_model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert {one.dataset_name for one in logged_model.metrics} == {evaluation.name}
    assert {one.dataset_digest for one in logged_model.metrics} == {evaluation.digest}
    names = {
        item.path
        for path in ("", "bundle", "tables", "figures")
        for item in client.list_artifacts(version.run_id, path)
    }
    assert names == {
        "bundle", "bundle/canary", "bundle/journey.yaml", "bundle/manifest.json",
        "figures", "figures/calibration.svg", "inputs.json", "metrics.json", "tables", "tables/backtest.csv",
    }  # fmt: skip
    tags = client.get_model_version("shop", "1").tags
    assert tags["digest"] == DIGESTS[0] and len(tags["journey_digest"]) == 64


def test_a_changed_input_file_changes_the_digest_and_a_moved_one_does_not(record: TrainingRecord) -> None:
    from cvj_ml.tracking.lineage import evaluation_dataset, source_datasets

    (file,) = record.inputs["orders"]
    config = make_config("sqlite:///unused.db", "shop")

    def digest(file: Any) -> str:
        (found,) = source_datasets(config, {"orders": [file]})
        assert evaluation_dataset({"orders": [file]}, "2024-05-02").dataset.digest != found.dataset.digest
        return found.dataset.digest

    assert digest({**file, "file": r"C:\moved\orders.csv"}) == digest(file)
    assert digest({**file, "sha256": "cd" * 32}) != digest(file)


def test_artifacts_stand_beside_the_database_without_pickles_or_paths(
    logged: tuple[Config, tracking.ModelVersion], folder: Path
) -> None:
    registry = folder / "a registry"
    assert {entry.name for entry in registry.iterdir()} == {"mlflow.db", "mlflow.db.lock", "mlartifacts"}
    artifacts = files_of(registry / "mlartifacts")
    assert not [name for name in artifacts if name.endswith((".pkl", ".pickle"))]
    for name, content in artifacts.items():
        assert str(folder).encode() not in content, name
        assert b"/srv/private" not in content, name
        assert str(Path(tracking.__file__).parent).encode() not in content, name


def test_versions_are_promoted_and_rolled_back_in_order(config: Config, record: TrainingRecord) -> None:
    for digest in DIGESTS[:3]:
        version = tracking.log_training(config, replace(record, digest=digest))
    assert version.aliases == ("challenger",)
    assert [one.version for one in tracking.list_versions(config)] == [3, 2, 1]
    assert tracking.promote(config, 3).aliases == ("challenger", "champion")
    assert tracking.promote(config, 2).aliases == ("champion",)
    assert tracking.promote(config, 2).aliases == ("champion",)
    assert tracking.rollback(config).version == 3
    assert tracking.rollback(config).version == 1
    with pytest.raises(ModelError, match="no earlier champion"):
        tracking.rollback(config)
    assert [one.version for one in tracking.list_versions(config) if "champion" in one.aliases] == [1]
    with pytest.raises(ModelError, match=r"no version 9\. Versions: 1, 2, 3\."):
        tracking.promote(config, 9)


def test_rollback_passes_over_deleted_versions(config: Config, record: TrainingRecord) -> None:
    for digest in DIGESTS[:3]:
        version = tracking.log_training(config, replace(record, digest=digest))
        tracking.promote(config, version.version)
    client_of(config).delete_model_version(config.name, "2")
    assert tracking.rollback(config).version == 1


def test_fetch_brings_the_champions_bundle_whole_and_replaces_nothing(
    logged: tuple[Config, tracking.ModelVersion], record: TrainingRecord, tmp_path: Path
) -> None:
    config, version = logged
    bundle, champion = fetch_champion(config, tmp_path)
    assert champion == version and bundle == tmp_path / version.digest
    (bundle / "manifest.json").write_text("damaged")
    (bundle / "extra.txt").write_text("not from the registry")
    before = files_of(bundle)
    with pytest.raises(ConfigError, match="is not empty; name a new folder"):
        fetch_champion(config, tmp_path)
    assert files_of(bundle) == before
    bundle, _ = fetch_champion(config, tmp_path / "new")
    assert files_of(bundle) == files_of(record.bundle)
    shutil.rmtree(tmp_path / "new")
    assert [entry.name for entry in tmp_path.iterdir()] == [version.digest]


def test_fetch_executes_nothing_from_the_registry(
    config: Config, record: TrainingRecord, folder: Path, tmp_path: Path
) -> None:
    version = tracking.log_training(config, record)
    source = Path(
        client_of(config).get_model_version(config.name, "1").source.removeprefix("file://").replace("%20", " ")
    )
    marker = tmp_path / "executed"
    (source / "pyfunc_model.py").write_text(f"open({str(marker)!r}, 'w')")
    assert fetch_champion(config, tmp_path / "cache")[1] == version
    assert not marker.exists()


def test_without_a_registry_a_model_or_a_champion_there_is_a_next_step(
    config: Config, record: TrainingRecord, tmp_path: Path
) -> None:
    absent = make_config(f"sqlite:///{tmp_path}/none/mlflow.db", "shop")
    for question in (tracking.list_versions, tracking.rollback):
        with pytest.raises(ModelError, match="Run `cvj-ml train` first"):
            question(absent)
    assert not (tmp_path / "none").exists()
    assert tracking.list_versions(config) == []
    with pytest.raises(ModelError, match="no earlier champion"):
        tracking.rollback(config)
    with pytest.raises(ModelError, match=r"has no champion\. Run `cvj-ml train`") as raised:
        fetch_champion(config, tmp_path)
    assert raised.value.exit_code == 4
    with pytest.raises(ModelError, match=r"no version 1\. Versions: none; run `cvj-ml train` first"):
        tracking.export(config, 1, tmp_path / "out")
    tracking.log_training(config, record)
    client_of(config).delete_registered_model_alias(config.name, "champion")
    with pytest.raises(ModelError, match="has no champion"):
        fetch_champion(config, tmp_path)


@pytest.mark.parametrize("digest", ["", "../../outside"])
def test_a_champion_that_something_else_registered_is_refused(
    config: Config, record: TrainingRecord, tmp_path: Path, digest: str
) -> None:
    tracking.log_training(config, record)
    client_of(config).set_model_version_tag(config.name, "1", "digest", digest)
    with pytest.raises(ModelError, match="carries no digest"):
        fetch_champion(config, tmp_path)


def test_a_champion_whose_artifacts_are_gone_is_told(config: Config, record: TrainingRecord, tmp_path: Path) -> None:
    version = tracking.log_training(config, record)
    client = client_of(config)
    shutil.rmtree(Path(url2pathname(urlsplit(client.get_run(version.run_id).info.artifact_uri).path)))
    with pytest.raises(ModelError, match="has lost the bundle"):
        fetch_champion(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_travels_to_another_name_by_export_and_import(
    logged: tuple[Config, tracking.ModelVersion], config: Config, record: TrainingRecord, tmp_path: Path
) -> None:
    source, version = logged
    exported = tracking.export(source, 1, tmp_path / "exported")
    assert files_of(exported) == files_of(record.bundle)
    with pytest.raises(ConfigError, match="not empty"):
        tracking.export(source, 1, exported)
    imported = tracking.import_bundle(config, exported, version.digest, INTERFACE)
    assert (imported.digest, imported.aliases, imported.cut) == (version.digest, ("challenger", "champion"), "")
    assert tracking.import_bundle(config, exported, version.digest, INTERFACE) == imported
    fetched, _ = fetch_champion(config, tmp_path / "cache")
    assert files_of(fetched) == files_of(record.bundle)


def test_what_is_no_bundle_is_not_registered(config: Config, record: TrainingRecord, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no journey\.yaml"):
        tracking.import_bundle(config, tmp_path, DIGESTS[0], INTERFACE)
    with pytest.raises(ModelError, match="not 64 hex digits"):
        tracking.log_training(config, replace(record, digest="abc"))
    assert tracking.list_versions(config) == []


def test_a_failed_training_is_marked_and_registers_nothing(config: Config, record: TrainingRecord) -> None:
    clash = {"a\u00e9": 1.0, "a\u00fc": 2.0}
    with pytest.raises(CvjError, match="both become 'a_'"):
        tracking.log_training(config, replace(record, cut="failing", metrics=clash))
    assert tracking.list_versions(config) == []
    client = client_of(config)
    runs = client.search_runs([client.get_experiment_by_name("tests").experiment_id], "run_name = 'train failing'")
    assert [run.info.status for run in runs] == ["FAILED"]


def test_every_metric_is_in_the_file_and_the_few_of_whole_questions_are_mlflows(
    config: Config, record: TrainingRecord
) -> None:
    cells = {f"test.auc_low.convert__ascend.{days}d": days / 1000 for days in range(1, 1101)}
    metrics = {**cells, "test.log_loss.return.30d": 0.2, "test.nothing_to_measure.x.30d": float("nan")}
    parameters = {f"setting{i}": i for i in range(230)}
    version = tracking.log_training(config, replace(record, metrics=metrics, parameters=parameters, effort=None))
    data = client_of(config).get_run(version.run_id).data
    assert len(data.params) == 230 and data.metrics == {"test.log_loss.return.30d": 0.2}
    training = tracking.find_training(config, version.digest)
    assert training and training.metrics == {**cells, "test.log_loss.return.30d": 0.2}
    assert training.data.keys() == {"orders", "evaluation 2024-05-02"}


def test_a_damaged_file_of_metrics_is_told(config: Config, record: TrainingRecord) -> None:
    version = tracking.log_training(config, record)
    root = Path(url2pathname(urlsplit(client_of(config).get_run(version.run_id).info.artifact_uri).path))
    (root / "metrics.json").write_text("[1]")
    with pytest.raises(RegistryError, match=r"metrics\.json of run \w+ is not what a training logged"):
        tracking.find_training(config, version.digest)
    (root / "metrics.json").unlink()  # as a run of an earlier version
    training = tracking.find_training(config, version.digest)
    assert training and training.metrics["test.log_loss.convert__ascend.30d"] == 0.18


def test_a_backtest_has_a_run_within_it_for_each_fold(config: Config, record: TrainingRecord) -> None:
    folds = [
        replace(record, cut=cut, metrics={"backtest.log_loss.return.30d": 0.2}, effort=None)
        for cut in ("2024-03-01", "2024-05-01")
    ]
    run_id = tracking.log_backtest(config, record, folds)
    client = client_of(config)
    found = client.search_runs(
        [client.get_run(run_id).info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["start_time"]
    )
    assert [one.info.run_name for one in found] == ["fold 2024-03-01", "fold 2024-05-01"]
    assert all(one.data.metrics == {"backtest.log_loss.return.30d": 0.2} for one in found)


def test_a_registry_may_be_moved(record: TrainingRecord, tmp_path: Path) -> None:
    before = make_config(f"sqlite:///{tmp_path}/before/mlflow.db", "shop")
    version = tracking.log_training(before, record)
    (tmp_path / "before").rename(tmp_path / "after")
    after = make_config(f"sqlite:///{tmp_path}/after/mlflow.db", "shop")
    assert files_of(fetch_champion(after, tmp_path / "cache")[0]) == files_of(record.bundle)
    training = tracking.find_training(after, version.digest)
    assert training and len(training.metrics) == len(record.metrics)


def test_two_versions_stand_side_by_side(config: Config, record: TrainingRecord, tmp_path: Path) -> None:
    low, high = {"test.log_loss_low.return.30d": 0.1}, {"test.log_loss_high.return.30d": 0.3}
    metrics = {"test.log_loss.return.30d": 0.2, **low, **high, **{f"test.auc.a__b.{day}d": 0.5 for day in range(99)}}
    for number, (digest, fold) in enumerate(zip(DIGESTS, ("2024-05-02", "2024-05-02", "2024-05-03"), strict=False)):
        parameters = {"fold_cut": fold, "trees_leaves": number, "seed": 1}
        inputs = {"orders": [{**record.inputs["orders"][0], "sha256": ("cd" if number == 2 else "ab") * 32}]}
        told = replace(record, digest=digest, parameters=parameters, metrics=metrics, inputs=inputs)
        tracking.log_training(config, replace(told, tags={"verdict": f"Verdict {number}."}))
    same = compare_versions(config, 1, 2)
    assert same.figures.to_dict("records") == [
        {"figure": "test.log_loss.return.30d"}
        | {f"{side}{bound}": value for side in "ab" for bound, value in (("", 0.2), ("_low", 0.1), ("_high", 0.3))}
    ]
    assert same.settings.to_dict("records") == [{"setting": "trees_leaves", "a": "0", "b": "1"}]
    assert same.warnings == () and [one.verdict for one in same.versions] == ["Verdict 0.", "Verdict 1."]
    other = compare_versions(config, 2, 3)
    assert "different folds (2024-05-02 and 2024-05-03)" in other.warnings[0] and "different data" in other.warnings[1]
    tracking.import_bundle(config, tracking.export(config, 1, tmp_path / "out"), DIGESTS[3], INTERFACE)
    with pytest.raises(ModelError, match=r"since they were imported[^\n]*\n  - version 4$"):
        compare_versions(config, 1, 4)


def test_a_version_is_copied_to_the_model_of_another_environment(
    config: Config, record: TrainingRecord, tmp_path: Path
) -> None:
    for digest in DIGESTS[:2]:
        tracking.log_training(config, replace(record, digest=digest))
    name = f"prod.{config.name}"
    copied = tracking.promote_to(config, 2, name)
    assert (copied.name, copied.version, copied.digest) == (name, 1, DIGESTS[1])
    assert copied.aliases == ("challenger", "champion")
    assert tracking.promote_to(config, 2, name) == copied, "it is not copied twice"
    assert tracking.promote_to(config, 1, name).version == 2
    assert [one.aliases for one in tracking.list_versions(config)] == [("challenger",), ("champion",)]
    production = config.model_copy(update={"mlflow": config.mlflow.model_copy(update={"registered_model": name})})
    bundle, champion = fetch_champion(production, tmp_path)
    assert (champion.name, champion.version) == (name, 2) and files_of(bundle) == files_of(record.bundle)
    assert tracking.rollback(production).version == 1
    with pytest.raises(ConfigError, match="that is the model itself"):
        tracking.promote_to(config, 1, config.name)


def test_nothing_is_printed_and_no_global_state_changes(
    config: Config,
    record: TrainingRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    # A leak through the fluent interface would go to this closed port.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)

    def state() -> tuple[object, ...]:
        loggers = (logging.root.manager.disable, logging.root.level, list(logging.root.handlers))
        return dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run(), loggers, list(warnings.filters)

    before = state()
    version = tracking.log_training(config, record)
    tracking.promote(config, version.version)
    fetch_champion(config, tmp_path / "cache")
    assert state() == before
    assert capfd.readouterr() == ("", "")
    assert {entry.name for entry in tmp_path.iterdir()} == {"cache"}


@pytest.mark.parametrize(
    "address",
    ["file:///tmp/mlruns", "mlruns", "", "sqlite://", "http://", "ftp://user:secret@host/mlflow"],
)
def test_an_address_that_cannot_hold_a_registry_is_a_config_error(address: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot hold a model registry.*sqlite:///mlflow\.db") as raised:
        tracking.list_versions(make_config(address, "shop"))
    assert "secret" not in str(raised.value)


def test_a_database_whose_driver_is_missing_is_told_with_the_package() -> None:
    with pytest.raises(ConfigError, match=r"mysql://db/mlflow needs the Python package 'MySQLdb'") as raised:
        tracking.list_versions(make_config("mysql://user:secret@db/mlflow", "shop"))
    assert "secret" not in str(raised.value)


def test_an_address_in_the_configuration_goes_before_that_of_the_environment_and_this_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = make_config("sqlite:///x.db", "shop").model_dump(mode="json", by_alias=True, exclude={"mlflow", "out"})
    (tmp_path / "job").mkdir()

    def found(**told: str) -> str:
        file = tmp_path / "shop.yaml"
        file.write_text(
            json.dumps({**document, "horizons": ["30d"], "burn_in": "90d", **({"mlflow": told} if told else {})})
        )
        return cvj_ml.load_config(file).mlflow.tracking_uri

    monkeypatch.chdir(tmp_path / "job")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert found() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # names nothing, as for MLflow
    assert found() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://registry.example:5000")
    assert found() == "http://registry.example:5000"
    assert found(tracking_uri="sqlite:///own.db") == f"sqlite:///{tmp_path}/own.db"
    assert found(experiment="other") == "http://registry.example:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///theirs.db")
    assert found() == f"sqlite:///{tmp_path}/job/theirs.db"  # as MLflow reads it


def test_a_dead_server_is_told_in_seconds_and_without_its_password() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(CvjError, match=rf"127\.0\.0\.1:{port} failed: the server does not answer\. Check") as raised:
        tracking.list_versions(make_config(f"http://user:secret@127.0.0.1:{port}", "shop"))
    assert time.monotonic() - started < 15
    assert raised.value.exit_code == 1
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("status", [403, 503])
def test_a_server_that_refuses_is_told_with_its_status(status: int) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        with pytest.raises(CvjError, match=rf"failed: the server answered with HTTP status {status}\. Check"):
            tracking.list_versions(make_config(f"http://127.0.0.1:{refusing.server_port}", "shop"))
        refusing.shutdown()


def test_a_file_that_is_no_database_is_told_at_once(tmp_path: Path, record: TrainingRecord) -> None:
    (tmp_path / "mlflow.db").write_text("this is not a database" * 100)
    started = time.monotonic()
    with pytest.raises(CvjError, match=r"failed: file is not a database\. Check that the file"):
        tracking.log_training(make_config(f"sqlite:///{tmp_path}/mlflow.db", "shop"), record)
    assert time.monotonic() - started < 15


def test_a_registry_that_another_run_opens_is_waited_for_and_then_told(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LOCK_SECONDS", 0.2)
    lock = sqlite3.connect(folder / "a registry" / "mlflow.db.lock", isolation_level=None)
    with closing(lock):
        lock.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LockedError, match="held by another run"):
            tracking.list_versions(config)
    assert tracking.list_versions(config) == []


FIRST_USE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_tracking import make_config, make_record
from cvj_ml import tracking
from cvj_ml.tracking.connection import quietly
with quietly():
    import mlflow.store.tracking.sqlalchemy_store, mlflow.pyfunc
folder, me = Path(sys.argv[1]), sys.argv[2]
record = make_record(folder / me)
(folder / f"ready-{me}").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
tracking.log_training(make_config(f"sqlite:///{folder}/mlflow.db", "shop"), record)
"""


@pytest.mark.slow
def test_four_processes_may_create_the_registry_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FIRST_USE, str(tmp_path)]
    processes = [
        subprocess.Popen(
            [*command, str(i), str(Path(__file__).parent)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(4)
    ]  # fmt: skip
    try:
        wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 4, 120)
        (tmp_path / "go").touch()
        assert [process.communicate(timeout=90)[0] for process in processes] == [""] * 4
    finally:
        for process in processes:
            process.kill()
            process.wait(timeout=30)
    assert [process.returncode for process in processes] == [0] * 4
    versions = tracking.list_versions(make_config(f"sqlite:///{tmp_path}/mlflow.db", "shop"))
    assert [one.version for one in versions] == [4, 3, 2, 1]


PASSWORD = "not-a-real-password"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server that asks for a password, and the folder in which it keeps everything."""
    folder = tmp_path_factory.mktemp("guarded")
    with tracking_server(folder, PASSWORD) as address:
        yield address, folder


@pytest.fixture
def server(guarded: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    return guarded[0]


@pytest.mark.slow
def test_a_wrong_password_is_told_and_not_shown(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-wrong-password")
    with pytest.raises(RegistryError, match="HTTP status 401") as raised:
        tracking.list_versions(make_config(server, "shop"))
    assert "a-wrong-password" not in str(raised.value)


@pytest.mark.slow
def test_everything_works_over_http(
    server: str, guarded: tuple[str, Path], record: TrainingRecord, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config(server, "shop")
    with pytest.raises(ModelError, match="has no champion"):
        fetch_champion(config, tmp_path / "cache")
    first = tracking.log_training(config, replace(record, metrics={**record.metrics, "not_measured": float("nan")}))
    second = tracking.log_training(config, replace(record, digest=DIGESTS[1]))
    assert first.aliases == ("challenger", "champion") and second.aliases == ("challenger",)
    assert tracking.promote(config, 2).aliases == ("challenger", "champion")
    bundle, champion = fetch_champion(config, tmp_path / "cache")
    assert champion.version == 2 and files_of(bundle) == files_of(record.bundle)
    assert tracking.rollback(config).version == 1
    with pytest.raises(ModelError, match="no earlier champion"):
        tracking.rollback(config)
    exported = tracking.export(config, 2, tmp_path / "exported")
    assert tracking.import_bundle(config, exported, DIGESTS[2], INTERFACE).version == 3
    assert [one.version for one in tracking.list_versions(config)] == [3, 2, 1]
    assert (guarded[1] / "stored").is_dir()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_mlflows_practice_holds_on_a_server_that_asks_for_a_password(server: str, record: TrainingRecord) -> None:
    """Told by MLflow itself: registered at log time, with alias, signature, example, data, tags, and code as text."""
    from mlflow.models import get_model_info

    config, name = make_config(server, "practice"), "prod.practice"
    with webhook_receiver() as (address, calls):
        client = client_of(config)
        events = ["model_version_alias.created", "model_version.created"]
        client.create_webhook("deploy", address, events, secret="of the webhook")
        version = tracking.log_training(config, record)
        copied = tracking.promote_to(config, version.version, name)
        wait_until(lambda: sum("alias" in one["data"] for one in calls) >= 4, 60)

    run = client.get_run(version.run_id)
    assert run.data.tags["mlflow.source.name"] == "cvj-ml train" and run.data.tags["mlflow.user"]
    (logged,) = run.outputs.model_outputs
    model = client.get_logged_model(logged.model_id)
    of_data = {(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs}
    assert model.metrics and {(one.dataset_name, one.dataset_digest) for one in model.metrics} < of_data
    for alias in ("champion", "challenger"):
        assert client.get_model_version_by_alias("practice", alias).version == "1"
    production = client.get_model_version_by_alias(name, "champion")
    assert (production.version, production.run_id) == (str(copied.version), version.run_id)
    assert production.tags == client.get_model_version("practice", "1").tags
    told = [one["data"] for one in calls if one["data"].get("alias") == "champion"]
    assert {(one["name"], one["version"]) for one in told} == {("practice", "1"), (name, "1")}

    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    try:
        info = get_model_info(f"models:/{name}@champion")
    finally:
        mlflow.set_tracking_uri(before)
    assert [one.name for one in info.signature.params.params] == ["as_of"]
    assert info.saved_input_example_info and "pyfunc_model.py" in info.flavors["python_function"]["model_code_path"]
    assert "python_model" not in info.flavors["python_function"], "a pickle"


@contextmanager
def webhook_receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield an address on this machine, and what was posted there with a signature that is right."""
    calls: list[dict[str, Any]] = []

    class Receiving(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            signed = ".".join([self.headers["X-MLflow-Delivery-Id"], self.headers["X-MLflow-Timestamp"], body])
            right = base64.b64encode(hmac.digest(b"of the webhook", signed.encode(), "sha256")).decode()
            if self.headers["X-MLflow-Signature"] == f"v1,{right}":
                calls.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiving) as receiving:
        threading.Thread(target=receiving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{receiving.server_port}/models", calls
        receiving.shutdown()


NONSENSE = {
    "a page to log in": ("text/html", "<html><form>Log in</form></html>"),
    "an empty object": ("application/json", "{}"),
    "an empty list": ("application/json", "[]"),
    "null": ("application/json", "null"),
    "another model": ("application/json", '{"registered_model": {"name": "other", "aliases": []}}'),
    "numbers for text": ("application/json", '{"registered_model": {"name": 5, "aliases": 7}}'),
    "a cut answer": ("application/json", '{"registered_model": {"na'),
    "nothing": ("text/plain", ""),
    "bytes": ("application/octet-stream", "\x00\x01\x02"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_a_server_that_answers_with_nonsense_is_told(case: str) -> None:
    kind, text = NONSENSE[case]

    class Babbling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Babbling) as babbling:
        threading.Thread(target=babbling.serve_forever, daemon=True).start()
        config = make_config(f"http://127.0.0.1:{babbling.server_port}", "shop")
        for ask in (tracking.list_versions, tracking.current_champion):
            with pytest.raises(RegistryError, match=r"The model registry at http://127\.0\.0\.1:\d+ failed: ") as told:
                ask(config)
            assert told.value.exit_code == 1
        babbling.shutdown()
