"""The story of ``cvj-ml nightly``: the one function that publishes, watched by a person or by nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from cvj_ml.commands.one_night import Night, make_night
from cvj_ml.config import Config
from cvj_ml.customers import match_people, read_people
from cvj_ml.errors import NightError, exit_code_of
from cvj_ml.inputs import as_of_name, open_histories, require_customers
from cvj_ml.night.champion import Champion, pin_champion
from cvj_ml.night.locking import hold
from cvj_ml.night.prometheus import write_metrics
from cvj_ml.night.reading import current_night
from cvj_ml.night.timings import Stations
from cvj_ml.night.webhook import post_once
from cvj_ml.run import Watcher


def nightly(
    config: Config,
    instants: Sequence[int],
    watcher: Watcher,
    *,
    with_lists: bool = True,
    watched: bool = False,
    accepted: Collection[str] = (),
    resume: bool = False,
    dry_run: bool = False,
) -> tuple[Night, ...]:
    """Publish the night of each instant, in their order, all with the champion of now; return them.

    The first that fails ends the run: the nights before it are published, the current one stays as it is. Gates whose
    names are ``accepted`` only warn; with ``resume`` the blocks that a run before finished are not scored again. Where
    a person has ``watched`` the run, little data only warns, too, and nothing is kept for those who were not there:
    neither a line that sums it up nor metrics.
    """
    out, run, nights = Path(config.out), Stations(watcher, accepted, watched=watched), list[Night]()
    with hold(out, _spoken(with_lists, watched)):
        current_night(out)  # a damaged pointer is told before the work, not after it
        with nullcontext() if watched else _recorded(config, run, dry_run):
            people = read_people(config) if with_lists else None
            histories = open_histories(config, run)
            people = match_people(people, config, histories.store) if people else None
            champion: Champion | None = None
            for as_of in instants:
                run.begin(as_of_name(config, as_of))
                if watched and len(instants) > 1:
                    run.say(f"Night {run.night}")  # there is no line at the end that says where it stopped
                usage = require_customers(histories, as_of)
                if champion is None:
                    with run.step("Fetching the champion"):
                        champion = pin_champion(config, histories.visible, run)
                night = make_night(histories, people, champion, usage, as_of, run, resume=resume, dry_run=dry_run)
                nights.append(night)
                run.nights.append(night.as_document())
            # Of several nights only the last one can stay the current one, so nothing is posted for the others.
            url = config.deliver.webhook if config.deliver else None
            if url is not None and nights[-1].published.current and not dry_run:
                with run.step("Posting the summary"):
                    summary = nights[-1].summary(config.name)
                    post_once(out, nights[-1].folder, url.get_secret_value(), summary, run)
    return tuple(nights)


def _spoken(with_lists: bool, watched: bool) -> str:
    """Return the command as a person has most likely typed it: whoever is locked out has to find that run."""
    if not watched:
        return "nightly"
    return "targets" if with_lists else "score"


@contextmanager
def _recorded(config: Config, run: Stations, dry_run: bool) -> Iterator[None]:
    """Say at the end of a run, good or bad, in one line what it did, and write the metrics."""
    out = Path(config.out)
    failure: BaseException | None = None
    try:
        yield
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
