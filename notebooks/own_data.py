# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Your own data: from a raw CSV to a plan
#
# The same commands as on a server, on files as they come: one CSV of orders and one of what the website saw. The first
# cell makes them up; put your own in their place and go on from there.

# %%
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from cvj_ml.simulate import simulate

log = simulate(customers=400, seed=2).touchpoints
log["when"] = log["occurred_at"].dt.tz_convert("Europe/Berlin").dt.strftime("%d.%m.%Y %H:%M")
orders = log[log["event"] == "purchase"][["customer_id", "when", "value"]]
orders["value"] = orders["value"].map("{:.2f}".format).str.replace(".", ",")
orders.to_csv("orders.csv", sep=";", index=False)
log[log["event"] != "purchase"][["customer_id", "when", "event"]].to_csv("website.csv", sep=";", index=False)
print(Path("orders.csv").read_text(encoding="utf-8")[:110])


# %% [markdown]
# `cvj-ml` is a command; this is how a notebook calls it.


# %%
def command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "cvj_ml", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cvj-ml {words[0]} ended with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


# %% [markdown]
# `init` looks at the files: separators, decimal commas, how times are written, which column is whose. What it guesses
# stands in the configuration for you to correct.

# %%
command("init", "orders.csv", "website.csv", "--config", "shop.yaml", "--time-zone", "Europe/Berlin", "--yes")
print(Path("shop.yaml").read_text(encoding="utf-8"))

# %% [markdown]
# Read it line by line, and answer its notes. Here one horizon and few rows to train on are enough, so that it is quick.

# %%
settings = Path("shop.yaml").read_text(encoding="utf-8").replace("[7d, 14d, 30d, 60d, 90d]", "[30d]")
Path("shop.yaml").write_text(settings + "model: {max_rows: 10000}\n", encoding="utf-8")

# %% [markdown]
# What is there to learn from?

# %%
found = json.loads(command("check", "shop.yaml", "--as-of", "2025-06-24", "--json"))["data"]
pd.DataFrame(found["stages"])

# %% [markdown]
# Train, then publish a night. The first command judges the recipe on the last fold whose outcomes are known and
# registers the model; the second scores everybody and ranks the lists.

# %%
command("train", "shop.yaml", "--as-of", "2025-06-24", "--promote", "always")
print(command("targets", "shop.yaml", "--as-of", "2025-06-24"))

# %% [markdown]
# The plan: everybody who is on a list of tonight, whom to contact first, and why.

# %%
(night,) = Path("out").glob("as_of=*/*/targets")
summary = pd.read_csv(night / "summary.csv")
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
axes.barh(summary["list"], summary["target"], color="#2f6ea5", label="to contact")
axes.barh(summary["list"], summary["control"], left=summary["target"], color="#b3651a", label="control: leave alone")
axes.invert_yaxis()
axes.legend()
axes.set_title("Who is on a list tonight")

# %%
first = summary.loc[summary["target"].idxmax(), "list"]
rows = pd.read_csv(night / f"{first}.csv")
rows[["rank", "customer_id", "probability", "reason_1"]].head(5)
