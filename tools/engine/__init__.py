"""One run: its sections, its stores and what is recorded of it."""
