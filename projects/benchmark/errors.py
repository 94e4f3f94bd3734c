"""The error of a benchmark that cannot run."""

from projects.errors import MMXrayError


class BenchmarkError(MMXrayError, RuntimeError):
    """A variant did not run or train; one line with the reason."""
