"""How a model comes to know how its customers are spread, and how much that moves by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, YEAR
from cvj_ml.engines import Blocks
from cvj_ml.histories import Block
from cvj_ml.models.drift_profile.distributions import (
    DriftCounts,
    bins_of,
    columns_of,
    learn_bins,
    scores_of,
    stage_codes,
)
from cvj_ml.models.drift_profile.reference import DriftReference, stability, together
from cvj_ml.models.predictor import Predictor
from cvj_ml.snapshots import Snapshots, sampling_keys

ENOUGH = 200
"""Customers from which on a model remembers how they were spread."""

SAMPLE = 20_000
"""How many customers are looked at, about; more would tell nothing new."""

REACH = 90 * DAY
"""How far apart two instants are at most that show how much a column moves by itself."""

_STEP = 30 * DAY
_SURE = 0.99
_F64 = npt.NDArray[np.float64]


def learn_drift(predictor: Predictor, blocks: Blocks, customers: int, cut: int, first: int) -> DriftReference:
    """Learn how customers are spread at the cut, and how far that moved within 90 days in the year before.

    ``customers`` is how many the blocks hold, ``first`` the earliest instant that training could ask about. Where too
    few customers were there at the cut, nothing is remembered but the cut.
    """
    definition, share = predictor.definition, min(1.0, SAMPLE / max(customers, 1))

    def columns(block: Block) -> _F64:
        answers = predictor.answer(sample_of(block, share), cut)
        scores = scores_of(definition, answers.probability)
        return np.concatenate([answers.x, scores, stage_codes(answers.stage)], axis=1)

    now = np.concatenate(blocks.map(columns))
    asked = columns_of(definition)
    if len(now) < ENOUGH:
        unknown = np.full((len(asked), 2), np.nan), np.full((len(asked), 1), np.nan)
        nobody = np.zeros((len(asked), 2), dtype=np.int64)
        return DriftReference(bins_of([[]] * len(asked), asked), *unknown, nobody, nobody.astype(np.float64), cut)
    fewest = definition.min_customers
    bins = learn_bins(now, asked, fewest)
    # Every instant by the same customers' answers, so what moves is the business and not the sample.
    instants = _instants(first, cut)

    def count(block: Block) -> list[DriftCounts]:
        sample = sample_of(block, share)
        return [predictor.count(predictor.answer(sample, instant), bins) for instant in instants]

    counts = [sum(parts[1:], parts[0]) for parts in zip(*blocks.map(count), strict=True)]
    found = bins.split(counts[-1].bins)
    shares = _published(found[0], fewest), _published(found[1], fewest)
    sizes = np.stack([part.sum(axis=1) for part in found], axis=1).astype(np.int64) // fewest * fewest
    return DriftReference(
        bins, *shares, sizes, _movement(instants, [bins.split(one.bins) for one in counts], shares), cut
    )


def sample_of(block: Block, share: float) -> Block:
    """Return the customers of a block that a hash of their id chooses."""
    if share == 1:
        return block
    everybody = np.arange(len(block))
    keys = sampling_keys(block.customers, Snapshots(everybody, np.zeros_like(everybody)), 0)
    return block.only(frozenset(block.customers[i] for i in np.flatnonzero(keys < share)))


def _instants(first: int, cut: int) -> list[int]:
    """Return instants of the last year, a month apart or closer where there was less time; the cut is the last."""
    span = min(YEAR, max(cut - first, 0))
    step = max(DAY, min(_STEP, span // 6 // DAY * DAY))
    return [cut - k * step for k in range(span // step, -1, -1)]


def _published(counts: _F64, fewest: int) -> _F64:
    """Return shares; NaN for what is told only together, so that no number tells of fewer customers than that."""
    shares: _F64 = np.round(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), 4)
    for row, found in zip(shares, counts, strict=True):
        ascending = [g for g in np.argsort(found, kind="stable") if found[g] > 0]
        hidden, total = 0, 0.0
        # The small ones, and as many of the next as it takes to hide them.
        while hidden < len(ascending) and (found[ascending[hidden]] < fewest or 0 < total < fewest):
            total += found[ascending[hidden]]
            hidden += 1
        row[ascending[:hidden]] = np.nan
    return shares


def _movement(instants: list[int], counts: list[tuple[_F64, _F64]], shares: tuple[_F64, _F64]) -> _F64:
    """Return the largest PSI between two instants not too far apart that sampling does not explain (columns, 2)."""
    largest = np.zeros((len(shares[0]), 2))
    for j, instant in enumerate(instants):
        for k in range(j):
            if instant - instants[k] > REACH:
                continue
            for part, (known, old, new) in enumerate(zip(shares, counts[k], counts[j], strict=True)):
                _, old = together(known, old)
                _, new = together(known, new)
                size = old.sum(axis=1)
                converted, noise = stability(old / np.maximum(size, 1)[:, None], new, size, 1 - _SURE)
                largest[:, part] = np.maximum(largest[:, part], converted - noise)
    rounded: _F64 = np.round(largest, 4)
    return rounded
