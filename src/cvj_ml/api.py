"""The Python interface: a model that is fitted on a DataFrame or a configuration, saved, loaded, and asked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Self

import pandas as pd
from joblib import cpu_count

from cvj_ml.commands.backtest import backtest as run_backtest
from cvj_ml.commands.train import learn_model, training_panel, write_bundle
from cvj_ml.config import DAY, Config, format_duration
from cvj_ml.config.base import read_duration
from cvj_ml.config.lists import SHORTEST_EPOCH
from cvj_ml.config.model import ModelSettings
from cvj_ml.customers import Identities, match_people, read_people
from cvj_ml.errors import ConfigError, DataError, ModelError, nearest, raise_all
from cvj_ml.evaluation.bootstrap import DRAWS, draw_keys
from cvj_ml.evaluation.mlflow_record import low_targets
from cvj_ml.inputs import (
    Histories,
    as_of_name,
    by_account,
    open_histories,
    open_touchpoints,
    open_under,
    require_customers,
)
from cvj_ml.journey import Journey
from cvj_ml.lists.customer_facts import facts_of_customer
from cvj_ml.lists.ranking import rank
from cvj_ml.lists.reasons import with_reasons
from cvj_ml.model_card import Training, write_card
from cvj_ml.models.bundle.bundle import Bundle, ModelEvidence
from cvj_ml.models.bundle.verification import differences
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_panel
from cvj_ml.night.champion import verify_version
from cvj_ml.night.reading import listed_in_control
from cvj_ml.night.scores import Scored
from cvj_ml.night.scores import score as run_score
from cvj_ml.ownership import claim
from cvj_ml.panel.panel import Panel
from cvj_ml.run import PythonWarnings
from cvj_ml.scoring.frames import attribute_columns, require_persons, touchpoint_columns
from cvj_ml.scoring.opening import open_bundle
from cvj_ml.scoring.scores_table import StoredTable
from cvj_ml.touchpoints import Touchpoints
from cvj_ml.windows import parse_as_of, to_datetime

UNREGISTERED = "unregistered"
"""The ``model_version`` of a model that was never saved."""

Data = Touchpoints | Config
"""Where customers come from: a table in memory, or the sources of a configuration."""

Instant = str | date | datetime
"""A day (its local midnight) or an instant; what happens then or later is the future."""

SETTINGS = (
    *("burn_in", "complete_when", "control", "coverage", "drop_duplicates", "eligibility", "engine", "features"),
    *("horizons", "ids", "lists", "model", "refused_share", "snapshots", "stage_value", "targets"),
)
"""Settings of a configuration file that a model takes as they are; the others belong to `Touchpoints` or `Journey`."""


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A fitted model: what it was fitted from, where it is known, its version, and its card once that was asked for."""

    predictor: Predictor
    version: str
    data: Data | None
    bundle: Bundle | None = None
    training: Training | None = None
    histories: Histories | None = None
    card: str | None = None


