"""Model versions: register, list, promote, roll back, fetch, export and import."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, ModelError
from cvj_ml.models.bundle.verification import CARD, FORMAT
from cvj_ml.tracking.connection import connect
from cvj_ml.tracking.runs import (
    BUNDLE,
    LoggedTraining,
    ModelVersion,
    Record,
    TrainingRecord,
    artifacts_of,
    log_model,
    log_record,
    logged_training,
    new_run,
)
from cvj_ml.tracking.versions import (
    CHALLENGER,
    CHAMPION,
    FORMAT_TAG,
    champion_of,
    find,
    past_champions,
    version_of,
    versions_of,
    with_digest,
    write_past_champions,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

    from cvj_ml.scoring.serving import Interface

# Far above any model's; what is listed as larger is not even downloaded.
_MOST_FILES = 200
_MOST_BYTES = 2**30


def log_training(config: Config, record: TrainingRecord, *, usable: bool = True) -> ModelVersion:
    """Log a training and register its bundle as the challenger; where there is no champion it becomes that, too.

    Not ``usable``: it is no model to score with, or was not to become the champion, so it is the challenger alone.

    A failure leaves a run that is marked as failed and no new version. Raises ModelError where the bundle is not one,
    CvjError where the registry fails.
    """
    tags = {**_tags(record.bundle, record.digest, record.cut), **record.tags}
    with connect(config, create=True) as client:
        in_short = _in_short(record.bundle)
        with new_run(client, config, "train", record.cut, note=in_short, effort=record.effort) as run:
            model = log_model(client, config, run, record.bundle, record.interface)
            log_record(client, config, run, model, record)
        return _register(client, config.registered_model, model, tags, in_short, usable=usable)


def log_backtest(config: Config, record: Record, folds: Sequence[Record]) -> str:
    """Log a backtest, which registers nothing, with a nested run for each fold, and return the id of its run."""
    return _log_nested(config, "backtest", record, {f"fold {one.cut[:10]}": one for one in folds})


def log_search(config: Config, record: Record, trials: Sequence[Record]) -> str:
    """Log a search for settings with a nested run for each trial, and return the id of its run."""
    return _log_nested(config, "search", record, {f"trial {number}": one for number, one in enumerate(trials, 1)})


def _log_nested(config: Config, kind: str, record: Record, parts: Mapping[str, Record]) -> str:
    with (
        connect(config, create=True) as client,
        new_run(client, config, kind, record.cut, effort=record.effort) as run,
    ):
        log_record(client, config, run, None, record)
        for title, part in parts.items():
            with new_run(client, config, kind, part.cut, title=title, parent=run) as nested:
                log_record(client, config, nested, None, part)
        return str(run.info.run_id)


def list_versions(config: Config) -> list[ModelVersion]:
    """Return the registered versions, newest first; none where nothing was registered yet."""
    with connect(config) as client:
        return versions_of(client, config.registered_model)


def find_champion(config: Config) -> ModelVersion | None:
    """Return the champion, None where there is no registry yet or no champion in it."""
    with connect(config, create=True) as client:
        return champion_of(versions_of(client, config.registered_model))


def promote(config: Config, version: int) -> ModelVersion:
    """Make a version the champion and remember the one before it for ``rollback``.

    Raises ModelError where there is no such version.
    """
    with connect(config) as client:
        return _promote(client, config.registered_model, version)


def promote_to(config: Config, version: int, name: str) -> ModelVersion:
    """Copy a version to another registered model, that of an environment, and make the copy the champion there.

    What is there already by its digest is not copied again. Raises ModelError where there is no such version, or it is
    no bundle, ConfigError where the name is that of the model itself.
    """
    own = config.registered_model
    if name == own:
        raise ConfigError(
            f"--to {name}: that is the model itself. Name the one of another environment, or leave it out."
        )
    with connect(config) as client:
        chosen = with_digest(version_of(client, own, version))
        copied = [one.version for one in versions_of(client, name) if one.digest == chosen.digest]
        if not copied:
            with redirect_stderr(io.StringIO()):  # MLflow tells the copy to whoever looks
                copied = [int(client.copy_model_version(f"models:/{own}/{version}", name).version)]
            client.set_registered_model_alias(name, CHALLENGER, str(copied[0]))
        return _promote(client, name, copied[0])


def _promote(client: MlflowClient, name: str, version: int) -> ModelVersion:
    versions = versions_of(client, name)
    chosen = find(versions, version, name)
    champion = champion_of(versions)
    if champion is None or champion.version != chosen.version:
        if champion is not None:
            # Before the alias moves: an interruption in between leaves the champion its own predecessor, which
            # rollback skips.
            write_past_champions(client, name, [*past_champions(client, name), champion.version])
        client.set_registered_model_alias(name, CHAMPION, str(chosen.version))
    return version_of(client, name, version)


def rollback(config: Config) -> ModelVersion:
    """Make the champion before the present one champion again; raises ModelError where there was none."""
    with connect(config) as client:
        versions = versions_of(client, config.registered_model)
        champion = champion_of(versions)
        present = champion.version if champion else None
        past = past_champions(client, config.registered_model) if versions else []
        kept = {one.version for one in versions} - {present}
        while past and past[-1] not in kept:
            past.pop()
        if not past:
            raise ModelError(
                f"{config.registered_model} has no earlier champion to return to. See `cvj-ml models list` and promote"
                " a version."
            )
        previous = past.pop()
        client.set_registered_model_alias(config.registered_model, CHAMPION, str(previous))
        write_past_champions(client, config.registered_model, past)
        return version_of(client, config.registered_model, previous)


def find_training(config: Config, digest: str) -> LoggedTraining | None:
    """Return what the training of the model with this digest logged; None where it was imported, or is not there."""
    with connect(config) as client:
        for version in versions_of(client, config.registered_model):
            if version.digest == digest and version.cut:
                return logged_training(client, config, version)
    return None


def describe_version(config: Config, version: int) -> tuple[ModelVersion, LoggedTraining | None]:
    """Return a version and what its training logged, None where it was imported; ModelError where there is none."""
    with connect(config) as client:
        found = version_of(client, config.registered_model, version)
        return found, logged_training(client, config, found) if found.cut else None


def current_champion(config: Config) -> ModelVersion:
    """Return the champion, to be used from here on whatever is promoted meanwhile.

    Raises ModelError where there is no registry, no champion or no bundle, RegistryError where the registry fails.
    """
    with connect(config) as client:
        champion = champion_of(versions_of(client, config.registered_model))
    if champion is None:
        raise ModelError(
            f"{config.registered_model} has no champion. Run `cvj-ml train`, or promote a version of `cvj-ml models"
            " list`."
        )
    return with_digest(champion)


def find_version(config: Config, version: int) -> ModelVersion:
    """Return a registered version; raises ModelError where there is none, or one that is no bundle."""
    with connect(config) as client:
        return with_digest(version_of(client, config.registered_model, version))


def fetch(config: Config, version: ModelVersion, folder: Path) -> Path:
    """Download a version's bundle to ``folder/<digest>`` and return that path.

    Nothing of it is loaded or checked here: verify it before use. Raises ModelError where the bundle is lost or far
    too large to be one, RegistryError where the registry fails, ConfigError where something is there already.
    """
    _require_new(folder / version.digest)
    with connect(config) as client:
        _download(client, config, version, folder / version.digest)
    return folder / version.digest


def export(config: Config, version: int, folder: Path) -> Path:
    """Download a version's bundle into a new or empty folder and return it.

    Raises ModelError where there is no such version or bundle, ConfigError where the folder holds something.
    """
    _require_new(folder)
    with connect(config) as client:
        _download(client, config, version_of(client, config.registered_model, version), folder)
    return folder


def import_bundle(config: Config, folder: Path, digest: str, interface: Interface) -> ModelVersion:
    """Register an exported, already verified bundle; one that is registered already is returned as it is.

    digest: of the bundle, 64 hex digits; interface: what its model takes and gives. It becomes challenger, and champion
    where there is none.
    """
    tags = _tags(folder, digest, "")
    with connect(config, create=True) as client:
        for known in versions_of(client, config.registered_model):
            if known.digest == digest:
                return known
        with new_run(client, config, "import", "", title=f"import {digest[:12]}") as run:
            model = log_model(client, config, run, folder, interface)
        return _register(client, config.registered_model, model, tags, _in_short(folder), usable=True)


def _in_short(bundle: Path) -> str:
    """Return what stands before the sections of a bundle's model card, "" where it has none."""
    card = bundle / CARD
    return card.read_text(encoding="utf-8").split("\n## ", 1)[0].strip() if card.is_file() else ""


