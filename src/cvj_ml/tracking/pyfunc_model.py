"""The model as other MLflow tools see it: logged as this text, never as a pickle."""

from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc.model import PythonModel


class JourneyModel(PythonModel):
    """Scores canonical touchpoints with the bundle that was logged beside this file."""

    def load_context(self, context: Any) -> None:
        """Remember where the bundle is."""
        self._bundle = Path(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return SCORES of the customers in ``model_input``, whose naive instants are UTC.

        ``params={"as_of": "2024-12-31"}`` is required; raises ConfigError without it.
        """
        from cvj_ml.errors import ConfigError
        from cvj_ml.scoring import score_touchpoints

        as_of = (params or {}).get("as_of")
        if not as_of:
            raise ConfigError("predict needs the instant that is asked about: params={'as_of': '2024-12-31'}.")
        instants = {
            str(name): model_input[name].dt.tz_localize("UTC") for name in model_input.select_dtypes("datetime")
        }
        return score_touchpoints(self._bundle, model_input.assign(**instants), as_of)


mlflow.models.set_model(JourneyModel())
