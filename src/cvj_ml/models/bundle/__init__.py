"""The model as a folder of text and numbers."""
