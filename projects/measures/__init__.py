"""Measures of an inspection: arrays in, dataclasses out; no framework."""
