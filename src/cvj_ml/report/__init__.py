"""What people read of a night: the page, the journey map and the worksheet."""
