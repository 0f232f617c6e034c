"""One night: how it is made, published and handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.commands.night_gates import OBSERVED, Gatekeeper
from cvj_ml.commands.night_inputs import NightInputs, config_digest, rows_by_outcome
from cvj_ml.config import Config, play_channels
from cvj_ml.customers import People
from cvj_ml.exports import EXPORTS
from cvj_ml.exports.export_files import Exported, make_exports, segments_of, write_exports
from cvj_ml.inputs import Histories, as_of_name, by_account
from cvj_ml.lists import BASES
from cvj_ml.lists.changes import (
    NOT_COMPARABLE,
    NOTHING_BEFORE,
    Changes,
    NotComparable,
    compare,
    count_stages,
    reasons_tonight,
    with_changes,
)
from cvj_ml.lists.control import control_group
from cvj_ml.lists.ranked_list import RankedList, list_specs, require_columns
from cvj_ml.lists.ranking import rank
from cvj_ml.lists.reasons import with_reasons
from cvj_ml.lists.standing import Standing, on_plan
from cvj_ml.models.predictor import Predictor
from cvj_ml.night.champion import Champion
from cvj_ml.night.delivery import deliver
from cvj_ml.night.layout import LISTS
from cvj_ml.night.scores import score, work_folder
from cvj_ml.night.timings import Stations
from cvj_ml.night.writing import Published, digest_of, find_night, publish
from cvj_ml.ownership import remove
from cvj_ml.panel.calendar import Period, changed_periods
from cvj_ml.report.list_files import with_contact, write_night
from cvj_ml.report.page import PAGE, Documents, make_report, write_report
from cvj_ml.report.what_changed import WhatChanged, what_changed
from cvj_ml.report.wording import TrainedModel
from cvj_ml.report.workbook import BookFacts
from cvj_ml.run import Watcher
from cvj_ml.scoring import SCORES
from cvj_ml.scoring.scores_table import StoredTable, scores_contract
from cvj_ml.store import Usage


@dataclass(frozen=True, slots=True)
class Night:
    """A published night, made now or found: where it is, and what it was made from."""

    published: Published
    as_of: str
    facts: Mapping[str, Any]
    champion: Champion

    @property
    def folder(self) -> Path:
        """The night's folder."""
        return self.published.folder

    @property
    def scores(self) -> StoredTable:
        """The scores, as published."""
        return StoredTable.at(self.folder / SCORES)

    @property
    def page(self) -> Path | None:
        """Where the page is; None where it went with customers who were forgotten, or nothing was published."""
        return self.folder / PAGE if (self.folder / PAGE).is_file() else None

    @property
    def lists(self) -> list[dict[str, Any]]:
        """The summary of the lists, a row each; none where they were not asked for."""
        return list(self.facts.get("lists", ()))

    def rows(self, name: str) -> pa.Table:
        """Return the rows of a list, as published."""
        return pq.read_table(self.folder / LISTS / f"{name}.parquet", partitioning=None)

    def summary(self, use: str) -> dict[str, Any]:
        """Return what a webhook is told: counts and names of lists, never people, and no path of this machine."""
        told = {name: value for name, value in self.as_document().items() if name not in ("night", "page")}
        return {"use": use, "night": self.folder.name, **told, "exports": list(self.facts.get("exports", ()))}

    @property
    def model_version(self) -> str:
        """The ``model_version`` of the scores."""
        return self.champion.bundle.version

    def as_document(self) -> dict[str, Any]:
        """Return what became of the night as plain data."""
        return {
            "night": str(self.folder),
            "as_of": self.as_of,
            "instant": self.facts["as_of"],
            "outcome": self.published.outcome,
            "current": self.published.current,
            "page": str(self.page) if self.page else None,
            "customers": self.facts[OBSERVED]["customers"],
            "model_version": self.model_version,
            "model_source": self.champion.source,
            "lists": {one["list"]: one["listed"] for one in self.lists},
            "exports": {one["export"]: one["written"] for one in self.facts.get("exports", ())},
            "people": self.facts[OBSERVED].get("people", {}),
            "rows": rows_by_outcome(self.facts),
        }


