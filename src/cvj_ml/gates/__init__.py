"""What a night has to pass before it is published: its sources, its customers, its numbers."""
