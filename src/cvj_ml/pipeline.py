"""Each command's story, in one short function."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import cpu_count

from cvj_ml import tracking
from cvj_ml.config import Config
from cvj_ml.engines import LocalEngine
from cvj_ml.errors import DataError, ModelError, raise_all
from cvj_ml.evaluation.backtest import FoldResult, run_fold
from cvj_ml.evaluation.challenge import challenge
from cvj_ml.evaluation.folds import Fold, last_matured, require_teachable, rolling
from cvj_ml.evaluation.record import evidence, touchpoint_columns
from cvj_ml.evaluation.stages import FitOfStages, fit_and_judge
from cvj_ml.evaluation.track_record import track_record
from cvj_ml.evaluation.verdict import Verdict, undecided
from cvj_ml.histories import Block
from cvj_ml.journey import Visible, observability, stage_at
from cvj_ml.lists import RankedList, list_specs, rank
from cvj_ml.models.agreement import differences
from cvj_ml.models.bundle import Bundle, save
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.monitoring.audit import Findings, run_audit
from cvj_ml.panel import Definition, Panel, build_panel, define
from cvj_ml.publish import digest_of, publish
from cvj_ml.report.documents import PAGE, Report, make_report, write_report
from cvj_ml.report.quality import Training
from cvj_ml.scoring import make_canary, merge_scores, open_bundle, score_block, scores_contract
from cvj_ml.snapshots import eligible, training_grid
from cvj_ml.sources import Store, Usage, account, ingest
from cvj_ml.stage_panel import Tracking
from cvj_ml.windows import midnight, to_datetime, to_microseconds

Progress = Callable[[int, int], None]
Promote = Literal["auto", "always", "never"]


class Watcher(Protocol):
    """Who is told what a command does."""

    def say(self, message: str) -> None:
        """Show a line."""

    def step(self, title: str) -> AbstractContextManager[Progress]:
        """Show a step that takes a while; the callable is told (done, of)."""


class Silent:
    """Tells nobody."""

    def say(self, message: str) -> None:
        """Show nothing."""

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show nothing."""
        yield lambda done, of: None


@dataclass(frozen=True, slots=True)
class Histories:
    """The customers of a configuration: the store, an engine over it, and the stages that can be seen."""

    config: Config
    store: Store
    visible: Visible
    threads: int

    def engine(self, progress: Progress | None = None) -> LocalEngine:
        """Return an engine over the store's blocks."""
        return LocalEngine(self.store, self.threads, progress)


def open_histories(config: Config, watcher: Watcher) -> Histories:
    """Read the sources into the store (or find it there) and compare the journey with what occurs."""
    with watcher.step("Reading sources"):
        store = ingest(config)
    visible = observability(config, store.events, store.property_kinds)
    for warning in visible.warnings:
        watcher.say(f"warning: {warning}")
    list_specs(config, visible.unobserved)  # lists that cannot be made are told before hours of training
    return Histories(config, store, visible, config.engine.threads or cpu_count())


