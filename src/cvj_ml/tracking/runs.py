"""Logging: one run with its settings, data fingerprints and results, and the bundle as a model.

What a training leaves behind, and what the registry knows of a model version.

What the logged model takes and gives, as MLflow describes it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import pyarrow as pa
from pandas.api import types

from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, CvjError, RegistryError, raise_all
from cvj_ml.evaluation.mlflow_record import headline
from cvj_ml.io import json_values, sorted_json, write_csv
from cvj_ml.run import Effort
from cvj_ml.store import Fingerprint
from cvj_ml.tracking.connection import is_database, sqlite_file
from cvj_ml.tracking.lineage import EVALUATION, evaluation_dataset, run_tags, source_datasets, without_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.types.schema import Array, DataType

    from cvj_ml.scoring.serving import Interface

T = TypeVar("T")

BUNDLE = "bundle"

ARTIFACTS = "mlartifacts"
"""The folder of artifacts beside a sqlite file."""

METRICS = "metrics.json"
"""The artifact that holds every metric of a run."""

_MOST_BYTES = 2**24
"""Far above any such file."""

_EFFORT = "system/"
"""What MLflow shows as system metrics begins so."""

# The least that every MLflow store accepts in one request.
_PARAMETERS_A_REQUEST = 100


@contextmanager
def new_run(
    client: MlflowClient,
    config: Config,
    kind: str,
    cut: str,
    *,
    title: str = "",
    parent: Run | None = None,
    note: str = "",
    effort: Effort | None = None,
) -> Iterator[Run]:
    """Yield a new run, nested in its parent if it has one; it ends as finished, or as failed where the block raises.

    kind: what is logged, such as ``train``; title: its name, by default kind and cut; note: its description; effort: of
    the work that it tells of, with which it began (by default now).
    """
    tags = run_tags(config, kind, cut)
    if note:
        tags["mlflow.note.content"] = note
    if parent:
        tags["mlflow.parentRunId"] = parent.info.run_id
    began = None if effort is None else int(effort.began * 1000)
    experiment, name = _experiment(client, config), title or f"{kind} {cut}"
    run = client.create_run(experiment, run_name=name, tags=tags, start_time=began)
    try:
        yield run
    except BaseException:
        # The failure that is being handled says more than one while noting it down.
        with suppress(Exception):
            client.set_terminated(run.info.run_id, "FAILED")
        raise
    client.set_terminated(run.info.run_id, "FINISHED")


def log_record(client: MlflowClient, config: Config, run: Run, model: LoggedModel | None, record: Record) -> None:
    """Log parameters, inputs, metrics, tables and figures to a run; metrics belong to the model, if there is one.

    All metrics stand in ``metrics.json``; those of the headline are MLflow's too, each with the data that it is of.
    """
    from mlflow.entities import Metric, Param

    run_id = run.info.run_id
    now = time.time_ns() // 1_000_000
    judged = evaluation_dataset(record.inputs, record.judged_at) if record.inputs and record.judged_at else None
    of_data = (judged.dataset.name, judged.dataset.digest) if judged else (None, None)
    every = _sanitised("metrics", record.metrics)
    metrics = [
        Metric(name, float(value), now, 0, model.model_id if model else None, *of_data)
        for name, value in headline(every).items()
    ]
    parameters = [Param(name, str(value)) for name, value in _sanitised("parameters", record.parameters).items()]
    for start in range(0, len(parameters), _PARAMETERS_A_REQUEST):
        client.log_batch(run_id, params=parameters[start : start + _PARAMETERS_A_REQUEST])
    # The data go first: MLflow ties a metric to the data of its run.
    datasets = source_datasets(config, record.inputs)
    client.log_inputs(run_id, datasets=[*datasets, *([judged] if judged else [])])
    # Under MLflow's own heading, and not among the results: no two runs take the same.
    used = record.effort.so_far() if record.effort else {}
    metrics += [Metric(f"{_EFFORT}{name}", value, now, 0) for name, value in used.items()]
    client.log_batch(run_id, metrics=metrics)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, table in _sanitised("tables", record.tables).items():
            write_csv(_new_file(folder, "tables", name, "csv"), pa.Table.from_pandas(table, preserve_index=False))
        for name, figure in _sanitised("figures", record.figures).items():
            figure.savefig(_new_file(folder, "figures", name, "svg"), format="svg")
        inputs = {name: [without_folder(file) for file in files] for name, files in record.inputs.items()}
        (folder / "inputs.json").write_text(json.dumps(inputs, indent=1, sort_keys=True), encoding="utf-8")
        (folder / METRICS).write_text(sorted_json(json_values(every)), encoding="utf-8")
        client.log_artifacts(run_id, str(folder))


def artifacts_of(config: Config, run: Run) -> ArtifactRepository:
    """Return the artifacts of a run, where they are now: MLflow keeps a whole path, and a sqlite file may be moved.

    Those of a file lie beside it in ``mlartifacts``, and are found there when they are no longer where they were.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri, database = config.mlflow.tracking_uri, sqlite_file(config.mlflow.tracking_uri)
    root = str(run.info.artifact_uri)
    if database is not None and root.startswith("file:"):
        kept = Path(url2pathname(urlsplit(root).path))
        _, beside, inside = kept.as_posix().rpartition(f"/{ARTIFACTS}/")
        moved = database.parent / ARTIFACTS / inside
        if beside and not kept.exists() and moved.is_dir():
            root = moved.as_uri()
    return get_artifact_repository(root, tracking_uri=uri)


