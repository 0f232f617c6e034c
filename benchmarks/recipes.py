"""What the reach model's recipe is made of, each part left out or exchanged in turn, on development folds.

    python -m benchmarks.recipes [--max-rows 200000] [--only online_retail cdnow] [--variants "without counts"]

Writes ``benchmarks/results/recipes.md``. A development fold is a fold whose outcomes are over before the instant that
is reported anywhere else, so that choices made here cost no test. Every variant sees the same panel, and is judged by
the paired difference of its mean log loss to the recipe's, with an interval over customers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import numpy.typing as npt
from joblib import cpu_count

from benchmarks.records import ROOT, STORES, commit, config_file, machine, require_data, today
from cvj_ml.config import DAY, load_config
from cvj_ml.engines import LocalEngine
from cvj_ml.evaluation.backtesting import evaluated
from cvj_ml.evaluation.bootstrap import draw_keys
from cvj_ml.evaluation.folds import last_matured
from cvj_ml.evaluation.metrics import markdown_table
from cvj_ml.evaluation.promotion import CHALLENGER, CHAMPION, decide
from cvj_ml.features import PROGRESS, Feature
from cvj_ml.journey import observability
from cvj_ml.models import training
from cvj_ml.models.hazard import base_rates, binning, fitting, linear, reach
from cvj_ml.models.hazard.calibration import identity, make_coherent
from cvj_ml.models.hazard.fitting import Settings
from cvj_ml.models.hazard.reach import EXTRA_COLUMNS
from cvj_ml.models.hazard.tree_size import DEFAULT, LARGE
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import HazardRows, Panel, build_panel, hazard_rows
from cvj_ml.run import Run
from cvj_ml.snapshots import training_grid
from cvj_ml.store import ingest
from cvj_ml.windows import parse_as_of

_F64 = npt.NDArray[np.float64]

UNTIL = {
    "online_retail": "2011-09-06",
    "cdnow": "1997-10-01",
    "complete_journey": "2017-10-03",
    "stackexchange_martialarts": "2022-12-02",
    "starbucks": "2018-08-17",
}
"""Where a development fold's outcomes end: at the instant that is reported."""

HORIZONS = {"starbucks": (3 * DAY, 7 * DAY)}
"""Of a development fold whose data set has no room for its own horizons before the instant that is reported."""

FILE = ROOT / "benchmarks" / "results" / "recipes.md"
RECIPE = "the recipe"
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Setting:
    """What every variant is given: training panels by spacing of the grid, test snapshots, the cut, the seed."""

    history: Panel
    sparser: Panel
    test: Panel
    cut: int
    delay: int
    seed: int
    threads: int

    def fit(self, panel: Panel | None = None, seed: int | None = None, settings: Settings | None = None) -> _F64:
        """Return the probabilities of the package's own recipe."""
        panel = self.history if panel is None else panel
        seed = self.seed if seed is None else seed
        found = training.fit_reach(panel, seed, self.threads, given=settings)
        return Predictor(panel.definition, found.trees, found.calibration).predict(self.test, self.threads)


def as_it_is(setting: Setting) -> _F64:
    """Fit the recipe."""
    return setting.fit()


def without_calibration(setting: Setting) -> _F64:
    """Leave out slopes and levels."""
    panel, definition = setting.history, setting.history.definition
    rows = hazard_rows(panel.labels, definition.horizons)
    trees = fitting.fit_trees(panel, rows, DEFAULT, setting.seed, setting.threads)
    nothing = identity(1 + len(definition.journey.stages), len(definition.horizons))
    return Predictor(definition, trees, nothing).predict(setting.test, setting.threads)


def line_alone(setting: Setting) -> _F64:
    """Leave out the trees."""
    return setting.fit(settings=replace(DEFAULT, rounds=1, learning_rate=1e-12))


def from_base_rates(setting: Setting) -> _F64:
    """Let the trees start from the base rates of the stages."""

    def only_the_base(*arguments: object) -> linear.LinearHazard:
        line = fitted(*arguments)  # type: ignore[arg-type]  # the arguments of fit_linear
        weights = np.zeros_like(line.coefficients)
        weights[0] = line.scale[0]
        return replace(line, coefficients=weights, intercept=float(line.mean[0]))

    fitted = linear.fit_linear
    with mock.patch.object(fitting, "fit_linear", only_the_base):
        return setting.fit()


