"""How numbers are told: short sentences and figures with as many digits as they deserve.

How good the probabilities were when they could be evaluated, in words.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cvj_ml.config import DAY, STAGE_CHANGE, JourneySpec
from cvj_ml.config.plays import Play
from cvj_ml.evaluation.diagnosis import diagnosis, level_in_words
from cvj_ml.evaluation.mlflow_record import QUESTIONS, cell_name
from cvj_ml.exports import LEFT_OUT
from cvj_ml.journey import KEPT, in_scores
from cvj_ml.journey_analytics.dwell_times import AFTER
from cvj_ml.journey_analytics.journey_map import MINIMUM_MOVERS, Opportunity, Step
from cvj_ml.journey_analytics.precursors import Precursor
from cvj_ml.lists.chances import REACH, asked_in
from cvj_ml.lists.kinds import LEAVING, Verb, heading_of, title_of
from cvj_ml.lists.last_events import before_amount
from cvj_ml.lists.ranked_list import RankedList
from cvj_ml.models.bundle.forecast_errors import LEVELS, ExpectedMoves, moves_in_words

if TYPE_CHECKING:
    from cvj_ml.report.worksheet import Habit, SegmentStep


UNOBSERVED = "The data show nothing of this stage, so nothing is predicted about it."

ASSOCIATION = (
    "What goes with moving on or with staying is an association: those customers may have moved on anyway. Only a test"
    " with a control group shows a cause."
)

ROOM = (
    "Customers × probability gap × value: how many more would move on if all of them did so as readily as the quarter"
    " with the highest probability. It says where there is room, not what a campaign will bring."
)


UNRECORDED = "Chances: the track record is of moves alone; `cvj-ml measure` tells later what became of these."

NOT_CONFIRMED = ": not confirmed by the past"


def percent(share: float | None) -> str:
    """Return a share as text: one decimal below 10 %, two below 1 %."""
    if share is None or share != share:
        return "–"
    if share == 0 or share >= 0.0995:
        return f"{share:.0%}"
    if share < 0.00005:
        return "under 0.01%"
    return f"{share:.1%}" if share >= 0.00995 else f"{share:.2%}"


def track_records(rows: pa.Table) -> list[str | None]:
    """Return what became of past customers with each row's probability; None where nothing is known of any.

    The range is that of their true share. A probability outside it has none, and is not confirmed.
    """
    columns = (rows[f"track_record_{name}"].to_pylist() for name in ("n", "k", "predicted", "low", "high"))
    return [
        None
        if n is None
        else f"predicted {percent(predicted)}, {k:,} of {n:,} moved"
        + (NOT_CONFIRMED if low is None else f" ({percent(low)} to {percent(high)})")
        for n, k, predicted, low, high in zip(*columns, strict=True)
    ]


def confirmed(counts: Mapping[str, int]) -> str:
    """Say for how many of a list past scores confirm the probability; nothing of a list that has nobody."""
    if not (listed := sum(counts.values())):
        return ""
    if counts["no_record"] == listed:
        return "Chances: too few were ever scored like these to say whether the past confirms them."
    told = [f"{counts['confirmed']:,} of {listed:,} confirmed by what became of people scored like them"]
    told += [f"{counts['not_confirmed']:,} not confirmed"] if counts["not_confirmed"] else []
    told += [f"{counts['no_record']:,} with too few like them"] if counts["no_record"] else []
    return f"Chances: {', '.join(told)}."


def other_plays(plays: Sequence[tuple[str, int, str]]) -> str:
    """Say that others are offered something else."""
    people = sum(number for _, number, _ in plays)
    return f"{people:,} get {'another play' if len(plays) == 1 else f'one of {len(plays)} other plays'}"


def export(counts: Mapping[str, Any]) -> str:
    """Say how many people an export holds, how that changed, and why others are not in it, on a line of its own."""
    told = people(counts["written"])
    if counts["added"] is not None:
        told += f", {counts['added']:,} of them new; {counts['removed']:,} not any more"
    left = [f"{counts[reason]:,} {words}" for reason, words in LEFT_OUT.items() if counts[reason]]
    return f"{told}.\nLeft out: {'; '.join(left)}." if left else f"{told}."


def export_file(name: str) -> str:
    """Return the file, or the pattern of the files, of an export."""
    return {"calls": "calls.html", "channels": "channel_*.csv", "segments": "segment_*.csv"}.get(name, f"{name}.csv")


def whole_number(number: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,}"


def amount(number: float, currency: str | None) -> str:
    """Return an amount: without decimals from 100 on; a sign of a currency stands close to it, letters apart."""
    digits = f"{abs(number):,.0f}" if abs(number) >= 99.5 else f"{abs(number):,.2f}"
    return f"{'-' if number < 0 else ''}{before_amount(currency)}{digits}"


def days(number: float) -> str:
    """Return a time in days, to the nearest; what is shorter than a day is told as that."""
    if number < 1:
        return "under a day"
    nearest = int(number + 0.5)
    return "1 day" if nearest == 1 else f"{nearest:,} days"


_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def day_in_words(day: date, *, weekday: bool = False) -> str:
    """Return a day as people say it, without the year: 24 June, or Tuesday 24 June."""
    told = f"{day.day} {_MONTHS[day.month - 1]}"
    return f"{_WEEKDAYS[day.weekday()]} {told}" if weekday else told


def one_in(share: float, said: Verb) -> str:
    """Say how many of those move on, or are lost: 1 in 3, 7 in 10, fewer than 1 in 1,000."""
    if share < 0.001:
        return f"fewer than 1 in 1,000 {said.many}"
    if share <= 0.4:
        return f"1 in {round(1 / share):,} {said.one}"
    return f"{min(round(10 * share), 9)} in 10 {said.many}"


def customers(number: int) -> str:
    """Return a number of customers."""
    return f"{number:,} customer{'' if number == 1 else 's'}"


def people(number: int) -> str:
    """Return a number of people."""
    return f"{number:,} {'person' if number == 1 else 'people'}"


def standing(step: Step) -> str:
    """Say who stands in a stage."""
    silent = (
        f", {'all' if step.dormant == step.here else whole_number(step.dormant)} of them silent" if step.dormant else ""
    )
    return f"{customers(step.here)} now{silent}; {whole_number(step.entered)} have been here"


def movement(step: Step) -> str:
    """Say who came and left in the last period."""
    parts = [f"{whole_number(step.new)} new"] if step.new else []
    parts += [f"{whole_number(step.came)} came from earlier stages"] if step.came else []
    back, lost = (step.back_and_forth.back, step.back_and_forth.lost) if step.back_and_forth else (0, 0)
    parts += [f"{whole_number(back)} came back from later ones"] if back else []
    # Nobody moves on from the top.
    parts += [f"{whole_number(step.left)} moved on"] if step.converted else []
    parts += [f"{whole_number(lost)} fell back"] if lost else []
    return ", ".join(parts) or "nobody came or left"


def speed(step: Step) -> str:
    """Say how many move on, and how fast."""
    if step.converted < MINIMUM_MOVERS:
        return ""
    told = [
        f"{percent(share)} within {after} days"
        for after, share in zip(AFTER, step.pace.moved_by, strict=True)
        if share is not None
    ]
    half = (
        "fewer than half have moved on in the time observed"
        if step.pace.median is None
        else f"half have moved on after {days(step.pace.median)}"
    )
    return ", ".join([*told, half])


def stalling(step: Step) -> str:
    """Say who has been in a stage for unusually long."""
    if step.pace.usual is None or step.pace.stalled is None:
        return ""
    usual = days(step.pace.usual)
    return f"{customers(step.pace.stalled)} here for more than {usual}, longer than three of four who moved on"


def spoken(name: str) -> str:
    """Return a name of the data as it is spoken: underscores are spaces."""
    return name.replace("_", " ")


def habit(one: Habit) -> str:
    """Say what customers of a stage do."""
    sent = "" if one.inbound or one.event.startswith(STAGE_CHANGE) else " (sent by us)"
    return f"{spoken(one.event)}{sent} {percent(one.share)}"


def precursor_in_words(one: Precursor) -> str:
    """Say how a touchpoint goes with moving on."""
    sent = "" if one.inbound or one.event.startswith(STAGE_CHANGE) else " (sent by us)"
    return (
        f"{spoken(one.event)}{sent} {times(one.lift)}× ({times(one.low)} to {times(one.high)}):"
        f" {percent(one.share_with)} of {whole_number(one.with_it)} moved on, {percent(one.share_without)} without it"
    )


def moves(number: float) -> str:
    """Return an expected number of moves."""
    return moves_in_words(number)


def expected_moves(one: ExpectedMoves) -> str:
    """Return an expected number with its range, short enough for a cell of a table."""
    if not one.ranges:
        return moves_in_words(one.expected)
    return f"{moves_in_words(one.expected)} ({one.ranges[0].low:,} to {one.ranges[0].high:,})"


def forecast(one: ExpectedMoves, who: str, will: str = "move") -> str:
    """Say how many of some customers are expected to move, or what else they ``will``, and how sure that is."""
    told = f"Of {who}, {moves_in_words(one.expected)} are expected to {will} in time, if you go on as before"
    if not one.ranges:
        return f"{told} ({one.why_no_range})"
    ranges = [
        f"{low:,} to {high:,} in {level} of 100 cases" for (low, high), level in zip(one.ranges, LEVELS, strict=True)
    ]
    return f"{told}: {', '.join(ranges)}"


def times(ratio: float) -> str:
    """Return a ratio, with so many digits that one beside 1 is told from it."""
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.0f}"


def opportunity(one: Opportunity, currency: str | None) -> str:
    """Say how much room a transition has."""
    worth = "" if one.value is None else f", worth {amount(one.value, currency)}"
    return (
        f"{customers(one.customers)}, {percent(one.probability)} on average against {percent(one.best)} for the best"
        f" quarter within {days(one.horizon_days)}: room for {moves(one.moves)} more{worth}"
    )


def play(one: Play) -> str:
    """Say what can be done, and through which channels."""
    return f"{one.text} ({', '.join(map(spoken, one.channels))})" if one.channels else one.text


def segment_share(one: SegmentStep) -> str:
    """Say which share of a segment moved on, with its interval."""
    return f"{percent(one.step.converted / one.step.stays)} ({percent(one.low)} to {percent(one.high)})"


_LEVEL = ("observed_expected", "observed_expected_low", "observed_expected_high")
_STRENGTHS = ((0.85, "Ranks very well"), (0.75, "Ranks well"), (0.65, "Ranks fairly"), (0.55, "Ranks weakly"))


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What the registry knows of the model's training; instants are ISO text, metrics as they were logged."""

    cut: str
    judged_at: str
    metrics: Mapping[str, float]

    @classmethod
    def of(cls, cut: str, parameters: Mapping[str, str], metrics: Mapping[str, float]) -> TrainedModel:
        """Return what a run logged; days are enough for people."""
        return cls(cut[:10], parameters.get("fold_cut", "")[:10], metrics)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One list's transition on the fold that the training was evaluated by: sentences, or why there are none."""

    title: str
    ranking: str
    level: str


