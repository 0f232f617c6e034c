"""Where features meet labels: the rows that models learn from."""
