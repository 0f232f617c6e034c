"""The current stage as a posterior, where the evidence of some stages may be hidden."""
