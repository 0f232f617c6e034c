"""Nothing that is not provably ours is removed: folders of others under `out`, whatever their names, lose nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.ground import LAST, Ground
from tests.trained import AS_OF, Outcome

from cvj_ml.ownership import MARKER

pytest_plugins = ["tests.fixtures"]

TOPS = (
    *("store", "work", "models", "quarantine", "measure", "backtest", "as_of=2025-06-24", "as_of=june", "mlartifacts"),
    *(".staged-0123", ".audit-abc", ".contact-x", ".consent-x", ".suppression-x", ".night-old", "berlin", "tables"),
)
INSIDE = ("0123456789ab", "berlin", ".staging-abcdefgh", ".removed-abcdefgh", "blocks", "a" * 64, "scores", "until=x")
FILES = (
    *("store.json", "MANIFEST.json", "_SUCCESS", "run.json", "champion.json", "quarantine.parquet", "log.parquet"),
    *("CURRENT.json", "metrics.prom", "mlflow.db", ".lock", "history.csv", "notes.txt", "touchpoints.parquet"),
)


def fill(folder: Path, seed: int) -> None:
    """Fill a folder with files whose names are often ours and whose content never is."""
    draw = random.Random(seed)
    for _ in range(draw.randint(1, 25)):
        place = folder
        if draw.random() < 0.8:
            place /= draw.choice(TOPS)
            while draw.random() < 0.5:
                place /= draw.choice(INSIDE)
        place.mkdir(parents=True, exist_ok=True)
        file = place / draw.choice(FILES)
        if not file.exists():
            file.write_bytes(draw.choice([b"", b"{}", b'{"key": "0123456789ab", "files": {}}', draw.randbytes(50)]))


def everything(folder: Path) -> dict[str, bytes | str | None]:
    """Return every path below a folder with its content, or where it points."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def commands(ground: Ground) -> Iterator[list[str]]:
    """Yield every command that may write below `out`."""
    config = str(ground.config)
    ids = ground.folder / "ids.txt"
    ids.write_text("nobody\n")
    for name in ("check", "train", "audit", "score", "targets", "nightly"):
        yield [name, config, "--as-of", AS_OF]
    for name in ("backtest", "measure"):
        yield [name, config, "--until", AS_OF]
    yield ["forget", config, "--customers", str(ids)]


def refused(ran: Outcome, *words: str) -> None:
    assert (ran.code, ran.out) == (2, ""), (ran.code, ran.err)
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err, ran.err


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_folder_of_others_loses_nothing(ground: Ground, tmp_path: Path, seed: int) -> None:
    theirs = tmp_path / "theirs"
    fill(theirs, seed)
    before = everything(theirs)
    ground.settings["out"] = str(theirs)
    for arguments in commands(ground):
        for more in ([], ["--adopt-out"]):
            ran = ground.warmed.call(*arguments, *more)
            assert everything(theirs) == before, (arguments, more)
            refused(ran, str(theirs), MARKER if not more else "--adopt-out takes over")
    config = str(ground.config)
    ground.warmed.call("models", "list", config)
    ground.warmed.call("models", "verify", config)
    ground.warmed.call("verify", theirs)
    refused(ground.warmed.call("backtest", config, "--until", AS_OF, "--out", theirs), MARKER)
    refused(ground.warmed.call("demo", "--customers", 100, "--out", theirs), MARKER)
    refused(ground.warmed.call("models", "export", config, 1, theirs), "is not empty")
    assert everything(theirs) == before


