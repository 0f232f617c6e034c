"""What is counted about a business's customers for its page and worksheet."""
