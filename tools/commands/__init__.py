"""The commands whose documented file any Python can read."""
