"""A real PostgreSQL server of Debian's package: on a loopback port, in a temporary folder, not run by root."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.required import absent

PASSWORD = "canary-pa55word"

# initdb and the server refuse root, which runs them as the user that Debian's package makes.
_NOT_ROOT: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


@dataclass
class Server:
    """A server that tests may also kill; ``uri`` holds a password that no message may show."""

    folder: Path
    programs: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def uri(self, database: str = "postgres", *, user: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder), "fsync": "off"}
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
             *arguments],
            stdout=log, stderr=log, cwd=self.folder, **_NOT_ROOT,
        )  # fmt: skip
        for _ in range(300):
            with contextlib.suppress(Exception):
                self.run("SELECT 1")
                return
            time.sleep(0.1)
        pytest.fail(f"PostgreSQL does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End every process of the server at once, as a lost machine would."""
        if self.process is not None:
            self.process.kill()  # the other processes notice it and end
            self.process.wait()
            self.process = None

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements, each on its own."""
        with connected(self.uri(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with connected(self.uri(database)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]

    def database(self, name: str) -> str:
        """Make an empty database anew and return its URI."""
        self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
        return self.uri(name)


@contextmanager
def connected(uri: str) -> Iterator[Any]:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(uri, autocommit=True) as connection:
        yield connection


def programs() -> Path:
    """Return the folder of initdb; without one the test is skipped, or fails where CVJ_ML_REQUIRE names postgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found or on_path:
        return found[-1].parent if found else Path(str(on_path)).parent
    absent("postgres", "no PostgreSQL server is installed (Debian: apt-get install postgresql)")


@contextmanager
def served() -> Iterator[Server]:
    """Yield a running server; its folder is short, since a socket's path has to be."""
    where = programs()
    folder = Path(tempfile.mkdtemp(prefix="cvj-pg-"))
    server = Server(folder, where, free_port())
    try:
        folder.chmod(0o755)
        (folder / "password").write_text(PASSWORD)
        (folder / "data").mkdir(mode=0o700)
        if os.geteuid() == 0:
            for path in (folder, folder / "data", folder / "password"):
                shutil.chown(path, "postgres")
        made = subprocess.run(
            [str(where / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "scram-sha-256",
             f"--pwfile={folder / 'password'}", "-E", "UTF8", "--locale=C", "--no-sync"],
            capture_output=True, text=True, cwd=folder, **_NOT_ROOT,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
