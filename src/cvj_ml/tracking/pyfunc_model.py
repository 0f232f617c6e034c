"""The model as other MLflow tools see it: logged as this text, never as a pickle."""

import os
from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc.model import PythonModel

# MLflow's own name for it, set by its scoring server.
_SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


class JourneyModel(PythonModel):
    """Scores touchpoints and attributes with the bundle that was logged beside this file."""

    def load_context(self, context: Any) -> None:
        """Verify and open the bundle; raises ModelError where it is not as it was saved."""
        from cvj_ml.scoring.opening import open_bundle

        # Whoever loads a model by MLflow runs its code: features of its own are no more than that.
        self._bundle = open_bundle(Path(context.artifacts["bundle"]), functions=None)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return SCORES of the customers in ``model_input``, whose naive instants are UTC.

        ``params={"as_of": "2024-12-31"}`` is required; raises ConfigError without it.
        """
        from cvj_ml.errors import ConfigError
        from cvj_ml.scoring.frames import in_spark_task
        from cvj_ml.scoring.serving import score_frame

        as_of = (params or {}).get("as_of")
        if not as_of:
            raise ConfigError("predict needs the instant that is asked about: params={'as_of': '2024-12-31'}.")
        scores: pd.DataFrame = score_frame(self._bundle, model_input, as_of)
        if os.environ.get(_SERVING) == "true":
            # What is missing is null in JSON; NaN, which the server would write, is no JSON.
            return scores.astype(object).where(scores.notna(), None)
        if in_spark_task():
            # MLflow would make the texts "nan" and "NaT" of a stage and an instant that somebody does not have.
            texts: list[str] = list(scores.select_dtypes(["str", "datetimetz"]).columns)
            return scores.assign(**{name: scores[name].astype(str).where(scores[name].notna(), "") for name in texts})
        return scores


mlflow.models.set_model(JourneyModel())
