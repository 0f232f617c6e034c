"""Columns that are gone, renamed, of another type, new or in another order."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from tests.faults.ground import Ground

pytest_plugins = ["tests.fixtures"]

Change = Callable[[pd.DataFrame], pd.DataFrame]


def change(ground: Ground, made: Change, table: str = "touchpoints") -> None:
    file = ground.folder / f"{table}.parquet"
    made(pd.read_parquet(file)).to_parquet(file, index=False)


def retyped(column: str, kind: str) -> Change:
    return lambda frame: frame.assign(**{column: frame[column].astype(kind)})


REFUSED: dict[str, tuple[Change, tuple[str, ...]]] = {
    "an instant is missing": (
        lambda frame: frame.drop(columns="occurred_at"),
        ("sources.touchpoints: columns.occurred_at: there is no column 'occurred_at'",),
    ),
    "a property is missing": (
        lambda frame: frame.drop(columns="rating"),
        ("sources.touchpoints: columns.rating: there is no column 'rating'",),
    ),
    "two are renamed": (
        lambda frame: frame.rename(columns={"customer_id": "customer", "event": "Event_"}),
        ("columns.customer_id: there is no column", "columns.event: there is no column", "Did you mean 'Event_'?"),
    ),
    "an instant is a number": (
        lambda frame: frame.assign(occurred_at=frame["occurred_at"].astype("int64")),
        ("sources.touchpoints", "occurred_at"),
    ),
    "an id is a fraction": (
        lambda frame: frame.assign(customer_id=frame["customer_id"].str[1:].astype(float) + 0.5),
        ("customer_id is a number in sources.touchpoints, text in attributes", "convert them in a query"),
    ),
    "an amount is text": (
        lambda frame: frame.assign(value=[None if v != v else f"EUR {v}" for v in frame["value"]]),
        ("sources.touchpoints", "refused_share", "value"),
    ),
    "an amount is numbers as text": (
        lambda frame: frame.assign(value=[None if v != v else str(v) for v in frame["value"]]),
        ("columns:touchpoints", "'value' was number and is text", "map the column anew"),
    ),
    "a property is text": (retyped("rating", "str"), ("rating",)),
    "there are none": (lambda frame: frame[[]], ("sources.touchpoints",)),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_columns_that_do_not_fit_are_named(ground: Ground, fault: str) -> None:
    made, words = REFUSED[fault]
    change(ground, made)
    ground.refuses(3, *words)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda frame: frame.drop(columns="known_at"), ("attributes: columns.known_at: there is no column",)),
        (lambda frame: frame.drop(columns="age"), ("attributes: columns.age: there is no column 'age'",)),
        (retyped("age", "str"), ("age",)),
    ],
    ids=["an instant is missing", "an attribute is missing", "an attribute is text"],
)
def test_columns_of_customers_that_do_not_fit_are_named(ground: Ground, made: Change, words: tuple[str, ...]) -> None:
    change(ground, made, "customers")
    ground.refuses(3, *words)


@pytest.mark.slow
def test_the_order_of_columns_changes_no_score(ground: Ground) -> None:
    expected = ground.scores(ground.publishes())
    change(ground, lambda frame: frame[frame.columns[::-1]])
    change(ground, lambda frame: frame[frame.columns[::-1]], "customers")
    pd.testing.assert_frame_equal(ground.scores(ground.publishes()), expected)


@pytest.mark.slow
def test_a_column_that_nobody_asked_for_is_told_and_changes_no_score(ground: Ground) -> None:
    expected = ground.scores(ground.publishes())
    change(ground, lambda frame: frame.assign(shoe_size=43))
    ran = ground.night()
    pd.testing.assert_frame_equal(ground.scores(ground.publishes(ran)), expected)
    assert "warning: columns:touchpoints: 'shoe_size' is new" in ran.err
