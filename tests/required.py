"""Parts that not every machine has: a test that needs one is skipped there, and fails where the part is required."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(part: str, reason: str) -> NoReturn:
    """Skip the test with the reason, or fail it where the comma list ``$CVJ_ML_REQUIRE`` names the part."""
    if part in [word.strip() for word in os.environ.get("CVJ_ML_REQUIRE", "").split(",")]:
        pytest.fail(f"{reason} (CVJ_ML_REQUIRE names {part}, so this is no skip)")
    pytest.skip(reason)
