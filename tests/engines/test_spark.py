"""The Spark engine: the same bits as the local one, the same errors, and nothing counted twice."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests import spark
from tests.test_determinism import changed, everything
from tests.trained import AS_OF, Trained, call

from cvj_ml.config import DAY, Config, EngineSpec, load_config
from cvj_ml.engines import Engine, LocalEngine, open_engine
from cvj_ml.errors import ConfigError, CvjError, DataError, GateError, ModelError
from cvj_ml.histories import Block
from cvj_ml.inputs import open_histories
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.bundle import load
from cvj_ml.models.hazard.calibration import identity
from cvj_ml.models.hazard.fitting import Settings, fit_trees
from cvj_ml.models.predictor import Predictor
from cvj_ml.ownership import MARKER
from cvj_ml.panel.model_spec import ModelSpec, define
from cvj_ml.panel.panel import Panel, build_panel, hazard_rows
from cvj_ml.run import Silent
from cvj_ml.scoring.parts import work_off
from cvj_ml.scoring.scores_table import merge, score_block, scores_contract
from cvj_ml.store import Store, ingest
from cvj_ml.windows import parse_as_of

ROOT = Path(__file__).resolve().parents[2]
pytest_plugins = ["tests.fixtures"]


def configured(trained: Trained, folder: Path, **engine: Any) -> Config:
    return trained.config(trained.variant(folder, engine=spark.engine(**engine)))


@pytest.fixture(scope="module", autouse=True)
def one_session() -> Iterator[None]:
    """End the session that the first test opened; what is not slow needs none."""
    yield
    if importlib.util.find_spec("pyspark"):
        from pyspark.sql import SparkSession

        active = SparkSession.getActiveSession()
        if active is not None:
            active.stop()


@pytest.fixture(scope="module")
def config(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return configured(trained, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def store(config: Config) -> Store:
    return ingest(config)


@pytest.fixture(scope="module")
def engine(config: Config, store: Store) -> Engine:
    spark.require_java()
    return open_engine(config.engine, store)


def assert_same_panel(one: Panel, other: Panel) -> None:
    for field in fields(Panel):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if is_dataclass(a) and not isinstance(a, ModelSpec):  # labels, outcomes, amounts
            assert type(a) is type(b)
            for part in fields(a):
                mine, its = getattr(a, part.name), getattr(b, part.name)
                same = mine.tobytes() == its.tobytes() if isinstance(mine, np.ndarray) else mine == its
                assert same, (field.name, part.name)
        elif isinstance(a, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), field.name
        else:
            assert a == b, field.name


def scores(predictor: Predictor, engine: Engine, as_of: int, folder: Path) -> bytes:
    """Return the bytes of SCORES, whose blocks the engine's workers wrote."""
    parts = work_off(engine, folder / "blocks", lambda block: score_block(predictor, block, as_of, "abc"))
    file = folder / "scores.parquet"
    merge(parts, {file: scores_contract(predictor.definition).schema})
    return file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("buckets", [4, 7])
def test_panel_and_scores_of_the_simulator_are_those_of_the_local_engine(
    trained: Trained, tmp_path: Path, buckets: int
) -> None:
    spark.require_java()
    config = configured(trained, tmp_path, buckets=buckets)
    store, cut = ingest(config), trained.as_of
    local, remote = LocalEngine(store, 1), open_engine(config.engine, store)
    instants = np.array([cut - 90 * DAY, cut - 30 * DAY, cut], dtype=np.int64)
    definitions = [define(config, Journey(config.journey), one, cut) for one in (local, remote)]
    assert definitions[0] == definitions[1]
    panels = [build_panel(definitions[0], one, instants, cut, 2 * DAY, max_rows=500) for one in (local, remote)]
    assert panels[0].share < 1, "the sample is part of what has to agree"
    assert_same_panel(*panels)
    predictor = load(trained.bundle).predictor
    written = [scores(predictor, one, cut, tmp_path / name) for one, name in ((local, "local"), (remote, "spark"))]
    assert written[0] == written[1]


