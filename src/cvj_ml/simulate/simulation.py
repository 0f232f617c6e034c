"""The simulation: touchpoints and attributes to model, and the truth to evaluate the model by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml.config import DAY, SECOND
from cvj_ml.errors import ConfigError
from cvj_ml.schemas import INSTANT
from cvj_ml.simulate.evidence import CHANNELS, Details, add_evidence, draw_attributes, draw_details
from cvj_ml.simulate.log import EVENTS, Log, behaviour, join, sends
from cvj_ml.simulate.process import (
    STAGES,
    Campaign,
    Floats,
    Ints,
    Paths,
    Population,
    draw_paths,
    draw_population,
    true_reach_probabilities,
)
from cvj_ml.windows import Instants, midnight

_TOUCHPOINTS = pa.schema(
    {
        "customer_id": pa.string(),
        "occurred_at": INSTANT,
        "known_at": INSTANT,
        "event": pa.string(),
        "channel": pa.string(),
        "value": pa.float64(),
        "rating": pa.float64(),
        "touchpoint_id": pa.string(),
    }
)
_CONTACT = pa.schema([(name, pa.string()) for name in ("customer_id", "email", "phone", "first_name")])
_CUSTOMERS = pa.schema(
    {
        "customer_id": pa.string(),
        "known_at": INSTANT,
        "country": pa.string(),
        "age": pa.float64(),
        "plan": pa.string(),
    }
)


@dataclass(frozen=True)
class Simulation:
    """A simulated business: its log, its customers' attributes, and the latent truth behind both.

    ``touchpoints`` and ``customers`` are in order of time; values are in major units, instants UTC in microseconds.
    """

    touchpoints: pd.DataFrame
    customers: pd.DataFrame
    start: date
    days: int
    seed: int
    _people: Population = field(repr=False)
    _paths: Paths = field(repr=False)
    _campaigns: tuple[Campaign, ...] = field(default=(), repr=False)

    def true_stage(self, as_of: int) -> Ints:
        """Return each customer's true stage (0 to 7, -1 before arrival) at a UTC midnight, in order of the ids."""
        stage: Ints = self._paths.stage[self._day(as_of)].astype(np.int64)
        return stage

    def treat(self, customers: Collection[str], as_of: int, days: int, factor: float | Floats) -> Simulation:
        """Return the same business, but from a UTC midnight on a campaign works on some customers for so many days.

        It multiplies their daily chance of a move, by one ``factor`` or by that of each customer (in order of the ids);
        see `true_reach` for what that does. Whatever came before the campaign stays as it is, earlier campaigns among
        it; what follows, for everybody, is another draw of the same process.
        """
        if not np.all(np.greater(factor, 0)) or days < 1:
            raise ConfigError(f"a campaign needs a positive factor and a day; found {factor} and {days} days.")
        ids = np.sort(self.customers["customer_id"].unique())
        campaigns = [*self._campaigns, Campaign(np.isin(ids, list(customers)), self._day(as_of), days, factor)]
        other = simulate(len(ids), self.seed, self.start, self.days, campaigns)
        begins = _times(np.array([as_of], dtype=np.int64))[0]
        later = other.touchpoints[other.touchpoints["occurred_at"] >= begins]
        # All runs number their rows from nought, and rows of one id would be versions of one touchpoint.
        later = later.assign(touchpoint_id=f"campaign-{len(campaigns)}-" + later["touchpoint_id"])
        before = self.touchpoints[self.touchpoints["occurred_at"] < begins]
        log = pd.concat([before, later], ignore_index=True)
        return replace(other, touchpoints=log, customers=self.customers, _campaigns=tuple(campaigns))

    def true_reach(self, as_of: int, horizons: Sequence[int], factor: float | Floats = 1.0) -> Floats:
        """Return the true probability of stage j or higher within each horizon, given the whole latent state.

        as_of: a UTC midnight; horizons: microseconds, whole days. Shape (customers, 8, len(horizons)) in order of the
        ids; 1 for stages already reached, NaN for customers not yet arrived. ``factor`` is that of a campaign that
        treats everybody all the while, or each customer by their own, so the difference to the reach without it is each
        customer's true uplift.
        """
        day = self._day(as_of)
        if any(horizon % DAY or horizon < DAY for horizon in horizons):
            raise ConfigError(
                "true_reach: a horizon is not a positive number of whole days; the process moves by days, ask for 30d."
            )
        stage = self._paths.stage[day].astype(np.int64)
        present = stage >= 0
        engagement = self._paths.engagement[day].astype(np.int64)
        reach = np.full((len(stage), STAGES, len(horizons)), np.nan)
        if len(horizons):
            own = factor[present] if isinstance(factor, np.ndarray) else factor
            reach[present] = true_reach_probabilities(
                self._people.take(present), stage[present], engagement[present], [h // DAY for h in horizons], own
            )
        return reach

    @property
    def contact(self) -> pd.DataFrame:
        """How to reach the customers: addresses that belong to nobody, and missing where a real table has gaps, too.

        The e-mail addresses are of example.com, the numbers of those that are reserved for fiction (555-01xx), every
        second one without its country code; a first name is a number. Only who has signed up, left their details,
        opened an account or bought has given any.
        """
        log = self.touchpoints
        given = log[log["event"].isin(("signup", "lead", "account_created", "purchase"))]["customer_id"].unique()
        everybody = np.sort(self.customers["customer_id"].unique())
        at = np.flatnonzero(np.isin(everybody, given)).tolist()
        numbers = {i: f"({200 + i // 100 % 800}) 555-01{i % 100:02d}" for i in at}
        return pd.DataFrame(
            {
                "customer_id": everybody[at],
                "email": [f"customer.{everybody[i]}@example.com" if i % 10 else None for i in at],
                "phone": [None if i % 3 else f"+1 {numbers[i]}" if i % 2 else numbers[i] for i in at],
                "first_name": [f"Customer {i}" if i % 4 else None for i in at],
            }
        )

    def write(self, folder: str | Path) -> None:
        """Write ``touchpoints``, ``customers`` and ``contact.parquet``, rows shuffled as a real export's may be."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name, frame, schema in (
            ("touchpoints", self.touchpoints, _TOUCHPOINTS),
            ("customers", self.customers, _CUSTOMERS),
            ("contact", self.contact, _CONTACT),
        ):
            order = np.random.default_rng([self.seed, len(frame)]).permutation(len(frame))
            pq.write_table(_table(frame, schema).take(pa.array(order)), target / f"{name}.parquet")

    def _day(self, as_of: int) -> int:
        day, rest = divmod(as_of - _midnight(self.start), DAY)
        if rest or not 0 <= day <= self.days:
            raise ConfigError(
                "the simulation knows the truth at UTC midnights from its start"
                f" ({self.start}) to {self.days} days later; found another instant. Ask for one of those midnights."
            )
        return day


def simulate(
    customers: int = 20_000,
    seed: int = 1,
    start: date = date(2024, 1, 1),
    days: int = 540,
    campaigns: Sequence[Campaign] = (),
) -> Simulation:
    """Simulate customers moving through the journey ``cvj8``; equal arguments give equal data.

    Campaigns, such as a sale each year, change what customers do while they last; `Simulation.true_reach` leaves them
    out.
    """
    if customers < 1 or days < 1:
        raise ConfigError(f"a simulation needs at least one customer and one day; found {customers} and {days}.")
    rng = np.random.default_rng(seed)
    people = draw_population(customers, days, rng)
    paths = draw_paths(people, days, rng, campaigns)
    log = add_evidence(people, paths, behaviour(people, paths, start.weekday(), rng), rng)
    log = join([log, sends(people, paths, rng)])
    log = log.take(np.lexsort((log.event, log.customer, log.second)))
    ids = _ids("c", customers, 6)
    origin = _midnight(start)
    arrival = np.zeros(customers, dtype=np.int64)
    first_customers, first_rows = np.unique(log.customer, return_index=True)
    arrival[first_customers] = log.second[first_rows]
    drawn = draw_attributes(people, arrival, days, rng)
    attributes = pd.DataFrame(
        {
            "customer_id": ids.take(drawn.customer),
            "known_at": _times(origin + drawn.known_second * SECOND),
            "country": drawn.country,
            "age": drawn.age,
            "plan": drawn.plan,
        }
    )
    return Simulation(
        touchpoints=_frame(log, draw_details(people, log, rng), ids, origin),
        customers=attributes,
        start=start,
        days=days,
        seed=seed,
        _people=people,
        _paths=paths,
        _campaigns=tuple(campaigns),
    )


def _frame(log: Log, details: Details, ids: pd.api.extensions.ExtensionArray, origin: int) -> pd.DataFrame:
    occurred = origin + log.second * SECOND
    return pd.DataFrame(
        {
            "customer_id": ids.take(log.customer),
            "occurred_at": _times(occurred),
            "known_at": _times(occurred + details.late * SECOND),
            "event": pd.array(EVENTS, dtype="str").take(log.event),
            "channel": pd.array(CHANNELS, dtype="str").take(details.channel),
            "value": details.value,
            "rating": details.rating,
            "touchpoint_id": _ids("t", len(log), 8),
        }
    )


def _ids(prefix: str, count: int, width: int) -> pd.api.extensions.ExtensionArray:
    """Return ``c000000``, ``c000001`` …: as wide as needed for text order to be number order."""
    numbers = pc.utf8_lpad(pa.array(np.arange(count)).cast(pa.string()), max(width, len(str(count - 1))), "0")
    ids: pd.api.extensions.ExtensionArray = pd.array(
        pc.binary_join_element_wise(prefix, numbers, "").to_pandas(), dtype="str"
    )
    return ids


def _table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    # Zoned columns go through naive UTC: pyarrow reads them in a way that pandas deprecates.
    columns = [
        pa.array(frame[name].dt.tz_localize(None).to_numpy()).cast(kind)
        if kind == INSTANT
        else pa.array(frame[name], kind, from_pandas=True)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _times(instants: Instants) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(instants.view("M8[us]")).tz_localize("UTC")


def _midnight(start: date) -> int:
    return midnight(start, ZoneInfo("UTC"))