class Model:
    """Where every customer stands in a journey, what comes next, how likely it is, and why.

    >>> model = Model("cvj8", horizons=["30d", "90d"], model={"seed": 7})
    >>> model
    Model(journey='cvj8', horizons=['30d', '90d'], model={'seed': 7}; not fitted)

    ``journey`` is a `Journey` or the name of a preset; ``settings`` are those of a configuration file, by the same
    names (docs/configuration.md). For a configuration, which says all of this, leave both out.
    """

    def __init__(self, journey: Journey | str | None = None, **settings: Any) -> None:
        faults = [
            f"{name}: a model has no such setting.{nearest(name, SETTINGS)}"
            for name in sorted({*settings} - {*SETTINGS})
        ]
        raise_all(ConfigError, "These settings cannot be used (others belong to Touchpoints or Journey):", faults)
        self.journey = Journey(journey) if isinstance(journey, str) else journey
        self.settings = settings
        self._fitted: _Fitted | None = None
        self._opened: tuple[Data, Histories] | None = None

    def __repr__(self) -> str:
        words = [f"journey={self.journey.preset or self.journey.name!r}"] if self.journey else []
        words += [f"{name}={value!r}" for name, value in self.settings.items()]
        state = f"version {self._fitted.version}" if self._fitted else "not fitted"
        return f"Model({', '.join(words)}; {state})" if words else f"Model({state})"

    @classmethod
    def load(cls, source: Config | Path | str, *, functions: Sequence[str] = ()) -> Self:
        """Return a model from the folder of a bundle, or the champion of a configuration's registry.

        It is verified before anything of it is used: ModelError where a file was changed, or it scores its canary
        otherwise than when it was saved. ``functions`` are those of features of your own that the bundle may have
        imported, such as ``["package.module:function"]``; a configuration names its own.
        """
        model = cls()
        if isinstance(source, Config):
            _, bundle = verify_version(source)
            model._fitted = _Fitted(bundle.predictor, bundle.version, source, bundle)
        else:
            bundle = open_bundle(Path(source), functions=functions)
            model._fitted = _Fitted(bundle.predictor, bundle.version, None, bundle)
        return model

    def save(self, folder: Path | str) -> str:
        """Write the model as a bundle into an empty or new folder, and return its digest (64 hex digits).

        A bundle holds text and numbers only; nothing in it is executed on loading. What it tells of earlier scores and
        forecasts is counted now, on up to six folds. ModelError for a model that was loaded (copy its folder), or that
        holds an estimator of one's own.
        """
        fitted = self._require_fitted()
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f"{target} is there already, and not an empty folder; name another one.")
        if fitted.training is None or fitted.histories is None:
            raise ModelError(
                "Only a model that was fitted here by fit(touchpoints or config, as_of) can be saved; of one that was"
                " loaded, copy the folder; an estimator of your own is kept by its own means."
            )
        card = self.card
        digest = write_bundle(fitted.training, fitted.histories, card, target)
        self._fitted = replace(fitted, version=digest[:12], card=card)
        return digest

    def fit(self, data: Data | Panel, as_of: Instant | None = None, *, estimator: Any = None) -> Self:
        """Fit on what was visible before ``as_of``, as `cvj-ml train` does, and return the model itself.

        The recipe is evaluated on the last matured fold first, which `card` tells of; the same data and settings give
        the same model as the command, bit for bit. Of a `Panel`, which has its own instant, the recipe is fitted alone.

        estimator: any classifier with ``fit`` and ``predict_proba`` (scikit-learn's conventions) that takes the place
        of our trees: asked for each snapshot, target and interval whether the event falls into the interval. Features
        may be missing (NaN), so it has to take them, or to be a pipeline that fills them. It is calibrated as our trees
        are, has no card and gives no reasons, and cannot be saved as a bundle.
        """
        if isinstance(data, Panel):
            if as_of is not None:
                raise ConfigError("as_of: a panel has its own instant; leave it out.")
            settings = ModelSettings.model_validate(self.settings.get("model", {}))
            _refuse_year_ago(settings, "A panel does not hold what was known a year ago")
            self._fitted = _Fitted(fit_panel(data, settings.seed, cpu_count(), estimator), UNREGISTERED, None)
            return self
        histories, instant = self._open_to_learn(data, as_of)
        usage = require_customers(histories, instant)
        if estimator is not None:
            _refuse_year_ago(histories.config.model, "An estimator of your own is not fitted a year ago")
            panel = training_panel(histories, instant)
            fitted = fit_panel(panel, histories.config.model.seed, histories.threads, estimator)
            self._fitted = _Fitted(fitted, UNREGISTERED, data)
            return self
        found = learn_model(histories, instant, usage)
        self._fitted = _Fitted(found.predictor, UNREGISTERED, data, None, found, histories)
        return self

    def panel(self, data: Data, as_of: Instant) -> Panel:
        """Return what training sees: one row a customer and past instant, features, and what came after."""
        histories, instant = self._open_to_learn(data, as_of)
        require_customers(histories, instant)
        return training_panel(histories, instant)

    def backtest(
        self, data: Data, until: Instant, folds: int = 3, *, spacing: str | None = None, estimator: Any = None
    ) -> pd.DataFrame:
        """Refit at up to ``folds`` past instants and evaluate by what came after: a row a contender and cell.

        Contenders are the model, the baselines and, where one is given, the ``estimator`` (as in `fit`) under the name
        of its class. ``spacing`` between folds is the longest horizon by default, as in `cvj-ml backtest`.
        """
        apart = None if spacing is None else read_duration(spacing, "spacing")
        histories, instant = self._open_to_learn(data, until)
        require_customers(histories, instant)
        results = run_backtest(histories, instant, folds, spacing=apart, estimator=estimator)
        named = [one.rows.assign(fold=as_of_name(histories.config, one.fold.cut)) for one in results]
        return pd.concat(named, ignore_index=True)

    def score(self, data: Data, as_of: Instant) -> pd.DataFrame:
        """Return SCORES (docs/outputs.md): one row a customer with a touchpoint visible before ``as_of``.

        To the last bit those of a night with this model over the same rows.
        """
        histories, instant = self._open_to_ask(data, as_of)
        with self._scored(histories, instant) as scored:
            frame: pd.DataFrame = pd.read_parquet(scored.scores, partitioning=None)
        return frame

    def targets(self, as_of: Instant, data: Data | None = None) -> dict[str, pd.DataFrame]:
        """Return the lists of whom to target next, with reasons and a control group, by the name of the list.

        ``data`` is by default what the model was fitted on. Suppression, consent and past nights are those of a
        configuration; touchpoints from memory have none.
        """
        fitted = self._require_fitted()
        histories, instant = self._open_to_ask(data if data is not None else self._own_data(), as_of)
        config = histories.config
        identities = Identities.at(histories.store, instant)
        people = match_people(read_people(config), config, histories.store).under(identities)
        people = by_account(people, histories, instant)
        with self._scored(histories, instant, history=True) as scored:
            lists = rank(
                config,
                StoredTable.at(scored.scores),
                histories.visible.journey,
                instant,
                fitted.bundle.evidence if fitted.bundle else ModelEvidence.of(fitted.predictor),
                history=StoredTable.at(scored.history) if scored.history else None,
                permissions=people.permissions,
                exposures=identities.by_person(listed_in_control(config, instant)),
                identities=identities,
            )
        if fitted.predictor.reference is not None:
            lists = with_reasons(lists, fitted.predictor, histories.engine(), instant, config)
        return {one.name: one.rows.to_pandas() for one in lists}

    def explain(self, customer_id: str, as_of: Instant, data: Data | None = None) -> pd.DataFrame:
        """Return what speaks for and against each later stage of one customer: a row a target, horizon and fact.

        ``contribution`` is in log odds of the hazard, beside a typical customer of the same stage; facts of a target
        and horizon add up to ``margin - base``, the weightiest first. ``reason`` is the fact in words, missing where
        it cannot be told (docs/reasons.md). ``probability`` is that of SCORES. DataError for a customer without a
        touchpoint visible before ``as_of``.
        """
        predictor = self._require_fitted().predictor
        if (reference := predictor.reference) is None:
            raise ModelError("This model does not know what is typical of its customers, so it gives no reasons.")
        histories, instant = self._open_to_ask(data if data is not None else self._own_data(), as_of)
        for block, answers in (
            histories.engine().only([customer_id]).map(lambda block: (block, predictor.answer(block, instant)))
        ):
            for row, position in enumerate(answers.snapshots.customer):
                if block.customers[position] == customer_id:
                    return facts_of_customer(predictor, reference, block, answers, row, histories.config)
        raise DataError(f"No touchpoint of this customer is visible before {as_of}, so there is nothing to explain.")

    @property
    def card(self) -> str:
        """The model card in Markdown: data, recipe, figures with intervals, limits."""
        fitted = self._require_fitted()
        if fitted.bundle is not None:
            return fitted.bundle.card
        if fitted.card is not None:
            return fitted.card
        if fitted.training is None or fitted.histories is None:
            raise ModelError("A model that was fitted on a panel, or with an estimator of your own, has no card.")
        keys = draw_keys(DRAWS, fitted.training.config.model.seed)
        text = write_card(fitted.training, fitted.histories.engine(), keys).text
        self._fitted = replace(fitted, card=text)
        return text

    @property
    def metrics(self) -> pd.DataFrame:
        """The figures of the last matured fold: a row a contender, transition and horizon."""
        fitted = self._require_fitted()
        if fitted.training is None:
            raise ModelError("Only fit(touchpoints or config, as_of) judges a fold; of others, see card or backtest().")
        return fitted.training.result.rows

    @property
    def low_evidence(self) -> list[str]:
        """Targets that too few customers reached, and outcomes of too few: they rest on base rates."""
        return low_targets(self._require_fitted().predictor)

    def _require_fitted(self) -> _Fitted:
        if self._fitted is None:
            raise ModelError("This model is not fitted yet; call fit(data, as_of), or Model.load(…).")
        return self._fitted

    def _own_data(self) -> Data:
        found = self._require_fitted().data
        if found is None:
            raise ConfigError("data: this model does not know any customers; say whose touchpoints are meant.")
        return found

    def _open_to_learn(self, data: Data, as_of: Instant | None) -> tuple[Histories, int]:
        """Open customers under the journey and the settings of this object, or of a configuration, and read the day."""
        if as_of is None:
            raise ConfigError("as_of: say up to which day or instant the data counts, as in fit(data, '2025-06-24').")
        if isinstance(data, Config) and (self.journey is not None or self.settings):
            raise ConfigError("A configuration has a journey and settings of its own: use Model() for it.")
        if isinstance(data, Touchpoints) and self.journey is None:
            raise ConfigError("journey: name one, as in Model('cvj8'), or give a Journey.")
        if self._opened is None or self._opened[0] is not data:
            if isinstance(data, Config):
                histories = open_histories(data, PythonWarnings())
            elif isinstance(data, Touchpoints) and self.journey is not None:
                histories = open_touchpoints(data, self.journey, self.settings, PythonWarnings())
            else:
                raise ConfigError(f"data: give Touchpoints or a Config, not {type(data).__name__}.")
            self._opened = data, histories
        histories = self._opened[1]
        return histories, _instant(as_of, histories.config)

    def _open_to_ask(self, data: Data, as_of: Instant) -> tuple[Histories, int]:
        """Open customers to be asked about: what gives predictions a meaning has to be as the model has learned it."""
        predictor = self._require_fitted().predictor
        if isinstance(data, Config):
            histories = open_histories(data, PythonWarnings())
        elif isinstance(data, Touchpoints):
            definition = predictor.definition
            require_persons(definition)
            needed, _ = touchpoint_columns(definition)
            named = data.named
            faults = [f"the model uses {name!r}, and no column is named for it" for name in needed if name not in named]
            wanted = [*attribute_columns(definition)]
            faults += [
                f"the model uses the attribute {name!r}; give it in attributes and attribute_columns"
                for name in wanted
                if name not in ("customer_id", "known_at", *data.attribute_columns)
            ]
            begins = to_datetime(definition.observed_from, definition.zone).date()
            if data.history_from is not None and date.fromisoformat(str(data.history_from)[:10]) > begins:
                faults.append(
                    f"history_from is {data.history_from}, and the model counts from {begins} on: what was not recorded"
                    " would count as nothing"
                )
            raise_all(DataError, "These touchpoints cannot be scored:", faults)
            settings = _asked_settings(predictor, self.settings)
            histories = open_under(data, definition.journey, settings, PythonWarnings())
        else:
            raise ConfigError(f"data: give Touchpoints or a Config, not {type(data).__name__}.")
        raise_all(
            ModelError,
            "The model does not answer for this data:",
            differences(predictor, histories.config, histories.visible),
        )
        return histories, _instant(as_of, histories.config)

    @contextmanager
    def _scored(self, histories: Histories, instant: int, *, history: bool = False) -> Iterator[Scored]:
        fitted = self._require_fitted()
        with tempfile.TemporaryDirectory() as folder:
            claim(Path(folder))  # blocks are written and removed in it
            yield run_score(histories, fitted.predictor, fitted.version, instant, Path(folder), history=history)


