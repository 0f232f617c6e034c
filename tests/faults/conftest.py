"""What every fault needs: the warmed parent of the commands, and ground on which a fault may strike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.ground import LAST, Ground, copy, lay
from tests.faults.warmed import Warmed, warmed
from tests.trained import Trained


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def parent(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warmed]:
    """A warmed process that forks for each command."""
    folder = tmp_path_factory.mktemp("warmed")
    with warmed(folder, trained.variant(folder / "out"), LAST) as process:
        yield process


@pytest.fixture(scope="session")
def laid(trained: Trained, parent: Warmed, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Data and a good night; not to be changed."""
    return lay(tmp_path_factory.mktemp("ground"), trained, parent)


@pytest.fixture
def ground(laid: Ground, tmp_path: Path) -> Ground:
    """A copy of data and good night for one test."""
    return copy(laid, tmp_path / "ground")