def training_panel(histories: Histories, cut: int, watcher: Watcher) -> Panel:
    """Build the panel of everything that was visible before the cut."""
    config, store = histories.config, histories.store
    require_teachable(config, cut, store.arrival_delay, "Training")
    with watcher.step("Building the panel") as progress:
        engine = histories.engine(progress)
        definition = define(config, histories.visible.unobserved, engine, cut)
        return build_panel(
            definition,
            engine,
            training_grid(config, cut),
            cut,
            store.arrival_delay,
            max_rows=config.model.max_rows,
            seed=config.model.seed,
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """A registered model, the fold that its metrics come from, and the fit of the current stage where there is one."""

    version: tracking.ModelVersion
    fold: FoldResult
    usage: Usage
    verdict: Verdict
    stages: FitOfStages | None


def train(config: Config, as_of: int, watcher: Watcher, promote: Promote = "auto") -> Trained:
    """Report the last matured fold once, compare with the champion, refit at ``as_of``, register, promote.

    promote: ``auto`` by the rule of `decide`, ``always`` or ``never``; the first version of a name is the champion.
    """
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of, watcher)
    # The panel at as_of has more room than the fold before it: what is too long even for it is named alone.
    require_teachable(config, as_of, histories.store.arrival_delay, "Training")
    fold = last_matured(config, as_of, histories.store.arrival_delay)
    result = backtest_fold(histories, fold.cut, fold.until, watcher)
    with watcher.step("Keeping the track record"):
        record_of_fold = track_record(result, histories.engine(), histories.store.arrival_delay, histories.threads)
    verdict = judge_challenger(histories, result, promote, watcher)
    panel = training_panel(histories, as_of, watcher)
    with watcher.step("Refitting at as_of") as progress:
        fit = fit_reach(
            panel,
            as_of,
            histories.store.arrival_delay,
            config.model.seed,
            histories.threads,
            progress=progress,
        )
    posterior = true_stages(histories, panel.definition, as_of, watcher)
    predictor = Predictor(panel.definition, fit.trees, fit.calibration, posterior.model if posterior else None)
    names = np.array(["return", *config.journey.names])
    if len(weak := names[fit.trees.low & panel.labels.asked.any(axis=0)]):
        watcher.say(
            f"warning: too few customers moved to learn from, so these targets rest on base rates by stage and"
            f" recency: {', '.join(weak)}. Scores name them in low_evidence."
        )
    with watcher.step("Registering the model"), tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch, "bundle")
        digest = save(predictor, make_canary(predictor, as_of, config.model.seed), bundle, record_of_fold)
        opened = open_bundle(bundle, digest)
        found = evidence(predictor, panel, result, fit, posterior)
        record = tracking.TrainingRecord(
            parameters={"as_of": to_datetime(as_of, config.zone).isoformat(), **found.parameters},
            cut=to_datetime(as_of, config.zone).isoformat(),
            inputs=histories.store.fingerprints,
            metrics=found.metrics,
            bundle=bundle,
            digest=digest,
            example_input=touchpoint_columns(histories.store.property_kinds),
            example_output=opened.canary.scores.slice(0, 1).to_pandas(),
            tables=found.tables,
            figures=found.figures,
            tags={"verdict": verdict.sentence, "verdict_numbers": verdict.as_json()},
        )
        # The canary of what is promoted was scored when the bundle was opened, above.
        version = tracking.log_training(config, record)
        if verdict.promote:
            version = tracking.promote(config, version.version)
    return Trained(version, result, usage, verdict, posterior)


def judge_challenger(histories: Histories, result: FoldResult, promote: Promote, watcher: Watcher) -> Verdict:
    """Return whether the recipe of a fold replaces the champion."""
    config, present = histories.config, tracking.find_champion(histories.config)
    if present is None:
        return undecided(True, "Promoted: there was no champion.")
    if promote != "auto":
        by_hand = {"always": "Promoted", "never": "Kept the champion"}[promote]
        return undecided(promote == "always", f"{by_hand}: asked for by --promote {promote}, nothing was compared.")
    if not present.cut:
        return undecided(False, "Kept the champion: it was imported, so nobody knows which outcomes it has seen.")
    try:
        bundle = champion(config, histories.visible)
    except ModelError as error:
        watcher.say(f"warning: {error}")
        return undecided(False, "Kept the champion, which cannot be compared under this configuration.")
    with watcher.step("Comparing with the champion"):
        return challenge(
            config,
            result,
            bundle.predictor,
            to_microseconds(datetime.fromisoformat(present.cut)),
            histories.engine(),
            histories.visible.unobserved,
            histories.store.arrival_delay,
            histories.threads,
        )


def true_stages(histories: Histories, definition: Definition, cut: int, watcher: Watcher) -> FitOfStages | None:
    """Fit and judge the posterior of the true stage at the cut; None where no coverage is declared."""
    if not histories.config.coverage:
        return None
    with watcher.step("Fitting the current stage") as progress:
        found = fit_and_judge(
            definition,
            Tracking.of(histories.config),
            histories.engine(progress),
            cut,
            histories.config.model.seed,
            histories.threads,
        )
    for warning in found.warnings(definition.journey.names):
        watcher.say(f"warning: {warning}")
    return found


def backtest_fold(histories: Histories, cut: int, until: int, watcher: Watcher) -> FoldResult:
    """Fit at a past instant and judge by what came after."""
    with watcher.step(f"Backtest at {to_datetime(cut, histories.config.zone).date()}") as progress:
        return run_fold(
            histories.config,
            histories.engine(),
            histories.visible.unobserved,
            Fold(cut, until),
            histories.store.arrival_delay,
            histories.threads,
            progress,
        )


