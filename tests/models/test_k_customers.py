"""Nothing of a single customer goes into a model: names, bounds and thresholds rest on so many, or are not there."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.cases import Blocks, a_shop
from tests.trained import AS_OF, SETTINGS, call

from cvj_ml.histories import Block, Text
from cvj_ml.journey import Journey
from cvj_ml.models.bundle.bundle import save
from cvj_ml.models.drift_profile.learning import learn_drift
from cvj_ml.models.explain.typical import learn_reference
from cvj_ml.models.hazard.binning import MOST_BINS, joined, learn_grid, plain_grid, quantile_edges, upper_bound
from cvj_ml.models.hazard.forest import parse
from cvj_ml.models.hazard.tree_size import LARGE
from cvj_ml.models.predictor import Predictor
from cvj_ml.models.training import fit_reach
from cvj_ml.panel.model_spec import define
from cvj_ml.panel.panel import build_panel
from cvj_ml.scoring.opening import make_canary
from cvj_ml.simulate import random_block, simulate
from cvj_ml.snapshots import training_grid
from cvj_ml.windows import parse_as_of

FEWEST = 20
F32 = npt.NDArray[np.float32]


def columns(seed: int, customers: int, rows: int) -> tuple[F32, npt.NDArray[np.int64]]:
    """Counts, amounts with one customer's far beyond, values of a few people, signs, missing values, a constant."""
    random = np.random.default_rng(seed)
    whose = random.integers(0, customers, rows)
    far = np.where(whose == whose[0], 48_151_623.42, random.lognormal(3, 2, rows))
    few = np.where(whose < FEWEST // 2, 1.0, 0.0)
    signed = np.round(random.normal(0, 1e4, rows), 2)
    holes = np.where(random.random(rows) < 0.9, np.nan, random.random(rows))
    x = np.column_stack([random.poisson(2, rows), far, few, signed, holes, np.full(rows, 7.25)])
    return x.astype(np.float32), whose.astype(np.int64)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 900))
@settings(max_examples=40)
def test_each_bin_holds_values_of_enough_customers(seed: int, customers: int, rows: int) -> None:
    """Silent error 74: a threshold lies between two values, and each of them was one customer's."""
    x, whose = columns(seed, customers, rows)
    grid = learn_grid(x, whose, FEWEST)
    bins = grid.bins(x)
    assert grid.edges.shape[1] < MOST_BINS
    for c, row in enumerate(grid.edges):
        edges = row[np.isfinite(row)]
        assert all(edge == float(f"{edge:.3g}") for edge in edges), "no edge is a number that somebody brought"
        known = ~np.isnan(x[:, c])
        for i in np.flatnonzero(known):
            assert bins[i, c] == sum(edge < float(x[i, c]) for edge in edges)
        told = min(len(set(whose[known])), len(set(whose[~known]))) >= FEWEST
        assert np.isnan(bins[~known, c]).all() if told else (bins[~known, c] == (edges < 0).sum()).all()
        for number in range(len(edges) + 1):
            if len(edges):
                assert len(set(whose[bins[:, c] == number])) >= FEWEST


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
@settings(max_examples=60)
def test_a_bound_is_reached_by_enough_customers(seed: int, customers: int) -> None:
    x, whose = columns(seed, customers, 200)
    for column in x.T:
        bound = upper_bound(column, whose, FEWEST)
        reached = {who for who, value in zip(whose, column, strict=True) if value >= bound}
        assert len(reached) >= FEWEST or bound == 0.0
        edges = quantile_edges(column, whose, [0.2, 0.4, 0.6, 0.8], FEWEST)
        placed = np.searchsorted(edges, column[~np.isnan(column)].astype(np.float64))
        for number in range(len(edges) + 1 if len(edges) else 0):
            assert len(set(whose[~np.isnan(column)][placed == number])) >= FEWEST


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None)
def test_trees_fitted_on_bins_split_raw_values_at_the_edges(seed: int) -> None:
    """Whatever comes, beyond the last edge too, goes where its bin would have gone; LightGBM and the forest agree."""
    x, whose = columns(seed, 200, 900)
    own = np.random.default_rng(seed).integers(0, 3, (len(x), 1)).astype(np.float32)
    grid = joined(learn_grid(x, whose, FEWEST), plain_grid([3]))
    both = np.hstack([x, own])
    y = (np.nan_to_num(x[:, 0]) + own[:, 0] + (x[:, 3] > 0)) > 3
    fitted = lgb.train(
        {"objective": "binary", "num_leaves": 15, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1},
        lgb.Dataset(grid.bins(both), label=y),
        num_boost_round=8,
    )
    trees = grid.in_place_of_bins(fitted)
    # Column 4 has holes and column 0 none: what is missing where nothing was is zero, as ever.
    assert trees.predict(both, raw_score=True).tobytes() == fitted.predict(grid.bins(both), raw_score=True).tobytes()
    far = both.copy()
    far[::3, :4] *= np.float32(1e6)
    found = trees.predict(far, raw_score=True)
    assert found.tobytes() == fitted.predict(grid.bins(far), raw_score=True).tobytes()
    forest = parse(trees)
    assert forest is not None
    assert forest.margins(far[:, :-1], far[:, -1:], np.arange(len(far))).tobytes() == found.tobytes()
    text = trees.model_to_string()
    edges = {0.5, 1.5} | set(grid.edges[np.isfinite(grid.edges)])
    told = {float(one) for line in re.findall(r"^threshold=(.*)$", text, re.MULTILINE) for one in line.split()}
    (infos,) = re.findall(r"^feature_infos=(.*)$", text, re.MULTILINE)
    told |= {float(one) for one in re.findall(r"[-\d.e+]+(?=[:\]])", infos)}
    assert told and {one for one in told if one < 1e300} <= edges
    assert lgb.Booster(model_str=text).model_to_string() == text