def logged_training(client: MlflowClient, config: Config, version: ModelVersion) -> LoggedTraining:
    """Return what the run of a version logged, all of its metrics; RegistryError where their file is damaged."""
    run = client.get_run(version.run_id)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    data = {one.dataset.name: one.dataset.digest for one in inputs}
    results = {name: value for name, value in run.data.metrics.items() if not name.startswith(_EFFORT)}
    metrics = {**results, **_every_metric(artifacts_of(config, run), version.run_id)}
    return LoggedTraining(version.cut, dict(run.data.params), metrics, data)


def _every_metric(artifacts: ArtifactRepository, run_id: str) -> dict[str, float]:
    """Return the metrics of the file; none where the run is from before there was one."""
    found = next((one for one in artifacts.list_artifacts() if one.path == METRICS), None)
    if found is None:
        return {}
    try:
        if (found.file_size or 0) > _MOST_BYTES:
            raise ValueError
        with TemporaryDirectory() as temporary:
            artifacts.download_artifacts(METRICS, temporary)  # type: ignore[no-untyped-call]  # MLflow gives it no types
            text = Path(temporary, METRICS).read_text(encoding="utf-8")
        return {str(name): float(value) for name, value in json.loads(text).items() if value is not None}
    except (ValueError, TypeError, AttributeError):
        raise RegistryError(f"The artifact {METRICS} of run {run_id} is not what a training logged.") from None


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
        try:
            return client.create_experiment(name, artifact_location=_artifact_location(config))
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


def _artifact_location(config: Config) -> str | None:
    """Return where files of a new experiment go: as configured, beside a sqlite file, or (None) as the server says."""
    told, uri = config.mlflow.artifact_location, config.mlflow.tracking_uri
    if told or not is_database(uri):
        return told
    database = sqlite_file(uri)
    if database is None:
        raise ConfigError(
            "mlflow.artifact_location: a database holds no files, and MLflow would put them into the working folder."
            " Name where they go, such as s3://bucket/mlflow or file:///srv/mlflow."
        )
    return (database.parent / ARTIFACTS).as_uri()


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


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run leaves: settings, data fingerprints and results, but no customer's data.

    cut: ISO instant at which observation ends; inputs: fingerprints of each source's files; metrics: such as
    ``test.log_loss.convert__ascend.30d``; judged_at: ISO instant of the fold that they were measured at, "" where
    nothing was; tables and figures: by the name of their artifact; effort: of the work whose run it is.
    """

    parameters: Mapping[str, str | int | float]
    cut: str
    inputs: Mapping[str, Sequence[Fingerprint]]
    metrics: Mapping[str, float]
    judged_at: str = ""
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    effort: Effort | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(Record):
    """One training, ready to be logged with its bundle.

    bundle: the folder of DESIGN section 9 and digest its sha256 (64 hex digits); interface: what its model takes and
    gives, with an example of simulated customers; tags: of the version.
    """

    bundle: Path
    digest: str
    interface: Interface
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoggedTraining:
    """What the run of a registered version logged.

    cut: ISO instant of the training; data: the digest of each dataset, of the sources and of the evaluation.
    """

    cut: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> dict[str, str]:
        """The digest of each source alone."""
        return {name: digest for name, digest in self.data.items() if not name.startswith(EVALUATION)}


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of the model.

    digest: of the bundle, 64 hex digits, and empty for a version that something else registered; cut: ISO instant of
    the training, empty for an imported bundle; created: ISO instant in UTC, whole seconds; bundle_format: what the
    bundle promises (`verification.FORMAT`), 1 where the version does not say; verdict: what its training decided and
    why, a sentence, empty where nothing was compared or it was imported.
    """

    name: str
    version: int
    digest: str
    run_id: str
    aliases: tuple[str, ...]
    cut: str
    created: str
    bundle_format: int = 1
    verdict: str = ""


def signature_of(interface: Interface) -> ModelSignature:
    """Return rows → SCORES with the parameter ``as_of``.

    The columns have names and no types: MLflow would refuse times with a zone and whole numbers, and make the text
    "None" of a null. The model reads them as ingest reads a source, and its errors name what is missing, which
    MLflow's do not; so MLflow requires only what every form of the rows has.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    anything: AnyType = AnyType()  # type: ignore[no-untyped-call]  # MLflow gives its constructor no types
    names = dict.fromkeys(("customer_id", *interface.required, *interface.optional))
    return ModelSignature(
        Schema([ColSpec(anything, name, required=name == "customer_id") for name in names]),
        Schema([ColSpec(_type(column), str(name)) for name, column in interface.scores.items()]),
        ParamSchema([ParamSpec("as_of", DataType.string, default=None)]),
    )


def _type(column: pd.Series) -> DataType | Array:
    """Return MLflow's type of a column of SCORES; instants are ISO text there, since MLflow's have no zone."""
    from mlflow.types.schema import Array, DataType

    if types.is_bool_dtype(column):
        return DataType.boolean
    if types.is_float_dtype(column):
        return DataType.double
    return Array(DataType.string) if column.name == "low_evidence" else DataType.string
