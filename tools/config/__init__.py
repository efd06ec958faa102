"""Read and check conf.json, and select the sections of a run."""
