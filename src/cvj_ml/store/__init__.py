"""Reading sources into the canonical, bucketed store, and blocks back from it."""

from cvj_ml.histories import ALWAYS
from cvj_ml.store.build import ingest
from cvj_ml.store.customer_ids import CustomerIds
from cvj_ml.store.refusals import Counts, Usage
from cvj_ml.store.rows import arrivals, attribute_rows, row_times, touchpoint_rows, usage
from cvj_ml.store.source_location import Fingerprint
from cvj_ml.store.store import Store, bucket_of, read_manifest
from cvj_ml.store.truncation import FileTime, Truncation

__all__ = [
    "ALWAYS",
    "Counts",
    "CustomerIds",
    "FileTime",
    "Fingerprint",
    "Store",
    "Truncation",
    "Usage",
    "arrivals",
    "attribute_rows",
    "bucket_of",
    "ingest",
    "read_manifest",
    "row_times",
    "touchpoint_rows",
    "usage",
]
