"""For scikit-learn: the package's features as a transformer, outcomes as y, and folds in time.

Rows are (customer_id, as_of): a customer, and the instant at which something is asked about that customer. What was
visible strictly before ``as_of`` is used for the row, and nothing else. ``as_of`` may be text, dates, or timestamps;
naive ones are times of the business's own zone, and a date is its midnight.

>>> import pandas as pd
>>> days = pd.date_range("2024-01-01", "2024-06-30", freq="6D")
>>> log = pd.DataFrame({"customer_id": [f"c{i % 7}" for i in range(len(days))], "occurred_at": days, "event": "order"})
>>> log = Touchpoints(log)
>>> journey = Journey({"Buyer": {"event": "order"}, "Regular": {"event": "order", "count": 3}})
>>> X = snapshots(log, ["2024-03-01", "2024-05-01"], journey)
>>> y = outcomes(X, log, journey, to="return", horizon="30d", until="2024-06-30")
>>> y[:4]
array([1., 1., 0., 1.])
>>> features = JourneyFeatures(log, journey).fit(X)
>>> features.transform(X).shape == (len(X), len(features.get_feature_names_out()))
True
>>> [(len(train), len(test)) for train, test in TimeFolds(1, horizon="30d").split(X)]
[(7, 7)]
"""

from cvj_ml.journey import Journey
from cvj_ml.sklearn.model_selection import TimeFolds, outcomes, snapshots
from cvj_ml.sklearn.transformer import JourneyFeatures
from cvj_ml.touchpoints import Touchpoints

__all__ = ["Journey", "JourneyFeatures", "TimeFolds", "Touchpoints", "outcomes", "snapshots"]
