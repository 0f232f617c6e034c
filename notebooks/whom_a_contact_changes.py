# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Whom a contact changes
#
# The likeliest to buy would often have bought anyway. Where chance decided who was contacted, the difference that a
# contact makes can be learned, and choosing by it compared with choosing the likeliest. The experiment is simulated, so
# the truth is known.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cvj_ml.evaluation.bootstrap import draw_keys
from cvj_ml.evaluation.uplift_metrics import contrast, effect_calibration, ranking_difference, ranking_metrics
from cvj_ml.models.uplift.effect_model import Experiment, fit_effect_model, out_of_fold_effects
from cvj_ml.simulate.trial import simulate_trial

trial = simulate_trial(16_000, seed=4)
experiment = Experiment(
    features=trial.features,
    arm=trial.arm,  # 0 was left alone
    outcome=trial.outcome,
    propensity=trial.propensity,  # of each arm: known, since chance drew it
    customer=trial.customer,
)
rates = pd.Series(trial.outcome).groupby(trial.arm).mean()
print(f"{rates[0]:.1%} of the left alone did it, {rates[1]:.1%} of the contacted")

# %% [markdown]
# ## The effect, told by models that never saw the customer
#
# Everything is fitted on other customers than it is used for. The effects are shrunk towards the average as far as the
# data ask for it: a weight of 0 would say that everybody gains alike.

# %%
told = out_of_fold_effects(experiment, seed=1, threads=1)
model = fit_effect_model(experiment, seed=1, threads=1)
print(f"average effect {model.average[0]:+.3f} ± {model.standard_error[0]:.3f}, weight {model.weight[0]:.2f}")
pd.DataFrame(
    {
        "choosing by": ["effect", "probability"],
        "correlation with the true effect": [
            np.corrcoef(score, trial.effect[:, 0])[0, 1] for score in (told.effects[:, 0], trial.probability)
        ],
    }
).round(3)

# %% [markdown]
# ## Does choosing by it find more?
#
# Qini is the area between the gain of a ranking and that of a random one; the difference of both is paired over
# customers.

# %%
keys = draw_keys(200, 1)
rows = contrast(experiment)
rankings = {"effect": told.above_average[:, 0], "probability": trial.probability}
found = {name: ranking_metrics(rows, score, keys) for name, score in rankings.items()}
difference = ranking_difference(rows, rankings["effect"], rankings["probability"], keys).metrics
print(f"Qini by effect {found['effect'].qini.estimate:.4f}, by probability {found['probability'].qini.estimate:.4f}")
print(f"difference {difference.qini.estimate:+.4f} ({difference.qini.low:+.4f} to {difference.qini.high:+.4f})")

# %%
order = {name: np.argsort(-score, kind="stable") for name, score in rankings.items()}
weight = np.where(trial.arm == 1, 1 / trial.propensity[:, 1], -1 / trial.propensity[:, 0])
share = np.arange(1, len(weight) + 1) / len(weight)
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, by in order.items():
    axes.plot(share, np.cumsum((weight * trial.outcome)[by]) / len(weight), label=f"by {name}")
axes.plot([0, 1], [0, (weight * trial.outcome).mean()], color="grey", linestyle=":", label="by chance")
axes.set_xlabel("share that is contacted")
axes.set_ylabel("gained, a customer")
axes.legend()
axes.set_title("What contacts gain")

# %% [markdown]
# ## Is the predicted effect the one that is found?

# %%
bins = effect_calibration(told.pseudo_outcomes[:, 0], told.effects[:, 0], experiment.customer, keys)
pd.DataFrame([{"predicted": one.predicted, "found": one.observed.estimate, "rows": one.rows} for one in bins]).round(3)

# %% [markdown]
# `cvj-ml train` does all of this by itself, from the control groups of published nights: `docs/uplift.md`.
