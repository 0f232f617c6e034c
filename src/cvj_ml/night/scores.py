"""The scores of a night: block by block into a folder of work, then merged into one file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from operator import add
from pathlib import Path

import pyarrow as pa

from cvj_ml.engines import Progress
from cvj_ml.histories import Block
from cvj_ml.inputs import Histories
from cvj_ml.lists.contact_history import contact_history, contact_history_schema
from cvj_ml.models.drift_profile.distributions import DriftCounts
from cvj_ml.models.predictor import Predictor
from cvj_ml.night.writing import digest_of
from cvj_ml.ownership import remove
from cvj_ml.scoring.parts import metadata_of, work_off
from cvj_ml.scoring.scores_table import as_table, merge, scores_contract

_COUNTS = b"counts"


@dataclass(frozen=True, slots=True)
class Scored:
    """The files of a scored night, and how its customers are spread, which gates evaluate.

    ``history`` is what was tried on each customer, row by row as in SCORES (None: not asked for).
    """

    scores: Path
    history: Path | None
    counts: DriftCounts


def score(
    histories: Histories,
    predictor: Predictor,
    model_version: str,
    as_of: int,
    work: Path,
    progress: Progress | None = None,
    *,
    history: bool = False,
    resume: bool = False,
) -> Scored:
    """Write SCORES of every eligible customer into a folder of work, and what was tried on each if asked for.

    Blocks are written one by one and then merged, so memory does not grow with the number of customers.
    """
    contract = scores_contract(predictor.definition, predictor.effects)
    config = histories.config

    def one(block: Block) -> pa.Table:
        answers = predictor.answer(block, as_of)
        table = as_table(predictor, block, answers, as_of, model_version)
        contract.check(table)
        if history:
            for name, column in contact_history(block, as_of, config).columns(config).items():
                table = table.append_column(name, column)
        return table.replace_schema_metadata({_COUNTS: predictor.count(answers).encode()})

    parts = work_off(histories.engine(progress), work / "blocks", one, resume=resume)
    files = {work / "scores.parquet": contract.schema}
    if history:
        files[work / "history.parquet"] = contact_history_schema(config)
    merge(parts, files)
    counts = (DriftCounts.decode(metadata_of(path)[_COUNTS]) for path in parts)
    return Scored(work / "scores.parquet", work / "history.parquet" if history else None, reduce(add, counts))


def work_folder(histories: Histories, model: str, settings: str, as_of: int, *, with_lists: bool, resume: bool) -> Path:
    """Return where the blocks of a night are kept until it is published; nothing else is in it.

    The folder's name is a digest of all that a block's scores follow from; ``model`` and ``settings`` are digests,
    too. What other nights left is removed, and without ``resume`` what this one did.
    """
    store = histories.store
    digest = digest_of(version("cvj_ml"), store.key, store.buckets, model, settings, as_of, with_lists)
    folder = Path(histories.config.out) / "work" / digest[:12]
    if folder.parent.is_dir():
        for left in folder.parent.iterdir():
            if left != folder or not resume:
                remove(left)
    return folder