@pytest.mark.slow
def test_panel_and_scores_of_online_retail_are_those_of_the_local_engine(
    dataset: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark.require_java()
    monkeypatch.setenv("CVJ_ML_DATA", str(dataset("online_retail").parent.resolve()))
    document = yaml.safe_load((ROOT / "configs" / "online_retail" / "config.yaml").read_text(encoding="utf-8"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**document, "engine": spark.engine()}), encoding="utf-8")
    config = load_config(tmp_path / "config.yaml")
    cut = parse_as_of("2011-09-06", config.zone)
    histories = open_histories(config, Silent())
    local, remote = LocalEngine(histories.store, 2), histories.engine()
    definition = define(config, histories.visible.journey, local, cut)
    assert definition == define(config, histories.visible.journey, remote, cut)
    instants = np.array([cut - 120 * DAY, cut - 90 * DAY], dtype=np.int64)
    delay = histories.store.arrival_delay
    panels = [build_panel(definition, one, instants, cut, delay) for one in (local, remote)]
    assert_same_panel(*panels)
    other = ingest(config.model_copy(update={"engine": EngineSpec(threads=1, buckets=7)}))
    assert_same_panel(panels[0], build_panel(definition, LocalEngine(other, 1), instants, cut, delay))
    rows = hazard_rows(panels[0].labels, definition.horizons)
    trees = fit_trees(panels[0], rows, Settings(7, 50, 10.0, 10.0, rounds=20), seed=1, threads=2)
    predictor = Predictor(definition, trees, identity(1 + len(definition.journey.stages), len(definition.horizons)))
    engines = {"local": local, "spark": remote, "other buckets": LocalEngine(other, 1)}
    written = [scores(predictor, one, cut, tmp_path / name) for name, one in engines.items()]
    assert written[0] == written[1] == written[2]


@pytest.mark.slow
def test_a_model_trained_and_a_night_published_on_spark_are_the_same_to_the_byte(
    trained: Trained, tmp_path: Path
) -> None:
    spark.require_java()
    registry = f"sqlite:///{tmp_path / 'mlflow.db'}"
    remote = trained.variant(tmp_path / "spark", engine=spark.engine(), mlflow={"tracking_uri": registry})
    ran = call("train", remote, "--as-of", AS_OF, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["digest"] == json.loads(trained.training.out)["digest"]
    nights = {}
    for name, file in (("local", trained.variant(tmp_path / "local")), ("spark", remote)):
        ran = call("targets", file, "--as-of", AS_OF, "--json")
        assert ran.code == 0, ran.err
        nights[name] = Path(json.loads(ran.out)["night"])
    assert nights["spark"].relative_to(tmp_path / "spark") == nights["local"].relative_to(tmp_path / "local")
    assert changed(everything(nights["local"]), everything(nights["spark"])) == ["run.json"]


@pytest.mark.slow
def test_some_customers_are_read_from_their_buckets_alone(engine: Engine, store: Store) -> None:
    asked = [block.customers[0] for block in LocalEngine(store, 1).map(lambda block: block)][:2]
    assert engine.only(asked).map(lambda block: block.customers) == [(name,) for name in asked]
    assert engine.only([]).map(len) == []


@pytest.mark.slow
def test_each_block_is_a_task_and_nothing_is_shuffled(engine: Engine, store: Store) -> None:
    def task(block: Block) -> tuple[int, int]:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        return context.stageId(), context.partitionId()

    stages, partitions = zip(*engine.map(task), strict=True)
    assert partitions == tuple(range(store.buckets))
    assert len(set(stages)) == 1


@pytest.mark.slow
def test_a_worker_with_another_version_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvj_ml.engines.spark.worker.installed", lambda: "0.0.1")
    with pytest.raises(ConfigError, match=r"^A worker of Spark has cvj-ml [\d.]+, the driver 0\.0\.1\. Give"):
        engine.map(len)


@pytest.mark.slow
def test_blocks_that_are_done_are_left_out_and_counted(config: Config, store: Store) -> None:
    spark.require_java()
    told: list[tuple[int, int]] = []
    engine = open_engine(config.engine, store, lambda done, of: told.append((done, of)))
    assert engine.without([0, 2]).map(len) == [store.bucket_customers[1], store.bucket_customers[3]]
    assert (told[0], told[-1]) == ((2, 4), (4, 4))
    assert told == sorted(told)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ConfigError, DataError, ModelError, GateError])
def test_an_error_of_a_block_is_the_same_error(engine: Engine, store: Store, kind: type[CvjError]) -> None:
    third = [block.customers[0] for block in LocalEngine(store, 1).map(lambda block: block)][2]

    def fail(block: Block) -> None:
        if third in block.customers:
            raise kind("A gate: 3 rows.\n  - one fault")

    with pytest.raises(kind) as caught:
        engine.map(fail)
    assert type(caught.value) is kind
    assert str(caught.value) == "A gate: 3 rows.\n  - one fault"
    assert "On a worker of Spark" in caught.value.__notes__[0]


