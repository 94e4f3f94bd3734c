"""Radiographs as arrays: one channel, in their own bit depth; no framework."""