def judgements(lists: Sequence[RankedList], training: TrainedModel | None, journey: JourneySpec) -> list[Judgement]:
    """Return a judgement a list, from metrics such as ``test.auc.convert__ascend.30d``; of leaving one a stage."""
    return [
        _judge(one, stage, training, asked_in(one.outcome, stage, journey))
        for one in lists
        for stage in (one.spec.origins if one.outcome == LEAVING else (one.origin,))
    ]


def _judge(one: RankedList, origin: str, training: TrainedModel | None, outcome: str) -> Judgement:
    # What is asked of one stage's customers alone is never the question of the return.
    days, own = one.spec.horizon // DAY, one.outcome in (REACH, LEAVING)
    title = title_of(heading_of(one.spec.kind, one.outcome, origin, one.spec.to_stage), days)
    if training is None:
        return Judgement(title, "The registry has no metrics of this model.", "")
    if one.spec.kind == "move":
        cell, movers = cell_name(origin, one.spec.target, days), ("mover", "movers")
    else:
        cell, movers = f"{in_scores(outcome)}.{days}d", ("first", "them")

    def metric(name: str) -> float:
        return training.metrics.get(f"test.{name}.{cell}", math.nan)

    auc, lift = metric("auc"), metric("lift_10")
    if math.isnan(auc):
        # The return has no figures of this form, and what is the same question as the return has none of its own.
        same = "" if own else ", or on this data the question is that of the return (model card)"
        return Judgement(title, f"Not judged: too few customers {one.said.did} in the test{same}.", "")
    pairs = f"Of a customer who {one.said.pair}, it ranked the {movers[0]} higher in {auc:.0%} of"
    pairs += " all pairs" if own else " all pairs, whatever their stage"
    # The churn's tenth at the top are those who leave: of a list that asks who comes back it says nothing.
    silent = math.isnan(lift) or (one.spec.kind == "win_back" and one.outcome == KEPT)
    tenth = "" if silent else f"; the tenth at the top held {lift:.1f} times the average share of {movers[1]}"
    noun = "moves " if one.spec.kind == "move" else ""
    level = _level(metric(_LEVEL[0]), metric(_LEVEL[1]), metric(_LEVEL[2]), noun)
    return Judgement(title, f"{_strength(auc)}. {pairs}{tenth}.", level)


