"""Back up Redis."""