@pytest.mark.slow
def test_what_an_earlier_version_made_is_taken_over_once_and_only_whole(ground: Ground) -> None:
    (ground.out / MARKER).unlink()
    refused(ground.night(), "--adopt-out")
    for name in ("store/berlin/log.csv", "work/mine.arrow", "notes.txt", "as_of=2025-06-23/mine.csv", ".staged-1/x"):
        mine = ground.out / name
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        before = everything(ground.out)
        refused(ground.night("--adopt-out"), name)
        assert everything(ground.out) == before
        mine.unlink()
        if not any(mine.parent.iterdir()):
            mine.parent.rmdir()
    night = next(ground.out.glob("as_of=*/*"))
    (night / "targets" / "mine.csv").write_text("mine")
    refused(ground.night("--adopt-out"), "targets/mine.csv")
    (night / "targets" / "mine.csv").unlink()
    (ground.out / "mlflow.db").write_text("a registry")
    (ground.out / "mlartifacts").mkdir()
    (ground.out / "mlartifacts" / "one").write_text("of a model")
    for outcome in ("published", "unchanged"):  # harmless the second time
        ran = ground.night("--adopt-out")
        assert ran.code == 0 and json.loads(ran.out)["nights"][0]["outcome"] == outcome, ran.err
        assert (ground.out / MARKER).is_file()
    assert (ground.out / "mlflow.db").read_text() == "a registry"
    assert (ground.out / "mlartifacts" / "one").read_text() == "of a model"


def test_neither_a_whole_store_nor_a_whole_night_is_no_proof(ground: Ground) -> None:
    (ground.out / MARKER).unlink()
    for file in (*ground.out.glob("store/*/store.json"), *ground.out.glob("as_of=*/*/_SUCCESS")):
        file.write_text("{}")
    before = everything(ground.out)
    refused(ground.night("--adopt-out"), "takes over what an earlier version")
    assert everything(ground.out) == before


def test_files_of_others_in_our_folder_stay(ground: Ground) -> None:
    mine = ["notes.txt", "store2/log.csv", ".night-old/a", "as_of/x", "models.txt", "models/mine/card.md"]
    for name in mine:
        (ground.out / name).parent.mkdir(exist_ok=True)
        (ground.out / name).write_text("mine")
    ids = ground.folder / "ids.txt"
    ids.write_text("nobody\n")
    assert ground.night().code == 0
    ground.warmed.call("forget", ground.config, "--customers", ids)
    ground.warmed.call("check", ground.config, "--as-of", LAST)
    assert [(ground.out / name).read_text() for name in mine] == ["mine"] * len(mine)


@pytest.mark.parametrize(
    ("out", "words"),
    [(".", "a folder of its own"), ("..", "a folder of its own"), ("data/..", "a folder of its own"), ("", "empty")],
)
def test_the_folder_of_the_configuration_is_not_out(ground: Ground, out: str, words: str) -> None:
    ground.settings["out"] = out
    before = everything(ground.folder)
    file = ground.config
    for command in ("check", "nightly"):
        refused(ground.warmed.call(command, file, "--as-of", AS_OF), "out", words)
    assert everything(ground.folder) == before | {"config.yaml": file.read_bytes()}


@pytest.mark.parametrize("value", ["", "  "])
@pytest.mark.parametrize("place", ["out", "source", "registry"])
def test_an_empty_variable_is_not_half_a_path(ground: Ground, place: str, value: str) -> None:
    if place == "out":
        ground.settings["out"] = "${CVJ_OUT}"
    elif place == "source":
        ground.settings["sources"]["touchpoints"]["path"] = "${CVJ_OUT}/touchpoints.parquet"
    else:
        ground.settings["mlflow"] = {"tracking_uri": "sqlite:///${CVJ_OUT}/mlflow.db"}
    before = ground.standing()
    ran = ground.night(environment={"CVJ_OUT": value})
    refused(ran, "the environment variable CVJ_OUT is empty")
    assert ground.standing() == before