def _strength(auc: float) -> str:
    for least, told in _STRENGTHS:
        if auc >= least:
            return told
    return "Hardly better than chance"


def _level(ratio: float, low: float, high: float, noun: str) -> str:
    if math.isnan(ratio):
        return ""
    words = level_in_words(ratio, low, high)
    told = f"{words[:1].upper()}{words[1:]}: where" if words else "Where"
    return f"{told} 100 {noun}were expected, {100 * ratio:.0f} happened."


def parts_in_words(lists: Sequence[RankedList], training: TrainedModel | None) -> list[str]:
    """Return which part of the forecast was wrong on the fold, for each question and horizon of the lists.

    Nothing where the model was trained before these metrics were logged, or where too few customers moved.
    """
    if training is None or not training.judged_at:
        return []
    first = date.fromisoformat(training.judged_at)
    told = []
    for days in sorted({one.spec.horizon // DAY for one in lists if one.spec.kind == "move"}):
        for question in QUESTIONS:
            row = _parts(training.metrics, question, days)
            if "expected" in row:
                told.append(diagnosis(row, first))
    return told


def _parts(metrics: Mapping[str, float], question: str, days: int) -> dict[Hashable, Any]:
    """Return a row of the table `decomposition` from the metrics that were logged of it; what was not is NaN."""
    prefix, suffix = "test.decomposition.", f".{question}.{days}d"
    found: dict[Hashable, Any] = {
        name.removeprefix(prefix).removesuffix(suffix): value
        for name, value in metrics.items()
        if name.startswith(prefix) and name.endswith(suffix)
    }
    return defaultdict(lambda: math.nan, {**found, "question": question, "horizon_days": days})
