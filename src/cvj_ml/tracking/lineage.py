"""Where a run comes from: who made it, with which code and journey, from which data, and on which it was judged.

Terms and tags are MLflow's own. No row, no value and no folder of the data is logged.
"""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from cvj_ml.config import Config
from cvj_ml.store import Fingerprint
from cvj_ml.store.store import source_label

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.types import Schema

_TYPES = {
    **dict.fromkeys(("customer_id", "touchpoint_id", "event", "channel"), "string"),
    **dict.fromkeys(("occurred_at", "known_at"), "datetime"),
    "value": "double",
}
"""MLflow's types of our columns; of properties and attributes nothing is said."""

EVALUATION = "evaluation "
"""How the name of what metrics were measured on begins."""


def run_tags(config: Config, kind: str, cut: str) -> dict[str, str]:
    """Return the tags of a run: MLflow's for source, user and commit, and ours for version, journey and cut.

    The commit is that of the working folder's repository, where configurations are kept; none outside one.
    """
    from mlflow.utils.git_utils import get_git_commit

    found = {
        "mlflow.source.name": f"cvj-ml {kind}",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "mlflow.source.git.commit": get_git_commit(str(Path.cwd())) or "",
        "cvj_ml.version": metadata.version("cvj-ml"),
        "journey": config.journey.name,
        "cut": cut,
    }
    return {name: value for name, value in found.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return ""


def source_datasets(config: Config, inputs: Mapping[str, Sequence[Fingerprint]]) -> list[DatasetInput]:
    """Describe each source by the digest of its files, and by the columns that the configuration maps."""
    found = []
    for name, files in inputs.items():
        size: dict[str, int | str] = {"files": len(files), "bytes": sum(file["bytes"] for file in files)}
        found.append(_described(name, _digest_of_files(files), _schema(config, name), size, "training"))
    return found


def evaluation_dataset(inputs: Mapping[str, Sequence[Fingerprint]], judged_at: str) -> DatasetInput:
    """Describe what metrics were measured on: all sources, as they were known at the instant of a fold and after it."""
    digest = _digest([{name: _digest_of_files(files) for name, files in inputs.items()}, judged_at])
    size: dict[str, int | str] = {"sources": len(inputs), "as_of": judged_at}
    return _described(f"{EVALUATION}{judged_at[:10]}", digest, None, size, "evaluation")


def _described(
    name: str, digest: str, schema: Schema | None, size: Mapping[str, int | str], context: str
) -> DatasetInput:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag

    # mypy takes it for abstract, though MLflow means it to be used as it is.
    described = MetaDataset(  # type: ignore[abstract]
        CodeDatasetSource(tags=dict(size)), name=name, digest=digest, schema=schema
    )
    entity = Dataset(**described.to_dict() | {"profile": json.dumps(size)})
    return DatasetInput(entity, [InputTag("mlflow.data.context", context)])


def _schema(config: Config, name: str) -> Schema | None:
    """Return the columns of a table that are read, by our names; None where the configuration maps none."""
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    touchpoints = config.touchpoint_tables.get(source_label(name))
    own = getattr(touchpoints or getattr(config, name, None), "columns", {})
    columns = dict.fromkeys((*(("customer_id", "occurred_at", "event") if touchpoints else ()), *own))
    anything: AnyType = AnyType()  # type: ignore[no-untyped-call]  # MLflow gives its constructor no types
    return Schema([ColSpec(_TYPES.get(one, anything), one, required=False) for one in columns]) if columns else None


def _digest(content: object) -> str:
    """Return a digest of plain data; MLflow holds 36 characters, and inputs.json has every sha256 whole."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _digest_of_files(files: Sequence[Fingerprint]) -> str:
    return _digest(sorted(map(without_folder, files), key=lambda file: (file["file"], file["sha256"])))


def without_folder(file: Fingerprint) -> Fingerprint:
    """Keep of a file's path its name alone; a path on Windows ends in a name, too."""
    return Fingerprint(file=PureWindowsPath(file["file"]).name, sha256=file["sha256"], bytes=file["bytes"])
