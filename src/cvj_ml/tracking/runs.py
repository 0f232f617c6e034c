"""Logging: one run with its settings, data fingerprints and results, and the bundle as a model."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from cvj_ml.config import Config
from cvj_ml.disk import write_csv
from cvj_ml.errors import CvjError, raise_all
from cvj_ml.tracking.connection import sqlite_file
from cvj_ml.tracking.records import Fingerprint, Record
from cvj_ml.tracking.signature import signature_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel, Run

    from cvj_ml.scoring import Interface

T = TypeVar("T")

BUNDLE = "bundle"

# The least that every MLflow store accepts in one request.
_PARAMETERS_A_REQUEST = 100
_METRICS_A_REQUEST = 500


@contextmanager
def new_run(client: MlflowClient, config: Config, name: str, parent: Run | None = None) -> Iterator[Run]:
    """Yield a new run, nested in its parent if it has one; it ends as finished, or as failed where the block raises."""
    tags = {"mlflow.parentRunId": parent.info.run_id} if parent else None
    run = client.create_run(_experiment(client, config), run_name=name, tags=tags)
    try:
        yield run
    except BaseException:
        # The failure that is being handled says more than one while noting it down.
        with suppress(Exception):
            client.set_terminated(run.info.run_id, "FAILED")
        raise
    client.set_terminated(run.info.run_id, "FINISHED")


def log_record(client: MlflowClient, run: Run, model: LoggedModel | None, record: Record) -> None:
    """Log parameters, inputs, metrics, tables and figures to a run; metrics belong to the model, if there is one."""
    from mlflow.entities import Metric, Param

    run_id = run.info.run_id
    now = time.time_ns() // 1_000_000
    metrics = [
        Metric(name, float(value), now, 0, model_id=model.model_id if model else None)
        for name, value in _sanitised("metrics", record.metrics).items()
    ]
    parameters = [Param(name, str(value)) for name, value in _sanitised("parameters", record.parameters).items()]
    for start in range(0, len(parameters), _PARAMETERS_A_REQUEST):
        client.log_batch(run_id, params=parameters[start : start + _PARAMETERS_A_REQUEST])
    for start in range(0, len(metrics), _METRICS_A_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_REQUEST])
    client.log_inputs(run_id, datasets=[_dataset(name, files) for name, files in record.inputs.items()])
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, table in _sanitised("tables", record.tables).items():
            write_csv(_new_file(folder, "tables", name, "csv"), pa.Table.from_pandas(table, preserve_index=False))
        for name, figure in _sanitised("figures", record.figures).items():
            figure.savefig(_new_file(folder, "figures", name, "svg"), format="svg")
        inputs = {name: [_without_folder(file) for file in files] for name, files in record.inputs.items()}
        (folder / "inputs.json").write_text(json.dumps(inputs, indent=1, sort_keys=True), encoding="utf-8")
        client.log_artifacts(run_id, str(folder))


def log_model(client: MlflowClient, config: Config, run: Run, bundle: Path, interface: Interface) -> LoggedModel:
    """Log the bundle folder as artifacts of the run, and as a model whose code is text, not a pickle."""
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run_id = run.info.run_id
    client.log_artifacts(run_id, str(bundle), BUNDLE)
    model = client.create_logged_model(run.info.experiment_id, name=config.name, source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    description = Model(model_id=model.model_id, model_uuid=model.model_id, run_id=run_id)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={BUNDLE: str(bundle.resolve())},
            signature=signature_of(interface),
            input_example=(interface.example, {"as_of": interface.as_of}),
            pip_requirements=[_own_requirement()],
            mlflow_model=description,
        )
        _forget_paths(description)
        description.save(str(folder / "MLmodel"))
        client.log_model_artifacts(model.model_id, str(folder))
    return client.finalize_logged_model(model.model_id, "READY")


def _experiment(client: MlflowClient, config: Config) -> str:
    """Return the id of the configured experiment, which is created at its first use."""
    from mlflow.exceptions import MlflowException

    name = config.mlflow.experiment or config.name
    found = client.get_experiment_by_name(name)
    if found is None:
        database = sqlite_file(config.mlflow.tracking_uri)
        artifacts = (database.parent / "mlartifacts").as_uri() if database else None
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another run created it in between.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise CvjError(f"The MLflow experiment {name!r} is deleted. Restore it, or choose another mlflow.experiment.")
    return str(found.experiment_id)


def _dataset(source: str, files: Sequence[Fingerprint]) -> DatasetInput:
    """Describe a source by the digest of its files: no row of it is logged, and no folder."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag

    named = sorted(map(_without_folder, files), key=lambda file: (file["file"], file["sha256"]))
    content = json.dumps(named, sort_keys=True)
    # MLflow holds at most 36 characters; inputs.json beside it has every sha256 whole.
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    size = {"files": len(files), "bytes": sum(file["bytes"] for file in files)}
    # mypy takes it for abstract, though MLflow means it to be used as it is.
    described = MetaDataset(CodeDatasetSource(tags=size), name=source, digest=digest)  # type: ignore[abstract]
    entity = Dataset(**described.to_dict(), profile=json.dumps(size))
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])


def _without_folder(file: Fingerprint) -> Fingerprint:
    """Keep of a file's path its name alone; a path on Windows ends in a name, too."""
    return Fingerprint(file=PureWindowsPath(file["file"]).name, sha256=file["sha256"], bytes=file["bytes"])


def _sanitised(what: str, values: Mapping[str, T]) -> dict[str, T]:
    """Replace what MLflow refuses in names by ``_``; two names that become one are an error."""
    result: dict[str, T] = {}
    faults = []
    for name, value in values.items():
        clean = re.sub(r"[^A-Za-z0-9_.\- ]", "_", name)[:250]
        if clean in result:
            faults.append(f"{name!r} and another one both become {clean!r}; rename one of them")
        result[clean] = value
    raise_all(CvjError, f"MLflow cannot hold these {what} side by side:", faults)
    return result


def _new_file(folder: Path, kind: str, name: str, suffix: str) -> Path:
    (folder / kind).mkdir(exist_ok=True)
    return folder / kind / f"{name}.{suffix}"


def _own_requirement() -> str:
    try:
        return f"cvj-ml=={metadata.version('cvj-ml')}"
    except metadata.PackageNotFoundError:
        return "cvj-ml"


def _forget_paths(description: Any) -> None:
    """Take this machine's folders out of a model's description; MLflow reads neither of them when it loads."""
    flavor = description.flavors["python_function"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
