"""What a contact changes: effects learned from experiments, with propensities that are known or estimated."""
