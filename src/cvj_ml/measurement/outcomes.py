"""What became of the customers of past nights: the listed against their control group, and scores against outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import DAY, QualityLevels
from cvj_ml.engines import Blocks
from cvj_ml.errors import GateError
from cvj_ml.evaluation.metrics import Interval
from cvj_ml.gates.verdicts import GateVerdict, graded, passed
from cvj_ml.histories import Block
from cvj_ml.journey import KEPT, Journey, asked_of, evidence, stays
from cvj_ml.lists.kinds import LEAVING, said_of
from cvj_ml.measurement.effects import NOTHING, difference, lift, observed_over_expected, top_share
from cvj_ml.models.bundle.forecast_errors import LEVELS, CountRange, ExpectedMoves, expected_moves
from cvj_ml.panel.labels import label, label_leaves, next_touchpoint
from cvj_ml.snapshots import Snapshots
from cvj_ml.windows import follow_up, happened_within, observed_whole, time_until

DEPTHS = (0.05, 0.1, 0.2, 0.5)
"""Shares of the likeliest of a stage at which the realised lift is measured."""


@dataclass(frozen=True, slots=True)
class PastList:
    """A list of a past night, with everybody who was scored for it.

    ``scored`` has customer_id, probability (of what the list is of, within ``horizon``), group (target, control or
    null for those not listed), control_share and, if the night told it, incremental_probability, one row a customer
    whom the list is of: in ``from_stage``, of several stages at risk and active then, or dormant then. ``stages`` are
    all that it names. ``moves`` were expected of the
    listed, as the night told them; None where a night told nothing.
    """

    name: str
    from_stage: str
    to_stage: str | None
    horizon: int
    epoch: str
    as_of: int
    model_version: str
    scored: pd.DataFrame
    moves: ExpectedMoves | None = None
    kind: str = "move"
    outcome: str = "reach"
    stages: tuple[str, ...] = ()

    @property
    def origins(self) -> tuple[str, ...]:
        """The stages whose customers are asked about."""
        return (self.from_stage,) if self.kind == "move" else self.stages

    @property
    def audience(self) -> str | None:
        """The column of SCORES that says of whom in its stages the list is; None: of all."""
        return None if self.outcome == LEAVING else {"at_risk": "active", "win_back": "dormant"}.get(self.kind)

    @property
    def instants(self) -> npt.NDArray[np.int64]:
        """The instant that each row is asked about: the night's, unless ``scored`` has an ``as_of`` of its own."""
        own = "as_of" in self.scored.columns
        return self.scored["as_of"].to_numpy(np.int64) if own else np.full(len(self.scored), self.as_of)


@dataclass(frozen=True, slots=True)
class Observation:
    """How outcomes are read: the journey, what was visible at the cut, and which ids were known to be whose by then.

    ``clicks`` are events that only answer a send: they keep nobody. ``arm_neutral`` leaves them out of every outcome,
    and what was sent, too: only the contacted can have them, so they would be an effect of their own (silent error 44).
    """

    journey: Journey
    cut: int
    arrival_delay: int
    persons: Mapping[str, str] = field(default_factory=dict)
    clicks: frozenset[str] = frozenset()
    arm_neutral: bool = False

    def is_over(self, past: PastList) -> bool:
        """Return whether a list's horizon was observed to its end."""
        return bool(observed_whole(follow_up(past.as_of, self.cut, self.arrival_delay), past.horizon))


def measure_lists(lists: Sequence[PastList], observation: Observation, blocks: Blocks) -> list[dict[str, object]]:
    """Return one row for each list whose horizon is over, in order of time.

    Effect: from each customer's first listed night of the epoch, everybody in the group that chance gave them, whoever
    was contacted (intention to treat); nights of the epoch so far count together. Quality of scores: on customers whom
    no list near the night gave away to contacts; see `untouched`. Forecast: what the night expected of its list, beside
    its control group scaled to the whole list.
    """
    over = sorted((past for past in lists if observation.is_over(past)), key=lambda past: (past.as_of, past.name))
    found, listed = list_outcomes(over, observation, blocks), listings(lists)
    rows: list[dict[str, object]] = []
    for name, epoch in dict.fromkeys((past.name, past.epoch) for past in over):
        seen: list[pd.DataFrame] = []
        for past, outcome in zip(over, found, strict=True):
            if (past.name, past.epoch) == (name, epoch):
                seen.append(outcome)
                first = first_listed(pd.concat(seen), observation.persons)
                one = {**_who(past), **effect_of_arms(first), **_quality(past, outcome, listed)}
                rows.append({**one, **_forecast(past, outcome, listed)})
    return sorted(rows, key=lambda row: (row["as_of"], row["list"]))


