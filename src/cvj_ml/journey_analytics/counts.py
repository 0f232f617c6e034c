"""One pass over all blocks: everything that the page and the worksheet count about customers."""

from __future__ import annotations

from dataclasses import dataclass

from cvj_ml.config import Config
from cvj_ml.engines import Blocks
from cvj_ml.histories import Block
from cvj_ml.journey import Journey, evidence, stays
from cvj_ml.journey_analytics.dwell_times import (
    DwellTimeCounts,
    Question,
    add_dwell_times,
    count_dwell_times,
    dwell_times,
)
from cvj_ml.journey_analytics.experience import ExperienceCounts, add_experience, count_experience
from cvj_ml.journey_analytics.personas import KnownCustomers, add_customers, known_customers
from cvj_ml.journey_analytics.precursors import TouchpointCounts, add_touchpoints, count_touchpoints
from cvj_ml.windows import midnight


@dataclass(frozen=True, slots=True)
class JourneyCounts:
    """The counts of all blocks, and a row a customer, from which personas are made."""

    question: Question
    dwell_times: DwellTimeCounts
    touchpoints: TouchpointCounts
    experience: ExperienceCounts
    customers: KnownCustomers


def question_of(config: Config, journey: Journey, as_of: int, delay: int) -> Question:
    """Return the question of a configuration at an instant."""
    return Question(
        journey,
        as_of,
        config.report.period,
        delay,
        config.report.segment,
        config.report.rating,
        midnight(config.history_from, config.zone),
    )


def count_journey(question: Question, blocks: Blocks) -> JourneyCounts:
    """Count all blocks; needs at least one customer."""

    def one(block: Block) -> tuple[DwellTimeCounts, TouchpointCounts, ExperienceCounts, KnownCustomers]:
        points = block.touchpoints
        held = stays(question.journey, evidence(question.journey, block))
        found = dwell_times(points, held, question.as_of)
        return (
            count_dwell_times(question, block, found),
            count_touchpoints(question, block, held, found),
            count_experience(question, points, held, found),
            known_customers(question, block, found),
        )

    spent, points, experience, customers = zip(*blocks.map(one), strict=True)
    return JourneyCounts(
        question, add_dwell_times(spent), add_touchpoints(points), add_experience(experience), add_customers(customers)
    )
