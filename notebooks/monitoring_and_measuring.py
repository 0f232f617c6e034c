# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Monitoring nights, and measuring what they changed
#
# A model is trained, then nights are published. What do they keep about their gates, and did contacting help?

# %%
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import yaml

from cvj_ml.simulate import simulate


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "cvj_ml", *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 5):  # 5: judged, and did not pass
        raise RuntimeError(f"cvj-ml {words[0]} ended with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


simulate(customers=200, seed=6).write(".")
settings = yaml.safe_load(files("cvj_ml").joinpath("demo.yaml").read_text(encoding="utf-8"))
settings = {name: one for name, one in settings.items() if name not in ("exports", "contact")}
settings["lists"] = [
    {"from": "Engage", "to": "Subscribe", "horizon": "30d"},
    {"from": "Subscribe", "to": "Convert", "horizon": "30d"},
]
settings |= {
    "horizons": ["7d", "30d"],
    "model": {"max_rows": 10_000, "seed": 1},
    "control": {"share": 0.3, "salt": "s"},
}
Path("shop.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
command("train", "shop.yaml", "--as-of", "2025-03-31", "--promote", "always")

# %% [markdown]
# ## Nights
#
# `nightly` publishes one; with `--backfill` it publishes each day of a span, oldest first, with the model of now.

# %%
command("nightly", "shop.yaml", "--backfill", "2025-04-01..2025-04-02")
nights = sorted(one.parent for one in Path("out").glob("as_of=*/*/MANIFEST.json"))
days = [one.parent.name.removeprefix("as_of=") for one in nights]
print(command("verify", "out"))

# %% [markdown]
# Each night keeps what its gates saw. Where there is too little to compare, a gate has no value and is not told.

# %%
gates = pd.DataFrame(
    [
        {"night": day, "gate": gate["name"], "level": gate["level"], "value": gate["value"]}
        for day, night in zip(days, nights, strict=True)
        for gate in json.loads((night / "run.json").read_text(encoding="utf-8"))["gates"]
    ]
)
gates.pivot_table("value", "gate", "night").round(3)

# %%
mix = pd.DataFrame(
    {
        day: pd.read_parquet(night / "scores" / "scores.parquet", partitioning=None)["stage"].value_counts(
            normalize=True
        )
        for day, night in zip(days, nights, strict=True)
    }
)
axes = mix.T.plot.bar(stacked=True, figsize=(8, 3.2), colormap="viridis", title="Share of customers by stage")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)

# %% [markdown]
# ## Did it help, and were the scores right?
#
# Nobody was contacted here, so the true effect is none: an interval that holds 0 is the right answer. Beside it stands
# whether as many moved as the scores had said, among customers whom the lists left alone.

# %%
print(command("measure", "shop.yaml", "--until", "2025-06-24"))

# %%
history = pd.read_csv("out/measure/history.csv")
history[
    [
        "list",
        "night",
        "target_n",
        "target_moved",
        "control_n",
        "control_moved",
        "difference",
        "difference_low",
        "difference_high",
    ]
]

# %%
last = history.drop_duplicates("list", keep="last")
figure, axes = plt.subplots(figsize=(8, 2.2), layout="constrained")
spans = [last["difference"] - last["difference_low"], last["difference_high"] - last["difference"]]
axes.errorbar(last["difference"], last["list"], xerr=spans, fmt="o", color="#2f6ea5", capsize=4)
axes.axvline(0, color="grey", linewidth=1)
axes.set_title("Moved with contact minus moved without, with 95 % interval")
