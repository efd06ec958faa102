"""Run rsync and other commands, one after the other."""
