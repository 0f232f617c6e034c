"""Honest evidence: folds in time, metrics, baselines, plots."""
