"""Measurements of the package against references."""
