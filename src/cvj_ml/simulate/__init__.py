"""Customers from a known process, and random histories over any vocabulary; shares no feature code with the model."""

from cvj_ml.simulate.random_histories import random_block
from cvj_ml.simulate.simulation import Simulation, simulate
from cvj_ml.simulate.subscriptions import Subscriptions, simulate_subscriptions

__all__ = ["Simulation", "Subscriptions", "random_block", "simulate", "simulate_subscriptions"]
