"""What the business says about its customers: permissions and contacts, and who has to be forgotten."""

from cvj_ml.customers.erasure import (
    clear_leftovers,
    known_from_readings,
    other_ids,
    rows_held,
)
from cvj_ml.customers.permissions import Naming, People, Permissions, match_people, read_people
from cvj_ml.customers.persons import EACH_ONE, Identities

__all__ = [
    "EACH_ONE",
    "Identities",
    "Naming",
    "People",
    "Permissions",
    "clear_leftovers",
    "known_from_readings",
    "match_people",
    "other_ids",
    "read_people",
    "rows_held",
]
