"""The leakage audit: no answer about an instant may change with what could be known only from then on.

Four proofs of a leak (each a difference that must not be; one is of functions of one's own), and two kinds of
suspicion. The proof by another future has its own control: it counts whose answers *do* differ where they must, so that
it cannot pass because nothing was tested.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from cvj_ml.audit.arrivals import arrival_warnings
from cvj_ml.audit.backfill import backfilled_columns
from cvj_ml.audit.custom_features import ask_again
from cvj_ml.audit.perturbation import Power, perturb
from cvj_ml.audit.replay import replay
from cvj_ml.audit.sample import AuditScope, Leak, Report, Tally, draw_blocks, draw_cut_offs
from cvj_ml.audit.target_leakage import TargetLeak, target_leaks
from cvj_ml.config import Config
from cvj_ml.evaluation.folds import unteachable
from cvj_ml.models.predictor import Predictor
from cvj_ml.panel.model_spec import ModelSpec
from cvj_ml.panel.panel import build_panel
from cvj_ml.run import Run
from cvj_ml.snapshots import training_grid
from cvj_ml.store import FileTime, Store

_PANEL_ROWS = 500_000

Step = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True, slots=True)
class Findings:
    """Leaks (exit code 5), suspicions (warnings), and what was tested.

    ``replayed`` are the cut-offs at which the sources were read as they stood; ``customers`` those of the sample;
    ``scored`` is whether a model's scores were compared, too.
    """

    leaks: tuple[Leak, ...]
    target_leaks: tuple[TargetLeak, ...]
    warnings: tuple[str, ...]
    power: tuple[Power, ...]
    replayed: tuple[int, ...]
    files: tuple[FileTime, ...]
    customers: int
    scored: bool


def run_audit(
    config: Config,
    store: Store,
    definition: ModelSpec,
    predictor: Predictor | None,
    as_of: int,
    *,
    cut_offs: int,
    customers: int,
    seed: int,
    threads: int,
    step: Step,
) -> Findings:
    """Audit whole blocks of about so many customers at random cut-offs before ``as_of``.

    Raises DataError where no cut-off can be drawn, or the inputs cannot be read.
    """
    scope = AuditScope(config, draw_blocks(store, customers, threads, seed), definition, predictor)
    instants = draw_cut_offs(config, scope.sample, as_of, cut_offs, seed)
    own = Tally()
    if definition.catalogue.custom:
        with step("Asking features of your own") as progress:
            own = ask_again(scope, instants, progress)
    with step("Changing the future") as progress:
        perturbed, power = perturb(scope, instants, seed, progress)
    with step("Reading the sources as they stood") as progress:
        replayed = replay(scope, instants, progress)
    with step("Looking for backfilled columns") as progress:
        blocks = scope.sample.engine(progress).map(lambda block: block)
        leaks = [*own.leaks("repetition"), *perturbed.leaks("perturbation"), *replayed.tally.leaks("replay")]
        leaks += [
            Leak("backfill", "column", f"{one.column} is the {one.equals} of the whole log", one.customers, one.of, 0)
            for one in backfilled_columns(blocks, definition.journey.minor_units)
        ]
        warnings = [*replayed.warnings, *arrival_warnings(config, store, scope.sample.buckets)]
        warnings += [f"{one.table}.files.{one.file}: {one.reason}" for one in replayed.files if one.undecided]
    with step("Judging single features") as progress:
        suspected, not_evaluated = too_good(scope, as_of, seed, progress)
    return Findings(
        tuple(leaks),
        tuple(suspected),
        (*warnings, *not_evaluated),
        tuple(power),
        replayed.cut_offs,
        replayed.files,
        scope.sample.customers,
        predictor is not None,
    )


def too_good(scope: AuditScope, as_of: int, seed: int, progress: Report) -> tuple[list[TargetLeak], list[str]]:
    """Return the features that alone separate too well on the panel of the sample, or why none was evaluated."""
    config, store = scope.config, scope.sample.store
    sample = Run(config, scope.definition.journey, scope.sample.engine(progress), store.arrival_delay, 1)
    if len(unteachable(sample, as_of)) == len(config.horizons):
        return [], ["no single feature was judged: no horizon is over for any snapshot; audit at a later --as-of"]
    instants = training_grid(config, as_of)
    panel = build_panel(
        scope.definition,
        sample.blocks,
        instants,
        as_of,
        store.arrival_delay,
        max_rows=_PANEL_ROWS,
        seed=seed,
    )
    return target_leaks(panel), []
