"""Reading sources into the canonical, bucketed store, and blocks back from it."""

from cvj_ml.sources.build import ingest
from cvj_ml.sources.contact import read_contact
from cvj_ml.sources.permissions import Permissions, read_permissions
from cvj_ml.sources.refusals import Counts, Usage, account
from cvj_ml.sources.rows import arrivals, attribute_rows, touchpoint_rows
from cvj_ml.sources.store import Store, bucket_of
from cvj_ml.sources.truncation import FileTime, Truncation

__all__ = [
    "Counts",
    "FileTime",
    "Permissions",
    "Store",
    "Truncation",
    "Usage",
    "account",
    "arrivals",
    "attribute_rows",
    "bucket_of",
    "ingest",
    "read_contact",
    "read_permissions",
    "touchpoint_rows",
]
