"""The model bundle: exactly what was saved, or a ModelError before anything of it is used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from tests.trained import Trained, call

from cvj_ml.errors import ModelError
from cvj_ml.models.bundle import bundle as module
from cvj_ml.models.bundle.bundle import load, save
from cvj_ml.models.bundle.verification import FORMAT, verify_bundle
from cvj_ml.models.hazard.calibration import Calibration
from cvj_ml.models.hazard.reach import Trees
from cvj_ml.models.uplift.effect_model import Experiment, fit_effect_model
from cvj_ml.models.uplift.list_effect import EffectGroups, ListEffect
from cvj_ml.scoring.opening import make_canary, open_bundle
from cvj_ml.scoring.scores_table import score_block

pytest_plugins = ["tests.fixtures"]

HAZARD = ("base_rates.json", "calendar.json", "calibration.json", "linear.json", "ridge.json", "reach.txt")
FILES = (
    *HAZARD,
    *(f"outcome_{name}/{file}" for name in ("kept", "purchase") for file in HAZARD),
    "canary/attributes.parquet",
    "canary/scores.parquet",
    "canary/touchpoints.parquet",
    "card.md",
    "features.json",
    "journey.yaml",
    "year_ago.json",
    "value.json",
    "reference.json",
    "track_record.json",
    "forecast_errors.json",
)


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.bundle, tmp_path / "bundle"))


@pytest.fixture
def no_lightgbm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged text aborts the process inside LightGBM; here it would fail the test instead."""

    def never(*arguments: Any, **named: Any) -> None:
        raise AssertionError("an unverified file was handed to LightGBM")

    monkeypatch.setattr(module.lgb, "Booster", never)


