"""Errors that data and settings can cause."""

from projects.errors import MMXrayError


class DatasetError(MMXrayError, ValueError):
    """Bad data or a wrong dataset setting; one line that names the file, what was expected and the remedy."""
