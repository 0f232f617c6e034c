# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Backtest, calibration, and BG/NBD on CDNOW
#
# CDNOW is the data set on which models of repeat buying are compared: 23,570 people who bought music for the first
# time early in 1997. The question here: who buys again within 91 days of the first of July 1997? The outcome is known,
# and nothing after that day is used to answer.

# %%
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

import cvj_ml as cvj

master = Path(os.environ.get("CVJ_ML_DATA", ".")) / "cdnow" / "cdnow_master.parquet"
if not master.exists():
    raise SystemExit("CDNOW is not here; CVJ_ML_DATA names the folder that holds cdnow/cdnow_master.parquet.")
orders = pd.read_parquet(master, columns=["customer_id", "date", "amount"])
orders = orders.groupby(["customer_id", "date"], as_index=False)["amount"].sum()  # one row a customer and day
some = np.random.default_rng(1).choice(orders["customer_id"].unique(), 6_000, replace=False)  # so that it is quick
orders = orders[orders["customer_id"].isin(some)]
print(f"{len(orders):,} days with orders of {orders['customer_id'].nunique():,} customers")

# %% [markdown]
# ## Ours
#
# One stage is enough where there are orders alone; the question is the return. The year before the first order is
# empty and known to be: the cohort had never bought.

# %%
AS_OF, DAYS = "1997-07-01", 91
touchpoints = cvj.Touchpoints(
    orders.assign(customer_id=orders["customer_id"].astype(str)),
    occurred_at="date",
    value="amount",
    constants={"event": "purchase"},
    history_from="1996-01-01",
    reading={"times": "utc", "resolution": "day"},
)
journey = cvj.Journey({"Convert": {"event": "purchase"}})
settings = {"burn_in": "411d", "snapshots": {"every": "7d"}, "features": {"windows": ["30d", "90d", "180d"]}}
model = cvj.Model(journey, horizons=["7d", "14d", "30d", "60d", "91d"], model={"max_rows": 100_000}, **settings)
model.fit(model.panel(touchpoints, AS_OF))
scores = model.score(touchpoints, AS_OF).set_index("customer_id")

# %% [markdown]
# ## BG/NBD
#
# Each customer's repeat purchase days, the time of the last one and the time observed, in weeks (Fader, Hardie and Lee
# 2005).

# %%
from lifetimes import BetaGeoFitter

cut = pd.Timestamp(AS_OF, tz=orders["date"].dt.tz)
past = orders[orders["date"] < cut].groupby("customer_id")["date"].agg(["min", "max", "count"])
x = (past["count"] - 1).to_numpy(float)
recency = (past["max"] - past["min"]).dt.days.to_numpy(float) / 7
age = (cut - past["min"]).dt.days.to_numpy(float) / 7
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    bg_nbd = BetaGeoFitter().fit(x, recency, age)
    alive = np.asarray(bg_nbd.conditional_probability_alive(x, recency, age))
r, alpha = bg_nbd.params_["r"], bg_nbd.params_["alpha"]
past["BG/NBD"] = alive * (1 - ((alpha + age) / (alpha + age + DAYS / 7)) ** (r + x))
past["cvj_ml"] = scores[f"p_return_{DAYS}d"].reindex(past.index.astype(str)).to_numpy()

# %% [markdown]
# ## What happened

# %%
after = orders[(orders["date"] >= cut) & (orders["date"] < cut + pd.Timedelta(days=DAYS))]
bought = past.index.isin(after["customer_id"])
contenders = ["cvj_ml", "BG/NBD"]
pd.DataFrame(
    {
        "AUC": [roc_auc_score(bought, past[one]) for one in contenders],
        "log loss": [log_loss(bought, past[one]) for one in contenders],
        "expected": [past[one].sum() for one in contenders],
        "observed": [int(bought.sum())] * 2,
    },
    index=pd.Index(contenders, name="model"),
)

# %%
figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
for one, colour in zip(contenders, ("#2f6ea5", "#b3651a"), strict=True):
    tenth = pd.qcut(past[one].rank(method="first"), 10, labels=False)
    axes.plot(
        past[one].groupby(tenth).mean(),
        pd.Series(bought, past.index).groupby(tenth).mean(),
        "o-",
        color=colour,
        label=one,
    )
axes.plot([0, 0.7], [0, 0.7], color="grey", linewidth=1)
axes.set(xlabel="predicted share of a tenth", ylabel="share that bought", title="Calibration within 91 days")
axes.legend()

# %% [markdown]
# One instant and a sample of the customers prove little. `model.backtest(touchpoints, until, folds=3)` judges several
# instants, with plain baselines; [the rolling figures](../benchmarks/results/rolling.md) are of every instant of this
# and other data sets, and [how to read a backtest](../docs/backtest.md) says what each figure means.

# %%
folds = model.backtest(touchpoints, "1997-09-30", folds=1)
folds[(folds["to"] == "return") & (folds["horizon_days"] == DAYS)][["fold", "contender", "log_loss", "auc"]]
