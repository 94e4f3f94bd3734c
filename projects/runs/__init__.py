"""Runs: reading a config, building a run from it, and recording where the run comes from."""
