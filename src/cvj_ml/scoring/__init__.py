"""SCORES: one row a customer, for one instant; made block by block, merged on disk, read by column."""

SCORES = "scores/scores.parquet"
"""The file of a night's scores, from its folder on."""