def sign(folder: Path) -> None:
    """Make the manifest agree with what is in the folder, as somebody who changes a model would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refused(folder: Path, digest: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, digest)
    return str(caught.value).replace(str(folder), "DIR")


def test_the_files_are_those_of_the_design_and_no_pickle(trained: Trained) -> None:
    found = {path.relative_to(trained.bundle).as_posix() for path in trained.bundle.rglob("*") if path.is_file()}
    assert found == {*FILES, "manifest.json"}
    manifest = json.loads((trained.bundle / "manifest.json").read_text())
    assert manifest["files"].keys() == set(FILES)


@pytest.mark.usefixtures("no_lightgbm")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_changed_bit_is_seen(copy: Path, name: str, place: float) -> None:
    content = bytearray((copy / name).read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1
    (copy / name).write_bytes(content)
    assert refused(copy) == (
        "DIR: the model bundle is not what was saved; restore it or train anew:\n"
        f"  - {name} was changed (its sha256 differs from the manifest's)"
    )


@pytest.mark.usefixtures("no_lightgbm")
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_a_truncated_model_never_reaches_lightgbm(copy: Path, keep: float) -> None:
    text = (copy / "reach.txt").read_bytes()
    (copy / "reach.txt").write_bytes(text[: int(keep * len(text))])
    assert "reach.txt was changed" in refused(copy)


@pytest.mark.usefixtures("no_lightgbm")
def test_missing_and_extra_files_are_all_named(copy: Path) -> None:
    (copy / "calibration.json").unlink()
    (copy / "canary" / "scores.parquet").unlink()
    (copy / "extra.py").write_text("print('hello')")
    (copy / "canary" / "link").write_text("")
    assert refused(copy) == (
        "DIR: the model bundle is not what was saved; restore it or train anew:\n"
        "  - calibration.json is missing\n"
        "  - canary/scores.parquet is missing\n"
        "  - canary/link does not belong to the bundle\n"
        "  - extra.py does not belong to the bundle"
    )


@pytest.mark.usefixtures("no_lightgbm")
@pytest.mark.parametrize("name", FILES)
def test_a_manifest_that_forgets_a_file_does_not_excuse_it(copy: Path, name: str) -> None:
    (copy / name).unlink()
    sign(copy)
    assert f"{name} is missing" in refused(copy)


@pytest.mark.usefixtures("no_lightgbm")
def test_links_pipes_and_empty_folders_are_no_part_of_a_bundle(copy: Path) -> None:
    """A link may lead to the right bytes while it is verified, and to others when it is read."""
    os.replace(copy / "reach.txt", copy.parent / "reach.txt")
    (copy / "reach.txt").symlink_to(copy.parent / "reach.txt")
    (copy.parent / "other").mkdir()
    (copy / "code").symlink_to(copy.parent / "other", target_is_directory=True)
    (copy / "nested" / "deep").mkdir(parents=True)
    os.mkfifo(copy / "nested" / "pipe")
    assert refused(copy).splitlines()[1:] == [
        "  - code is no file of its own but a link, a pipe or a device",
        "  - nested/deep is an empty folder",
        "  - nested/pipe is no file of its own but a link, a pipe or a device",
        "  - reach.txt is no file of its own but a link, a pipe or a device",
    ]


@pytest.mark.usefixtures("no_lightgbm")
def test_what_is_far_too_large_is_not_read(copy: Path) -> None:
    with (copy / "reach.txt").open("wb") as file:
        file.truncate(2**30 + 1)
    assert "more than any bundle" in refused(copy)


@pytest.mark.usefixtures("no_lightgbm")
def test_a_bundle_signed_anew_is_not_the_registered_one(copy: Path, trained: Trained) -> None:
    """Swapping the manifest along with a file helps nobody: the digest is that of the registry."""
    digest = json.loads(trained.training.out)["digest"]
    calibration = json.loads((copy / "calibration.json").read_text())
    calibration["intercept"][0][0] += 1
    (copy / "calibration.json").write_text(json.dumps(calibration))
    sign(copy)
    verify_bundle(copy)
    found = hashlib.sha256((copy / "manifest.json").read_bytes()).hexdigest()
    assert refused(copy, digest) == (
        f"DIR: the bundle's digest is {found[:12]}…, but {digest[:12]}… was registered. The model was changed after it"
        " was registered; restore it or train anew."
    )


@pytest.mark.usefixtures("no_lightgbm")
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"files": 3, "format": 2}', '{"files": {}}', "\xff"])
def test_a_damaged_manifest_is_told(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_bytes(text.encode("latin-1"))
    assert refused(copy) == "DIR/manifest.json: the manifest is damaged. Restore the bundle or train anew."


@pytest.mark.usefixtures("no_lightgbm")
def test_a_bundle_of_another_format_is_told(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    assert refused(copy) == f"DIR: the bundle has format 99, this version reads {FORMAT}. Train anew."


@pytest.mark.usefixtures("no_lightgbm")
@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_without_a_bundle_is_told(tmp_path: Path, folder: str) -> None:
    (tmp_path / "note.txt").write_text("")
    assert refused(tmp_path / folder) == (
        "DIR: there is no model bundle here (no manifest.json). Train first, or check the path."
    )


@pytest.mark.usefixtures("no_lightgbm")
@pytest.mark.parametrize(
    "name",
    [
        *("features.json", "journey.yaml", "calibration.json", "base_rates.json"),
        *("track_record.json", "forecast_errors.json"),
    ],
)
def test_a_file_that_says_nothing_is_told_though_signed(copy: Path, name: str) -> None:
    (copy / name).write_text("{}")
    sign(copy)
    assert refused(copy).startswith("DIR: the model bundle cannot be read by this version of cvj_ml (")


@pytest.mark.usefixtures("no_lightgbm")
def test_features_that_this_version_does_not_compute_are_refused(copy: Path) -> None:
    features = json.loads((copy / "features.json").read_text())
    features["names"] = [*features["names"][1:], "something_new"]
    (copy / "features.json").write_text(json.dumps(features))
    sign(copy)
    assert refused(copy) == (
        "DIR: this version of cvj_ml computes other features than the model was trained on. Train anew."
    )


def test_a_round_trip_gives_the_same_bits(trained: Trained, tmp_path: Path) -> None:
    first = load(trained.bundle)
    digest = save(
        first.predictor, first.canary, tmp_path / "again", first.track_record, first.card, first.forecast_errors
    )
    second = load(tmp_path / "again", digest)
    assert first.digest == json.loads(trained.training.out)["digest"]
    assert (second.digest, second.version) == (digest, digest[:12])
    assert second.predictor.definition == first.predictor.definition
    answers = [one.predictor.answer(first.canary.block, first.canary.as_of) for one in (first, second)]
    assert np.isfinite(answers[0].probability).any()
    assert answers[0].probability.tobytes() == answers[1].probability.tobytes()
    assert first.canary.scores.equals(second.canary.scores)
    assert second.track_record == first.track_record and first.track_record.instants
    assert second.forecast_errors == first.forecast_errors and len(first.forecast_errors.instants) > 3
    for name in set(FILES) - {"canary/scores.parquet"}:  # Arrow names the items of a list anew on reading
        assert (tmp_path / "again" / name).read_bytes() == (trained.bundle / name).read_bytes()


def test_the_text_of_the_model_does_not_tell_who_trained_it(trained: Trained) -> None:
    """Silent error 31: the number of threads is no part of a model, so its digest must not know it."""
    text = (trained.bundle / "reach.txt").read_text()
    assert text.startswith("tree\n") and "num_leaves" in text
    assert "num_threads" not in text
    fitted = lgb.Booster(model_str=text)
    assert fitted.num_trees() > 0


def test_nothing_of_a_real_customer_is_in_the_bundle(trained: Trained) -> None:
    real = f"c{7:06d}"
    held = load(trained.bundle).canary.block.customers
    assert len(held) > 0
    assert real not in held
    for path in trained.bundle.rglob("*"):
        assert path.is_dir() or real.encode() not in path.read_bytes()


@pytest.fixture
def stale(trained: Trained, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that saves the model with another calibration beside the canary of the old one."""

    def save_changed(change: float) -> Path:
        bundle = load(trained.bundle)
        old = bundle.predictor.calibration
        changed = replace(bundle.predictor, calibration=Calibration(old.intercept + change, old.slope))
        save(changed, bundle.canary, tmp_path / "stale")
        return tmp_path / "stale"

    return save_changed