def test_a_tree_without_a_split_stays_as_it_is() -> None:
    x = np.zeros((40, 2), dtype=np.float32)
    fitted = lgb.train({"objective": "binary", "verbosity": -1}, lgb.Dataset(x, label=np.arange(40) % 2), 1)
    assert plain_grid([1, 1]).in_place_of_bins(fitted).predict(x).tolist() == fitted.predict(x).tolist()


TEXTS = ("Zzyxgate", "quuxchannel", "plughplan", "frobnitzland")
NUMBERS = (48151623.42, 91.0625)


CONFIG = a_shop({"Visitor": {"event": "visit"}, "Buyer": {"event": "buy"}}, model={"min_customers": FEWEST})
CUT = parse_as_of("2024-12-01", CONFIG.zone)


def with_planted(block: Block, who: int) -> Block:
    """Return the block with texts and numbers in it that one customer alone has."""
    points, table = block.touchpoints, block.attributes
    assert table is not None
    first, last = points.offsets[who], points.offsets[who + 1]
    mine = slice(first, max(first + 1, last))

    def renamed(column: Text, rows: slice, name: str) -> Text:
        codes = column.codes.copy()
        codes[rows] = len(column.values)
        return Text(codes, (*column.values, name))

    value, has_value = points.value.copy(), points.has_value.copy()
    value[mine], has_value[mine] = round(NUMBERS[0] * 100), True
    own = slice(table.offsets[who], table.offsets[who + 1])
    changed = {}
    for name, column in table.columns.items():
        if isinstance(column, Text):
            changed[name] = renamed(column, own, TEXTS[2])
        else:
            changed[name] = column.copy()
            changed[name][own] = NUMBERS[1]
    return replace(
        block,
        touchpoints=replace(
            points,
            # The last touchpoint is left as it was, so that the customer keeps to the journey.
            event=renamed(points.event, slice(first, max(first, last - 1)), TEXTS[0]),
            channel=renamed(points.channel, mine, TEXTS[1]),
            value=value,
            has_value=has_value,
        ),
        attributes=replace(table, columns=changed),
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_byte_of_a_bundle_is_of_one_customer_whatever_the_log(seed: int, tmp_path: Path) -> None:
    """Silent error 75, over random logs: whoever it is, texts and numbers of one are in no file of the model."""
    block = random_block(
        customers=70,
        seed=seed,
        events=("visit", "buy", "read"),
        channels=("web", "shop"),
        properties={},
        attributes={"plan": ("gold", "free"), "rating": None},
        outbound=(),
        until=CUT,
    )
    sizes = np.diff(block.touchpoints.offsets)
    blocks = Blocks([with_planted(block, int(np.argsort(sizes)[(seed + 1) * len(sizes) // 5]))])
    definition = define(CONFIG, Journey(CONFIG.journey), blocks, CUT)
    panel = build_panel(definition, blocks, training_grid(CONFIG, CUT), CUT, 0)
    settings_ = replace(LARGE, rounds=25, rows_a_leaf=20)
    fit = fit_reach(panel, seed=1, threads=1, given=settings_)
    predictor = Predictor(definition, fit.trees, fit.calibration, None, learn_reference(panel))
    predictor = replace(predictor, drift=learn_drift(predictor, blocks, 70, CUT, int(panel.as_of.min())))
    save(predictor, make_canary(predictor, CUT, 1), tmp_path / "bundle")
    sought = {text: text.encode() for text in TEXTS}
    for number in NUMBERS:
        sought |= spellings(number)
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [(path.name, name) for path in files for name, spelt in sought.items() if spelt in _plain(path)]
    vocabulary = definition.catalogue.vocabulary
    assert set(vocabulary.events) == {"visit", "buy", "read"} and set(vocabulary.channels) == {"web", "shop"}


def planted(folder: Path) -> None:
    """Simulated customers, one of whom has an event, a channel, attributes and numbers that nobody else has."""
    simulate(customers=160, seed=4).write(folder)
    log, people = (pd.read_parquet(folder / name) for name in ("touchpoints.parquet", "customers.parquet"))
    who = people["customer_id"].iloc[3]
    mine = log["customer_id"] == who
    rows = log[mine].sort_values("occurred_at").index
    log.loc[rows[0], ["event", "channel"]] = TEXTS[0], TEXTS[1]
    log.loc[rows[-1], "channel"] = TEXTS[1]
    log.loc[rows[:2], "value"] = NUMBERS[0]
    own = people["customer_id"] == who
    people.loc[own, "plan"], people.loc[own, "country"] = TEXTS[2], TEXTS[3]
    people["age"] = people["age"].astype("float64")
    people.loc[own, "age"] = NUMBERS[1]
    log.to_parquet(folder / "touchpoints.parquet", index=False)
    people.to_parquet(folder / "customers.parquet", index=False)


def spellings(number: float) -> dict[str, bytes]:
    """Return every way in which a model's files could hold a number."""
    single = float(np.float32(number))
    texts = {repr(number), f"{number:g}", f"{number:.2f}", repr(single), f"{single:.17g}", f"{number:.17g}"}
    texts |= {str(round(number * 100)), repr(number * 100), repr(number / 2), repr(single / 2), f"{number:,.2f}"}
    texts |= {repr(math.log1p(number)), repr(math.log1p(single))}
    found = {text: text.encode() for text in texts if len(text) > 6}
    found |= {f"float64 {number}": struct.pack("<d", number), f"float32 {number}": struct.pack("<f", number)}
    found |= {f"float64 of float32 {number}": struct.pack("<d", single)}
    return found | {f"minor units of {number}": struct.pack("<q", round(number * 100))}


@pytest.mark.slow
def test_no_byte_of_one_customers_names_and_numbers_is_in_a_model(tmp_path: Path) -> None:
    """Silent error 75: bundle, MLflow's store and artifacts, its local copy and the backtest are searched."""
    planted(tmp_path)
    out, store = tmp_path / "out", tmp_path / "registry"
    store.mkdir()
    settings_ = {**SETTINGS, "out": str(out), "mlflow": {"tracking_uri": f"sqlite:///{store / 'mlflow.db'}"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**settings_, "model": {"max_rows": 8000, "min_customers": 5}}))
    for words in (
        ["train", "--as-of", AS_OF, "--promote", "always"],
        ["targets", "--as-of", AS_OF],
        ["models", "export", 1, tmp_path / "bundle"],
        ["backtest", "--until", AS_OF, "--folds", "1", "--segment", "attribute:plan", "--segment", "first_channel"],
    ):
        at = 2 if words[0] == "models" else 1
        found = call(*words[:at], tmp_path / "own.yaml", *words[at:])
        assert found.code == 0, found.err
    sought = {text: text.encode() for text in TEXTS}
    for number in NUMBERS:
        sought |= spellings(number)
    held = {
        path
        for folder in (tmp_path / "bundle", store, out)
        for path in folder.rglob("*")
        if path.is_file()
        and not {"store", "quarantine"} & set(path.relative_to(tmp_path).parts)
        # A night is of customers, one by one: it is what `forget` writes anew.
        and not any(part.startswith("as_of=") for part in path.parts)
    }
    assert {path.name for path in held} >= {"reach.txt", "features.json", "reference.json", "mlflow.db", "card.md"}
    places = [
        (str(path.relative_to(tmp_path)), name)
        for path in sorted(held)
        for content in [_plain(path)]
        for name, spelt in sought.items()
        if spelt in content
    ]
    assert not places
    words = json.loads((tmp_path / "bundle" / "features.json").read_text())["vocabulary"]
    assert words["events"] and words["channels"] and words["categories"]["plan"], "what many have is still told of"


def _plain(path: Path) -> bytes:
    """Return a file's bytes; of Parquet, which packs them, what it holds as text besides."""
    content = path.read_bytes()
    if path.suffix != ".parquet":
        return content
    frame: Any = pd.read_parquet(path)
    return content + frame.to_csv(index=False).encode()
