"""The local engine: results in the order of the buckets, whatever the number of threads."""

from __future__ import annotations

import threading
import time

import pandas as pd
import pytest

from cvj_ml.engines import LocalEngine
from cvj_ml.store import ingest


@pytest.fixture
def store(one_source):
    rows = pd.DataFrame({"customer_id": [f"c{k}" for k in range(60)], "occurred_at": pd.Timestamp("2024-05-01")})
    return ingest(one_source(rows.assign(event="visit"), engine={"buckets": 32}))


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
def test_results_are_in_the_order_of_the_buckets(store, threads):
    def slow_first(block):
        time.sleep(0.01 if len(block) > 1 else 0)
        return block.customers

    expected = [store.read(bucket).customers for bucket in range(store.buckets)]
    assert LocalEngine(store, threads).map(slow_first) == [customers for customers in expected if customers]


def test_no_more_blocks_than_threads_are_worked_on_at_once(store):
    lock, present, most = threading.Lock(), 0, 0

    def count(block):
        nonlocal present, most
        with lock:
            present += 1
            most = max(most, present)
        time.sleep(0.005)
        with lock:
            present -= 1

    LocalEngine(store, threads=3).map(count)
    assert 1 < most <= 3


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_counts_up_to_the_number_of_blocks_with_customers(store, threads):
    steps = []
    LocalEngine(store, threads, lambda done, total: steps.append((done, total))).map(len)
    total = sum(customers > 0 for customers in store.bucket_customers)
    assert 1 < total < store.buckets
    assert steps == [(done, total) for done in range(total + 1)]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_error_of_a_block_is_raised(store, threads):
    def fail(block):
        raise ValueError("broken block")

    with pytest.raises(ValueError, match="broken block"):
        LocalEngine(store, threads).map(fail)
