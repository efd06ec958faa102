"""Modules: their options, contracts and registry, how they are loaded and run."""
