"""Ranked lists for marketers."""

BASES = {"last": "the night before", "week": "the newest night at least 7 days before"}
"""The nights that tonight is compared with."""
