"""How customers were spread when a model was trained, and how much that moves by itself."""
