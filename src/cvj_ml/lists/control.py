"""The control group: a random share that is deliberately not contacted, the same people for all lists of an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cvj_ml.windows import to_datetime

_MONTHS = {"month": 1, "quarter": 3, "half": 6, "year": 12}


def epoch_name(epoch: str, as_of: int, zone: ZoneInfo) -> str:
    """Return the name of the epoch that ``as_of`` lies in, such as ``2024-quarter-4``."""
    day = to_datetime(as_of, zone)
    return f"{day.year}-{epoch}-{(day.month - 1) // _MONTHS[epoch] + 1}"


def in_control(customers: Iterable[str], salt: str, epoch: str, share: float) -> npt.NDArray[np.bool_]:
    """Return who is in the control group: sha256(salt, epoch, customer_id) below the share.

    The draw knows neither score nor stage nor list, so nobody changes arm within an epoch.
    """
    bound = int(share * 2**64)
    prefix = hashlib.sha256(f"{salt}\x1f{epoch}\x1f".encode())
    drawn = []
    for name in customers:
        draw = prefix.copy()
        draw.update(name.encode())
        drawn.append(int.from_bytes(draw.digest()[:8], "big") < bound)
    return np.array(drawn, dtype=np.bool_)