def _tags(bundle: Path, digest: str, cut: str) -> dict[str, str]:
    journey = bundle / "journey.yaml"
    if not journey.is_file():
        raise ModelError(f"{bundle} is not a model bundle: it has no journey.yaml. Name an exported bundle.")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ModelError(f"The digest of {bundle} is not 64 hex digits. Verify the bundle first.")
    kept = {FORMAT_TAG: str(FORMAT)}
    return {**kept, "digest": digest, "journey_digest": hashlib.sha256(journey.read_bytes()).hexdigest(), "cut": cut}


def _register(
    client: MlflowClient, name: str, model: LoggedModel, tags: Mapping[str, str], description: str, *, usable: bool
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # The artifact's own address: MLflow would look up models:/<id> in the global registry instead of this client's.
    created = client.create_model_version(
        name,
        model.artifact_location,
        run_id=model.source_run_id,
        tags=dict(tags),
        description=description,
        model_id=model.model_id,
    )
    client.set_registered_model_alias(name, CHALLENGER, str(created.version))
    if usable and CHAMPION not in client.get_registered_model(name).aliases:
        client.set_registered_model_alias(name, CHAMPION, str(created.version))
    return version_of(client, name, int(created.version))


def _download(client: MlflowClient, config: Config, version: ModelVersion, target: Path) -> None:
    """Put a version's bundle at ``target``, whole or not at all: a folder that does not exist yet, or is empty."""
    from mlflow.exceptions import MlflowException

    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetch-", dir=target.parent) as temporary:
        try:
            artifacts = artifacts_of(config, client.get_run(version.run_id)) if version.run_id else None
            if artifacts is not None and not artifacts.list_artifacts(BUNDLE):
                artifacts = None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            artifacts = None
        if artifacts is None:
            raise ModelError(
                f"Version {version.version} of {version.name} has lost the bundle among its artifacts."
                " Promote another version, or train again."
            )
        _require_bundle_sized(artifacts, version)
        artifacts.download_artifacts(BUNDLE, temporary)  # type: ignore[no-untyped-call]  # MLflow gives it no types
        os.rename(Path(temporary, BUNDLE), target)  # fails where anything has come to be there


def _require_new(folder: Path) -> None:
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; name a new folder for the bundle.")


def _require_bundle_sized(artifacts: ArtifactRepository, version: ModelVersion) -> None:
    """Raise ModelError where the registry lists more than a bundle can be, before any of it fills the disk."""
    folders, files, size = [BUNDLE], 0, 0
    while folders:
        for one in artifacts.list_artifacts(folders.pop()):
            files, size = files + 1, size + (one.file_size or 0)
            if one.is_dir:
                folders.append(one.path)
        if files > _MOST_FILES or size > _MOST_BYTES:
            raise ModelError(
                f"Version {version.version} of {version.name} lists more among its artifacts than a bundle holds"
                f" (at most {_MOST_FILES} files and {_MOST_BYTES // 2**20} MiB), so none of it was downloaded. Promote"
                " another version, or train again."
            )
