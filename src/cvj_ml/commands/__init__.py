"""Each command's story, in one short function."""
