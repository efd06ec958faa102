"""What setup.py does: environment, demo, checks of the project."""