def first_listings(lists: Sequence[PastList], persons: Mapping[str, str]) -> list[pd.DataFrame]:
    """Return of each list who is listed on it and was on no list of the epoch before, with ``person``.

    One draw serves all lists of an epoch, so a later listing is a consequence of the first (silent error 45). lists: in
    the order in which they were published.
    """
    seen: dict[str, set[str]] = {}
    found = []
    for past in lists:
        rows = past.scored.dropna(subset="group")
        person = persons_of(rows["customer_id"], persons)
        before = seen.setdefault(past.epoch, set())
        first = ~person.isin(before) & ~person.duplicated()
        before.update(person)
        found.append(rows[first].assign(person=person[first]))
    return found


def persons_of(customers: pd.Series, persons: Mapping[str, str]) -> pd.Series:
    """Return the customer that each id stands for at the observation's cut."""
    return customers.map(persons).fillna(customers) if persons else customers


def first_listed(nights: pd.DataFrame, persons: Mapping[str, str]) -> pd.DataFrame:
    """Return each listed person once, as first listed; ``nights`` are in order of time."""
    person = persons_of(nights["customer_id"], persons)
    return nights.assign(person=person).dropna(subset="group").drop_duplicates("person")


def quality(
    spec: QualityLevels,
    lists: Sequence[PastList],
    listed: pd.DataFrame,
    observation: Observation,
    blocks: Blocks,
    model_version: str,
    fewest: int,
) -> list[GateVerdict]:
    """Evaluate the scores of past nights by what became of those whom no list gave away to contacts; see `untouched`.

    listed: as of `listings`; fewest: moves, happened or expected, from which on a list is evaluated. Only nights of
    tonight's model can fail: a new one has done nothing yet that would have to be put right.
    """
    found = []
    for past, outcome in zip(lists, list_outcomes(lists, observation, blocks), strict=True):
        converted, expected, ratio = _beside_expected(past, outcome, listed)
        name, night = f"quality:{past.name}", f"{past.horizon // DAY} days after a night of model {past.model_version}"
        did = "had moved" if past.kind == "move" else said_of(past.kind, past.outcome).did
        told = f"{night}, {converted:,} of those whom no list gave away {did} where {expected:,.1f} were expected"
        if max(converted, expected) < fewest or np.isnan(ratio.low):
            found.append(passed(name, f"{told}: too few to judge by", GateError.exit_code))
            continue
        off = max(ratio.low, 1 / ratio.high if ratio.high > 0 else np.inf, 1.0)
        fail = spec.fail if past.model_version == model_version else None
        warn = spec.warn if spec.warn is not None or fail is not None else spec.fail
        advice = f"That is surely off by a factor of {off:.1f}; look at `cvj-ml measure`, and train anew"
        found.append(graded(name, off, warn, fail, told, advice, GateError.exit_code))
    return found or [passed("quality", "no past list's horizon is over yet", GateError.exit_code)]


def list_outcomes(lists: Sequence[PastList], observation: Observation, blocks: Blocks) -> list[pd.DataFrame]:
    """Return each list's ``scored`` with converted, contacted, known (whether the customer can be evaluated), happened.

    ``happened`` is what the probability is of; ``converted`` what a contact is for: the same, but of who is at risk
    that they were kept, and by more than a click on what they were sent; of who is at risk of leaving a stage that they
    did not leave it. As in training, silence leaves none.

    Not known is who had been at the stage before the night, or had left the one to leave, though nobody could see it
    then, and who is no longer in the log.
    """
    asked = pd.concat(
        [past.scored[["customer_id"]].assign(night=past.instants, which=i) for i, past in enumerate(lists)]
        or [pd.DataFrame({"customer_id": [], "night": [], "which": []})],
        ignore_index=True,
    )
    codes, names = pd.factorize(asked["customer_id"])
    position = {name: i for i, name in enumerate(names)}
    answers = np.zeros((4, len(asked)), dtype=np.bool_)  # converted, contacted, known, happened
    night, which = asked["night"].to_numpy(dtype=np.int64), asked["which"].to_numpy(dtype=np.int64)

    def judge_block(block: Block) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        here = places_in(block, position)
        rows = np.flatnonzero(here[codes] >= 0)
        return rows, _outcomes(block, observation, lists, here[codes[rows]], night[rows], which[rows])

    for rows, answer in blocks.map(judge_block) if len(asked) else ():
        answers[:, rows] = answer
    ends = np.cumsum([len(past.scored) for past in lists])
    parts = np.split(answers, ends[:-1], axis=1) if len(lists) else []
    return [
        past.scored.assign(converted=part[0], contacted=part[1], known=part[2], happened=part[3])
        for past, part in zip(lists, parts, strict=True)
    ]


