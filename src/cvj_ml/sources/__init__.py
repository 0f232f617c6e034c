"""Reading sources into the canonical, bucketed store, and blocks back from it."""

from cvj_ml.sources.build import ingest
from cvj_ml.sources.contact import read_contact
from cvj_ml.sources.refusals import Counts, Usage, account
from cvj_ml.sources.store import Store, bucket_of

__all__ = ["Counts", "Store", "Usage", "account", "bucket_of", "ingest", "read_contact"]
