"""What stands under the alias of the champion is not what was registered: no code of it runs, and it is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from tests.faults.ground import LAST, Ground

from cvj_ml import tracking
from cvj_ml.config import Config
from cvj_ml.models.bundle.bundle import load
from cvj_ml.scoring.serving import interface_of

pytest_plugins = ["tests.fixtures"]


class Planted:
    """Creates a file wherever it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._file), "w")


class Registry:
    """A registry of the ground's own with the ground's champion in it, and the file that planted code would create."""

    def __init__(self, ground: Ground) -> None:
        self.executed = ground.folder / "executed"
        self._copies, self._elsewhere = ground.out / "models", ground.folder
        uri = f"sqlite:///{ground.folder / 'mlflow.db'}"
        (copy,) = (folder for folder in (ground.out / "models").iterdir() if folder.is_dir())
        ground.settings["mlflow"] = {"tracking_uri": uri}
        config = Config.model_validate({**ground.settings, "out": str(ground.out)})
        self.name = config.name
        self.digest = tracking.import_bundle(config, copy, copy.name, interface_of(load(copy))).digest
        self.client = MlflowClient(uri, uri)
        self.model = Path(self.client.get_model_version(self.name, "1").source.removeprefix("file://"))
        assert (self.model / "MLmodel").is_file()

    @property
    def bundle(self) -> Path:
        """The registered bundle, as a night downloads it."""
        run = self.client.get_run(self.client.get_model_version(self.name, "1").run_id)
        folder = Path(run.info.artifact_uri.removeprefix("file://"), "bundle")
        assert (folder / "manifest.json").is_file()
        return folder

    def take_copies(self) -> None:
        """Leave a night no model but the registered one."""
        for path in self._copies.iterdir():
            path.rename(self._elsewhere / f"moved-{path.name}")

    def write_code(self, file: Path) -> None:
        """Write a module that creates the file when it is imported."""
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"open({str(self.executed)!r}, 'w')\n")

    def write_pickle(self, file: Path) -> None:
        """Write a pickle that creates the file when it is loaded."""
        file.write_bytes(pickle.dumps(Planted(self.executed)))


@pytest.fixture
def registry(ground: Ground) -> Registry:
    return Registry(ground)


def test_what_is_planted_does_run_where_it_is_loaded(registry: Registry) -> None:
    """Else the other tests here would hold whatever happened."""
    file = registry.model / "model.pkl"
    registry.write_pickle(file)
    pickle.loads(file.read_bytes()).close()
    assert registry.executed.exists()


@pytest.mark.parametrize("copied", [True, False], ids=["with its copy", "without a copy"])
def test_a_tampered_mlmodel_is_not_read(ground: Ground, registry: Registry, copied: bool) -> None:
    """It names a loader beside it and a pickle; the bundle is as it was registered, so the night is as ever."""
    if not copied:
        registry.take_copies()
    described = yaml.safe_load((registry.model / "MLmodel").read_text())
    described["flavors"]["python_function"] |= {
        "loader_module": "planted",
        "code": "code",
        "python_model": "python_model.pkl",
        "model_code_path": "planted.py",
    }
    (registry.model / "MLmodel").write_text(yaml.safe_dump(described))
    registry.write_code(registry.model / "code" / "planted.py")
    registry.write_code(registry.model / "planted.py")
    registry.write_pickle(registry.model / "python_model.pkl")
    assert ground.publishes()["model_source"] == "the registry"
    assert not registry.executed.exists()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.pkl", "forest.joblib", "sitecustomize.py"])
def test_what_was_added_to_the_registered_bundle(ground: Ground, registry: Registry, file: str) -> None:
    """The copy of an earlier night does not stand in for it where the registry has to be asked."""
    registry.take_copies()
    (registry.write_code if file.endswith(".py") else registry.write_pickle)(registry.bundle / file)
    ground.refuses(4, file)
    assert not registry.executed.exists()


@pytest.mark.parametrize("digest", ["of the champion", "of its own", "none"])
def test_a_pickle_under_the_alias(ground: Ground, registry: Registry, digest: str) -> None:
    """A model of another kind, as ``mlflow.sklearn.log_model`` leaves it, becomes champion."""
    folder = ground.folder / "pickled"
    folder.mkdir()
    registry.write_pickle(folder / "model.pkl")
    registry.write_code(folder / "code" / "planted.py")
    described = {
        "flavors": {
            "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl", "code": "code"},
            "sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"},
        }
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    tags = {"of the champion": {"digest": registry.digest}, "of its own": {"digest": "0" * 64}, "none": {}}[digest]
    version = registry.client.create_model_version(registry.name, folder.as_uri(), tags=tags)
    registry.client.set_registered_model_alias(registry.name, "champion", version.version)
    if digest == "of the champion":
        registry.take_copies()
    error = ground.refuses(4, "Version 2 of", "Promote")
    assert ("lost the bundle" if tags else "carries no digest") in error, error
    assert not registry.executed.exists()
    ground.stands(LAST)
