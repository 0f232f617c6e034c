# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # An estimator of your own beside ours
#
# Two ways: your estimator in the place of our trees, judged by the same backtest; or our features and folds in a
# pipeline of scikit-learn, with the rest yours.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import cvj_ml as cvj
from cvj_ml.simulate import simulate
from cvj_ml.sklearn import JourneyFeatures, TimeFolds, outcomes, snapshots

touchpoints = cvj.Touchpoints(
    simulate(customers=300, seed=4).touchpoints,
    outbound=["email_sent", "ad_impression"],
    reading={"arrival_delay": "2d"},
)

# %% [markdown]
# ## In the place of our trees
#
# Any classifier with `predict_proba`: it is asked, for each snapshot, target and interval, whether the event falls
# into the interval, then calibrated as our trees are. Missing features are NaN, so a pipeline fills them.

# %%
mine = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
model = cvj.Model("cvj8", horizons=["30d"], model={"max_rows": 8_000})
metrics = model.backtest(touchpoints, "2025-06-24", folds=1, estimator=mine)
of_return = metrics[metrics["to"] == "return"]
of_return[["contender", "log_loss", "auc"]].round(4)

# %%
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
in_order = of_return.sort_values("log_loss", ascending=False)
axes.barh(in_order["contender"], in_order["log_loss"], color="#2f6ea5")
axes.set_title("Log loss of the return within 30 days (lower is better)")

# %% [markdown]
# ## Our features and folds, the rest yours
#
# Rows are (customer, instant). A row sees what was visible before its instant; the folds stand in time, so that no
# training row's outcome reaches into a test.

# %%
X = snapshots(touchpoints, pd.date_range("2024-06-01", "2025-05-01", freq="MS"))
y = outcomes(X, touchpoints, to="return", horizon="30d", until="2025-06-24")
X, y = X[~np.isnan(y)], y[~np.isnan(y)]
pipeline = make_pipeline(JourneyFeatures(touchpoints), HistGradientBoostingClassifier(max_iter=20))
folds = TimeFolds(2, horizon="30d", arrival_delay="2d")
found = cross_validate(pipeline, X, y, cv=folds, scoring=["roc_auc", "neg_log_loss"])
pd.DataFrame({"AUC": found["test_roc_auc"], "log loss": -found["test_neg_log_loss"]}).rename_axis("fold").round(4)

# %%
today = snapshots(touchpoints, "2025-06-24")
today["p_return_30d"] = pipeline.fit(X, y).predict_proba(today)[:, 1]
today.sort_values("p_return_30d", ascending=False).head(3)
