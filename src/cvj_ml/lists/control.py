"""The control group: a random share that is deliberately not contacted, the same people for all lists of an epoch.

Contact caps for those in control: a night on which chance spared a customer counts as a contact.

Whoever was contacted rests until the caps let go. If whoever was spared did not rest as well, those in control would
stay on the lists while the others drop out, and would soon fill a list that has a capacity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvj_ml.config import Config, ContactCap, EligibilitySpec
from cvj_ml.customers import EACH_ONE, Identities
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.windows import before, in_window, to_datetime

_MONTHS = {"month": 1, "quarter": 3, "half": 6, "year": 12}


def epoch_name(epoch: str, as_of: int, zone: ZoneInfo) -> str:
    """Return the name of the epoch that ``as_of`` lies in, such as ``2024-quarter-4``."""
    day = to_datetime(as_of, zone)
    return f"{day.year}-{epoch}-{(day.month - 1) // _MONTHS[epoch] + 1}"


def epoch_end(epoch: str, as_of: int, zone: ZoneInfo) -> date:
    """Return the first day of the next epoch."""
    day, months = to_datetime(as_of, zone).date(), _MONTHS[epoch]
    year, month = divmod(day.year * 12 + (day.month - 1) // months * months + months, 12)
    return date(year, month + 1, 1)


def in_control(customers: Iterable[str], salt: str, epoch: str, share: float) -> npt.NDArray[np.bool_]:
    """Return who is in the control group: sha256(salt, epoch, customer_id) below the share.

    The draw knows neither score nor stage nor list, so nobody changes arm within an epoch.
    """
    bound = int(share * 2**64)
    return np.array([_number(draw) < bound for draw in _draws(customers, salt, epoch)], dtype=np.bool_)


def _draws(customers: Iterable[str], *words: str) -> Iterator[bytes]:
    """Yield sha256(words, customer_id) of each customer, by which chance decides and decides again alike."""
    prefix = hashlib.sha256("".join(f"{one}\x1f" for one in words).encode())
    for name in customers:
        draw = prefix.copy()
        draw.update(name.encode())
        yield draw.digest()


def _number(draw: bytes) -> int:
    """Return a number below 2**64 that is compared with a share of it."""
    return int.from_bytes(draw[:8], "big")


def explored(
    config: Config, customers: Sequence[str], places: int, as_of: int, identities: Identities = EACH_ONE
) -> npt.NDArray[np.int64]:
    """Return the positions of so many customers, drawn by the lowest sha256(salt, "explore", night, customer_id).

    Each night draws anew, whoever is in control: otherwise nobody but those drawn once would ever be tried.
    """
    night = to_datetime(as_of, config.zone).date().isoformat()
    draws = list(_draws(identities.first_ids(customers), config.control.salt or config.name, "explore", night))
    return np.array(sorted(range(len(draws)), key=draws.__getitem__)[:places], dtype=np.int64)


def drawn_plays(
    config: Config, customers: Sequence[str], preferred: npt.NDArray[np.int64], as_of: int, identities: Identities
) -> npt.NDArray[np.int64]:
    """Return the offers of each customer, the first to be tried first: ``preferred``, or by chance for a share of them.

    preferred: (customers, offers). Whom chance decides for, and in which order, follows from sha256(salt, "play",
    night, customer_id) below ``control.explore_how``; it knows nothing of control, so both groups are drawn alike.
    """
    spec, night = config.control, to_datetime(as_of, config.zone).date().isoformat()
    bound = int(spec.explore_how * 2**64)
    if not bound or preferred.shape[1] < 2:
        return preferred
    found = preferred.copy()
    draws = _draws(identities.first_ids(customers), spec.salt or config.name, "play", night)
    for row, draw in enumerate(draws):
        if _number(draw) < bound:
            found[row] = np.random.default_rng(int.from_bytes(draw[8:], "big")).permutation(preferred.shape[1])
    return found


def drawn_tonight(
    config: Config, customers: Iterable[str], as_of: int, identities: Identities = EACH_ONE
) -> npt.NDArray[np.bool_]:
    """Return who is in the control group of the epoch of ``as_of``, by the configuration.

    A person with several ids has the draw of the one under which they were first seen, so a login changes no arm.
    """
    spec = config.control
    return in_control(
        identities.first_ids(customers),
        spec.salt or config.name,
        epoch_name(spec.epoch, as_of, config.zone),
        spec.share,
    )


def control_group(config: Config, scores: StoredTable, as_of: int, identities: Identities) -> tuple[pa.Array, str]:
    """Return everybody of SCORES whom chance put into the control group, on a list or not, and the epoch's name."""
    customers = scores.read(["customer_id"])["customer_id"].combine_chunks()
    drawn = drawn_tonight(config, customers.to_pylist(), as_of, identities)
    return customers.filter(pa.array(drawn)), epoch_name(config.control.epoch, as_of, config.zone)


HOLDOUT_EXPOSURES = pa.schema([("customer_id", pa.string()), ("channel", pa.string()), ("as_of", pa.int64())])
"""Who was listed in control on which night (an instant), and the channel that they would have been reached through."""


def holdout_exposures(
    customers: pa.Array, exposures: pa.Table, as_of: int, caps: Sequence[ContactCap]
) -> npt.NDArray[np.int64]:
    """Return (customers, caps): the nights before ``as_of``, within each cap's window, on which they were spared.

    Several lists of one night are one occasion, and nights after ``as_of`` count for nothing.
    """
    night = exposures["as_of"].to_numpy()
    past = before(night, as_of)
    found = np.zeros((len(customers), len(caps)), dtype=np.int64)
    for i, cap in enumerate(caps):
        counted = past & in_window(night, as_of, cap.within)
        if cap.channel is not None:
            counted &= np.array([name == cap.channel for name in exposures["channel"].to_pylist()], dtype=np.bool_)
        rows = exposures.filter(pa.array(counted))
        occasions = rows.group_by(["customer_id", "as_of"]).aggregate([])
        places = pc.index_in(occasions["customer_id"], value_set=customers).drop_null().to_numpy()
        found[:, i] = np.bincount(places, minlength=len(customers))
    return found


def spared_lately(
    customers: pa.Array, exposures: pa.Table, as_of: int, eligibility: EligibilitySpec
) -> npt.NDArray[np.bool_]:
    """Return who was spared so lately that a contact would have held them back, through anything but a broadcast."""
    if eligibility.recent_contact is None:
        return np.zeros(len(customers), dtype=np.bool_)
    night, crowd = exposures["as_of"].to_numpy(), set(eligibility.broadcast)
    counted = before(night, as_of) & in_window(night, as_of, eligibility.recent_contact)
    counted &= np.array([name not in crowd for name in exposures["channel"].to_pylist()], dtype=np.bool_)
    spared = exposures["customer_id"].filter(pa.array(counted)).unique()
    found: npt.NDArray[np.bool_] = pc.is_in(customers, value_set=spared).to_numpy(zero_copy_only=False)
    return found
