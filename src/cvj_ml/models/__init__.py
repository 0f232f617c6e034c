"""Models: hazards of reaching later stages, calibrated and coherent, and the bundle that holds them."""
