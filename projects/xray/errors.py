"""The error of wrong data and data set settings."""

from projects.errors import MMXrayError


class DatasetError(MMXrayError, ValueError):
    """Bad data or a wrong data set setting; one line with the file, what was expected and the remedy."""
