"""What the log says of customers tonight: which plays are meant for them and why, and whether they are unhappy."""

from __future__ import annotations

from datetime import date
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt

from cvj_ml.config import DAY, Condition, Config, Play, Rating, Rule, outer_rating
from cvj_ml.features import dates_known, latest_known
from cvj_ml.histories import Block, Text
from cvj_ml.journey import column_passes, leaf_mask
from cvj_ml.lists.last_events import ago, did, name
from cvj_ml.windows import in_window, local_days, to_datetime

_Mask = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]

_NEVER_YET = np.iinfo(np.int64).min
_EPOCH = date(1970, 1, 1)


class RecentPast:
    """Customers of a block as visible just before ``as_of``; each answer is an array over all of them.

    ``owner`` is each touchpoint's customer, ``known`` marks those that were live then.
    """

    def __init__(self, block: Block, as_of: int, config: Config) -> None:
        points = block.touchpoints
        self._block, self._points, self._as_of, self._config = block, points, as_of, config
        self._size = len(block.customers)
        self.owner, self.known = points.owners(), points.live(as_of)
        # By identity; each condition is kept beside its answer, so that no other can take its place.
        self._held = dict[int, tuple[Condition, _Mask]]()
        self._rows = dict[int, tuple[Condition, _Mask]]()

    def meant_for(self, play: Play) -> _Mask:
        """Return for whom a play is meant: ``when`` holds, and ``not_when`` does not."""
        meant = np.ones(self._size, dtype=np.bool_) if play.when is None else self.holds(play.when)
        return meant if play.not_when is None else meant & ~self.holds(play.not_when)

    def because(self, play: Play, customer: int) -> str | None:
        """Return what brought a play to a customer whom it is meant for: "opened a ticket 21 days ago".

        Of conditions of which one is enough the first that holds is told. None where the play is for everybody.
        """
        return None if play.when is None else self._told(play.when, customer)

    def holds(self, condition: Condition) -> _Mask:
        """Return for whom a condition holds."""
        if id(condition) not in self._held:
            self._held[id(condition)] = condition, self._holds(condition)
        return self._held[id(condition)][1]

    def _holds(self, condition: Condition) -> _Mask:
        if condition.any:
            return reduce(np.logical_or, [self.holds(one) for one in condition.any])
        if condition.all:
            return reduce(np.logical_and, [self.holds(one) for one in condition.all])
        if condition.attribute is not None:
            return self._attributes_pass(condition)
        if condition.date is not None:
            return self._lies_ahead(condition.date, condition.within or 0)
        if condition.last_rating is not None:
            return self._last_rating_is(condition.last_rating)
        return self._happened(condition)

    def unhappy(self) -> _Mask:
        """Return whose last rating was bad, who has an open ticket, or who had a ticket or a setback lately."""
        spec, events = self._config.eligibility.unhappy, self._config.journey.unhappy
        if spec is None:
            return np.zeros(self._size, dtype=np.bool_)
        lately: _Mask = in_window(self._last(events.tickets + events.setbacks), self._as_of, spec.within)
        if events.closed:
            lately |= self._last(events.tickets) > self._last(events.closed)
        if spec.rating:
            lately |= self._last_rating() <= outer_rating(self._config.report.rating_scale, spec.rating)[0]
        return lately

    def contacted_lately(self) -> _Mask:
        """Return whom we contacted within ``eligibility.recent_contact``, through anything but a broadcast."""
        eligibility, points = self._config.eligibility, self._points
        if eligibility.recent_contact is None:
            return np.zeros(self._size, dtype=np.bool_)
        crowd = frozenset(eligibility.broadcast)
        sent = self.known & points.sent & ~points.channel.isin(crowd) & ~points.event.isin(crowd)
        sent &= in_window(points.occurred_at, self._as_of, eligibility.recent_contact)
        return np.bincount(self.owner[sent], minlength=self._size) > 0

    def _last_rating_is(self, kinds: tuple[Rating, ...]) -> _Mask:
        """Return whose last rating is of one of these kinds; the middle of the scale is neither good nor bad."""
        rating, (bad_to, good_from) = self._last_rating(), outer_rating(self._config.report.rating_scale)
        bad, good, never = rating <= bad_to, rating >= good_from, np.isnan(rating)
        of_kind: dict[str, _Mask] = {"good": good, "bad": bad, "none": never, "middle": ~(bad | good | never)}
        return reduce(np.logical_or, [of_kind[kind] for kind in kinds])

    def _last_rating(self) -> npt.NDArray[np.float64]:
        """Return each customer's last rating, NaN for none; one outside the scale is not counted as a rating."""
        column, last = self._points.properties.get(self._config.report.rating), np.full(self._size, np.nan)
        if column is None or isinstance(column, Text):
            return last
        rated = self._last_rated >= 0
        last[rated] = column[self._last_rated[rated]]
        return last

    @cached_property
    def _last_rated(self) -> _Ints:
        """The row of each customer's last rating, -1 for none."""
        column, last = self._points.properties.get(self._config.report.rating), np.full(self._size, -1)
        if column is None or isinstance(column, Text):
            return last
        worst, best = self._config.report.rating_scale
        rated = np.flatnonzero(self.known & (column >= worst) & (column <= best))
        last[self.owner[rated]] = rated  # rows stand in the order of time, so the last one stays
        return last

    def _told(self, condition: Condition, customer: int) -> str:
        if condition.any:
            return self._told(next(one for one in condition.any if self.holds(one)[customer]), customer)
        if condition.all:
            return " and ".join(dict.fromkeys(self._told(one, customer) for one in condition.all))
        if condition.attribute is not None:
            return " and ".join(self._attribute_told(one, customer) for one in condition.attribute)
        if condition.last_rating is not None:
            return self._rating_told(customer)
        here = np.arange(*self._points.offsets[customer : customer + 2])
        rows = here[self._rows_of(condition)[here]]
        event = self._points.event.values[self._points.event.codes[rows[-1]]]
        often = f" {len(rows):,} times, last" if condition.count > 1 else ""
        return f"{did(event)}{often} {self._ago(int(rows[-1]))}"

    def _attribute_told(self, attribute: str, customer: int) -> str:
        table = self._block.attributes
        if table is None:
            raise AssertionError("an attribute's condition holds of nobody where there are none")
        row = latest_known(table.offsets, table.known_at, np.array([customer]), np.array([self._as_of]))
        column = table.columns[attribute]
        value = column.values[column.codes[row[0]]] if isinstance(column, Text) else f"{column[row[0]]:g}"
        return f"{name(attribute)} is {name(value)}"

    def _rating_told(self, customer: int) -> str:
        if (row := int(self._last_rated[customer])) < 0:
            return "never rated us"
        rating, best = self._last_rating()[customer], self._config.report.rating_scale[1]
        return f"last rating {rating:g} of {best:g}, {self._ago(row)}"

    def _ago(self, row: int) -> str:
        today = (to_datetime(self._as_of, self._config.zone).date() - _EPOCH).days
        return ago(today - int(self._points.day[row]))

    def _rows_of(self, condition: Condition) -> _Mask:
        """Return the touchpoints that a condition with an event looks at."""
        if id(condition) in self._rows:
            return self._rows[id(condition)][1]
        points, minor_units = self._points, 10**self._config.value_decimals
        rows = self.known & leaf_mask(points, Rule(event=condition.event, where=condition.where), minor_units)
        if condition.within is not None:
            rows &= in_window(points.occurred_at, self._as_of, condition.within)
        if condition.since is not None:
            rows &= points.occurred_at > self._last(condition.since)[self.owner]
        self._rows[id(condition)] = condition, rows
        return rows

    def _happened(self, condition: Condition) -> _Mask:
        points, minor_units, rows = self._points, 10**self._config.value_decimals, self._rows_of(condition)
        held: _Mask = np.bincount(self.owner[rows], minlength=self._size) >= condition.count
        if condition.value_at_least is not None:
            value = np.where(points.has_value, points.value, 0)[rows]
            total = np.zeros(self._size, dtype=np.int64)
            np.add.at(total, self.owner[rows], value)
            held &= total >= condition.value_at_least * minor_units
        return held

    def _last(self, events: tuple[str, ...]) -> _Ints:
        """Return when each customer's last such event occurred, the smallest integer for never."""
        rows = self.known & self._points.event.isin(frozenset(events))
        last = np.full(self._size, _NEVER_YET, dtype=np.int64)
        np.maximum.at(last, self.owner[rows], self._points.occurred_at[rows])
        return last

    def _lies_ahead(self, name: str, within: int) -> _Mask:
        """Return whose date, as known tonight, is one of so many local days from today on."""
        everybody, tonight = np.arange(self._size), np.full(self._size, self._as_of)
        ahead = dates_known(self._block.attributes, name, everybody, tonight) - local_days(tonight, self._config.zone)
        held: _Mask = (ahead >= 0) & (ahead < within // DAY)
        return held

    def _attributes_pass(self, condition: Condition) -> _Mask:
        table, everybody = self._block.attributes, np.arange(self._size)
        held = np.zeros(self._size, dtype=np.bool_)
        if table is None or not len(table.known_at):
            return held
        row = latest_known(table.offsets, table.known_at, everybody, np.full(self._size, self._as_of))
        there = np.flatnonzero(row >= 0)
        passes = np.ones(len(there), dtype=np.bool_)
        for attribute, tests in (condition.attribute or {}).items():
            if (column := table.columns.get(attribute)) is None:
                return held
            values = column.take(row[there]) if isinstance(column, Text) else column[row[there]]
            for operator, operand in tests.items():
                passes &= column_passes(values, attribute, operator, operand)
        held[there] = passes
        return held
