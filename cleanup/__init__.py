"""Clean-up: which runs of a store are removed, and their removal."""
