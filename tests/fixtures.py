"""Fixtures that several test modules ask for with ``pytest_plugins = ["tests.fixtures"]``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.object_store import ObjectServer, served_objects
from tests.postgres import Server, served
from tests.trained import Trained, train_once


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Simulated customers and their champion; parallel test processes share one."""
    base = tmp_path_factory.getbasetemp()
    return train_once(base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real PostgreSQL server, one for each test process that needs one."""
    with served() as server:
        yield server


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """A real object store, one for each test process that needs one."""
    with served_objects(tmp_path_factory.mktemp("moto")) as server:
        yield server
