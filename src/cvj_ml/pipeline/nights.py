"""The story of ``cvj-ml score``, ``cvj-ml targets`` and ``cvj-ml report``: one published night."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from cvj_ml import tracking
from cvj_ml.config import Config
from cvj_ml.lists import People, RankedList, rank, read_people, summarise, with_reasons
from cvj_ml.models.bundle import Bundle
from cvj_ml.pipeline.measuring import known_history
from cvj_ml.pipeline.opening import (
    Histories,
    Watcher,
    as_of_name,
    champion,
    open_histories,
    require_customers,
)
from cvj_ml.pipeline.scores import score, work_folder
from cvj_ml.pipeline.sparing import listed_in_control
from cvj_ml.publish import digest_of, publish
from cvj_ml.report.documents import PAGE, Report, make_report, write_report
from cvj_ml.report.files import SCORES, with_contact, write_night
from cvj_ml.report.quality import Training
from cvj_ml.scoring import StoredTable
from cvj_ml.sources import Usage
from cvj_ml.windows import to_datetime


@dataclass(frozen=True, slots=True)
class Night:
    """A published night: its folder, the scores, and the lists and their page where they were asked for."""

    folder: Path
    scores: StoredTable
    lists: tuple[RankedList, ...]
    usage: Usage
    model_version: str

    @property
    def page(self) -> Path | None:
        """Where the page is, None for scores alone."""
        return self.folder / PAGE if (self.folder / PAGE).is_file() else None


def publish_night(config: Config, as_of: int, watcher: Watcher, *, with_lists: bool, resume: bool = False) -> Night:
    """Score every eligible customer with the champion, rank the lists, make their page, publish all in one step.

    With ``resume`` the blocks that an earlier run of the same night finished are not scored again.
    """
    started = time.time()
    people = read_people(config) if with_lists else None
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of, watcher)
    with watcher.step("Fetching the champion"):
        bundle = champion(config, histories.visible)
    work = work_folder(histories, bundle.digest, config_digest(config), as_of, with_lists=with_lists, resume=resume)
    with watcher.step("Scoring") as progress:
        scored = score(
            histories, bundle.predictor, bundle.version, as_of, work, progress, history=with_lists, resume=resume
        )
    scores = StoredTable.at(scored.scores)
    lists: tuple[RankedList, ...] = ()
    report: Report | None = None
    spared = listed_in_control(config, as_of)
    measured = known_history(config, as_of) if with_lists else pd.DataFrame()
    if people is not None:
        with watcher.step("Ranking the lists"):
            unobserved, record = histories.visible.unobserved, bundle.track_record
            history = StoredTable.at(scored.history) if scored.history else None
            lists = rank(
                config,
                scores,
                unobserved,
                as_of,
                record,
                history=history,
                permissions=people.permissions,
                spared=spared,
            )
        with watcher.step("Giving reasons") as progress:
            lists = with_reasons(lists, bundle.predictor, histories.engine(progress), as_of)
        report = report_of(histories, bundle, as_of, scores, lists, people, usage, measured, watcher)
    facts = {
        "as_of": to_datetime(as_of, config.zone).isoformat(),
        "store": histories.store.key,
        "model": bundle.digest,
        "config": config_digest(config),
        "counts": {name: asdict(counts) for name, counts in histories.store.counts.items()},
        "rows": {"used": usage.used, "not_yet_visible": usage.not_yet_visible, "superseded": usage.superseded},
        "inputs": dict(histories.store.fingerprints),
    }
    if people is not None:
        # By content: where these tables lie, and in how many files, changes no list.
        facts["people"] = {name: digest_of(table.to_pydict()) for name, table in people.tables().items()}
        facts["lists"] = summarise(lists).to_pylist()
        if len(spared):
            facts["spared"] = digest_of(spared.to_pydict())
    if len(measured):
        facts["history"] = digest_of(measured.to_dict("list"))
    run = {"started": started, "seconds": round(time.time() - started, 3), "host": platform.node()}
    folder = publish(
        Path(config.out),
        as_of_name(config, as_of),
        digest_of(facts, [one.name for one in lists], *(["report"] if report else [])),
        facts,
        run,
        lambda staged: {
            **write_night(
                staged, scored.scores, lists, people, report.worksheet if report else None, as_of_name(config, as_of)
            ),
            **(write_report(report, staged) if report else {}),
        },
    )
    shutil.rmtree(work.parent, ignore_errors=True)
    return Night(folder, StoredTable.at(folder / SCORES), lists, usage, bundle.version)


def report_of(
    histories: Histories,
    bundle: Bundle,
    as_of: int,
    scores: StoredTable,
    lists: tuple[RankedList, ...],
    people: People,
    usage: Usage,
    history: pd.DataFrame,
    watcher: Watcher,
) -> Report:
    """Make the page and the worksheet of a night."""
    logged = tracking.find_training(histories.config, bundle.digest)
    with watcher.step("Making the page") as progress:
        return make_report(
            histories.config,
            histories.store,
            histories.visible.unobserved,
            histories.engine(progress),
            as_of,
            scores,
            [replace(one, rows=with_contact(one.rows, people.contact)) for one in lists],
            usage,
            bundle.version,
            Training.of(logged.cut, logged.parameters, logged.metrics) if logged else None,
            history,
        )


_PLACES = {"sources", "attributes", "contact", "suppression", "consent", "measure", "gates", "mlflow", "engine", "out"}


def config_digest(config: Config) -> str:
    """Return a digest of every setting that can change a list; where things lie does not."""
    return digest_of(config.model_dump(mode="json", exclude=_PLACES))
