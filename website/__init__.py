"""The documentation as a site: `make docs` builds it from docs/ and the docstrings, without a network."""
