"""Spark's session: whether there can be one, and how it is opened."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cvj_ml.config import EngineSpec
from cvj_ml.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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