def places_in(block: Block, position: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Return where in a block each customer stands, -1 for those of others; ``position`` numbers them from 0."""
    here = np.full(len(position), -1, dtype=np.int64)
    for i, name in enumerate(block.customers):
        if name in position:
            here[position[name]] = i
    return here


def _outcomes(
    block: Block,
    observation: Observation,
    lists: Sequence[PastList],
    customer: npt.NDArray[np.int64],
    night: npt.NDArray[np.int64],
    which: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    pairs, place = np.unique(np.stack([customer, night]), axis=1, return_inverse=True)
    snapshots = Snapshots(pairs[0], pairs[1])
    points, place = block.touchpoints, place.ravel()
    until_send = time_until(next_touchpoint(points, points.sent, snapshots, observation.cut), snapshots.as_of)
    rows = evidence(observation.journey, block)
    known_stays = stays(observation.journey, rows)
    stage = known_stays.at(snapshots.customer, snapshots.as_of).stage
    if observation.arm_neutral:
        points = points.keep(~(points.sent | points.event.isin(observation.clicks)))
        rows = evidence(observation.journey, replace(block, touchpoints=points))
    labels = label(
        observation.journey,
        rows,
        snapshots,
        stage,
        observation.cut,
        observation.arrival_delay,
    )
    reached = [1 + observation.journey.index(past.to_stage) if past.to_stage else 0 for past in lists]
    target = np.array(reached, dtype=np.int64)[which]
    horizon = np.array([past.horizon for past in lists], dtype=np.int64)[which]
    converted = happened_within(labels.times[place, target], horizon)
    happened, known = converted.copy(), labels.at_risk[place, target]
    of_events = {one.name: one.among(points) for one in asked_of(observation.journey.spec)}
    clicks = points.event.isin(observation.clicks)
    for name in {past.outcome for past in lists} & of_events.keys():
        mine = np.array([past.outcome == name for past in lists], dtype=np.bool_)[which]
        lost = np.array([past.kind == "at_risk" for past in lists], dtype=np.bool_)[which]
        counted = of_events[name]
        for shown, found in ((counted, happened), (counted & ~clicks if name == KEPT else counted, converted)):
            until = time_until(next_touchpoint(points, shown, snapshots, observation.cut), snapshots.as_of)
            found[mine] = happened_within(until[place], horizon)[mine]
        happened[mine & lost] ^= True
        known[mine] = True
    leaving = np.array([past.outcome == LEAVING for past in lists], dtype=np.bool_)[which]
    if leaving.any():
        of_stage = np.array([[name in past.stages for name in observation.journey.names] for past in lists])
        happened[leaving] = known[leaving] = False
        for name, one in label_leaves(observation.journey, rows, known_stays, snapshots, observation.cut).items():
            i = observation.journey.index(name)
            mine = leaving & (stage[place] == i) & of_stage[which, i]
            happened[mine], known[mine] = happened_within(one.until[place], horizon)[mine], one.asked[place][mine]
        converted[leaving] = ~happened[leaving]
    contacted = happened_within(until_send[place], horizon)
    return np.stack([converted, contacted, known, happened])


def listings(lists: Sequence[PastList]) -> pd.DataFrame:
    """Return one row for each customer of each list: customer_id, group, control_share, as_of, epoch."""
    parts = [one.scored.dropna(subset="group").assign(as_of=one.as_of, epoch=one.epoch) for one in lists]
    columns = ["customer_id", "group", "control_share", "as_of", "epoch"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def untouched(past: PastList, listed: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return a weight for each scored customer: what is left when contacts are taken out without choosing by outcome.

    Who was in a target group on any list within a horizon before or after the night weighs nothing. Who was listed
    then, but in control, stands for those too: weight 1 / control_share for each epoch. Everybody else weighs 1.
    """
    nights = listed["as_of"].to_numpy(dtype=np.int64)
    after = happened_within(time_until(nights, past.as_of), past.horizon)
    before = happened_within(-time_until(nights, past.as_of), past.horizon)
    near = listed[after | before]
    weight = pd.Series(1.0, index=past.scored["customer_id"])
    share = near.drop_duplicates(["customer_id", "epoch"]).groupby("customer_id")["control_share"].prod()
    control = share[share > 0].index.intersection(weight.index)
    weight.loc[control] = 1 / share[control]
    target = pd.Index(near.loc[near["group"] == "target", "customer_id"].unique())
    weight.loc[weight.index.intersection(target)] = 0.0
    return np.asarray(weight, dtype=np.float64)


def _who(past: PastList) -> dict[str, object]:
    return {
        "list": past.name,
        "epoch": past.epoch,
        "as_of": past.as_of,
        "kind": past.kind,
        "outcome": past.outcome,
        "from_stage": past.from_stage,
        "to_stage": past.to_stage,
        "horizon_days": past.horizon // DAY,
        "model_version": past.model_version,
    }


def effect_of_arms(listed: pd.DataFrame) -> dict[str, object]:
    """Return target against control: each person once."""
    known = listed[listed["known"]]
    arms = {name: known[known["group"] == name] for name in ("target", "control")}
    counts = {name: (int(arm["converted"].sum()), len(arm)) for name, arm in arms.items()}
    found = difference(*counts["target"], *counts["control"]) if all(n for _, n in counts.values()) else NOTHING
    return {
        **{f"{name}_n": n for name, (_, n) in counts.items()},
        **{f"{name}_moved": converted for name, (converted, _) in counts.items()},
        **{f"{name}_contacted": float(arm["contacted"].mean()) if len(arm) else np.nan for name, arm in arms.items()},
        "not_judged": int((~listed["known"]).sum()),
        **_columns("difference", found),
    }


def _beside_expected(past: PastList, outcome: pd.DataFrame, listed: pd.DataFrame) -> tuple[int, float, Interval]:
    """Return how many moved of those left alone, how many were expected to, and the weighted ratio of both."""
    weight = untouched(past, listed)
    kept = (weight > 0) & outcome["known"].to_numpy()
    p, y = (outcome[name].to_numpy(dtype=np.float64)[kept] for name in ("probability", "happened"))
    return int(y.sum()), float(p.sum()), observed_over_expected(p, y, weight[kept])


def _quality(past: PastList, outcome: pd.DataFrame, listed: pd.DataFrame) -> dict[str, object]:
    moved_there, expected, found = _beside_expected(past, outcome, listed)
    weight = untouched(past, listed)
    probability, converted = (
        outcome["probability"].to_numpy(dtype=np.float64),
        outcome["happened"].to_numpy(dtype=np.float64),
    )
    kept = (weight > 0) & outcome["known"].to_numpy()
    w, y = weight[kept], converted[kept]
    names = outcome["customer_id"].tolist()
    lifts = {depth: lift(y, w, top_share(probability, names, depth)[kept]) if len(y) else NOTHING for depth in DEPTHS}
    return {
        "untouched_n": int(kept.sum()),
        "untouched_moved": moved_there,
        "untouched_expected": expected,
        **_columns("observed_over_expected", found),
        **{name: value for depth, one in lifts.items() for name, value in _columns(f"lift_{depth:.0%}", one).items()},
    }


def _forecast(past: PastList, outcome: pd.DataFrame, listed: pd.DataFrame) -> dict[str, object]:
    """Return the moves expected of a list beside those of its control group, each standing for 1 / share customers.

    Business as usual is what the control group shows, so its moves, scaled, are compared with the expected number; the
    ranges around them say where they lie if the forecast was right: they hold the chance of so small a group, too.
    """
    if past.moves is None:
        return {}
    weight = untouched(past, listed)
    kept = (outcome["group"] == "control").to_numpy() & (weight > 0) & outcome["known"].to_numpy()
    p, y, w = outcome["probability"].to_numpy(np.float64)[kept], outcome["happened"].to_numpy()[kept], weight[kept]
    expected = expected_moves(p, past.moves.folds, past.moves.spread)
    scale = float(w.mean()) if len(w) else np.nan
    return {
        "listed": past.moves.customers,
        "past_folds": past.moves.folds,
        **past.moves.columns("expected_moves"),
        "control_scaled": float(w @ y) if len(w) else np.nan,
        **{
            f"control_scaled_{side}_{level}": scale * getattr(expected.ranges[i], side) if expected.ranges else np.nan
            for i, level in enumerate(LEVELS)
            for side in CountRange._fields
        },
    }


def _columns(name: str, found: Interval) -> dict[str, float]:
    name = name.replace("%", "pct")
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