def backtest(config: Config, until: int, folds: int, watcher: Watcher) -> list[FoldResult]:
    """Refit and judge at rolling instants up to ``until``, the oldest first."""
    histories = open_histories(config, watcher)
    require_customers(histories, until, watcher)
    return [
        backtest_fold(histories, fold.cut, fold.until, watcher)
        for fold in rolling(config, until, histories.store.arrival_delay, folds)
    ]


def require_customers(histories: Histories, as_of: int, watcher: Watcher) -> Usage:
    """Account for every row at an instant; DataError where nothing is visible before it."""
    with watcher.step("Counting rows") as progress:
        parts = histories.engine(progress).map(lambda block: account(block, as_of))
    usage = sum(parts, Usage(0, 0, 0))
    stored = sum(counts.stored for counts in histories.store.counts.values())
    if usage.used + usage.not_yet_visible + usage.superseded != stored:
        raise AssertionError(f"{stored} rows are stored, {usage} are accounted for")
    if not usage.used:
        day = to_datetime(as_of, histories.config.zone).date()
        raise DataError(
            f"No touchpoint is visible before {day}: all {stored} stored rows come later. Check --as-of, the time"
            f" zone (times:) and known_at of the sources."
        )
    return usage


@dataclass(frozen=True, slots=True)
class Night:
    """A published night: its folder, the scores, and the lists and their page where they were asked for."""

    folder: Path
    scores: pa.Table
    lists: tuple[RankedList, ...]
    usage: Usage
    model_version: str

    @property
    def page(self) -> Path:
        """Where the page is."""
        return self.folder / PAGE


def publish_night(config: Config, as_of: int, watcher: Watcher, *, with_lists: bool) -> Night:
    """Score every eligible customer with the champion, rank the lists, make their page, publish all in one step."""
    started = time.time()
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of, watcher)
    with watcher.step("Fetching the champion"):
        bundle = champion(config, histories.visible)
    with watcher.step("Scoring") as progress:
        scores = score(histories, bundle.predictor, bundle.version, as_of, progress)
    unobserved = histories.visible.unobserved
    lists = tuple(rank(config, scores, unobserved, as_of, bundle.track_record)) if with_lists else ()
    report = report_of(histories, bundle, as_of, scores, lists, usage, watcher) if with_lists else None
    facts = {
        "as_of": to_datetime(as_of, config.zone).isoformat(),
        "store": histories.store.key,
        "model": bundle.digest,
        "config": config_digest(config),
        "counts": {name: asdict(counts) for name, counts in histories.store.counts.items()},
        "rows": {"used": usage.used, "not_yet_visible": usage.not_yet_visible, "superseded": usage.superseded},
        "inputs": dict(histories.store.fingerprints),
    }
    run = {"started": started, "seconds": round(time.time() - started, 3), "host": platform.node()}
    folder = publish(
        Path(config.out),
        as_of_name(config, as_of),
        digest_of(facts, [one.name for one in lists], *(["report"] if report else [])),
        facts,
        run,
        lambda staged: {**write_night(staged, scores, lists), **(write_report(report, staged) if report else {})},
    )
    return Night(folder, scores, lists, usage, bundle.version)


def report_of(
    histories: Histories,
    bundle: Bundle,
    as_of: int,
    scores: pa.Table,
    lists: tuple[RankedList, ...],
    usage: Usage,
    watcher: Watcher,
) -> Report:
    """Make the page and the worksheet of a night."""
    config, logged = histories.config, tracking.find_training(histories.config, bundle.digest)
    training = Training.of(logged.cut, logged.parameters, logged.metrics) if logged else None
    with watcher.step("Making the page") as progress:
        return make_report(
            config,
            histories.store,
            histories.visible.unobserved,
            histories.engine(progress),
            as_of,
            scores,
            lists,
            usage,
            bundle.version,
            training,
        )


def score(
    histories: Histories, predictor: Predictor, model_version: str, as_of: int, progress: Progress | None = None
) -> pa.Table:
    """Return SCORES of every eligible customer; DataError where there is none."""
    parts = histories.engine(progress).map(lambda block: score_block(predictor, block, as_of, model_version))
    scores = merge_scores(parts)
    scores_contract(predictor.definition).check(scores)
    return scores