@pytest.mark.slow
def test_an_error_of_a_block_ends_a_command_as_it_does_locally(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark.require_java()

    def fail(*_: object) -> None:
        raise DataError("The block is not as it was.")

    monkeypatch.setattr("cvj_ml.commands.check.count_transitions", fail)
    files = [trained.variant(tmp_path / "spark", engine=spark.engine()), trained.variant(tmp_path / "local")]
    remote, local = (call("check", file, "--as-of", AS_OF) for file in files)
    assert (remote.code, local.code) == (3, 3)
    assert "error: The block is not as it was.\n" in remote.err
    assert remote.err.splitlines()[-1] == local.err.splitlines()[-1]


@pytest.mark.slow
def test_a_block_that_is_tried_again_counts_once(engine: Engine, store: Store, tmp_path: Path) -> None:
    """A worker dies, another cannot read: Spark makes a second attempt of each, and the results are as ever."""

    def count(block: Block) -> int:
        marker = tmp_path / block.customers[0]
        if not marker.exists():
            marker.touch()
            if len(list(tmp_path.iterdir())) == 1:
                os._exit(1)
            raise OSError("the folder is away for a moment")
        return len(block)

    assert engine.map(count) == [n for n in store.bucket_customers if n]


@pytest.mark.slow
def test_what_no_attempt_mends_is_told_in_one_line(engine: Engine, store: Store) -> None:
    first = LocalEngine(store, 1).map(lambda block: block.customers[0])[0]

    def unreadable(block: Block) -> None:
        raise PermissionError(13, "Permission denied", "part.parquet")

    def killed(block: Block) -> None:
        if first in block.customers:
            os._exit(9)

    with pytest.raises(CvjError, match=r"^Spark gave up: PermissionError: \[Errno 13\].*\(the logs of.*\)$") as caught:
        engine.map(unreadable)
    assert caught.value.exit_code == 1
    with pytest.raises(CvjError, match=r"^Spark gave up: a worker's Python process was ended, .*engine\.buckets.*$"):
        engine.map(killed)


@pytest.mark.slow
def test_a_folder_that_the_workers_do_not_share_is_told(config: Config, store: Store, tmp_path: Path) -> None:
    spark.require_java()
    for folder, found in ((tmp_path, "no store"), (store.folder, "another store")):
        other = replace(store, folder=folder, key="of another machine")
        with pytest.raises(ConfigError, match=f"^A worker of Spark finds {found} in .*share, at the same path"):
            open_engine(config.engine, other).map(len)


@pytest.mark.slow
def test_nobody_else_can_reach_a_session_on_this_machine(engine: Engine) -> None:
    """Every port of the JVM listens on the loopback address alone, and there is no web page."""
    engine.map(len)
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    assert session is not None
    assert session.sparkContext.uiWebUrl is None
    java = session.sparkContext._gateway.proc.pid  # type: ignore[union-attr]
    addresses = listening(java)
    assert addresses, "the JVM does listen, or this test sees nothing"
    assert all(re.fullmatch(r"0100007F|0000000000000000FFFF00000100007F", one) for one in addresses), addresses


def listening(process: int) -> set[str]:
    """Return the addresses (hexadecimal, as the kernel writes them) on which a process listens."""
    descriptors = Path(f"/proc/{process}/fd")
    sockets = {os.readlink(one) for one in descriptors.iterdir() if one.is_symlink()}
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{process}/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def test_without_pyspark_or_java_the_line_to_run_is_told(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = trained.variant(tmp_path, engine=spark.engine())
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    ran = call("score", file, "--as-of", AS_OF)
    assert ran.code == 2
    assert "needs Java 17 or 21, and there is no `java`: apt-get install default-jre-headless" in ran.err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ran = call("score", file, "--as-of", AS_OF)
    assert ran.code == 2
    assert "pip install 'cvj-ml[spark]'" in ran.err
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, ".lock"}, "told before anything is read"


def test_settings_of_spark_need_spark() -> None:
    assert EngineSpec(kind="spark", conf={"spark.executor.cores": 4, "spark.speculation": True}).conf == {
        "spark.executor.cores": "4",
        "spark.speculation": "true",
    }
    with pytest.raises(ValueError, match="write `kind: spark` beside them"):
        EngineSpec(master="yarn")
    with pytest.raises(ValueError, match=r"Spark's settings begin with `spark\.`, unlike 'executor.cores'"):
        EngineSpec(kind="spark", conf={"executor.cores": 4})
