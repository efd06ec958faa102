"""Copy runs from store to store."""