def champion(config: Config, visible: Visible) -> Bundle:
    """Fetch, verify and open the champion; ModelError where it answers for another journey."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, version = tracking.fetch_champion(config, Path(scratch))
        bundle = open_bundle(folder, version.digest)
    require_same("champion", f"{version.name} version {version.version}", bundle, config, visible)
    return bundle


def require_same(kind: str, name: str, bundle: Bundle, config: Config, visible: Visible) -> None:
    """Raise ModelError where a model does not answer for the configuration's journey and data."""
    raise_all(
        ModelError,
        f"The {kind} {name} does not answer for this configuration; run `cvj-ml train --promote always` with it, or go"
        f" back to the settings that the {kind} was trained with:",
        differences(bundle.predictor, config, visible),
    )


def write_night(staged: Path, scores: pa.Table, lists: tuple[RankedList, ...]) -> Mapping[str, int]:
    """Write scores and lists into a folder and return the rows of each file."""
    rows = {"scores/scores.parquet": len(scores)}
    (staged / "scores").mkdir()
    pq.write_table(scores, staged / "scores" / "scores.parquet")
    if lists:
        (staged / "targets").mkdir()
    for one in lists:
        pq.write_table(one.rows, staged / "targets" / f"{one.name}.parquet")
        one.rows.to_pandas().to_csv(staged / "targets" / f"{one.name}.csv", index=False, lineterminator="\n")
        rows |= {f"targets/{one.name}.{kind}": len(one.rows) for kind in ("parquet", "csv")}
    return rows


def as_of_name(config: Config, instant: int) -> str:
    """Return the date of a midnight, or the whole instant in a form fit for a file name."""
    local = to_datetime(instant, config.zone)
    return local.date().isoformat() if instant == midnight(local.date(), config.zone) else f"{local:%Y-%m-%dT%H%M%S}"


def config_digest(config: Config) -> str:
    """Return a digest of every setting that can change a list; where things lie does not."""
    return digest_of(config.model_dump(mode="json", exclude={"sources", "attributes", "mlflow", "engine", "out"}))


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: rows by source, events, and customers per observed stage."""

    histories: Histories
    usage: Usage
    stages: pd.DataFrame


def check(config: Config, as_of: int, watcher: Watcher) -> Checked:
    """Read everything and show what the configuration makes of it, without training."""
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of, watcher)
    with watcher.step("Observing stages") as progress:
        engine = histories.engine(progress)
        definition = define(config, histories.visible.unobserved, engine, as_of)

        def count(block: Block) -> npt.NDArray[np.int64]:
            snapshots = eligible(block.touchpoints, np.array([as_of], dtype=np.int64))
            stage = stage_at(definition.entries(block)[snapshots.customer], as_of).stage
            return np.bincount(stage.astype(np.int64) + 1, minlength=1 + len(config.journey.stages))

        totals = np.sum(engine.map(count), axis=0)
    names = ["(before any)", *config.journey.names]
    seen = ["", *("no" if name in histories.visible.unobserved else "yes" for name in config.journey.names)]
    return Checked(histories, usage, pd.DataFrame({"stage": names, "observed": seen, "customers": totals}))


@dataclass(frozen=True, slots=True)
class Audited:
    """What the audit found, and the version of the model whose scores were compared (None: no model)."""

    findings: Findings
    model_version: str | None


def audit(
    config: Config, as_of: int, watcher: Watcher, *, bundle: Path | None, cut_offs: int, customers: int, seed: int
) -> Audited:
    """Look for answers that know their future: of a bundle, or else of the champion, or else of features alone."""
    histories = open_histories(config, watcher)
    require_customers(histories, as_of, watcher)
    with watcher.step("Fetching the model"):
        model = model_to_audit(config, histories.visible, bundle)
    with watcher.step("Learning the vocabulary") as progress:
        definition = define(config, histories.visible.unobserved, histories.engine(progress), as_of)
    findings = run_audit(
        config,
        histories.store,
        definition,
        model.predictor if model else None,
        as_of,
        cut_offs=cut_offs,
        customers=customers,
        seed=seed,
        threads=histories.threads,
        step=watcher.step,
    )
    return Audited(findings, model.version if model else None)


def model_to_audit(config: Config, visible: Visible, bundle: Path | None) -> Bundle | None:
    """Open a bundle, or else the champion; None where nothing was trained yet."""
    if bundle is not None:
        opened = open_bundle(bundle)
        require_same("bundle", str(bundle), opened, config, visible)
        return opened
    try:
        versions = tracking.list_versions(config)
    except ModelError:
        return None  # no registry yet
    return champion(config, visible) if any("champion" in one.aliases for one in versions) else None
