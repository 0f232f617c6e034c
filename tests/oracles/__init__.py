"""Plain, slow references for what the package computes fast; see README.md."""