@pytest.mark.parametrize(
    "path",
    [
        *("out/exports/touchpoints.parquet", "out/touchpoints.parquet", "data/../out/store/x.parquet", "*/*.parquet"),
        *("**/*.parquet", "o*/store/*.parquet", "link/touchpoints.parquet", "linked.parquet", "link*.parquet"),
    ],
)
@pytest.mark.parametrize("table", ["sources", "query", "attributes", "suppression"])
def test_no_table_lies_below_out(ground: Ground, path: str, table: str) -> None:
    hidden = ground.out / "exports" / "touchpoints.parquet"
    hidden.parent.mkdir()
    shutil.copy(ground.touchpoints, hidden)
    (ground.folder / "link").symlink_to("out/exports")
    (ground.folder / "linked.parquet").symlink_to("out/exports/touchpoints.parquet")
    if table == "sources":
        ground.settings["sources"]["touchpoints"]["path"] = path
    elif table == "query":
        one = ground.settings["sources"]["touchpoints"]
        del one["path"]
        one |= {"query": "SELECT * FROM log", "files": {"log": path}}
    elif table == "attributes":
        ground.settings["attributes"]["path"] = path
    else:
        ground.settings["suppression"] = {"path": path}
    refused(ground.night(), "below out", table if table != "query" else "files.log")
    assert hidden.exists()


def test_neither_a_journey_nor_the_ids_to_forget_lie_below_out(ground: Ground) -> None:
    ids = ground.out / "quarantine" / "ids.txt"
    ids.parent.mkdir(exist_ok=True)
    ids.write_text("nobody\n")
    refused(ground.warmed.call("forget", ground.config, "--customers", ids), "ids.txt", "below out")
    ground.settings["journey"] = "out/work/journey.yaml"
    refused(ground.night(), "journey", "below out")
    assert ids.read_text() == "nobody\n"


def test_links_are_not_followed(ground: Ground, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    for name in ("store", "work", "models", "quarantine", "as_of=2025-06-20"):
        place = ground.out / name
        if place.exists():
            shutil.move(place, tmp_path / "aside")
        place.symlink_to(elsewhere)
        refused(ground.night(), name, "links")
        place.unlink()
        if (tmp_path / "aside").exists():
            shutil.move(tmp_path / "aside", place)
    for lock in (ground.out / ".lock", ground.out / "store" / ".lock"):
        lock.unlink(missing_ok=True)
        lock.symlink_to(elsewhere / "precious")
        refused(ground.night(), ".lock", "link")
        lock.unlink()
    real = ground.out.rename(tmp_path / "real")
    ground.out.symlink_to(real)
    for out in ("out", "out/", "out/.", "out/store/.."):
        ground.settings["out"] = out
        refused(ground.night(), "the output folder is a link")
    assert everything(elsewhere) == {"precious": b"mine"}


@pytest.mark.parametrize("folder", ["store", "work", "models", "as_of=2025-06-20/x"])
def test_no_registry_lies_where_folders_are_removed(ground: Ground, folder: str) -> None:
    ground.settings["mlflow"] = {"tracking_uri": f"sqlite:///out/{folder}/mlflow.db"}
    refused(ground.night(), "mlflow.tracking_uri", "files are removed")


@pytest.mark.slow
def test_the_marker_comes_before_the_registry_and_everything_else(ground: Ground, tmp_path: Path) -> None:
    """A registry in a new `out` is made by the first command that trains; it may not make `out` somebody's folder."""
    (bundle,) = (path for path in (ground.out / "models").iterdir() if path.is_dir())
    ground.settings["out"], ground.settings["mlflow"] = "new", {"tracking_uri": "sqlite:///new/mlflow.db"}
    file, count = ground.config, tmp_path / "count"
    new = ground.folder / "new"
    ran = ground.warmed.call("models", "import", file, bundle, under=str(new), count=str(count))
    assert ran.code == 0, ran.err
    first, second, *_ = [line.split()[1] for line in count.read_text().splitlines()]
    assert (first, second) == (str(new), str(new / MARKER))
    assert json.loads(ground.warmed.call("nightly", file, "--as-of", AS_OF, "--json").out)["nights"]
    assert (new / "mlflow.db").stat().st_size > 0
