"""conf.json: reading, checking, choosing the sections of a run."""