def make_night(
    histories: Histories,
    people: People | None,
    champion: Champion,
    usage: Usage,
    as_of: int,
    run: Stations,
    *,
    resume: bool = False,
    dry_run: bool = False,
) -> Night:
    """Make and publish one night with a pinned champion; the caller holds the lock of the output folder.

    It has no lists where no people were read. Nothing is published where a gate fails. A night that has passed its
    gates, is published and whole is found and not made again, so a run that goes on after a failure is soon where it
    stopped.
    """
    config, bundle = histories.config, champion.bundle
    out, name = Path(config.out), as_of_name(config, as_of)
    read = NightInputs.read(histories, people, champion, usage, as_of)
    facts = read.facts()
    if read.people is not None:
        read.people.require_unchanged()
    if found := find_night(out, name, facts, with_lists=read.with_lists, watched=run.watched, dry_run=dry_run):
        published, facts = found
        if not dry_run:
            hand_over(config, published.folder, run)
        return Night(published, name, facts, champion)
    _warn_of_other_settings(config, bundle.predictor, as_of, run)
    if read.with_lists:
        wanted = scores_contract(bundle.predictor.definition).columns
        require_columns(config, list_specs(config, histories.visible.journey), wanted)
    with run.step("Looking at the sources"):
        gates = Gatekeeper.of(histories, as_of, read.people)
        run.enforce(gates.before_scoring(bundle.predictor))
        # Past nights are evaluated by the rules, which sources that have changed their columns may not fit.
        run.enforce(gates.quality(bundle.version))
    work = work_folder(
        histories, bundle.digest, config_digest(config), as_of, with_lists=read.with_lists, resume=resume
    )
    with run.step("Scoring") as progress:
        scored = score(
            histories, bundle.predictor, bundle.version, as_of, work, progress, history=read.with_lists, resume=resume
        )
        run.enforce(gates.after_scoring(bundle.predictor, scored.counts))
    scores = StoredTable.at(scored.scores)
    listed = _list(read, scores, StoredTable.at(scored.history) if scored.history else None, run)
    exports = _export(read, scores, listed, run)
    counts = [one.counts for one in exports]
    report = _report(read, scores, listed, counts, run)
    facts |= {OBSERVED: gates.observed(len(scores)), "stages": listed.stages}
    if read.with_lists:
        facts |= {"lists": with_changes(listed.lists, listed.changes).to_pylist()}
        facts |= {"changes": listed.changes.as_document(config.zone)}
    if exports:
        facts["exports"] = counts
    book = BookFacts(name, report.plan, report.worksheet, listed.changed, counts)

    def write(staged: Path) -> Mapping[str, int]:
        with run.step("Writing the night"):
            rows = write_night(staged, scored.scores, listed.lists, listed.people, book, listed.changes)
            rows = {**rows, **write_report(report, staged)}
            if config.exports is not None and exports:
                made = write_exports(staged / EXPORTS, exports, config.exports.merge, name)
                rows |= {f"{EXPORTS}/{file}": count for file, count in made.items()}
            if listed.people is not None:
                listed.people.require_unchanged()
            return rows

    digest = digest_of(facts, [one.name for one in listed.lists], "report")
    published = publish(out, name, digest, facts, lambda: run.document(champion), write, dry_run=dry_run)
    remove(work.parent)
    if not dry_run:
        hand_over(config, published.folder, run)
    return Night(published, name, facts, champion)


def _warn_of_other_settings(config: Config, predictor: Predictor, as_of: int, run: Stations) -> None:
    """Say where the model holds what the configuration no longer says, or does not know what it says now."""
    added, removed = changed_periods(config.calendar, predictor.definition.calendar, as_of, config.zone)
    if added:
        run.say(
            f"warning: {len(added)} period(s) of the configuration's calendar ({_kinds(added)}) are not in the model,"
            " which holds what was known at its training. They change no score until `cvj-ml train`."
        )
    if removed:
        run.say(
            f"warning: {len(removed)} period(s) of the model's calendar ({_kinds(removed)}) are no longer in the"
            " configuration. They count in scores until `cvj-ml train`."
        )
    if predictor.segments is not None and predictor.segments.spec != config.segments:
        run.say(
            "warning: segments: the configuration has other settings than the model, which keeps those of its training."
            " They change no segment until `cvj-ml train`."
        )


@dataclass(frozen=True, slots=True)
class _Listed:
    """The lists of a night with the people of their accounts, how many stand in each stage, and what changed."""

    lists: tuple[RankedList, ...]
    stages: Mapping[str, int]
    people: People | None = None
    changes: Changes = NOTHING_BEFORE
    changed: WhatChanged | None = None


