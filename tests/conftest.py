"""What every test may use: the real data sets where they are present, and reproducible examples."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from tests.required import absent

ROOT = Path(__file__).resolve().parents[1]

# Compiling and a busy machine make single examples slow, so no deadline; the same examples every time.
settings.register_profile("ci", derandomize=True, deadline=None)
# For a search by hand: pytest --hypothesis-profile=explore
settings.register_profile("explore", deadline=None, max_examples=1000)
# For those who ask only whether a test fails (tests/mutation): no search for the simplest example.
settings.register_profile("unshrunk", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("ci")


SLOW_TEST = 40
"""How many other tests take about as long as a slow one."""


@pytest.hookimpl(trylast=True)  # when it is known which tests run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first: one that begins last keeps all but one process waiting."""
    cost: dict[Path, int] = {}
    for item in items:
        cost[item.path] = cost.get(item.path, 0) + (SLOW_TEST if item.get_closest_marker("slow") else 1)
    items.sort(key=lambda item: (-cost[item.path], item.path))


_REGISTRY = "MLFLOW_TRACKING_URI"
_REGISTRY_AT_START = os.environ.get(_REGISTRY)


@pytest.hookimpl(tryfirst=True)  # before the fixtures of modules, which a fixture of this file would follow
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget the address of a registry: MLflow writes what a test sets into the environment, and so outlives it."""
    if _REGISTRY_AT_START is None:
        os.environ.pop(_REGISTRY, None)
    else:
        os.environ[_REGISTRY] = _REGISTRY_AT_START


@pytest.fixture(scope="session")
def dataset() -> Callable[[str], Path]:
    """Return a function from a data set's name to its path; it skips the test where the data set is absent.

    Data sets are looked for in ``$CVJ_ML_DATA``, else in ``../shared/data`` beside the repository. With ``data``
    in the comma list ``$CVJ_ML_REQUIRE`` an absent one fails the test instead.
    """

    def find(name: str) -> Path:
        folder = Path(os.environ.get("CVJ_ML_DATA") or ROOT.parent / "shared" / "data")
        if (folder / name).exists():
            return folder / name
        absent("data", f"the data set {name!r} is not in {folder}; set CVJ_ML_DATA to the folder that holds it")

    return find
