"""What customers will buy: how often, for how much, and when next."""
