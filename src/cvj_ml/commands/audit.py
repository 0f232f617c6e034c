"""The story of ``cvj-ml audit``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cvj_ml import tracking
from cvj_ml.audit.leakage import Findings, run_audit
from cvj_ml.config import Config
from cvj_ml.errors import ModelError
from cvj_ml.inputs import open_histories, require_customers, require_same
from cvj_ml.journey import Visible
from cvj_ml.models.bundle.bundle import Bundle
from cvj_ml.night.champion import champion
from cvj_ml.panel.model_spec import define
from cvj_ml.run import Watcher
from cvj_ml.scoring.opening import open_bundle


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
    require_customers(histories, as_of)
    with watcher.step("Fetching the model"):
        model = model_to_audit(config, histories.visible, bundle)
    with watcher.step("Learning the vocabulary") as progress:
        definition = define(config, histories.visible.journey, histories.engine(progress), as_of)
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
        opened = open_bundle(bundle, functions=config.features.functions)
        require_same("bundle", str(bundle), opened, config, visible)
        return opened
    try:
        versions = tracking.list_versions(config)
    except ModelError:
        return None  # no registry yet
    return champion(config, visible) if any("champion" in one.aliases for one in versions) else None