def one_model_a_target(setting: Setting) -> _F64:
    """Fit each target by itself instead of all in one."""
    panel, definition = setting.history, setting.history.definition
    everything = hazard_rows
    result = np.full((len(setting.test), 1 + len(definition.journey.stages), len(definition.horizons)), np.nan)
    for j in np.flatnonzero(panel.labels.at_risk.any(axis=0)):

        def of_target(labels: object, horizons: tuple[int, ...], target: int = int(j)) -> HazardRows:
            rows = everything(labels, horizons)  # type: ignore[arg-type]  # the arguments of hazard_rows
            return rows.take(rows.target == target)

        # Coherence is over all targets: only the models together can be made coherent.
        with (
            mock.patch.object(training, "hazard_rows", of_target),
            mock.patch.object(reach, "make_coherent", lambda probabilities: probabilities),
        ):
            result[:, j] = setting.fit()[:, j]
    return make_coherent(result)


def stacked_and_by_target(setting: Setting) -> _F64:
    """Average one model of all targets and one model for each."""
    return (setting.fit() + one_model_a_target(setting)) / 2


def mean_of_seeds(setting: Setting) -> _F64:
    """Average three seeds."""
    return np.asarray(np.mean([setting.fit(seed=setting.seed + k) for k in range(3)], axis=0))


def sparser_grid(setting: Setting) -> _F64:
    """Ask half as often, with the same number of rows."""
    return setting.fit(setting.sparser)


def unconstrained(setting: Setting) -> _F64:
    """Let the trees lower the hazard where more of the rule is fulfilled, and the other way round."""
    with mock.patch.object(fitting, "monotone", lambda columns: [0] * (columns + len(EXTRA_COLUMNS))):
        return setting.fit()


def bins_of_lightgbm(setting: Setting) -> _F64:
    """Let LightGBM split between any two values that it was shown, whoever's they are."""
    with (
        mock.patch.object(binning.Grid, "bins", lambda self, x: x),
        mock.patch.object(binning.Grid, "in_place_of_bins", lambda self, trees: trees),
    ):
        return setting.fit()


def trusting_other_stages(setting: Setting) -> _F64:
    """Let line and trees tell of what nobody in a stage has lived through."""
    fitted = fitting.fit_base_rates

    def everything_known(*arguments: object) -> base_rates.BaseRates:
        found = fitted(*arguments)  # type: ignore[arg-type]  # the arguments of fit_base_rates
        return replace(found, known=np.ones_like(found.known))

    with mock.patch.object(fitting, "fit_base_rates", everything_known):
        return setting.fit()


def with_settings(**changes: float) -> Callable[[Setting], _F64]:
    """Return the variant with other settings of the trees."""
    return lambda setting: setting.fit(settings=replace(DEFAULT, **changes))  # type: ignore[arg-type]


def without(hide: Callable[[Feature], bool]) -> Callable[[Setting], _F64]:
    """Return the variant whose trees do not see some features; the linear start keeps its inputs."""

    def variant(setting: Setting) -> _F64:
        features = setting.history.definition.catalogue.features
        hidden = [i for i, one in enumerate(features) if hide(one) and one.name not in linear.HISTORY]
        return setting_without(setting, hidden).fit()

    return variant


def without_group(group: str) -> Callable[[Setting], _F64]:
    """Return the variant whose trees do not see a group of features."""
    return without(lambda one: one.group == group)


def setting_without(setting: Setting, columns: list[int]) -> Setting:
    """Return the setting with columns of X that say nothing."""

    def blank(panel: Panel) -> Panel:
        x = panel.x.copy()
        x[:, columns] = 0
        return replace(panel, x=x)

    return replace(setting, history=blank(setting.history), test=blank(setting.test))


