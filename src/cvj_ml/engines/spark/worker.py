"""What runs on a worker of Spark: one block, read from the store that driver and workers share."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from cvj_ml.errors import ConfigError, CvjError
from cvj_ml.histories import Block
from cvj_ml.store import Store, read_manifest

SCHEMA = "place bigint, result binary"
LARGEST = 2**30
"""Bytes of one block's result; Arrow and the JVM end at twice as many."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a block, on its way to the driver."""

    error: Exception


def on_groups(
    function: Callable[[Block], Any],
    store: Store,
    buckets: list[int],
    customers: frozenset[str] | None,
    serializer: Any,
) -> Callable[[pa.Table], pa.Table]:
    """Return the function of a group: the place of a bucket in, that place and the bucket's result out."""
    expected = installed()

    def on_group(group: pa.Table) -> pa.Table:
        (place,) = group["id"].to_pylist()
        result = serializer.dumps(_attempt(function, store, buckets[place], customers, expected))
        if len(result) > LARGEST:
            too_large = (
                f"A block's result has {len(result) >> 20} MB, Spark carries {LARGEST >> 20}. Set engine.buckets"
            )
            result = serializer.dumps(Failure(CvjError(f"{too_large} to more than {store.buckets}.")))
        return pa.table({"place": [place], "result": pa.array([result], pa.binary())})

    return on_group


def installed() -> str:
    """Return the version of this package, as it is installed where this runs."""
    return version("cvj-ml")


def _attempt(
    function: Callable[[Block], Any], store: Store, bucket: int, customers: frozenset[str] | None, expected: str
) -> Any:
    """Return a function's result for one bucket, or its `Failure`.

    Only what another attempt may mend is raised here, so that Spark makes one: a file that could not be read. All other
    errors would come again, and belong to the caller as they are.
    """
    try:
        _require_the_same(store, expected)
        block = store.read(bucket)
        return function(block if customers is None else block.only(customers))
    except OSError:
        raise
    except Exception as error:
        error.add_note(f"On a worker of Spark:\n{traceback.format_exc()}")
        return Failure(error)


def _too_large(size: int, buckets: int) -> CvjError:
    return CvjError(
        f"A block's result has {size >> 20} MB, and Spark carries {LARGEST >> 20}. Give engine.buckets a larger number"
        f" than {buckets}: smaller blocks have smaller results."
    )


def _require_the_same(store: Store, expected: str) -> None:
    """Raise ConfigError where the worker has other code than the driver, or another folder at the store's path."""
    if installed() != expected:
        raise ConfigError(
            f"A worker of Spark has cvj-ml {installed()}, the driver {expected}. Give the workers the same"
            f" environment (docs/spark.md)."
        )
    try:
        key = read_manifest(store.folder)["key"]
    except FileNotFoundError:
        key = None
    if key != store.key:
        raise ConfigError(
            f"A worker of Spark finds {'no' if key is None else 'another'} store in {store.folder}. `out` has to be a"
            f" folder that the driver and every worker share, at the same path (docs/spark.md)."
        )
