"""Amounts and numbers of purchases after a snapshot against plain loops over rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import examples
from tests.oracles.blocks import to_block
from tests.oracles.cases import HORIZONS, person, touch
from tests.oracles.examples import DAY, HOUR
from tests.oracles.histories import Customer, live

from cvj_ml.config import ValueSpec
from cvj_ml.panel.amounts import Amounts, amount_columns, future_amounts
from cvj_ml.panel.labels import next_touchpoint
from cvj_ml.snapshots import eligible
from cvj_ml.windows import happened_within

BOUGHT = ValueSpec(events=("buy", "mail"), refunds=("review",))
delays = st.sampled_from((0, 0, 1, HOUR, 2 * DAY))
moments = st.lists(examples.instants(), min_size=1, max_size=3, unique=True).map(sorted)


def by_hand(customer: Customer, as_of: int, horizon: int, cut: int, delay: int) -> tuple[int, int, int, bool]:
    """Gross, refunds and purchases within a horizon as known at the cut, and whether it was over by then."""
    gross = refunds = purchases = 0
    for row in live(customer, cut):
        if not as_of <= row.occurred < as_of + horizon:
            continue
        amount = row.value or 0
        if row.event == "review":
            refunds += abs(amount)
        elif row.event in BOUGHT.events and row.inbound:  # what we mail to somebody is not what they buy
            purchases += 1
            gross += max(amount, 0)
            refunds += max(-amount, 0)
    return gross, refunds, purchases, as_of + horizon + delay <= cut


def rows_of(found: Amounts) -> list[list[tuple[int, int, int, bool]]]:
    tables = (found.gross, found.refunds, found.purchases, found.whole)
    return [list(zip(*(table[i].tolist() for table in tables), strict=True)) for i in range(len(found.gross))]


@settings(max_examples=150)
@given(examples.customers(most=3), moments, examples.instants(), delays)
def test_amounts_are_those_of_plain_loops(customers: list[Customer], instants: list[int], cut: int, delay: int) -> None:
    """Silent errors 140 and 141: late rows, superseded versions, windows that are not over, signs, whose doing."""
    points = to_block(customers).touchpoints
    snapshots = eligible(points, np.array([at for at in instants if at < cut] or [cut - DAY], dtype=np.int64))
    found = future_amounts(points, BOUGHT, snapshots, HORIZONS, cut, delay)
    asked = zip(snapshots.customer.tolist(), snapshots.as_of.tolist(), strict=True)
    assert rows_of(found) == [
        [by_hand(customers[i], at, horizon, cut, delay) for horizon in HORIZONS] for i, at in asked
    ]
    among = points.inbound & points.event.isin(frozenset(BOUGHT.events))
    until = next_touchpoint(points, among, snapshots, cut) - snapshots.as_of
    for h, horizon in enumerate(HORIZONS):
        assert ((found.purchases[:, h] > 0) == happened_within(until, horizon)).all()
    for table in (found.gross, found.refunds, found.purchases):
        assert (table >= 0).all() and (np.diff(table, axis=1) >= 0).all()


def test_a_purchase_at_as_of_counts_and_one_at_the_horizon_does_not() -> None:
    customer = person(touch(0, 100), touch(1, 200), touch(3, 700), touch(3.5, 50, visible=40))
    points = to_block([customer]).touchpoints
    snapshots = eligible(points, np.array([customer.touches[1].occurred], dtype=np.int64))
    found = future_amounts(points, BOUGHT, snapshots, (2 * DAY, 5 * DAY), snapshots.as_of[0] + 10 * DAY, 0)
    assert found.gross.tolist() == [[200, 900]] and found.purchases.tolist() == [[1, 2]]


def test_a_frame_gives_back_what_was_over_and_nothing_else() -> None:
    import pandas as pd

    found = Amounts(
        np.array([[5, 1_234]]), np.array([[0, 99]]), np.array([[1, 2]]), np.array([[True, False]], dtype=np.bool_)
    )
    frame = pd.DataFrame(found.by_horizon((2 * DAY, 5 * DAY), 100))
    assert list(frame) == amount_columns((2 * DAY, 5 * DAY)) and frame["value_2d"].item() == 0.05
    back = Amounts.of_horizons(frame, (2 * DAY, 5 * DAY), 100)
    assert rows_of(back) == [[(5, 0, 1, True), (0, 0, 0, False)]]