def _instant(as_of: Instant, config: Config) -> int:
    return parse_as_of(as_of if isinstance(as_of, str) else as_of.isoformat(), config.zone, "as_of")


def _refuse_year_ago(settings: ModelSettings, reason: str) -> None:
    if settings.year_ago_level:
        raise ConfigError(
            f"model.year_ago_level: it cannot be true here. {reason}. Leave it out, or fit our model on touchpoints."
        )


def _asked_settings(predictor: Predictor, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings under which a model is asked about touchpoints from memory: its own meaning, and lists."""
    definition, stage = predictor.definition, predictor.stage
    horizons = [format_duration(one) for one in definition.horizons]
    longest = min(definition.horizons, key=lambda one: abs(one - 30 * DAY))
    epochs = [name for name, length in SHORTEST_EPOCH.items() if length >= longest]
    found: dict[str, Any] = {"control": {"epoch": "quarter" if "quarter" in epochs else epochs[0]}, **own}
    if stage is not None:
        shares = zip(definition.journey.names, stage.tracking.coverage.tolist(), strict=True)
        found["coverage"] = {name: share for name, share in shares if share < 1}
        found["complete_when"] = stage.tracking.complete_when
    return {
        **found,
        "horizons": horizons,
        "targets": "all" if definition.next_stages is None else {"next": definition.next_stages},
        "drop_duplicates": definition.drop_duplicates,
    }
