"""The same seed gives the same bytes: of models, scores and lists, for any threads and any buckets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.trained import AS_OF, Trained, call

from cvj_ml.commands.train import training_panel
from cvj_ml.inputs import open_histories
from cvj_ml.models.bundle.bundle import save
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_amounts, fit_outcomes, fit_reach
from cvj_ml.run import Silent
from cvj_ml.scoring.opening import make_canary

pytest_plugins = ["tests.fixtures"]


def train(trained: Trained, folder: Path, threads: int, buckets: int) -> dict[str, bytes]:
    """Train as the command does and return the bundle, file by file."""
    folder.mkdir()
    config = trained.config(trained.variant(folder, engine={"threads": threads, "buckets": buckets}))
    histories = open_histories(config, Silent())
    panel = training_panel(histories, trained.as_of)
    fit = fit_reach(panel, config.model.seed, threads)
    outcomes, _ = fit_outcomes(panel, config.model.seed, threads, fit.choice.settings)
    alone = Predictor(panel.definition, fit.trees, fit.calibration, outcomes=outcomes)
    predictor = fit_amounts(alone, panel, threads)
    save(predictor, make_canary(predictor, trained.as_of, config.model.seed), folder / "bundle")
    return everything(folder / "bundle")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def reference(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return train(trained, tmp_path_factory.mktemp("reference") / "one", threads=1, buckets=4)


def changed(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def test_the_number_of_threads_changes_no_byte_of_a_model(
    trained: Trained, reference: dict[str, bytes], tmp_path: Path
) -> None:
    assert "tree" in reference["reach.txt"].decode()
    assert changed(reference, train(trained, tmp_path / "two", threads=2, buckets=4)) == []


def test_the_number_of_buckets_changes_no_byte_of_a_model(
    trained: Trained, reference: dict[str, bytes], tmp_path: Path
) -> None:
    """Rows stand in the panel by customer, so that what samples by position draws the same."""
    assert changed(reference, train(trained, tmp_path / "buckets", threads=1, buckets=16)) == []


def night(trained: Trained, folder: Path, as_of: str = AS_OF, **engine: int) -> Path:
    file = trained.variant(folder, engine={"threads": 1, "buckets": 4, **engine})
    ran = call("targets", file, "--as-of", as_of, "--json")
    assert ran.code == 0, ran.err
    return Path(json.loads(ran.out)["night"])


@pytest.mark.slow
def test_threads_and_buckets_change_no_byte_of_scores_and_lists(trained: Trained, tmp_path: Path) -> None:
    reference = everything(night(trained, tmp_path / "reference"))
    results = {name for name in reference if name.startswith(("scores/", "targets/"))}
    assert results == {
        "scores/scores.parquet",
        *(
            f"targets/{name}.{kind}"
            for name in ("convert__ascend__30d", "advocate__promote__30d", "summary")
            for kind in ("csv", "parquet")
        ),
        "targets/lists.xlsx",
        "targets/changes.csv",
        "targets/changes.parquet",
    }
    for number, engine in enumerate(({"threads": 2}, {"buckets": 16}, {"threads": 3, "buckets": 1})):
        found = everything(night(trained, tmp_path / str(number), **engine))
        assert set(changed(reference, found)) & results == set(), engine


def test_the_same_night_in_another_folder_is_the_same_to_the_byte(trained: Trained, tmp_path: Path) -> None:
    """Silent error 31: manifest and name too; only run.json, which has the clock, differs."""
    one, other = night(trained, tmp_path / "one"), night(trained, tmp_path / "other")
    assert one.relative_to(tmp_path / "one") == other.relative_to(tmp_path / "other")
    assert changed(everything(one), everything(other)) == ["run.json"]
    assert "started" not in (one / "MANIFEST.json").read_text()


def test_a_second_run_of_a_night_is_a_no_op(trained: Trained, tmp_path: Path) -> None:
    first = night(trained, tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in first.rglob("*")}
    current = (tmp_path / "CURRENT.json").read_bytes()
    assert night(trained, tmp_path) == first
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in first.rglob("*")} == before
    assert (tmp_path / "CURRENT.json").read_bytes() == current
    assert len(list(tmp_path.glob("as_of=*/*"))) == 1


def test_a_backfill_does_not_become_the_current_night(trained: Trained, tmp_path: Path) -> None:
    newest = night(trained, tmp_path)
    older = night(trained, tmp_path, "2025-06-10")
    current = json.loads((tmp_path / "CURRENT.json").read_text())
    assert current == {"as_of": AS_OF, "night": str(newest.relative_to(tmp_path))}
    assert (older / "_SUCCESS").is_file()
    assert (older / "scores" / "scores.parquet").read_bytes() != (newest / "scores" / "scores.parquet").read_bytes()


def test_the_manifest_accounts_for_every_row_and_file(trained: Trained, tmp_path: Path) -> None:
    folder = night(trained, tmp_path)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["files"].keys() == everything(folder).keys() - {"MANIFEST.json", "run.json", "_SUCCESS"}
    counts = manifest["counts"]["touchpoints"]
    assert counts["rows_in"] == sum(manifest["rows"].values()) + counts["duplicates"] + sum(counts["refused"].values())
    assert manifest["model"] == json.loads(trained.training.out)["digest"]
    assert str(trained.folder) not in (folder / "MANIFEST.json").read_text(), "no path of a machine"
