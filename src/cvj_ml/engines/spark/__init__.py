"""The Spark engine (extra ``spark``); the only place that imports pyspark, and only when it is used."""

from cvj_ml.engines.spark.engine import SparkEngine, require_spark

__all__ = ["SparkEngine", "require_spark"]
