# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # One customer: why, and what if
#
# Which facts speak for and against a customer's next step, and what the model would say if the history were another
# one.

# %%
import matplotlib.pyplot as plt
import pandas as pd

import cvj_ml as cvj
from cvj_ml.simulate import simulate

log = simulate(customers=300, seed=5).touchpoints
AS_OF = "2025-06-24"


def read(table: pd.DataFrame) -> cvj.Touchpoints:
    return cvj.Touchpoints(
        table, outbound=["email_sent", "ad_impression"], history_from="2024-01-01", reading={"arrival_delay": "2d"}
    )


touchpoints = read(log)
model = cvj.Model("cvj8", horizons=["30d"], model={"max_rows": 10_000})
model.fit(model.panel(touchpoints, AS_OF))
scores = model.score(touchpoints, AS_OF)
bought = scores[scores["stage"] == "Convert"].sort_values("p_advance_30d")
someone = bought.iloc[len(bought) // 2]["customer_id"]
print(f"{someone} is at Convert, with the middle chance of moving on within 30 days of {len(bought)} customers there")

# %% [markdown]
# ## Why
#
# Each fact's contribution is in log odds beside a typical customer of the same stage; together they make the
# difference.

# %%
facts = model.explain(someone, AS_OF, touchpoints)
told = facts[facts["to"] == "Excite"].dropna(subset="reason").head(6)
told[["to", "probability", "contribution", "reason"]]

# %%
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
words = told["reason"].str.replace(r"^Speaks (for|against): ", "", regex=True).str.split(";").str[0]
colours = ["#2f6ea5" if one > 0 else "#b3651a" for one in told["contribution"]]
axes.barh(words, told["contribution"], color=colours)
axes.axvline(0, color="grey", linewidth=1)
axes.invert_yaxis()
axes.set_title("For (right) and against (left) reaching Excite, in log odds")

# %% [markdown]
# ## What if
#
# The same customer with another history: a visit yesterday, an open ticket, or nothing at all for the last thirty
# days. The model is asked anew with a table that says so.

# %%
yesterday = pd.Timestamp(AS_OF, tz="UTC") - pd.Timedelta(days=1)


def with_event(event: str) -> pd.DataFrame:
    row = (
        log[log["customer_id"] == someone]
        .iloc[-1:]
        .assign(
            event=event, occurred_at=yesterday, known_at=yesterday, touchpoint_id=f"what-if-{event}", value=float("nan")
        )
    )
    return pd.concat([log, row], ignore_index=True)


silent = log[(log["customer_id"] != someone) | (log["occurred_at"] < yesterday - pd.Timedelta(days=30))]
histories = {
    "as it is": log,
    "visited yesterday": with_event("visit"),
    "opened a ticket yesterday": with_event("support_ticket"),
    "silent for a month": silent,
}
answers = {}
for name, table in histories.items():
    row = model.score(read(table), AS_OF).set_index("customer_id").loc[someone]
    answers[name] = row[["stage", "p_return_30d", "p_advance_30d"]]
pd.DataFrame(answers).T.rename_axis("history")

# %% [markdown]
# This says what the model expects of somebody *with such a history*. It does not say what making them visit would
# change: those who visit are other people than those who do not. What a contact changes is told by the [control
# group](../docs/concepts.md#the-control-group).
