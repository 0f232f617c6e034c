"""The package's features as a transformer of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from cvj_ml.config import Config
from cvj_ml.errors import DataError
from cvj_ml.histories import Block
from cvj_ml.inputs import Histories
from cvj_ml.panel.model_spec import ModelSpec, define
from cvj_ml.sklearn.frame_rows import AS_OF, CUSTOMER, Rows, ask, rows_of
from cvj_ml.sklearn.opened import Stages, open_to_ask, open_to_learn
from cvj_ml.snapshots import Snapshots
from cvj_ml.touchpoints import Touchpoints


class JourneyFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn publishes no types
    """Features of customers at any instants, for a pipeline of scikit-learn.

    touchpoints: the `Touchpoints`, or the Config of sources in files (`cvj_ml.load_config`).
    journey: the stages: a preset's name, a YAML file, rules, or a `Journey`; by default ``cvj8``. A Config has its own.
    settings: others of a configuration file (docs/configuration.md), such as ``{"features": {"windows": ["14d"]}}``;
    not beside a Config.

    X is a frame of pandas, Polars or Arrow with the columns ``customer_id`` and ``as_of``; others are left to others.
    `fit` learns which events, channels and attribute values get features of their own: from the customers of X, from
    what was visible before the latest ``as_of`` of X, and never from what came later. So a fold of a cross-validation
    that ends before its test rows stays clean. Which stages the data can show at all is told by the whole table.
    Features of which no row of X knows anything are left out: no model learns from them, and some refuse them.

    `transform` returns float32 of the shape (rows, features), in the order of the rows. NaN where nothing is known, as
    in windows that begin before the history does, so put an imputer before models that need all numbers.

    Once fitted: ``definition_`` is what was learned, ``known_`` which of its features are kept, ``feature_names_in_``
    the columns that X needs. A pickle holds what was learned, and not the touchpoints; in another process, give today's
    with ``set_params(touchpoints=…)``, on which the history has to begin no later than on those of the fit.

    ConfigError for columns and settings that are wrong. DataError for rows of which nothing was visible before their
    ``as_of``: a model was never shown such customers, so any answer would be a guess (`snapshots` lists all others).
    ModelError for touchpoints that are not like those of the fit.
    """

    def __init__(
        self,
        touchpoints: Touchpoints | Config,
        journey: Stages = None,
        *,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.touchpoints = touchpoints
        self.journey = journey
        self.settings = settings

    def fit(self, X: Any, y: object = None) -> JourneyFeatures:
        """Learn from X which features there are; y is not used."""
        self._learn(X)
        return self

    def fit_transform(self, X: Any, y: object = None) -> npt.NDArray[np.float32]:
        """Learn from X and return its features, as `fit` and `transform` do one after the other."""
        return self._learn(X)

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Return the features of each row, (rows, features), from what was visible before its ``as_of``."""
        check_is_fitted(self, "definition_")
        histories = open_to_ask(self.touchpoints, self.definition_, self.settings)
        return _features(self.definition_, histories, rows_of(X, histories.config))[:, self.known_]

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Return the names of the features; what they are called going in changes nothing."""
        check_is_fitted(self, "definition_")
        return np.array(self.definition_.catalogue.names, dtype=object)[self.known_]

    def _learn(self, X: Any) -> npt.NDArray[np.float32]:
        histories = open_to_learn(self.touchpoints, self.journey, self.settings)
        rows = rows_of(X, histories.config)
        if not len(rows.as_of):
            raise DataError("JourneyFeatures: X has no rows, so there is nothing to learn from; check what chose them.")
        engine = histories.engine().only(rows.names)
        definition = define(histories.config, histories.visible.journey, engine, int(rows.as_of.max()))
        x = _features(definition, histories, rows)
        self.definition_ = definition
        self.known_ = ~np.isnan(x).all(axis=0)
        self.feature_names_in_ = np.array([CUSTOMER, AS_OF], dtype=object)
        self.n_features_in_ = 2
        return x[:, self.known_]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # names and times, never an array of numbers
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _features(definition: ModelSpec, histories: Histories, rows: Rows) -> npt.NDArray[np.float32]:
    """Return all features of the definition, (rows, features), in the order of the rows."""

    def answer(block: Block, asked: Snapshots) -> npt.NDArray[np.float32]:
        return definition.features(block, definition.stays(block), asked)

    return ask(histories, rows, answer, np.empty((len(rows.as_of), len(definition.catalogue.features)), np.float32))
