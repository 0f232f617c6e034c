"""A real object store on a loopback port: moto's server, which speaks S3, with buckets that a test fills."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import free_port
from tests.required import absent

SECRET = "canary-s3cret-access-key"
KEY = "CANARYACCESSKEY"
ALONE = {
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
}  # fmt: skip
"""An environment whose credentials no message may show, and in which nothing outside of this machine is asked."""


@dataclass(frozen=True)
class ObjectServer:
    """A running server; ``environment`` is what a reader of its objects needs."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        return ALONE | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def put(self, bucket: str, **objects: str | bytes | Path) -> None:
        """Write objects into a bucket, by name."""
        from pyarrow import fs

        files = fs.S3FileSystem(
            access_key=KEY, secret_key=SECRET, region="us-east-1", endpoint_override=f"http://127.0.0.1:{self.port}",
            allow_bucket_creation=True,
        )  # fmt: skip
        files.create_dir(bucket)
        for name, content in objects.items():
            with files.open_output_stream(f"{bucket}/{name}", compression=None) as stream:
                data = content.read_bytes() if isinstance(content, Path) else content
                stream.write(data.encode() if isinstance(data, str) else data)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let nobody in meanwhile: no user of this server has any rights."""
        self._let_in(0)
        try:
            yield
        finally:
            self._let_in(10**9)

    def _let_in(self, times: int) -> None:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/moto-api/reset-auth", str(times).encode(), {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(asked).read()


@contextmanager
def served_objects(folder: Path) -> Iterator[ObjectServer]:
    """Yield a running server; without moto the test is skipped, or fails where CVJ_ML_REQUIRE names objects."""
    if importlib.util.find_spec("moto") is None:
        absent("objects", "moto is not installed")
    server = ObjectServer(free_port())
    options: dict[str, Any] = {"env": os.environ | ALONE, "cwd": folder}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)],
            stdout=log, stderr=log, **options,
        )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}/moto-api/data.json").read()
                break
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        else:
            pytest.fail(f"moto's server does not start: {(folder / 'log').read_text()[-2000:]}")
        yield server
    finally:
        process.kill()
        process.wait()
