"""Real MLflow servers on loopback ports: the one that keeps runs and models, and the one that serves a model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from cvj_ml.tracking import connection


@contextmanager
def tracking_server(folder: Path, password: str = "", database: Path | None = None) -> Iterator[str]:
    """Yield the address of a server that keeps everything in a folder; it is gone afterwards.

    password: of ``admin``, where it asks for one; such a server also calls webhooks on this machine. database: what is
    served instead of an empty registry.
    """
    kept = database or folder / "server.db"
    stores = ["--backend-store-uri", f"sqlite:///{kept}", "--artifacts-destination", str(folder / "stored")]
    asking = ["--app-name", "basic-auth"] if password else []
    secrets = {
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": password,
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # it would be a minute before a new one is called
    }
    with _served(folder, "server", ["server", "--workers", "1", *asking, *stores], secrets if password else {}) as one:
        yield one


@contextmanager
def scoring_server(folder: Path, registry: str, model: str) -> Iterator[str]:
    """Yield the address of ``mlflow models serve`` for a registered model, in this environment."""
    command = ["models", "serve", "--model-uri", model, "--env-manager", "local"]
    with _served(folder, "scoring", command, {"MLFLOW_TRACKING_URI": registry}) as address:
        yield address


@contextmanager
def _served(folder: Path, name: str, command: list[str], settings: Mapping[str, str]) -> Iterator[str]:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, **connection.SAFETY, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    # `mlflow models serve` starts uvicorn by its name.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    log_file = folder / f"{name}.log"
    with log_file.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", port],
            cwd=folder, env={**environment, **settings}, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def healthy() -> bool:
        assert process.poll() is None, log_file.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(healthy, 300)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