def test_a_model_that_answers_differently_is_seen_by_its_canary(stale: Callable[..., Path]) -> None:
    folder = stale(1e-3)
    load(folder)
    with pytest.raises(ModelError) as caught:
        open_bundle(folder)
    first, *faults = str(caught.value).splitlines()
    assert first == (
        f"{folder}: the model scores its canary differently from when it was saved; train anew with this version:"
    )
    assert "  - the column p_return_7d differs" in faults
    assert "  - the column p_reach_promote_30d differs" in faults
    assert not any("stage" in fault for fault in faults)


def test_the_canary_forgives_the_last_bits(stale: Callable[..., Path]) -> None:
    """Another processor may round otherwise; what it may not do is rank otherwise."""
    open_bundle(stale(1e-13))


def test_the_command_line_tells_a_damaged_bundle(copy: Path) -> None:
    (copy / "reach.txt").write_text("tree\n")
    found = call("models", "verify-folder", copy)
    assert (found.code, found.out) == (4, "")
    assert found.err == (
        f"error: {copy}: the model bundle is not what was saved; restore it or train anew:\n"
        "  - reach.txt was changed (its sha256 differs from the manifest's)\n"
    )


def test_compiled_trees_that_differ_from_lightgbm_score_nobody(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_by_a_bit(trees: Trees, *arguments: Any) -> Any:
        return np.nextafter(trees.margins_by_lightgbm(*arguments), np.inf)

    monkeypatch.setattr(Trees, "margins", off_by_a_bit)
    with pytest.raises(ModelError, match=r"differ from LightGBM's predictions in \d+ row"):
        open_bundle(trained.bundle)


@pytest.mark.slow
def test_what_contacts_change_is_kept_to_the_bit(trained: Trained, tmp_path: Path) -> None:
    """Effects travel with the bundle: its canary holds them, other folders load the same, a changed tree is seen."""
    predictor = load(trained.bundle).predictor
    random = np.random.default_rng(1)
    x = random.normal(size=(2000, len(predictor.definition.catalogue.names) + 1)).astype(np.float32)
    arm, half = random.integers(0, 2, 2000), np.full((2000, 2), 0.5)
    outcome = (random.random(2000) < np.where(arm & (x[:, 3] > 0), 0.8, 0.3)).astype(np.float64)
    model = fit_effect_model(Experiment(x, arm, outcome, half, np.arange(2000)), 1, 1)
    groups = EffectGroups(np.array([0.1]), np.array([0.0, 0.3]), np.array([-0.1, 0.2]), np.array([0.1, 0.4]))
    published = {"Convert": "p_reach_ascend_30d"}
    gain = (0.1, 0.05, 0.15)
    effect = ListEffect("convert__ascend__30d", "reach", published, model, groups, 0.01, True, "Ranked.", gain, gain, 0)
    taught = replace(predictor, effects=(effect,))
    canary = make_canary(taught, trained.as_of, 1)
    save(taught, canary, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    scores = score_block(bundle.predictor, canary.block, canary.as_of, "")
    column = "incremental_convert__ascend__30d"
    told, stage = scores[column].to_numpy(), np.array(scores["stage"].to_pylist(), dtype=object)
    assert np.isfinite(told[stage == "Convert"]).all() and np.isnan(told[stage != "Convert"]).all()
    assert len({*told[stage == "Convert"].tolist()}) > 1
    assert scores[column].equals(score_block(taught, canary.block, canary.as_of, "")[column])
    assert bundle.predictor.effects[0].as_dict() == effect.as_dict()
    plain = score_block(predictor, canary.block, canary.as_of, "")
    assert plain.equals(scores.drop_columns([column])), "nothing else is changed by it"
    trees = tmp_path / "bundle" / "effect_convert__ascend__30d" / "effect_trees.txt"
    trees.write_text(trees.read_text().replace("leaf_value=", "leaf_value=1", 1))
    with pytest.raises(ModelError, match=r"effect_trees\.txt was changed"):
        open_bundle(tmp_path / "bundle")
