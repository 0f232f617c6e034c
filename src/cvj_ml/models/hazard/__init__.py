"""The reach model: discrete-time hazards of later stages, calibrated and coherent."""
