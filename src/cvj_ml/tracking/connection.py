"""A connection to MLflow: safe settings, quiet, bounded waiting, errors in our own words, nothing left behind."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, CvjError, LockedError, NoRegistryError, RegistryError
from cvj_ml.ownership import claim

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these at import and again at each load, so they stay for the rest of the process.
SAFETY = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_SCHEMA_DETAILS": "true",  # schema errors would repeat column values
    "MLFLOW_DISABLE_AGENT_HINT": "true",
}

# These hold while one of our own calls runs.
_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",  # would run pip against a package registry
    "MLFLOW_UV_AUTO_DETECT": "false",  # would copy the working folder's project files into the model
    "MLFLOW_LOG_UV_FILES": "false",
}

# MLflow's own defaults keep a nightly job waiting for minutes; the environment may still say otherwise.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

_LOCK_SECONDS = 60.0


@contextmanager
def connect(config: Config, *, create: bool = False) -> Iterator[MlflowClient]:
    """Yield a client of the configured registry.

    create: whether a sqlite registry that does not exist yet is created, rather than being a NoRegistryError. Inside,
    failures of MLflow, its database or its server become a RegistryError with a short message. ConfigError for an
    address that MLflow keeps no models at, or for which a package is not installed.
    """
    uri = config.mlflow.tracking_uri
    database = sqlite_file(uri)
    if database is not None and not create and not database.exists():
        raise NoRegistryError(
            f"There is no model registry at {database}. Run `cvj-ml train` first, or correct mlflow.tracking_uri."
        )
    if database is not None and create and database.is_relative_to(os.path.realpath(config.out)):
        claim(Path(config.out))
    with quietly():
        import sqlalchemy.exc
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

        try:
            if database is None and is_database(uri):
                _probe(uri)
            with _initialising(database) if database is not None else nullcontext():
                client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            yield client
        except UnsupportedModelRegistryStoreURIException:
            raise _unusable(uri) from None
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"mlflow.tracking_uri: {_place(uri)} needs the Python package {error.name!r}, which is not installed."
                " Install it beside cvj-ml, or name an MLflow server that is in front of it."
            ) from None
        except (MlflowException, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise RegistryError(
                f"The model registry at {_place(uri)} failed: {_reason(error)}. {_next_step(uri)}"
            ) from error
        except CvjError:
            raise
        except Exception as error:
            # Over an answer that is none of an MLflow server's (of a proxy, a page to log in) its client stumbles
            # with errors of any kind, those of protobuf among them.
            if database is not None:
                raise
            raise RegistryError(
                f"The model registry at {_place(uri)} failed: the server answers, but not as an MLflow server does."
                f" {_next_step(uri)}"
            ) from error


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a sqlite address, None for what lies elsewhere; ConfigError for what holds no registry."""
    scheme, _, rest = uri.partition(":")
    if scheme == "sqlite":
        if rest.startswith("///") and rest.partition("?")[0].strip("/"):
            return Path(rest.partition("?")[0][3:]).resolve()
        raise _unusable(uri)
    # Folders of files are in maintenance, and MLflow refuses them.
    folder = scheme == "file" or (not rest and "databricks" not in scheme)
    if folder or (scheme in ("http", "https") and not urlsplit(uri).hostname):
        raise _unusable(uri)
    return None


def is_database(uri: str) -> bool:
    """Return whether an address is that of a database itself, with no MLflow server in front of it."""
    return uri.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql")


def _unusable(uri: str) -> ConfigError:
    return ConfigError(
        f"mlflow.tracking_uri: {_place(uri)!r} cannot hold a model registry. Write sqlite:///mlflow.db for a file,"
        " http(s)://host:port of an MLflow server, or another address at which MLflow keeps models: of a database"
        " (postgresql, mysql, mssql), or databricks."
    )


def _probe(uri: str) -> None:
    """Open a database once: MLflow retries one that does not answer for minutes."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


@contextmanager
def quietly() -> Iterator[None]:
    """Run MLflow code with safe settings and without a word on stdout or stderr; restore what was there before."""
    os.environ.update(SAFETY)
    with ExitStack() as stack:
        patience = {name: os.environ.get(name, ours) for name, ours in _PATIENCE.items()}
        stack.enter_context(_environment({**patience, **_QUIET}))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        yield


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _initialising(database: Path) -> Iterator[None]:
    """Hold the lock under which one process at a time opens, and perhaps creates, a sqlite registry.

    The lock is a transaction on a file beside it: it works on every platform and ends with its process. The database is
    opened here first because MLflow retries a broken or unreachable one for minutes.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(f"{database}.lock", timeout=_LOCK_SECONDS, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise LockedError(
                f"{database}.lock has been held by another run for {_LOCK_SECONDS:.0f} seconds. Wait for it to end."
            ) from error
        if database.exists():
            with closing(sqlite3.connect(database)) as probe:
                probe.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield


def _place(uri: str) -> str:
    """Return an address without the user and password that it may carry."""
    return re.sub(r"//[^/@]*@", "//", uri.removeprefix("sqlite:///"))


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if status := re.search(r"failed with error code (\d{3})|too many (\d{3}) error", text):
        return f"the server answered with HTTP status {status[1] or status[2]}"
    if "API request to" in text:
        return "the server does not answer"
    first_line = text.strip().partition("\n")[0]
    return _place(first_line)[:200].rstrip(".") or type(error).__name__


def _next_step(uri: str) -> str:
    if sqlite_file(uri) is not None:
        return "Check that the file belongs to this MLflow version, that it is writable and that the disk has room."
    return "Check mlflow.tracking_uri, that the server runs and that this machine may reach it."
