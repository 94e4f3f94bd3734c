"""What `tools/benchmark.py` measures: ratios of things run side by side, in turn, on one machine."""