def with_columns(make: Callable[[Panel], npt.NDArray[np.float32]]) -> Callable[[Setting], _F64]:
    """Return the variant whose trees see more columns."""

    def variant(setting: Setting) -> _F64:
        def wider(panel: Panel) -> Panel:
            return replace(panel, x=np.hstack([panel.x, make(panel)]))

        known = fitting.feature_names

        def names(panel: Panel) -> list[str]:
            more = [f"more_{i}" for i in range(panel.x.shape[1] - len(panel.definition.catalogue.names))]
            named = known(panel)
            return [*named[: -len(EXTRA_COLUMNS)], *more, *EXTRA_COLUMNS]

        with mock.patch.object(fitting, "feature_names", names):
            return replace(setting, history=wider(setting.history), test=wider(setting.test)).fit()

    return variant


def cadence(panel: Panel) -> npt.NDArray[np.float32]:
    """Return silence in units of the customer's own gaps, and the rates of buy-till-you-die models."""
    recency, tenure, days = (panel.column(name).astype(np.float64) for name in ("recency", "tenure", "active_days_all"))
    mean, spread = (panel.column(name).astype(np.float64) for name in ("gap_mean_all", "gap_sd_all"))
    alive = days / np.maximum(tenure, 7) * np.maximum(recency, 1)
    columns = [
        recency / np.maximum(mean, 1),
        (recency - mean) / np.maximum(spread, 3),
        days / np.maximum(tenure, 7),
        alive,
    ]
    return np.column_stack(columns).astype(np.float32)


def decayed(panel: Panel) -> npt.NDArray[np.float32]:
    """Return time-decayed counts of touchpoints, active days and values, from the windows that there are."""
    names, columns = panel.definition.catalogue.names, []
    for kind in ("touchpoints_", "active_days_", "value_sum_"):
        inside = [np.nan_to_num(panel.column(name)) for name in names if name.startswith(kind)]
        weights = 0.5 ** np.arange(len(inside))
        columns.append(np.sum([w * one for w, one in zip(weights, inside, strict=True)], axis=0))
    return np.column_stack(columns).astype(np.float32)


def bigrams(panel: Panel) -> npt.NDArray[np.float32]:
    """Return codes of the last two and the last three events together."""
    last = [np.nan_to_num(panel.column(f"last_event_{k}"), nan=-1.0) + 1 for k in (1, 2, 3)]
    base = 1 + max(float(one.max(initial=0)) for one in last)
    return np.column_stack([last[0] * base + last[1], (last[0] * base + last[1]) * base + last[2]]).astype(np.float32)


VARIANTS: Mapping[str, Callable[[Setting], _F64]] = {
    "without calibration": without_calibration,
    "linear hazard alone": line_alone,
    "trees from base rates, no linear start": from_base_rates,
    "one model a target": one_model_a_target,
    "mean of stacked and one a target": stacked_and_by_target,
    "mean of three seeds": mean_of_seeds,
    "snapshots half as often": sparser_grid,
    "not monotone in progress": unconstrained,
    "split between any two values": bins_of_lightgbm,
    "other stages tell of what nobody has lived through": trusting_other_stages,
    "always default trees": lambda setting: setting.fit(settings=DEFAULT),
    "always large trees, 150 rounds": lambda setting: setting.fit(settings=replace(LARGE, rounds=150)),
    "always middling trees (15 leaves, 200 rows, lambda 20)": with_settings(
        leaves=15, rows_a_leaf=200, lambda_l2=20.0, path_smooth=100.0, rounds=150
    ),
    "default trees, half the rounds": with_settings(rounds=150),
    "without counts": without_group("counts"),
    "without rhythm": without_group("rhythm"),
    "without values": without_group("values"),
    "without recency": without_group("recency"),
    "without trends": without_group("trends"),
    "without last touchpoints": without_group("last"),
    "without journey": without_group("journey"),
    "without days since and between stages": without(
        lambda one: one.group == "journey" and one.fact[0] in ("entered", "between")
    ),
    "without attributes": without_group("attributes"),
    "without the columns of progress": without_group(PROGRESS),
    "with cadence and rates": with_columns(cadence),
    "with time-decayed counts": with_columns(decayed),
    "with n-grams of the last events": with_columns(bigrams),
}


