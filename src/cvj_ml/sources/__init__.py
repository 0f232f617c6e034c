"""Reading sources into the canonical, bucketed store, and blocks back from it."""

from cvj_ml.sources.build import ingest
from cvj_ml.sources.contact import read_contact
from cvj_ml.sources.erasure import clear_leftovers, rows_held
from cvj_ml.sources.permissions import Permissions, read_permissions
from cvj_ml.sources.refusals import Counts, Usage
from cvj_ml.sources.rows import arrivals, attribute_rows, touchpoint_rows, usage
from cvj_ml.sources.store import ALWAYS, Store, bucket_of, read_manifest
from cvj_ml.sources.truncation import FileTime, Truncation

__all__ = [
    "ALWAYS",
    "Counts",
    "FileTime",
    "Permissions",
    "Store",
    "Truncation",
    "Usage",
    "arrivals",
    "attribute_rows",
    "bucket_of",
    "clear_leftovers",
    "ingest",
    "read_contact",
    "read_manifest",
    "read_permissions",
    "rows_held",
    "touchpoint_rows",
    "usage",
]
