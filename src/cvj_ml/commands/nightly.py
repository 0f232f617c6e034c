"""The story of ``cvj-ml nightly``: nights that nobody watches, which are right or not published."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cvj_ml.commands.score import make_night
from cvj_ml.config import Config
from cvj_ml.customers import match_people, read_people
from cvj_ml.errors import NightError, exit_code_of
from cvj_ml.inputs import as_of_name, open_histories, require_customers
from cvj_ml.night import current_night, hold
from cvj_ml.night.champion import Champion, pin_champion
from cvj_ml.night.prometheus import write_metrics
from cvj_ml.night.timings import Stations
from cvj_ml.run import Watcher


def nightly(
    config: Config,
    instants: Sequence[int],
    watcher: Watcher,
    *,
    accepted: Collection[str] = (),
    resume: bool = False,
    dry_run: bool = False,
) -> tuple[dict[str, Any], ...]:
    """Publish the night of each instant, in their order, all with the champion of now; return what each became.

    The first that fails ends the run: the nights before it are published, the current one stays as it is. Gates whose
    names are ``accepted`` only warn; with ``resume`` the blocks that a run before finished are not scored again.
    """
    with hold(Path(config.out), "nightly"), _recorded(config, watcher, accepted, dry_run) as run:
        people = read_people(config)
        histories = open_histories(config, run)
        people = match_people(people, config, histories.store)
        champion: Champion | None = None
        for as_of in instants:
            run.begin(as_of_name(config, as_of))
            usage = require_customers(histories, as_of)
            if champion is None:
                with run.step("Fetching the champion"):
                    champion = pin_champion(config, histories.visible, run)
            night = make_night(histories, people, champion, usage, as_of, run, resume=resume, dry_run=dry_run)
            run.nights.append(night.as_document())
        return tuple(run.nights)


@contextmanager
def _recorded(config: Config, watcher: Watcher, accepted: Collection[str], dry_run: bool) -> Iterator[Stations]:
    """Yield what counts the run's steps; at its end, good or bad, say it in one line and write the metrics."""
    run, out = Stations(watcher, accepted), Path(config.out)
    current_night(out)  # a damaged pointer is told before the work, not after it
    failure: BaseException | None = None
    try:
        yield run
    except BaseException as error:
        failure = error
        raise
    finally:
        code = exit_code_of(failure)
        run.say(
            _failed(run, code, out) if code else _done(run),
            exit_code=code,
            seconds=round(run.elapsed, 3),
            nights=len(run.nights),
            customers=sum(night["customers"] for night in run.nights),
            listed=sum(sum(night["lists"].values()) for night in run.nights),
            warnings=run.warnings,
        )
        if not dry_run:
            try:
                write_metrics(out, config.name, run, code)
            except OSError as error:
                run.say(f"warning: the metrics cannot be written: {error.strerror}.")


def _done(run: Stations) -> str:
    """Say what a run has done, in one line."""
    words = []
    for night in run.nights:
        lists = night["lists"]
        words.append(
            f"{night['as_of']} {night['outcome']}: {night['customers']:,} customers,"
            f" {sum(lists.values()):,} on {len(lists)} list(s), model {night['model_version']}"
        )
    told = "; ".join(words)
    warned = f", {run.warnings} warning(s)" if run.warnings else ""
    return f"Night {told}; {run.elapsed:.1f} s{warned}."


def _failed(run: Stations, code: int, out: Path) -> str:
    """Say where a run has failed and what stands, in one line."""
    try:
        current = current_night(out)
    except NightError:
        current = None
    words = [
        f"Night {run.night or '(not begun)'} failed: exit code {code} after {run.elapsed:.1f} s",
        f" at '{run.station}'" if run.station else "",
        f"; done before it: {', '.join(night['as_of'] for night in run.nights)}" if run.nights else "",
        f"; {current.parent.name.removeprefix('as_of=')} is the current night" if current else "; no night is current",
    ]
    return "".join(words) + "."
