"""The story of ``cvj-ml score``, ``cvj-ml targets`` and ``cvj-ml report``: one published night."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvj_ml import tracking
from cvj_ml.config import Config
from cvj_ml.lists import SPARED, People, RankedList, make_lists, read_people, summarise, with_reasons
from cvj_ml.models.bundle import Bundle
from cvj_ml.models.predictor import Predictor
from cvj_ml.pipeline.measuring import known_history
from cvj_ml.pipeline.opening import (
    Histories,
    Progress,
    Watcher,
    as_of_name,
    champion,
    open_histories,
    require_customers,
)
from cvj_ml.publish import LISTS, digest_of, publish, published_lists
from cvj_ml.report.documents import PAGE, Report, make_report, write_report
from cvj_ml.report.files import with_contact, write_night
from cvj_ml.report.quality import Training
from cvj_ml.scoring import merge_scores, score_block, scores_contract
from cvj_ml.sources import Usage
from cvj_ml.windows import before, in_window, to_datetime


@dataclass(frozen=True, slots=True)
class Night:
    """A published night: its folder, the scores, and the lists and their page where they were asked for."""

    folder: Path
    scores: pa.Table
    lists: tuple[RankedList, ...]
    usage: Usage
    model_version: str

    @property
    def page(self) -> Path | None:
        """Where the page is, None for scores alone."""
        return self.folder / PAGE if (self.folder / PAGE).is_file() else None


def publish_night(config: Config, as_of: int, watcher: Watcher, *, with_lists: bool) -> Night:
    """Score every eligible customer with the champion, rank the lists, make their page, publish all in one step."""
    started = time.time()
    people = read_people(config) if with_lists else None
    histories = open_histories(config, watcher)
    usage = require_customers(histories, as_of, watcher)
    with watcher.step("Fetching the champion"):
        bundle = champion(config, histories.visible)
    with watcher.step("Scoring") as progress:
        scores = score(histories, bundle.predictor, bundle.version, as_of, progress)
    lists: tuple[RankedList, ...] = ()
    report: Report | None = None
    history = known_history(config, as_of) if with_lists else pd.DataFrame()
    spared = listed_in_control(config, as_of)
    if people is not None:
        with watcher.step("Ranking the lists") as progress:
            unobserved, record = histories.visible.unobserved, bundle.track_record
            engine = histories.engine(progress)
            lists = make_lists(config, people, engine, scores, unobserved, as_of, record, spared)
        with watcher.step("Giving reasons") as progress:
            lists = with_reasons(lists, bundle.predictor, histories.engine(progress), as_of)
        report = report_of(histories, bundle, as_of, scores, lists, people, usage, history, watcher)
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
    if people is not None and len(spared):
        facts["spared"] = digest_of(spared.to_pydict())
    if len(history):
        facts["history"] = digest_of(history.to_dict("list"))
    run = {"started": started, "seconds": round(time.time() - started, 3), "host": platform.node()}
    folder = publish(
        Path(config.out),
        as_of_name(config, as_of),
        digest_of(facts, [one.name for one in lists], *(["report"] if report else [])),
        facts,
        run,
        lambda staged: {
            **write_night(
                staged, scores, lists, people, report.worksheet if report else None, as_of_name(config, as_of)
            ),
            **(write_report(report, staged) if report else {}),
        },
    )
    return Night(folder, scores, lists, usage, bundle.version)


def report_of(
    histories: Histories,
    bundle: Bundle,
    as_of: int,
    scores: pa.Table,
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


def score(
    histories: Histories, predictor: Predictor, model_version: str, as_of: int, progress: Progress | None = None
) -> pa.Table:
    """Return SCORES of every eligible customer; DataError where there is none."""
    parts = histories.engine(progress).map(lambda block: score_block(predictor, block, as_of, model_version))
    scores = merge_scores(parts)
    scores_contract(predictor.definition).check(scores)
    return scores


def listed_in_control(config: Config, as_of: int) -> pa.Table:
    """Return `SPARED` of the published nights, as far back as a contact cap looks."""
    caps, parts = config.eligibility.contact_caps, [SPARED.empty_table()]
    for folder in published_lists(Path(config.out)) if caps else []:
        for file in sorted((folder / LISTS).glob("*__*.parquet")):
            rows = pq.read_table(file, columns=[*SPARED.names, "group"])
            rows = rows.filter(pc.equal(rows["group"], "control")).select(SPARED.names).cast(SPARED)
            night = rows["as_of"].to_numpy()
            parts.append(rows.filter(before(night, as_of) & in_window(night, as_of, max(cap.within for cap in caps))))
    return pa.concat_tables(parts)


_PLACES = {"sources", "attributes", "contact", "suppression", "consent", "measure", "mlflow", "engine", "out"}


def config_digest(config: Config) -> str:
    """Return a digest of every setting that can change a list; where things lie does not."""
    return digest_of(config.model_dump(mode="json", exclude=_PLACES))
