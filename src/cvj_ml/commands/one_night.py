"""One night: what it is made from, how it is made, published and handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cvj_ml.commands.measure import known_history
from cvj_ml.commands.night_gates import OBSERVED, Gatekeeper
from cvj_ml.config import Config, play_channels
from cvj_ml.customers import Identities, People
from cvj_ml.exports import EXPORTS, Exported, make_exports, segments_of, write_exports
from cvj_ml.inputs import Histories, as_of_name, by_account
from cvj_ml.lists import RankedList, list_specs, rank, require_columns, with_reasons
from cvj_ml.lists.changes import (
    BASES,
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
from cvj_ml.lists.standing import Standing, on_plan
from cvj_ml.night import LISTS, Published, digest_of, digest_of_table, find_night, publish
from cvj_ml.night.base_nights import BaseNights, digest_of_journey, find_base_nights
from cvj_ml.night.champion import Champion
from cvj_ml.night.delivery import deliver
from cvj_ml.night.reading import first_listed, listed_in_control
from cvj_ml.night.scores import score, work_folder
from cvj_ml.night.timings import Stations, package_version
from cvj_ml.ownership import remove
from cvj_ml.panel.calendar import Period, changed_periods
from cvj_ml.report.list_files import SCORES, with_contact, write_night
from cvj_ml.report.page import PAGE, Documents, make_report, write_report
from cvj_ml.report.what_changed import WhatChanged, what_changed
from cvj_ml.report.wording import TrainedModel
from cvj_ml.report.workbook import BookFacts
from cvj_ml.run import Watcher
from cvj_ml.scoring import StoredTable, scores_contract
from cvj_ml.store import Usage
from cvj_ml.windows import to_datetime


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
    config, bundle, with_lists = histories.config, champion.bundle, people is not None
    out, night = Path(config.out), as_of_name(config, as_of)
    measured = known_history(config, as_of)
    identities = Identities.at(histories.store, as_of)
    people = people.under(identities) if people is not None else None
    exposures = identities.by_person(listed_in_control(config, as_of))
    listed_since = first_listed(config, as_of) if with_lists else {}
    bases = find_base_nights(config, as_of) if with_lists else None
    facts = facts_of(histories, champion, usage, as_of, people, exposures, listed_since, measured, bases)
    if people is not None:
        people.require_unchanged()
    if found := find_night(out, night, facts, with_lists=with_lists, watched=run.watched, dry_run=dry_run):
        published, facts = found
        if not dry_run:
            hand_over(config, published.folder, run)
        return Night(published, night, facts, champion)
    definition = bundle.predictor.definition
    added, removed = changed_periods(config.calendar, definition.calendar, as_of, config.zone)
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
    if bundle.predictor.segments is not None and bundle.predictor.segments.spec != config.segments:
        run.say(
            "warning: segments: the configuration has other settings than the model, which keeps those of its training."
            " They change no segment until `cvj-ml train`."
        )
    if with_lists:
        require_columns(config, list_specs(config, histories.visible.journey), scores_contract(definition).columns)
    with run.step("Looking at the sources"):
        gates = Gatekeeper.of(histories, as_of, people)
        run.enforce(gates.before_scoring(bundle.predictor))
        # Past nights are evaluated by the rules, which sources that have changed their columns may not fit.
        run.enforce(gates.quality(bundle.version))
    work = work_folder(histories, bundle.digest, config_digest(config), as_of, with_lists=with_lists, resume=resume)
    with run.step("Scoring") as progress:
        scored = score(
            histories, bundle.predictor, bundle.version, as_of, work, progress, history=with_lists, resume=resume
        )
        run.enforce(gates.after_scoring(bundle.predictor, scored.counts))
    scores = StoredTable.at(scored.scores)
    lists: tuple[RankedList, ...] = ()
    changes, stages = NOTHING_BEFORE, count_stages(scores)
    changed: WhatChanged | None = None
    if people is not None and bases is not None:
        with run.step("Ranking the lists"):
            people = by_account(people, histories, as_of)
            history = StoredTable.at(scored.history) if scored.history else None
            earlier = bases.standings(identities)
            lists = rank(
                config,
                scores,
                histories.visible.journey,
                as_of,
                bundle.track_record,
                history=history,
                permissions=people.permissions,
                exposures=exposures,
                forecast_errors=bundle.forecast_errors,
                amounts_rank=bundle.predictor.amounts_rank,
                effects=bundle.predictor.effects,
                asked=on_plan(one for one in earlier.values() if isinstance(one, Standing)),
                identities=identities,
            )
            for one in earlier.values():
                if isinstance(one, NotComparable) and one.reason != "no_night":
                    run.say(f"warning: not compared with {BASES[one.base]}: {NOT_COMPARABLE[one.reason]}.")
            changes = changes_of(config, as_of, scores, lists, earlier)
            tonight = {"as_of": facts["as_of"], "stages": stages}
            changed = what_changed(changes, [*bases.trend, tonight], config.journey, config.zone)
        with run.step("Giving reasons") as progress:
            lists = with_reasons(lists, bundle.predictor, histories.engine(progress), as_of, config)
    exports: tuple[Exported, ...] = ()
    if config.exports is not None and people is not None and bases is not None:
        with run.step("Preparing the exports"):
            control, epoch = control_group(config, scores, as_of, identities)
            tables, channels = {one.name: one.rows for one in lists}, play_channels(config.journey)
            exports = make_exports(
                config.exports,
                tables,
                people.contact,
                people.permissions,
                control,
                epoch,
                channels,
                bases.exports(),
                segments_of(scores) if "segments" in config.exports.files else {},
            )
    counts = [one.counts for one in exports]
    report = report_of(
        histories, champion, as_of, scores, lists, people, usage, measured, listed_since, changed, counts, run
    )
    if outside := report.worksheet.moods.outside:
        worst, best = config.report.rating_scale
        run.say(
            f"warning: {outside:,} rating(s) of the last period lie outside report.rating_scale, {worst:g} to {best:g},"
            " and count for nothing: nobody is held back for them. Set the scale that your ratings have."
        )
    facts |= {OBSERVED: gates.observed(len(scores)), "stages": stages}
    if with_lists:
        facts |= {"lists": with_changes(lists, changes).to_pylist()}
        facts |= {"changes": changes.as_document(config.zone)}
    if exports:
        facts["exports"] = counts
    book = BookFacts(night, report.plan, report.worksheet, changed, counts)

    def write(staged: Path) -> Mapping[str, int]:
        with run.step("Writing the night"):
            rows = write_night(staged, scored.scores, lists, people, book, changes)
            rows = {**rows, **write_report(report, staged)}
            if config.exports is not None and exports:
                made = write_exports(staged / EXPORTS, exports, config.exports.merge, night)
                rows |= {f"{EXPORTS}/{name}": count for name, count in made.items()}
            if people is not None:
                people.require_unchanged()
            return rows

    published = publish(
        out,
        night,
        digest_of(facts, [one.name for one in lists], "report"),
        facts,
        lambda: run.document(champion),
        write,
        dry_run=dry_run,
    )
    remove(work.parent)
    if not dry_run:
        hand_over(config, published.folder, run)
    return Night(published, night, facts, champion)


def facts_of(
    histories: Histories,
    champion: Champion,
    usage: Usage,
    as_of: int,
    people: People | None,
    exposures: pa.Table,
    listed_since: Mapping[str, int],
    measured: pd.DataFrame,
    bases: BaseNights | None,
) -> dict[str, Any]:
    """Return all that a night is made from: it decides every byte, so no clock and no path is in it."""
    config, store = histories.config, histories.store
    facts: dict[str, Any] = {
        "as_of": to_datetime(as_of, config.zone).isoformat(),
        "software": package_version(),
        "store": store.key,
        "model": champion.bundle.digest,
        "model_from": "registry" if champion.copied is None else "local copy, registry down",
        "training": digest_of(asdict(champion.training)) if champion.training else None,
        "config": config_digest(config),
        "journey": digest_of_journey(config),
        "counts": {name: asdict(counts) for name, counts in store.counts.items()},
        "rows": {"used": usage.used, "not_yet_visible": usage.not_yet_visible, "superseded": usage.superseded},
        "inputs": dict(store.fingerprints),
    }
    if people is not None:
        # By content: where these tables lie, and in how many files, changes no list.
        facts["people"] = {name: digest_of_table(table.rows) for name, table in people.tables.items()}
        if len(exposures):
            facts["spared"] = digest_of_table(exposures)
        if listed_since:
            facts["first_listed"] = dict(sorted(listed_since.items()))
    if bases is not None:
        facts |= bases.facts
    if len(measured):
        facts["history"] = digest_of(measured.to_dict("list"))
    return facts


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


def rows_by_outcome(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return what became of the rows of all touchpoint sources together; the outcomes add up to ``rows_in``."""
    counts = facts["counts"].values()
    return {
        "rows_in": sum(one["rows_in"] for one in counts),
        **facts["rows"],
        "duplicates": sum(one["duplicates"] for one in counts),
        "refused": sum(sum(one["refused"].values()) for one in counts),
        "unmatched": sum(one["unmatched"] for one in counts),
        "unassigned": sum(one["unassigned"] for one in counts),
        "left_out": sum(one["left_out"] for one in counts),
    }


