"""Whether past lists worked, and whether their scores were right."""
