"""The story of ``cvj-ml models compare``: two registered versions side by side, by what their trainings logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cvj_ml import tracking
from cvj_ml.config import Config
from cvj_ml.errors import ConfigError, ModelError, raise_all
from cvj_ml.evaluation.mlflow_record import headline

_FOLD = "fold_cut"


@dataclass(frozen=True, slots=True)
class ComparedVersions:
    """Two versions side by side; ``a`` and ``b`` in columns are the first and the second.

    figures: each metric of the headline with its 95 % interval where there is one; settings: parameters that differ;
    data: the digest of every source; warnings: why figures cannot be held against each other. What was decided of each
    when it was trained is its ``verdict``.
    """

    versions: tuple[tracking.ModelVersion, tracking.ModelVersion]
    figures: pd.DataFrame
    settings: pd.DataFrame
    data: pd.DataFrame
    warnings: tuple[str, ...]


def compare_versions(config: Config, first: int, second: int) -> ComparedVersions:
    """Return two versions side by side; ModelError where one is not there, or nobody knows how it was trained.

    ConfigError where both are the same.
    """
    if first == second:
        raise ConfigError(f"Version {first} is compared with itself; name two versions of `cvj-ml models list`.")
    described = [tracking.describe_version(config, one) for one in (first, second)]
    raise_all(
        ModelError,
        "Nothing is known of how these were trained, since they were imported. Compare them where they were trained:",
        [f"version {one.version}" for one, found in described if found is None],
    )
    a, b = (found for _, found in described if found is not None)
    folds = [one.parameters.get(_FOLD, "") for one in (a, b)]
    warnings = []
    if folds[0] != folds[1]:
        warnings.append(
            f"They were judged at different folds ({folds[0][:10]} and {folds[1][:10]}), so their figures speak of"
            " different customers and seasons. `cvj-ml train` compares with the champion on one fold."
        )
    if a.sources != b.sources:
        warnings.append("They were trained on different data.")
    return ComparedVersions(
        (described[0][0], described[1][0]),
        _figures(a, b),
        _beside(a.parameters, b.parameters, "setting", only_different=True),
        _beside(a.sources, b.sources, "source", only_different=False),
        tuple(warnings),
    )


def _figures(a: tracking.LoggedTraining, b: tracking.LoggedTraining) -> pd.DataFrame:
    names = dict.fromkeys([*headline(a.metrics), *headline(b.metrics)])
    rows = []
    for name in names:
        row: dict[str, str | float] = {"figure": name}
        for side, found in (("a", a), ("b", b)):
            row[side] = found.metrics.get(name, np.nan)
            for bound in ("_low", "_high"):
                # test.log_loss.return.30d has its bounds at test.log_loss_low.return.30d; a figure of stages has none.
                at = re.sub(r"(\.[^.]+\.\d+d)$", rf"{bound}\1", name)
                row[f"{side}{bound}"] = np.nan if at == name else found.metrics.get(at, np.nan)
        rows.append(row)
    columns = ["figure", *(f"{side}{bound}" for side in "ab" for bound in ("", "_low", "_high"))]
    return pd.DataFrame(rows, columns=columns)


def _beside(a: Mapping[str, str], b: Mapping[str, str], what: str, *, only_different: bool) -> pd.DataFrame:
    rows = [(name, a.get(name), b.get(name)) for name in sorted({*a, *b})]
    kept = [row for row in rows if not only_different or row[1] != row[2]]
    return pd.DataFrame(kept, columns=[what, "a", "b"])