def report_of(
    histories: Histories,
    champion: Champion,
    as_of: int,
    scores: StoredTable,
    lists: tuple[RankedList, ...],
    people: People | None,
    usage: Usage,
    history: pd.DataFrame,
    listed_since: Mapping[str, int],
    changed: WhatChanged | None,
    exports: Sequence[Mapping[str, Any]],
    watcher: Watcher,
) -> Documents:
    """Make the page and the worksheet of a night."""
    logged = champion.training
    with watcher.step("Making the page") as progress:
        return make_report(
            histories.config,
            histories.store,
            histories.visible.journey,
            histories.engine(progress),
            as_of,
            scores,
            [replace(one, rows=with_contact(one.rows, people.contact)) for one in lists] if people else [],
            people.naming if people else {},
            usage,
            champion.bundle.version,
            TrainedModel.of(logged.cut, logged.parameters, logged.metrics) if logged else None,
            history,
            tuple(champion.bundle.predictor.unlived()),
            listed_since,
            changed,
            exports,
        )


_PLACES = {"sources", "stage_history", "attributes", "contact", "suppression", "consent"}
_PLACES |= {"measure", "gates", "monitor", "mlflow", "engine", "deliver", "out"}


def config_digest(config: Config) -> str:
    """Return a digest of every setting that can change a list; where things lie does not."""
    return digest_of(config.model_dump(mode="json", exclude=_PLACES))


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
