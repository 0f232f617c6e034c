"""The Spark engine: the blocks of a store, worked on by the workers of a cluster.

Spark's session: whether there can be one, and how it is opened.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvj_ml.config import EngineSpec
from cvj_ml.engines.local import Progress, Result
from cvj_ml.engines.spark.worker import SCHEMA, Failure, on_groups
from cvj_ml.errors import ConfigError, CvjError
from cvj_ml.histories import Block
from cvj_ml.store import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


_INTERVAL = 0.5
"""Seconds between looks at how far a job is."""


@dataclass(frozen=True, slots=True)
class SparkEngine:
    """The blocks of a store, worked on by the workers of a cluster.

    A group of Spark is a bucket. Its worker reads it from the store's folder, which it has to share with the driver,
    by the reader that every engine uses, and applies the same function. ``progress``, ``customers`` and ``done`` are
    those of the local engine.
    """

    store: Store
    spec: EngineSpec
    progress: Progress | None = None
    customers: frozenset[str] | None = None
    done: frozenset[int] = frozenset()

    def only(self, customers: Iterable[str]) -> SparkEngine:
        """Return an engine that reads the buckets of these customers, and sees nobody else."""
        return replace(self, customers=frozenset(customers))

    def without(self, buckets: Iterable[int]) -> SparkEngine:
        """Return an engine that leaves these buckets out and counts them as finished."""
        return replace(self, done=frozenset(buckets))

    def map(self, function: Callable[[Block], Result]) -> list[Result]:
        """Apply a function to every block that has customers; results are in the order of the buckets.

        Function and results travel as Spark sends everything between Python processes. The first error of a block is
        raised; CvjError where Spark gave up.
        """
        every = self.store.buckets_of(self.customers)
        buckets = [bucket for bucket in every if bucket not in self.done]
        finished = len(every) - len(buckets)
        if self.progress:
            self.progress(finished, len(every))
        if not buckets:
            return []
        with _watched(open_session(self.spec), self.progress, finished, len(every)) as session:
            results = self._run(session, function, buckets)
        for result in results:
            if isinstance(result, Failure):
                raise result.error
        return results

    def _run(self, session: SparkSession, function: Callable[[Block], Any], buckets: list[int]) -> list[Any]:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.serializers import CPickleSerializer

        serializer: Any = CPickleSerializer()
        on_group = on_groups(function, self.store, buckets, self.customers, serializer)
        # A range stands in as many partitions as it has numbers: each block is a task, and nothing is shuffled.
        groups = session.range(0, len(buckets), 1, len(buckets)).groupBy("id")
        frame = groups.applyInArrow(on_group, SCHEMA)
        try:
            table = frame.toArrow()
        except (PySparkException, Py4JError) as error:
            raise CvjError(f"Spark gave up: {_reason(error)}") from error
        found = {}
        for batch in table.to_batches():
            for place, result in zip(batch["place"].to_pylist(), batch["result"], strict=True):
                found[place] = serializer.loads(result.as_buffer())
        return [found[place] for place in range(len(buckets))]


def _reason(error: Exception) -> str:
    """Return in one line why Spark gave up: the worker's own error, or what the JVM says."""
    text = str(error).split("JVM stacktrace:")[0].strip()
    if "No module named 'cvj_ml'" in text:
        return "its workers have no cvj-ml. Give them the environment of the driver (docs/spark.md)."
    if "Python worker exited unexpectedly" in text:
        return (
            "a worker's Python process was ended, most often for want of memory. Give engine.buckets a larger number,"
            " or the workers more memory (docs/spark.md)."
        )
    lines = text.splitlines()
    said = lines[-1] if "Traceback (most recent call last)" in text else lines[0]
    return f"{said} (the logs of its driver and workers tell more; engine.conf: spark.log.level)"


@contextmanager
def _watched(session: SparkSession, progress: Progress | None, finished: int, every: int) -> Iterator[SparkSession]:
    """Tell how many blocks are finished, beside those that were before, while a job of the session runs."""
    if progress is None:
        yield session
        return
    context, group, over = session.sparkContext, uuid.uuid4().hex, threading.Event()
    tracker = context.statusTracker()

    def watch(tell: Progress) -> None:
        known = 0
        while not over.wait(_INTERVAL):
            jobs = filter(None, map(tracker.getJobInfo, tracker.getJobIdsForGroup(group)))
            stages = filter(None, (tracker.getStageInfo(stage) for job in jobs for stage in job.stageIds))
            before, known = known, sum(stage.numCompletedTasks for stage in stages)
            if known > before:
                tell(finished + known, every)

    context.setJobGroup(group, "blocks of customers")
    watcher = threading.Thread(target=watch, args=(progress,), daemon=True)
    watcher.start()
    try:
        yield session
    finally:
        over.set()
        watcher.join()
    progress(every, every)


LOCAL = "local[*]"

_SETTINGS = {
    "spark.app.name": "cvj-ml",
    "spark.ui.enabled": "false",
    # Results reach Python as they come and are not gathered in the JVM, so their sum needs no limit there.
    "spark.driver.maxResultSize": "0",
    "spark.log.level": "ERROR",
    "spark.ui.showConsoleProgress": "false",
}
_LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}


def require_spark() -> None:
    """Raise ConfigError, with the line to run, where pyspark or Java is missing."""
    if importlib.util.find_spec("pyspark") is None:
        raise ConfigError("engine.kind: spark needs pyspark, which is not installed: pip install 'cvj-ml[spark]'")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and Path(home, "bin", "java").is_file()):
        raise ConfigError(
            "engine.kind: spark needs Java 17 or 21, and there is no `java`: apt-get install default-jre-headless, or"
            " set JAVA_HOME to where it is."
        )


def open_session(spec: EngineSpec) -> SparkSession:
    """Return the session of this process, opened with the engine's settings where there is none yet.

    A session that is open already, as in a notebook on a cluster, is used as it is.
    """
    require_spark()
    # It is about values that pass through pandas; here none does.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    master = spec.master or LOCAL
    settings = {**_SETTINGS, **(_LOOPBACK if master.startswith("local") else {}), **spec.conf}
    # Workers run the interpreter that runs this, unless somebody names theirs.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master)
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise ConfigError(
            f"Spark could not be started at {master}: {str(error).splitlines()[0]} Check engine.master and engine.conf,"
            f" and `java -version` (17 or 21)."
        ) from error
    # So that the cluster sees the application end well.
    atexit.register(session.stop)
    return session
