# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # A first look at the next step of every customer
#
# Simulated customers, so that it runs anywhere; with your own configuration everything below the first cell stays.

# %%
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

import cvj_ml as cvj
from cvj_ml.simulate import simulate

folder = Path(tempfile.mkdtemp())
simulate(customers=1_000, seed=1).write(folder)
shutil.copy(str(files("cvj_ml").joinpath("demo.yaml")), folder / "demo.yaml")
config = cvj.load_config(folder / "demo.yaml")

# %% [markdown]
# What training sees: one row a customer and past instant, and the days until each later stage. Days are missing where
# the move had not happened by the end of the panel; `follow_up_days` says how long nobody could have missed it.

# %%
model = cvj.Model()
frame = model.panel(config, "2025-06-24").to_frame()
print(f"{len(frame):,} snapshots of {frame['customer_id'].nunique():,} customers")
print(
    frame.filter(["customer_id", "as_of", "observed_stage", "recency", "follow_up_days", "days_until_reach_ascend"])
    .head()
    .to_string()
)

# %% [markdown]
# How good would it have been? Fitted at a past instant, judged by what came after, beside plain baselines.

# %%
metrics = model.backtest(config, "2025-06-24", folds=1)
print(metrics.pivot_table("log_loss", ["from", "to", "horizon_days"], "contender").round(4).head(20).to_string())

# %% [markdown]
# Who comes next: everybody's scores, and the ranked lists with their control group.

# %%
model.fit(config, "2025-06-24")
scores = model.score(config, "2025-06-24")
print(scores.groupby("stage", observed=True)[["p_advance_30d", "p_return_30d"]].mean().round(3))
for name, rows in model.targets("2025-06-24").items():
    print(name, len(rows), "listed,", int((rows["group"] == "control").sum()), "in control")

# %%
shutil.rmtree(folder)
