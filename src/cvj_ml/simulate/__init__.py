"""Customers from a known process, and random histories over any vocabulary; shares no feature code with the model."""

from cvj_ml.simulate.random_histories import random_block
from cvj_ml.simulate.simulation import Simulation, simulate

__all__ = ["Simulation", "random_block", "simulate"]
