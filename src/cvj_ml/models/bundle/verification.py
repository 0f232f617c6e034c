"""Whether a folder is a bundle as it was saved, told from names and bytes alone: nothing of it is loaded here.

Whether a trained model still answers the question that a configuration asks.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from cvj_ml.config import Config
from cvj_ml.errors import ModelError, raise_all
from cvj_ml.io import sha256_of
from cvj_ml.journey import Visible
from cvj_ml.models.bundle.hazard_files import HAZARD_FILES
from cvj_ml.models.bundle.value_files import VALUE
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.model_spec import ModelSpec, selection_of

MANIFEST = "manifest.json"
FORMAT = 7
"""4: names, bounds and thresholds rest on `min_customers`. 5: a ridge beside the trees, the level of a year ago, the
errors of past forecasts and a known calendar; an older bundle knows of none of these. 6: past scores in the track
record, not bands of them. 7: the hazards of outcomes, each in a folder of its own, and the
amounts that customers buy for."""
FIRST_WITHOUT_CUSTOMERS = 4
"""The first format in which no model holds anything of a single customer."""
CARD = "card.md"
RECORD = "track_record.json"
FORECASTS = "forecast_errors.json"
YEAR_AGO = "year_ago.json"
CANARY = ("canary/touchpoints.parquet", "canary/attributes.parquet", "canary/scores.parquet")
FILES = frozenset(
    (
        *HAZARD_FILES,
        VALUE,
        YEAR_AGO,
        "journey.yaml",
        "features.json",
        "reference.json",
        RECORD,
        FORECASTS,
        CARD,
        *CANARY,
    )
)

_MOST_BYTES = 2**30
"""Far above any model's; a larger folder is not even read."""


def verify_bundle(folder: Path, digest: str | None = None) -> dict[str, Any]:
    """Return the manifest of a bundle whose files are exactly those that were saved.

    ``digest`` is what the registry or a published night says of it. ModelError with every fault at once where a file is
    missing, changed, there besides, or no file of its own but a link or a device.
    """
    if not (folder / MANIFEST).is_file():
        raise ModelError(f"{folder}: there is no model bundle here (no {MANIFEST}). Train first, or check the path.")
    heading = f"{folder}: the model bundle is not what was saved; restore it or train anew:"
    files, faults = _plain_files(folder)
    raise_all(ModelError, heading, faults)
    found = sha256_of(folder / MANIFEST)
    if digest is not None and found != digest:
        raise ModelError(
            f"{folder}: the bundle's digest is {found[:12]}…, but {digest[:12]}… was registered."
            f" The model was changed after it was registered; restore it or train anew."
        )
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed: dict[str, str] = dict(manifest["files"])
        supported = manifest["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / MANIFEST}: the manifest is damaged. Restore the bundle or train anew.") from error
    if not supported:
        raise ModelError(
            f"{folder}: the bundle has format {manifest['format']}, this version reads {FORMAT}. Train anew."
        )
    names = files - {MANIFEST}
    faults = [f"{name} is missing" for name in sorted((listed.keys() | FILES) - names)]
    faults += [f"{name} does not belong to the bundle" for name in sorted(names - listed.keys())]
    faults += [
        f"{name} was changed (its sha256 differs from the manifest's)"
        for name in sorted(names & listed.keys())
        if sha256_of(folder / name) != listed[name]
    ]
    raise_all(ModelError, heading, faults)
    return manifest


def names_in(folder: Path) -> list[str]:
    """Return the files of a bundle that is being saved, in order, but for the manifest."""
    return sorted(_plain_files(folder)[0] - {MANIFEST})


def _plain_files(folder: Path) -> tuple[set[str], list[str]]:
    """Return the names of all files, and what no bundle holds: links, pipes, devices, empty folders, far too much."""
    files, faults, size = set[str](), list[str](), 0
    for path in sorted(folder.rglob("*")):
        name, found = path.relative_to(folder).as_posix(), path.lstat()
        if stat.S_ISREG(found.st_mode):
            files.add(name)
            size += found.st_size
        elif not stat.S_ISDIR(found.st_mode):
            faults.append(f"{name} is no file of its own but a link, a pipe or a device")
        elif not any(path.iterdir()):
            faults.append(f"{name} is an empty folder")
    if size > _MOST_BYTES:
        faults.append(f"{size:,} bytes in all, more than any bundle ({_MOST_BYTES:,} at most)")
    return files, faults


def differences(predictor: Predictor, config: Config, visible: Visible) -> list[str]:
    """Return what a model was trained for, and how the configuration differs, in what gives predictions a meaning."""
    trained = predictor.definition
    next_stages = None if config.targets == "all" else config.targets.next
    declared = (
        dict(zip(trained.journey.names, predictor.stage.tracking.coverage, strict=True)) if predictor.stage else {}
    )
    complete_when = predictor.stage.tracking.complete_when if predictor.stage else None
    same = {
        "the journey's stages or their rules differ": trained.journey.spec.rules == config.journey.rules,
        "other stages are unobserved in the data": trained.journey.unobserved == visible.unobserved,
        "the horizons differ": trained.horizons == config.horizons,
        "targets differ": trained.next_stages == next_stages,
        "a customer is an account for one, a person for the other": trained.catalogue.vocabulary.people
        == (config.unit == "account"),
        "the time zone differs": trained.time_zone == config.time_zone,
        "other events are outbound": set(trained.outbound) == set(config.outbound),
        "the coverage differs": {name: c for name, c in declared.items() if c < 1}
        == {name: c for name, c in config.coverage.items() if c < 1},
        "complete_when differs": complete_when == config.complete_when,
        "value_decimals differ": trained.catalogue.value_decimals == config.value_decimals,
    }
    return [difference for difference, agrees in same.items() if not agrees] + _excluded(trained, config)


def _excluded(trained: ModelSpec, config: Config) -> list[str]:
    """Return the difference that a model learned from what the configuration leaves out: it would go on using it."""
    selection = selection_of(config)
    used = [one.name for one in trained.catalogue.features if selection.excludes(one)]
    return [f"features.exclude leaves out {len(used)} feature(s) of it, such as {used[0]}"] if used else []
