"""Errors that data and settings can cause."""


class DatasetError(ValueError):
    """Bad data or a wrong dataset setting; one line that names the file, what was expected and the remedy."""
