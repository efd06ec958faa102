"""Errors, results, secrets, permissions, lock and log: what all other packages use."""
