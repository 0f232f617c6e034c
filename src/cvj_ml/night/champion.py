"""The champion: pinned once a run, verified before it is loaded, and kept beside for nights without a registry."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from cvj_ml import tracking
from cvj_ml.config import Config
from cvj_ml.errors import CvjError, ModelError, NoRegistryError, RegistryError, raise_all
from cvj_ml.inputs import require_same
from cvj_ml.io import sorted_json
from cvj_ml.journey import Visible
from cvj_ml.models.bundle.bundle import Bundle
from cvj_ml.models.bundle.verification import FIRST_WITHOUT_CUSTOMERS, MANIFEST
from cvj_ml.night.layout import replace_file
from cvj_ml.night.writing import digest_of
from cvj_ml.ownership import remove, scratch
from cvj_ml.run import Watcher
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.tracking import LoggedTraining

MODELS = "models"
_COPY = "champion.json"


@dataclass(frozen=True, slots=True)
class Champion:
    """The model of a run: its bundle, the version that was champion when the run began, what its training logged.

    ``copied`` is the date of the local copy that stands in for a registry that is down, None where the registry
    answered.
    """

    bundle: Bundle
    version: int
    run_id: str
    training: LoggedTraining | None
    copied: str | None = None

    @property
    def source(self) -> str:
        """Where it comes from, in words."""
        return "the registry" if self.copied is None else f"registry down, copy of {self.copied}"


def champion(config: Config, visible: Visible) -> Bundle:
    """Fetch, verify and open the champion; ModelError where it answers for another journey."""
    version, bundle = verify_version(config)
    require_same("champion", f"{version.name} version {version.version}", bundle, config, visible)
    return bundle


def verify_version(config: Config, version: int | None = None) -> tuple[tracking.ModelVersion, Bundle]:
    """Fetch a registered version (default: the champion), verify and open it."""
    found = tracking.current_champion(config) if version is None else tracking.find_version(config, version)
    with tempfile.TemporaryDirectory() as beside:
        return found, _open(config, tracking.fetch(config, found, Path(beside)), found.digest)


def _open(config: Config, folder: Path, digest: str) -> Bundle:
    return open_bundle(folder, digest, config.features.functions)


def pin_champion(config: Config, visible: Visible, watcher: Watcher) -> Champion:
    """Return the champion for a whole run: a promotion in the meantime changes nothing.

    A copy of it is kept in ``<out>/models/<digest>``, once it is verified; where the registry is down that copy is
    verified anew and used, and the run says so. ModelError for what is not the bundle that was registered,
    RegistryError where the registry is down and there is no copy. The caller holds the lock of ``<out>``.
    """
    folder = Path(config.out, MODELS)
    try:
        pinned = tracking.current_champion(config)
        bundle = _open_kept(config, pinned, folder)
    except (RegistryError, NoRegistryError) as failure:
        found = _stand_in(config, folder, failure)
        watcher.say(f"warning: {failure} Using {config.registered_model} version {found.version}: {found.source}.")
    else:
        found = Champion(bundle, pinned.version, pinned.run_id, _training_of(config, pinned.digest, folder, watcher))
        _remember(config, found, folder)
    require_same("champion", f"{config.registered_model} version {found.version}", found.bundle, config, visible)
    return found


def require_no_old_models(config: Config) -> None:
    """Raise ModelError for models in use that were trained before nothing of a single customer went into one.

    Their vocabulary and bounds may hold what a customer's erasure has to remove, and no file of a model can be changed.
    """
    faults = []
    for manifest in sorted(Path(config.out, MODELS).glob(f"*/{MANIFEST}")):
        try:
            old = int(json.loads(manifest.read_text(encoding="utf-8"))["format"]) < FIRST_WITHOUT_CUSTOMERS
        except (OSError, ValueError, KeyError, TypeError):
            old = True  # what cannot be read cannot be vouched for
        if old:
            faults.append(f"{manifest.parent}: the copy of a model; it is replaced by the first night after a training")
    try:
        versions = tracking.list_versions(config)
    except NoRegistryError:
        versions = []
    faults += [
        f"{one.name} version {one.version} ({', '.join(one.aliases)})"
        for one in versions
        if one.aliases and one.digest and one.bundle_format < FIRST_WITHOUT_CUSTOMERS
    ]
    raise_all(
        ModelError,
        "These models are from before the rule that nothing of a single customer goes into a model, so they may hold"
        " what is to be forgotten. Nothing was removed; retrain (`cvj-ml train`), delete these versions in MLflow, and"
        " forget again:",
        faults,
    )


def _training_of(config: Config, digest: str, folder: Path, watcher: Watcher) -> LoggedTraining | None:
    """Return what a model's training logged; from the note of its copy where the registry fails just now."""
    try:
        return tracking.find_training(config, digest)
    except RegistryError as failure:
        note = _noted(config, folder)
        watcher.say(f"warning: {failure} What the champion's training logged is taken from its copy, if there is one.")
        return note.training if note and note.digest == digest else None


def _open_kept(config: Config, pinned: tracking.ModelVersion, folder: Path) -> Bundle:
    """Open the copy of a version, which is fetched where there is none or a damaged one."""
    kept = folder / pinned.digest
    if kept.is_dir():
        try:
            return _open(config, kept, pinned.digest)
        except ModelError:
            pass  # the registry has it whole, or else says what is wrong with it
    folder.mkdir(exist_ok=True, mode=0o700)
    with scratch(folder.parent, ".staged-") as beside:
        fetched = tracking.fetch(config, pinned, beside)
        bundle = _open(config, fetched, pinned.digest)
        remove(kept)
        fetched.rename(kept)
    return bundle


@dataclass(frozen=True, slots=True)
class _Note:
    """What is known of a copy: the digest to verify it by, and the day on which the registry last named it champion."""

    registry: str
    digest: str
    version: int
    run_id: str
    training: LoggedTraining | None
    seen: str


def _remember(config: Config, found: Champion, folder: Path) -> None:
    """Note down which copy is the champion's, and remove those of earlier ones."""
    today = datetime.now().astimezone().date().isoformat()
    note = _Note(_registry(config), found.bundle.digest, found.version, found.run_id, found.training, today)
    replace_file(folder / _COPY, sorted_json(asdict(note)))
    for path in folder.iterdir():
        if re.fullmatch("[0-9a-f]{64}", path.name) and path.name != found.bundle.digest:
            remove(path)


def _noted(config: Config, folder: Path) -> _Note | None:
    """Return the note of the copy, None where there is none of this registry."""
    try:
        text = json.loads((folder / _COPY).read_text(encoding="utf-8"))
        note = _Note(**{**text, "training": LoggedTraining(**text["training"]) if text["training"] else None})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if note.registry == _registry(config) and re.fullmatch("[0-9a-f]{64}", note.digest) else None


def _stand_in(config: Config, folder: Path, failure: CvjError) -> Champion:
    """Open the copy of the champion that the registry named last; raise the failure where there is none."""
    note = _noted(config, folder)
    if note is None:
        raise failure
    kept = folder / note.digest
    try:
        bundle = _open(config, kept, note.digest)
    except ModelError as error:
        raise RegistryError(f"{failure} The copy of its champion cannot be used either: {error}") from failure
    return Champion(bundle, note.version, note.run_id, note.training, note.seen)


def _registry(config: Config) -> str:
    """Return what tells one registry and model from another; the password that an address may hold can change."""
    return digest_of(re.sub(r"//[^/@]*@", "//", config.mlflow.tracking_uri), config.registered_model)
