"""A two-stage model of amounts by CatBoost, for an interpreter that has it and not this package.

    python catboost_hurdle.py INPUT.npz OUTPUT.npy

Reads ``x`` (snapshots, features), ``amount`` within the horizon and ``test``, X of the customers to predict; writes
P(buys) times the amount if they do, the latter a regression of its log with the smearing of Duan (1983). Settings are
the library's own but for the number of trees.
"""

from __future__ import annotations

import sys

import numpy as np

ROUNDS = 300


def main(source: str, target: str) -> None:
    """Fit both stages and predict."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    data = np.load(source)
    x, amount, test = data["x"], data["amount"], data["test"]
    buys = amount > 0
    settings = {"iterations": ROUNDS, "random_seed": 1, "verbose": False, "allow_writing_files": False}
    whether = CatBoostClassifier(**settings).fit(x, buys.astype(int))
    how_much = CatBoostRegressor(**settings).fit(x[buys], np.log(amount[buys]))
    residuals = np.log(amount[buys]) - how_much.predict(x[buys])
    p = whether.predict_proba(test)[:, 1]
    np.save(target, p * np.exp(how_much.predict(test)) * np.exp(residuals).mean())


if __name__ == "__main__":
    main(*sys.argv[1:])
