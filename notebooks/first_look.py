# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # A first look at the next step of every customer
#
# Simulated customers, so that it runs anywhere. With your own table only the next cell changes: one row a touchpoint,
# and what its columns mean.

# %%
import cvj_ml as cvj
from cvj_ml.simulate import simulate

simulation = simulate(customers=500, seed=1)
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
model = cvj.Model("cvj8", horizons=["30d"], model={"max_rows": 20_000})

# %% [markdown]
# What training sees: one row a customer and past instant, and the days until each later stage. Days are missing where
# the move had not happened by the end of the panel; `follow_up_days` says how long nobody could have missed it.

# %%
frame = model.panel(touchpoints, "2025-06-24").to_frame()
print(f"{len(frame):,} snapshots of {frame['customer_id'].nunique():,} customers")
print(
    frame.filter(["customer_id", "as_of", "observed_stage", "recency", "follow_up_days", "days_until_reach_ascend"])
    .head()
    .to_string()
)

# %% [markdown]
# How good would it have been? Fitting evaluates the recipe at a past instant first, by what came after, beside plain
# baselines. `model.backtest` does so at several instants.

# %%
model.fit(touchpoints, "2025-06-24")
print(model.metrics.pivot_table("log_loss", ["from", "to", "horizon_days"], "contender").round(4).to_string())

# %% [markdown]
# Who comes next: everybody's scores, and the ranked lists with reasons and a control group.

# %%
scores = model.score(touchpoints, "2025-06-24")
print(scores.groupby("stage", observed=True)[["p_advance_30d", "p_return_30d"]].mean().round(3))
for name, rows in model.targets("2025-06-24").items():
    print(name, len(rows), "listed,", int((rows["group"] == "control").sum()), "in control")
    print(rows[["customer_id", "probability", "reason_1"]].head(2).to_string(index=False))

# %% [markdown]
# Why is one customer where the model says? Contributions are log odds beside a typical customer of the same stage.

# %%
someone = scores.loc[scores["stage"] == "Convert", "customer_id"].iloc[0]
facts = model.explain(someone, "2025-06-24")
print(facts[["to", "probability", "contribution", "reason"]].head().to_string(index=False))
