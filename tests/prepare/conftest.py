"""Fixtures of label sets."""

from helpers.label_sets import convert, src  # noqa: F401
