"""Whom something can be asked about at an instant, and what became of them: X and y for scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, DataError, nearest, raise_all
from cvj_ml.histories import Block
from cvj_ml.journey import entry_times, stage_at
from cvj_ml.panel.labels import RETURN, label
from cvj_ml.sklearn.frame_rows import AS_OF, CUSTOMER, ask, read_duration, read_instants, read_rows
from cvj_ml.sklearn.opening_once import Stages, open_to_learn
from cvj_ml.snapshots import Snapshots, eligible
from cvj_ml.touchpoints import Touchpoints
from cvj_ml.windows import Instants, happened_within, observed_whole


def snapshots(
    touchpoints: Touchpoints | Config,
    as_of: Any,
    journey: Stages = None,
    *,
    settings: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """Return X: the customers with a touchpoint visible before an instant, at every instant asked about.

    as_of: one instant or several, as text, dates or timestamps; the others are those of `JourneyFeatures`.
    Columns: ``customer_id`` (text), and ``as_of`` (timestamps in the business's time zone); sorted by both.
    """
    histories = open_to_learn(touchpoints, journey, settings)
    faults = list[str]()
    column = pd.Series([as_of] if isinstance(as_of, str | date) else list(as_of), dtype=object)
    instants = np.unique(read_instants(column, histories.config.zone, faults))
    raise_all(DataError, "snapshots:", faults)

    def look(block: Block) -> tuple[npt.NDArray[np.object_], Instants]:
        found = eligible(block.touchpoints, instants)
        return np.array(block.customers, dtype=object)[found.customer], found.as_of

    parts = [*histories.engine().map(look), (np.array([], dtype=object), np.array([], dtype=np.int64))]
    names, moments = (np.concatenate(column) for column in zip(*parts, strict=True))
    times = pd.to_datetime(moments, unit="us", utc=True).tz_convert(histories.config.zone)
    frame = pd.DataFrame({CUSTOMER: pd.array(names, dtype="str"), AS_OF: times})
    return frame.sort_values([CUSTOMER, AS_OF], ignore_index=True)


def outcomes(
    X: Any,
    touchpoints: Touchpoints | Config,
    journey: Stages = None,
    *,
    to: str,
    horizon: str,
    until: str | date,
    settings: Mapping[str, object] | None = None,
) -> npt.NDArray[np.float64]:
    """Return y, (rows,): 1 where the customer moved within ``[as_of, as_of + horizon)``, 0 where not, else NaN.

    to: a stage, which counts as reached in it or in a later one, or ``return``: the customer's own next touchpoint.
    horizon: such as ``30d``.
    until: what was visible before this instant is known. NaN where the horizon, and the sources' arrival delay, were
    not over by then, whatever had happened meanwhile; and where a customer had reached the stage before ``as_of``.

    The others are those of `JourneyFeatures`, and so are the errors. Train on rows that have a y:
    ``known = ~numpy.isnan(y)``.
    """
    histories = open_to_learn(touchpoints, journey, settings)
    known_journey, faults = histories.visible.journey, list[str]()
    length = read_duration("horizon", horizon, faults)
    targets = ["return", *(known_journey.names[i] for i in known_journey.observable)]
    if to in known_journey.unobserved:
        faults.append(f"to: {to} is unobserved in the data, so nobody is seen to reach it")
    elif to not in targets:
        faults.append(f"to: there is no stage {to!r}.{nearest(to, targets)} Choose one of {', '.join(targets)}")
    (cut,) = read_instants(pd.Series([until], dtype=object), histories.config.zone, faults, "until")
    raise_all(ConfigError, "These outcomes cannot be asked for:", faults)
    target = RETURN if to == "return" else 1 + known_journey.index(to)

    def answer(block: Block, asked: Snapshots) -> npt.NDArray[np.float64]:
        points = block.touchpoints
        stage = stage_at(entry_times(known_journey, points)[asked.customer], asked.as_of).stage
        found = label(known_journey, points, asked, stage, int(cut), histories.store.arrival_delay)
        known = found.asked[:, target] & observed_whole(found.follow_up, length)
        return np.where(known, happened_within(found.times[:, target], length).astype(np.float64), np.nan)

    rows = read_rows(X, histories.config)
    return ask(histories, rows, answer, np.full(len(rows.as_of), np.nan))