def _list(read: NightInputs, scores: StoredTable, history: StoredTable | None, run: Stations) -> _Listed:
    """Rank the lists, compare them with the base nights and give reasons; without people there are none."""
    histories, bundle, as_of = read.histories, read.champion.bundle, read.as_of
    config, stages = histories.config, count_stages(scores)
    if read.people is None or read.bases is None:
        return _Listed((), stages)
    with run.step("Ranking the lists"):
        people = by_account(read.people, histories, as_of)
        earlier = read.bases.standings(read.identities)
        lists = rank(
            config,
            scores,
            histories.visible.journey,
            as_of,
            bundle.evidence,
            history=history,
            permissions=people.permissions,
            exposures=read.exposures,
            asked=on_plan(one for one in earlier.values() if isinstance(one, Standing)),
            identities=read.identities,
        )
        for one in earlier.values():
            if isinstance(one, NotComparable) and one.reason != "no_night":
                run.say(f"warning: not compared with {BASES[one.base]}: {NOT_COMPARABLE[one.reason]}.")
        changes = changes_of(config, as_of, scores, lists, earlier)
        tonight = {"as_of": read.local_time, "stages": stages}
        changed = what_changed(changes, [*read.bases.trend, tonight], config.journey, config.zone)
    with run.step("Giving reasons") as progress:
        lists = with_reasons(lists, bundle.predictor, histories.engine(progress), as_of, config)
    return _Listed(lists, stages, people, changes, changed)


def _export(read: NightInputs, scores: StoredTable, listed: _Listed, run: Stations) -> tuple[Exported, ...]:
    """Make the files that other tools read, where the configuration asks for some."""
    config = read.histories.config
    if config.exports is None or listed.people is None or read.bases is None:
        return ()
    with run.step("Preparing the exports"):
        control, epoch = control_group(config, scores, read.as_of, read.identities)
        return make_exports(
            config.exports,
            {one.name: one.rows for one in listed.lists},
            listed.people.contact,
            listed.people.permissions,
            control,
            epoch,
            play_channels(config.journey),
            read.bases.exports(),
            segments_of(scores) if "segments" in config.exports.files else {},
        )


def changes_of(
    config: Config,
    as_of: int,
    scores: StoredTable,
    lists: Sequence[RankedList],
    earlier: Mapping[str, Standing | NotComparable],
) -> Changes:
    """Return what changed tonight since the base nights."""
    tonight = Standing.of(as_of, scores, {one.name: one.rows for one in lists})
    why, stages = reasons_tonight(lists), config.journey.names
    return Changes(
        tuple(
            compare(base, one, tonight, why, stages) if isinstance(one, Standing) else one
            for base, one in earlier.items()
        )
    )


def _report(
    read: NightInputs, scores: StoredTable, listed: _Listed, exports: Sequence[Mapping[str, Any]], run: Stations
) -> Documents:
    """Make the page and the worksheet of a night."""
    histories, champion, people = read.histories, read.champion, listed.people
    logged = champion.training
    with run.step("Making the page") as progress:
        report = make_report(
            histories.config,
            histories.store,
            histories.visible.journey,
            histories.engine(progress),
            read.as_of,
            scores,
            [replace(one, rows=with_contact(one.rows, people.contact)) for one in listed.lists] if people else [],
            people.naming if people else {},
            read.usage,
            champion.bundle.version,
            TrainedModel.of(logged.cut, logged.parameters, logged.metrics) if logged else None,
            read.measured,
            tuple(champion.bundle.predictor.unlived()),
            read.listed_since,
            listed.changed,
            exports,
        )
    if outside := report.worksheet.moods.outside:
        worst, best = histories.config.report.rating_scale
        run.say(
            f"warning: {outside:,} rating(s) of the last period lie outside report.rating_scale, {worst:g} to {best:g},"
            " and count for nothing: nobody is held back for them. Set the scale that your ratings have."
        )
    return report


def hand_over(config: Config, night: Path, watcher: Watcher) -> None:
    """Deliver a published night to where the configuration says; one that cannot be delivered stays published."""
    if config.deliver is None or config.deliver.postgres is None:
        return
    with watcher.step("Delivering to PostgreSQL"):
        outcome = deliver(config.deliver.postgres, night)
    if outcome == "kept":
        watcher.say("PostgreSQL keeps the night that it shows: it is newer, or has lists where this one has none.")


def _kinds(periods: Sequence[Period]) -> str:
    return ", ".join(sorted({one.kind for one in periods}))
