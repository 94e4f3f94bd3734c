"""What the numbers of an inspection are: arrays in, dataclasses out; no framework."""
