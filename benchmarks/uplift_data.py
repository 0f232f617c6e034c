"""Experiments made of data sets, for `benchmarks.uplift`: who was contacted, what was known before, what came after."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.records import require_data
from cvj_ml.models.uplift.effect_model import Experiment

WAVES = (0, 168, 336, 408, 504, 576)
"""Hours of the test at which Starbucks' offers were sent."""

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Halves:
    """An experiment in two halves of customers: one that teaches, one that evaluates."""

    taught: Experiment
    tested: Experiment
    arms: tuple[str, ...]


def hillstrom(outcome: str, arms: str, half: str) -> Halves:
    """Return Hillstrom's e-mails: ``outcome`` visit or conversion; ``arms`` all e-mails as one, or the two.

    The half that tests is that of the last bit of SHA-256 of the row number; ``half`` choice halves the other one
    again, by the bit before. Propensities are the arms' shares in the half that teaches.
    """
    table = pd.read_parquet(require_data("hillstrom") / "hillstrom.parquet")
    named = pd.get_dummies(table[["zip_code", "channel"]]).to_numpy(np.float32)
    numbers = table[["recency", "history", "mens", "womens", "newbie"]].to_numpy(np.float32)
    names = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
    arm = table["segment"].map({name: i for i, name in enumerate(names)}).to_numpy(np.int64)
    if arms == "all":
        arm = np.minimum(arm, 1)
    rows = np.arange(len(table))
    return _halves(
        np.concatenate([numbers, named], axis=1),
        arm,
        table[outcome].to_numpy(np.float64),
        np.zeros(len(table), dtype=np.int64),
        rows,
        _bits(rows),
        half,
        ("any e-mail",) if arms == "all" else names[1:],
    )


def starbucks(half: str) -> Halves:
    """Return Starbucks' waves: any offer against none, a transaction within 72 hours; a row a customer and wave.

    Features are what the profile says and what the log says of the time before the wave; propensities are the shares of
    each wave in the half that teaches. Halves are by SHA-256 of the person.
    """
    folder = require_data("starbucks")
    log = pd.read_parquet(folder / "transcript.parquet").drop_duplicates()
    people = pd.read_parquet(folder / "profile.parquet").reset_index(drop=True)
    log["who"] = pd.Index(people["id"]).get_indexer(log["person"])
    of = {name: log[log["event"] == name] for name in log["event"].unique()}
    since = pd.to_datetime(people["became_member_on"].astype(str)).to_numpy()
    known = np.column_stack(
        [
            people["age"].where(people["age"] < 118),
            people["income"],
            *(people["gender"] == one for one in ("F", "M", "O")),
            (np.datetime64("2018-08-01") - since) / np.timedelta64(1, "D"),
        ]
    ).astype(np.float32)
    parts = []
    for wave in WAVES:
        columns = [known, np.full((len(people), 1), wave, dtype=np.float32)]
        for table in of.values():
            before = table[table["time_h"] < wave]
            columns.append(_history(before["who"], before["time_h"], before["amount"], wave, len(people)))
        sent = of["offer received"]
        arm = np.bincount(sent[sent["time_h"] == wave]["who"], minlength=len(people)) > 0
        bought = of["transaction"]
        # What is bought in the hour of the wave may have come before it.
        after = bought[(bought["time_h"] > wave) & (bought["time_h"] <= wave + 72)]
        outcome = np.bincount(after["who"], minlength=len(people)) > 0
        parts.append((np.concatenate(columns, axis=1), arm, outcome, np.full(len(people), wave)))
    features, arm, outcome, wave_of = (np.concatenate(one) for one in zip(*parts, strict=True))
    customer = np.tile(np.arange(len(people)), len(WAVES))
    bits = np.tile(_bits(people["id"]), (len(WAVES), 1))
    return _halves(
        features, arm.astype(np.int64), outcome.astype(np.float64), wave_of, customer, bits, half, ("any offer",)
    )


def complete_journey() -> tuple[_F32, _I64, _F64, _I64]:
    """Return features, arm, outcome and customer of Complete Journey's campaigns of type A, which were targeted.

    A row a household and campaign: whether it was sent one, and whether it bought within 14 days. Features are what
    was bought before the first day.
    """
    folder = require_data("complete_journey")
    baskets = pd.read_parquet(
        folder / "transactions.parquet", columns=["household_id", "transaction_timestamp", "sales_value"]
    )
    sent = pd.read_parquet(folder / "campaigns.parquet")
    campaigns = pd.read_parquet(folder / "campaign_descriptions.parquet")
    baskets["day"] = pd.to_datetime(baskets["transaction_timestamp"]).dt.normalize()
    spent = baskets.groupby(["household_id", "day"], as_index=False)["sales_value"].sum()
    households = np.sort(spent["household_id"].unique())
    spent["who"] = pd.Index(households).get_indexer(spent["household_id"])
    parts = []
    for one in campaigns[campaigns["campaign_type"] == "Type A"].itertuples():
        start = pd.Timestamp(one.start_date)
        day = (spent["day"] - start).dt.days
        before, after = spent[day < 0], spent[(day >= 0) & (day < 14)]
        recent = before[day[before.index] >= -28]
        features = np.concatenate(
            [
                _history(part["who"], day[part.index], part["sales_value"], 0, len(households))
                for part in (before, recent)
            ],
            axis=1,
        )
        arm = np.isin(households, sent[sent["campaign_id"] == one.campaign_id]["household_id"])
        parts.append((features, arm, np.bincount(after["who"], minlength=len(households)) > 0))
    features, arm, outcome = (np.concatenate(one) for one in zip(*parts, strict=True))
    customer = np.tile(np.arange(len(households)), len(parts))
    return features, arm.astype(np.int64), outcome.astype(np.float64), customer


def _history(who: pd.Series, at: pd.Series, amount: pd.Series, now: float, people: int) -> _F32:
    """Return how often, for how much, how long ago; missing where never."""
    times = np.bincount(who, minlength=people)
    total = np.bincount(who, weights=amount.fillna(0), minlength=people)
    last = np.full(people, -np.inf)
    np.maximum.at(last, who.to_numpy(), at.to_numpy(np.float64))
    since = np.where(np.isfinite(last), now - last, np.nan)
    return np.column_stack([times, total, total / np.maximum(times, 1), since]).astype(np.float32)


def _bits(names: Iterable[object]) -> _I64:
    """Return the last two bits of SHA-256 of each name, (names, 2): test or not, and the half of the choice."""
    last = [hashlib.sha256(str(name).encode()).digest()[-1] for name in names]
    return np.array([(byte & 1, byte >> 1 & 1) for byte in last], dtype=np.int64)


def _halves(
    features: _F32, arm: _I64, outcome: _F64, draw: _I64, customer: _I64, bits: _I64, half: str, arms: tuple[str, ...]
) -> Halves:
    """Split rows by customer; ``draw`` names what lots were drawn in, each with shares of its own."""
    if half == "test":
        taught, tested = bits[:, 0] == 0, bits[:, 0] == 1
    else:
        taught, tested = ((bits[:, 0] == 0) & (bits[:, 1] == k) for k in (0, 1))
    propensity = np.empty((len(arm), len(arms) + 1))
    for one in np.unique(draw):
        propensity[draw == one] = np.bincount(arm[taught & (draw == one)], minlength=len(arms) + 1)
    propensity /= propensity.sum(axis=1, keepdims=True)
    whole = Experiment(features, arm, outcome, propensity, customer)
    return Halves(whole.take(taught), whole.take(tested), arms)