def say(what: str) -> None:
    """Tell on stderr what runs."""
    print(f"  {what}", file=sys.stderr, flush=True)


def prepare(name: str, max_rows: int, seed: int, threads: int) -> Setting:
    """Build the panels of a data set's development fold."""
    require_data(name)
    config = load_config(config_file(name)).model_copy(update={"out": str(STORES / name)})
    config = config.model_copy(update={"horizons": HORIZONS.get(name, config.horizons)})
    store = ingest(config)
    engine = LocalEngine(store, threads)
    journey = observability(config, store.events, store.property_kinds).journey
    fold = last_matured(Run(config, journey, engine, store.arrival_delay, 1), parse_as_of(UNTIL[name], config.zone))
    definition = define(config, journey, engine, fold.cut)
    sparse = config.snapshots.model_copy(update={"every": 2 * config.snapshots.every})
    twice = config.model_copy(update={"snapshots": sparse})

    def panel(instants: npt.NDArray[np.int64], until: int, most: int | None) -> Panel:
        return build_panel(definition, engine, instants, until, store.arrival_delay, max_rows=most, seed=seed)

    return Setting(
        panel(training_grid(config, fold.cut), fold.cut, max_rows),
        panel(training_grid(twice, fold.cut), fold.cut, max_rows),
        panel(np.array([fold.cut], dtype=np.int64), fold.until, None),
        fold.cut,
        store.arrival_delay,
        seed,
        threads,
    )


def compare(setting: Setting, variants: Sequence[str]) -> dict[str, str]:
    """Return each variant's difference to the recipe, in thousandths of log loss; the recipe's own comes first."""
    keys = draw_keys(DRAWS, setting.seed)
    say(RECIPE)
    recipe = as_it_is(setting)
    found = {}
    for name in variants:
        say(name)
        other = evaluated(setting.test, {CHAMPION: recipe, CHALLENGER: VARIANTS[name](setting)})
        difference = decide(other, keys).difference
        star = "*" if difference.low > 0 or difference.high < 0 else ""
        found[name] = f"{1000 * difference.estimate:+.2f}{star}"
    return found


def main() -> None:
    """Compare on every data set and write the table."""
    parser = argparse.ArgumentParser(description="Take the reach model's recipe apart on development folds.")
    parser.add_argument("--max-rows", type=int, default=200_000, help="the row budget of each fit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=cpu_count(), help="no figure depends on it")
    parser.add_argument("--only", nargs="+", choices=sorted(UNTIL), default=list(UNTIL), metavar="DATA")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    chosen = parser.parse_args()
    table: dict[str, dict[str, str]] = {name: {} for name in chosen.variants}
    for k, data in enumerate(chosen.only, 1):
        print(data, file=sys.stderr)
        setting = prepare(data, chosen.max_rows, chosen.seed, chosen.threads)
        for variant, shown in compare(setting, chosen.variants).items():
            table[variant][data] = shown
        write(table, chosen.only[:k], chosen.max_rows, chosen.seed)
    print(FILE.read_text(encoding="utf-8"))


def write(table: Mapping[str, Mapping[str, str]], data: Sequence[str], max_rows: int, seed: int) -> None:
    """Write the table of the data sets that are done."""
    rows: list[dict[str, str | float | None]] = [{"variant": name, **cells} for name, cells in table.items()]
    headings = {"variant": "variant", **{name: name.replace("_", " ") for name in data}}
    folds = ", ".join(f"{name} until {UNTIL[name]}" for name in data)
    FILE.write_text(
        "# The recipe, part by part\n\nLog loss of each variant minus the recipe's, in thousandths: above 0 the recipe"
        " is better. Means over transitions and horizons weighted by customers (the return where there is one stage"
        f" only), development folds ({folds}), at most {max_rows:,} hazard rows, seed {seed}. A star marks a 95 %"
        f" interval over customers that excludes 0.\n\n{markdown_table(rows, headings)}\n"
        f"Written by `python -m benchmarks.recipes` ({today()}, commit {commit()}, {machine()}).\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
