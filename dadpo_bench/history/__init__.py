"""What a store remembers of its runs."""
