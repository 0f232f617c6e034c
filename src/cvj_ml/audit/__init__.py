"""Watching data and models: whether any answer knows its future."""
