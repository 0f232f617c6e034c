# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # A first look at the next step of every customer
#
# The tour: from touchpoints to lists in a few cells. Simulated customers, so that it runs anywhere. With your own
# table only the next cell changes: one row a touchpoint, and what its columns mean.

# %%
import matplotlib.pyplot as plt

import cvj_ml as cvj
from cvj_ml.simulate import simulate

simulation = simulate(customers=400, seed=1)
touchpoints = cvj.Touchpoints(
    simulation.touchpoints,
    properties=["rating"],
    attributes=simulation.customers,
    attribute_columns=["plan", "country"],
    outbound=["email_sent", "ad_impression"],
    reading={"arrival_delay": "2d"},
)
print(touchpoints)

# %% [markdown]
# The journey, how far ahead to look, and how many rows training may take: few here, so that it is quick.

# %%
model = cvj.Model("cvj8", horizons=["30d"], model={"max_rows": 10_000})

# %% [markdown]
# What training sees: one row a customer and past instant, and the days until each later stage. Days are missing where
# the move had not happened by the end of the panel; `follow_up_days` says how long nobody could have missed it.

# %%
frame = model.panel(touchpoints, "2025-06-24").to_frame()
print(f"{len(frame):,} snapshots of {frame['customer_id'].nunique():,} customers")
frame[["customer_id", "as_of", "observed_stage", "recency", "follow_up_days", "days_until_reach_ascend"]].head()

# %% [markdown]
# How good would it have been? Fitting evaluates the recipe at a past instant first, by what came after, beside plain
# baselines. `model.backtest` does so at several instants.

# %%
model.fit(touchpoints, "2025-06-24")
model.metrics.pivot_table("log_loss", ["from", "to", "horizon_days"], "contender").round(4)

# %% [markdown]
# Where does everybody stand, and how likely is the next stage within 30 days?

# %%
scores = model.score(touchpoints, "2025-06-24")
by_stage = scores.groupby("stage", observed=True)["p_advance_30d"].agg(["size", "mean"])
by_stage = by_stage.reindex([one for one in cvj.Journey("cvj8").names if one in by_stage.index])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
left.barh(by_stage.index, by_stage["size"], color="#2f6ea5")
left.set_title("Customers by stage")
right.barh(by_stage.index, by_stage["mean"], color="#b3651a")
right.set_title("Mean chance of moving on within 30 days")
left.invert_yaxis()

# %% [markdown]
# Who comes next: the ranked lists with reasons and a control group.

# %%
lists = model.targets("2025-06-24")
for name, rows in lists.items():
    print(f"{name}: {len(rows)} listed, {(rows['group'] == 'control').sum()} in control")

# %%
lists["convert__excite__30d"][["rank", "customer_id", "probability", "reason_1"]].head(5)

# %% [markdown]
# Why is one customer where the model says? Contributions are log odds beside a typical customer of the same stage.

# %%
someone = scores.loc[scores["stage"] == "Convert", "customer_id"].iloc[0]
facts = model.explain(someone, "2025-06-24")
facts[["to", "probability", "contribution", "reason"]].head()
