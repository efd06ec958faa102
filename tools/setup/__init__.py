"""The commands of setup.py: environment, demo, checks of the project."""
