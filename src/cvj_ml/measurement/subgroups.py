"""Target against control within parts of a list: by what nights had said that a contact changes, by play, by arm.

As where effects are learned, a person counts by the first listing on any list of the epoch, and by outcomes that both
arms can have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.engines import Blocks
from cvj_ml.measurement.effects import NOTHING, difference
from cvj_ml.measurement.outcomes import Observation, PastList, effect_of_arms, first_listings, list_outcomes

MOST_GROUPS = 10
ROWS_A_GROUP = 100
"""Listed people that each group by predicted effect has at least."""

_ARMS = ("target", "control")


def measure_subgroups(
    lists: Sequence[PastList], observation: Observation, blocks: Blocks
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return one row for each list whose horizon is over and part of its people, nights of the epoch together.

    First by predicted effect, of nights that told one; then by play and channel, where a list has any.
    """
    ordered = sorted(lists, key=lambda past: past.as_of)
    told = [
        replace(past, scored=first.reset_index(drop=True))
        for past, first in zip(ordered, first_listings(ordered, observation.persons), strict=True)
        if observation.is_over(past)
    ]
    outcomes = list_outcomes(told, replace(observation, arm_neutral=True), blocks)
    by_effect: list[dict[str, object]] = []
    by_play: list[dict[str, object]] = []
    nights: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for last, outcome in zip(told, outcomes, strict=True):
        so_far = nights.setdefault((last.name, last.epoch), [])
        so_far.append(outcome)
        seen = pd.concat(so_far)
        key = {"list": last.name, "epoch": last.epoch, "as_of": last.as_of}
        if "incremental_probability" in last.scored:
            by_effect += [{**key, **one} for one in _groups(seen)]
        if "play" in last.scored:
            by_play += [{**key, **one} for one in _plays(seen[seen["known"]])]
    return by_effect, by_play


def _groups(listed: pd.DataFrame) -> list[dict[str, object]]:
    """Return target against control in groups of equal size, the smallest predicted effect first."""
    told = listed[listed["known"] & listed["incremental_probability"].notna()]
    told = told.sort_values(["incremental_probability", "customer_id"], kind="stable")
    groups = min(MOST_GROUPS, len(told) // ROWS_A_GROUP)
    parts = [told.iloc[rows] for rows in np.array_split(np.arange(len(told)), max(groups, 1))] if groups else []
    return [
        {
            "group": k + 1,
            "groups": groups,
            "predicted": float(part["incremental_probability"].mean()),
            **{name: one for name, one in effect_of_arms(part).items() if not name.endswith(("contacted", "judged"))},
        }
        for k, part in enumerate(parts)
    ]


def _plays(known: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield of each play and channel what it brought: its people in the target group against its people in control.

    Everybody stands for 1 / (the probability that this was their play), so that plays which chance gave are compared
    on whoever could have had them; each arm's share is Σwy / Σw, of as many people as `_worth` says.
    """
    chosen = known[known["play"].notna()]
    for (play, channel), part in chosen.groupby(["play", "channel"], dropna=False, sort=True):
        # Nights from before plays were drawn gave everybody the usual one.
        chance = part["play_probability"].fillna(1.0) if "play_probability" in part else pd.Series(1.0, part.index)
        told: dict[str, object] = {
            "play": play,
            "channel": channel if isinstance(channel, str) else None,
            "with_choice": int((chance < 1).sum()),
        }
        groups = {arm: part["group"] == arm for arm in _ARMS}
        yield {**told, **_weighted_difference(groups, 1 / chance.to_numpy(), part["converted"].to_numpy())}


def arm_effects(rows: pd.DataFrame) -> list[dict[str, object]]:
    """Return what each arm of the user's experiments brought to each list, against the control of its campaign.

    rows: of EXPERIMENTS. Where lots were drawn everybody stands for 1 / (the probability to be treated, or not), which
    compares an arm with control if all arms share the treated alike; nothing is said of a targeted log.
    """
    drawn = rows[(rows["epoch"] == "") & rows["propensity"].notna()]
    found: list[dict[str, object]] = []
    for (name, campaign), of_campaign in drawn.groupby(["list", "play"], dropna=False, sort=True):
        for arm in sorted(set(of_campaign.loc[of_campaign["treated"], "arm"])):
            part = of_campaign[~of_campaign["treated"] | (of_campaign["arm"] == arm)]
            treated = part["treated"].to_numpy(dtype=np.bool_)
            chance = np.where(treated, part["propensity"], 1 - part["propensity"])
            told = {"list": name, "campaign": campaign if isinstance(campaign, str) else None, "arm": arm}
            groups = {"target": treated, "control": ~treated}
            found.append({**told, **_weighted_difference(groups, 1 / chance, part["outcome"].to_numpy())})
    return found


def _weighted_difference(
    groups: Mapping[str, npt.NDArray[np.bool_] | pd.Series],
    weight: npt.NDArray[np.float64],
    moved: npt.NDArray[np.bool_] | npt.NDArray[np.float64],
) -> dict[str, object]:
    """Return counts and weighted shares of target and control, and their difference with its interval."""
    told: dict[str, object] = {}
    worth: list[float] = []
    for arm in _ARMS:
        mine = np.asarray(groups[arm])
        share = float(weight[mine] @ moved[mine] / weight[mine].sum()) if mine.any() else np.nan
        size = _worth(weight[mine], moved[mine], share)
        told |= {f"{arm}_n": int(mine.sum()), f"{arm}_moved": int(moved[mine].sum()), f"{arm}_share": share}
        worth += [share * size, size]
    found = difference(*worth) if all(told[f"{arm}_n"] for arm in _ARMS) else NOTHING
    return {**told, "difference": found.estimate, "difference_low": found.low, "difference_high": found.high}


def _worth(
    weight: npt.NDArray[np.float64], moved: npt.NDArray[np.bool_] | npt.NDArray[np.float64], share: float
) -> float:
    """Return of how many unweighted people a weighted share is as sure.

    (Σw)² / Σw² (Kish 1965), or fewer where the heavy ones move otherwise than the light: ȳ(1 − ȳ)(Σw)² / Σw²(y − ȳ)²,
    by the linearised variance of a ratio.
    """
    if not len(weight):
        return 0.0
    total = weight.sum() ** 2
    spread = float(np.sum((weight * (moved - share)) ** 2))
    kish = float(total / (weight @ weight))
    return min(kish, share * (1 - share) * total / spread) if spread else kish
