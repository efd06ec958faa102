"""Data on their way: streams, programs, items, stores and their contract."""
