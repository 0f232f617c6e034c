"""Reading sources into the canonical, bucketed store, and blocks back from it."""

from cvj_ml.sources.build import ingest
from cvj_ml.sources.customer_ids import CustomerIds
from cvj_ml.sources.erasure import clear_leftovers, known_from_readings, rows_held
from cvj_ml.sources.people import Naming, People, Permissions, match_people, read_people
from cvj_ml.sources.refusals import Counts, Usage
from cvj_ml.sources.rows import arrivals, attribute_rows, touchpoint_rows, usage
from cvj_ml.sources.store import ALWAYS, Store, bucket_of, read_manifest
from cvj_ml.sources.truncation import FileTime, Truncation

__all__ = [
    "ALWAYS",
    "Counts",
    "CustomerIds",
    "FileTime",
    "Naming",
    "People",
    "Permissions",
    "Store",
    "Truncation",
    "Usage",
    "arrivals",
    "attribute_rows",
    "bucket_of",
    "clear_leftovers",
    "ingest",
    "known_from_readings",
    "match_people",
    "read_manifest",
    "read_people",
    "rows_held",
    "touchpoint_rows",
    "usage",
]
