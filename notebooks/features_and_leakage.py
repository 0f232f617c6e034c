# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Features, panel and a leak that the audit finds
#
# What training sees, and how to make sure that none of it knows the future.

# %%
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import cvj_ml as cvj
from cvj_ml.simulate import simulate

simulation = simulate(customers=300, seed=3)
log = simulation.touchpoints
touchpoints = cvj.Touchpoints(log, outbound=["email_sent", "ad_impression"], reading={"arrival_delay": "2d"})
panel = cvj.Model("cvj8", horizons=["30d"]).panel(touchpoints, "2025-06-24")
frame = panel.to_frame()
print(f"{len(frame):,} snapshots of {frame['customer_id'].nunique()} customers, {len(frame.columns)} columns")

# %% [markdown]
# One row is one customer at one past instant. Its features look back over half-open windows that end before the
# instant; its labels look ahead.

# %%
features = ["observed_stage", "recency", "days_in_stage", "touchpoints_30d"]
frame[["customer_id", "as_of", *features, "follow_up_days", "days_until_return"]].head(4)

# %% [markdown]
# The farther the snapshot, the longer is known what came after. A snapshot whose horizon is not over yet teaches the
# part that is.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
frame.groupby("as_of")["follow_up_days"].max().plot(ax=left, color="#2f6ea5", title="Days known after a snapshot")
known = frame[frame["follow_up_days"] >= 30]
came_back = known.groupby(pd.cut(known["recency"], [0, 3, 7, 14, 30, 60, 120, 400]), observed=True)["days_until_return"]
share = came_back.agg(lambda days: (days < 30).mean())
share.plot.bar(ax=right, color="#b3651a", title="Came back within 30 days, by days of silence", xlabel="")

# %% [markdown]
# ## A leak
#
# Somebody exports attributes today, one row a customer, and says that all of it was known from the start. One column
# is the number of orders: of today, so of the future of every past instant.

# %%
orders = log[log["event"] == "purchase"].groupby("customer_id").size()
first = log.groupby("customer_id")["occurred_at"].min()
attributes = pd.DataFrame({"customer_id": first.index, "known_at": first.to_numpy()})
attributes["lifetime_orders"] = attributes["customer_id"].map(orders).fillna(0).astype(int)
log.to_parquet("log.parquet")
attributes.to_parquet("attributes.parquet")
Path("shop.yaml").write_text(
    """
name: shop
time_zone: UTC
history_from: 2024-01-01
sources:
  log: {path: log.parquet, arrival_delay: 2d}
attributes:
  path: attributes.parquet
  columns: {customer_id: customer_id, known_at: known_at, lifetime_orders: lifetime_orders}
outbound: [email_sent, ad_impression]
journey: cvj8
horizons: [30d]
""",
    encoding="utf-8",
)
audit = [sys.executable, "-m", "cvj_ml", "audit", "shop.yaml", "--as-of", "2025-06-24", "--cut-offs", "2"]
done = subprocess.run(audit, capture_output=True, text=True, check=False)
print(done.stdout)
print("exit code", done.returncode)

# %% [markdown]
# Exit code 5 says that it found one. The cure is to say when each value was known, with a row a version, or to leave
# the column out: the features count orders themselves, up to each instant.
