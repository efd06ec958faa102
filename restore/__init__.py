"""List, verify and restore what the stores hold."""
