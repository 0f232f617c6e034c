"""The story of ``cvj-ml nightly``: nights that nobody watches, which are right or not published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cvj_ml.config import Config
from cvj_ml.errors import exit_code_of
from cvj_ml.lists import read_people
from cvj_ml.pipeline.champions import Champion, pin_champion
from cvj_ml.pipeline.metrics import write_metrics
from cvj_ml.pipeline.nights import make_night
from cvj_ml.pipeline.opening import Watcher, as_of_name, open_histories, require_customers
from cvj_ml.pipeline.stations import Stations
from cvj_ml.publish import current_night, hold


def nightly(
    config: Config, instants: Sequence[int], watcher: Watcher, *, dry_run: bool = False
) -> tuple[dict[str, Any], ...]:
    """Publish the night of each instant, in their order, all with the champion of now; return what each became.

    The first that fails ends the run: the nights before it are published, the current one stays as it is.
    """
    with hold(Path(config.out), "nightly"), _recorded(config, watcher, dry_run) as run:
        people = read_people(config)
        histories = open_histories(config, run)
        champion: Champion | None = None
        for as_of in instants:
            run.night = as_of_name(config, as_of)
            usage = require_customers(histories, as_of, run)
            if champion is None:
                with run.step("Fetching the champion"):
                    champion = pin_champion(config, histories.visible, run)
            night = make_night(histories, people, champion, usage, as_of, run, dry_run=dry_run)
            run.nights.append(night.as_document())
        return tuple(run.nights)


@contextmanager
def _recorded(config: Config, watcher: Watcher, dry_run: bool) -> Iterator[Stations]:
    """Yield what counts the run's steps; at its end, good or bad, say it in one line and write the metrics."""
    run, out = Stations(watcher), Path(config.out)
    current = current_night(out)
    failure: BaseException | None = None
    try:
        yield run
    except BaseException as error:
        failure = error
        raise
    finally:
        code = exit_code_of(failure)
        run.say(_failed(run, code, current) if code else _done(run))
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


def _failed(run: Stations, code: int, current: Path | None) -> str:
    """Say where a run has failed and what stands, in one line."""
    done = [night["as_of"] for night in run.nights]
    stays = max((night["as_of"] for night in run.nights if night["current"]), default=None)
    if stays is None and current is not None:
        stays = current.parent.name.removeprefix("as_of=")
    words = [
        f"Night {run.night or '(not begun)'} not published: exit code {code} after {run.elapsed:.1f} s",
        f"at '{run.station}'" if run.station else "before it began",
        f"{', '.join(done)} done before it" if done else "",
        f"{stays} is the current night" if stays else "there is no current night",
    ]
    return f"{' '.join(words[:2])}; {'; '.join(word for word in words[2:] if word)}."
