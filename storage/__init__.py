"""Stores: where backups lie."""
