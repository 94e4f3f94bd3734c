"""The detector on the line: exported, run, looked at."""
