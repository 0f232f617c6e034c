"""Stage labels: read as a table of their own, and from nowhere that a rule or a feature reads."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.oracles.cases import a_definition
from tests.store.conftest import JOURNEY

from cvj_ml.config import DAY, Config
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import ConfigError, DataError
from cvj_ml.evaluation.stage_evaluation import FitOfStages
from cvj_ml.panel.stage_panel import Tracking, stage_rows
from cvj_ml.store import ingest
from cvj_ml.windows import parse_as_of

STAGES = {
    "name": "two",
    "stages": [*JOURNEY["stages"], {"name": "Fan", "enter": {"event": "review"}}],
}
LOG = "customer_id,occurred_at,event\n" + "".join(
    f"{name},2024-02-0{day},{event}\n"
    for name, day, event in [
        ("a", 1, "purchase"),
        ("b", 1, "purchase"),
        ("c", 1, "purchase"),
        ("c", 2, "review"),
        ("d", 1, "purchase"),
        ("d", 5, "review"),
    ]
)
LABELS = """customer_id,as_of,stage,known_at
a,2024-02-03,Buyer,2024-02-04
a,2024-02-05,Fan,2024-02-06
b,2024-02-03,Buyer,2024-02-04
b,2024-02-05,Fan,2024-03-01
c,2024-02-03,Buyer,2024-02-04
d,2024-02-03,Fan,2024-02-04
nobody,2024-02-03,Fan,2024-02-04
"""


@pytest.fixture
def labelled(one_source, tmp_path):
    def make(labels: str = LABELS, **settings) -> Config:
        (tmp_path / "crm.csv").write_text(labels)
        defaults = {"journey": STAGES, "coverage": {"Fan": 0.5}, "stage_labels": {"path": "crm.csv"}}
        return one_source(LOG, **(defaults | settings))

    return make


def rows_at(config: Config, day: str):
    store = ingest(config)
    definition = a_definition(config.journey)
    return stage_rows(definition, Tracking.of(config), LocalEngine(store, 1), parse_as_of(day, config.zone))


def test_labels_are_read_by_customer(labelled) -> None:
    store = ingest(labelled())
    assert store.label_counts is not None
    assert (store.label_counts.rows_in, store.label_counts.stored, store.label_counts.unmatched) == (7, 6, 1)
    found = []
    for block in LocalEngine(store, 1).map(lambda one: one):
        table = block.stage_labels
        for i, name in enumerate(block.customers):
            for row in range(table.offsets[i], table.offsets[i + 1]):
                found.append((name, int(table.as_of[row]) // DAY, table.stage.values[table.stage.codes[row]]))
    first = parse_as_of("2024-02-03", labelled().zone) // DAY
    expected = [("a", 0, "Buyer"), ("a", 2, "Fan"), ("b", 0, "Buyer"), ("b", 2, "Fan"), ("c", 0, "Buyer")]
    assert sorted(found) == [(name, first + day, stage) for name, day, stage in [*expected, ("d", 0, "Fan")]]


def test_the_newest_label_known_by_then_counts_and_conflicts_do_not(labelled) -> None:
    """At the instant of the label: d's review came after it, so Fan was hidden then; c's review came before."""
    rows = rows_at(labelled(), "2024-02-20")
    assert rows.source == "labels"
    assert (rows.labels, rows.conflicts) == (4, 1), "c was seen as Fan and is called Buyer"
    assert rows.seen.customer.tolist() == [0, 1, 3]
    assert rows.seen.truth.tolist() == [1, 0, 1], "b's second label was not known yet"
    assert rows.seen.floor.tolist() == [0, 0, 0]
    assert rows.without.customer.tolist() == [0, 3]


def test_a_label_above_a_stage_that_is_always_seen_contradicts_it(labelled) -> None:
    rows = rows_at(labelled(coverage={"Fan": 1.0}), "2024-02-20")
    assert (rows.labels, rows.conflicts) == (4, 3)


def test_many_conflicts_are_told(labelled) -> None:
    rows = rows_at(labelled(), "2024-02-20")
    from cvj_ml.models.stage.posterior_fitting import fit_stages

    model = fit_stages(rows, Tracking.of(labelled()), 1, 1)
    told = FitOfStages(model, None, rows.labels, rows.conflicts, pd.DataFrame()).warnings(("Buyer", "Fan"))
    assert told[0].startswith("1 of 4 stage labels contradict what is observed")
    few = FitOfStages(model, None, 100, 5, pd.DataFrame()).warnings(("Buyer", "Fan"))
    assert not any("contradict" in warning for warning in few)


def test_before_a_label_is_known_there_is_none(labelled) -> None:
    rows = rows_at(labelled(), "2024-02-03T12:00")
    assert rows.source == "presence"
    assert (rows.seen.truth == rows.seen.floor).all()


def test_a_file_of_labels_feeds_nothing_else(labelled) -> None:
    """Silent error 20: a model would copy the label from there."""
    attributes = {"path": "crm.csv", "columns": {"customer_id": "customer_id", "known_at": "known_at", "crm": "stage"}}
    with pytest.raises(ConfigError) as caught:
        ingest(labelled(attributes=attributes))
    assert "attributes: it reads crm.csv, as stage_labels does." in str(caught.value)


def test_a_copy_of_the_file_under_another_name_does_not_either(labelled, tmp_path) -> None:
    """Silent error 20."""
    (tmp_path / "copy.csv").write_text(LABELS)
    attributes = {"path": "copy.csv", "columns": {"customer_id": "customer_id", "known_at": "known_at", "crm": "stage"}}
    with pytest.raises(ConfigError, match=r"attributes: it reads copy.csv, as stage_labels does"):
        ingest(labelled(attributes=attributes))


def test_labels_of_unknown_stages_are_refused_with_the_names_there_are(labelled) -> None:
    with pytest.raises(DataError) as caught:
        ingest(labelled(LABELS.replace("Fan", "fan")))
    assert "stage_labels: 4 of 7 rows refused" in str(caught.value)
    assert "(unreadable stage: 4); the journey's stages are Buyer, Fan" in str(caught.value)


def test_a_column_that_labels_do_not_have_is_a_fault(labelled) -> None:
    with pytest.raises(DataError, match="there is no column 'known_at'"):
        ingest(labelled(LABELS.replace("known_at", "loaded")))
    with pytest.raises(DataError, match=r"stage_labels: columns.score: stage labels have customer_id, as_of, stage,"):
        ingest(labelled(stage_labels={"path": "crm.csv", "columns": {"score": "stage"}}))


def test_labels_do_not_reach_the_features(labelled) -> None:
    with_labels, without = labelled(), labelled(stage_labels=None, coverage={})
    a, b = (LocalEngine(ingest(config), 1).map(lambda one: one) for config in (with_labels, without))
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one.touchpoints.occurred_at, other.touchpoints.occurred_at)
        assert one.touchpoints.properties.keys() == other.touchpoints.properties.keys() == set()
        assert one.attributes is None
