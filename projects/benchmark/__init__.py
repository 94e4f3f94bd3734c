"""Benchmarks: speed, memory and size, as ratios between alternatives that run in turn on one machine."""
