"""What a benchmark cannot measure."""

from projects.errors import MMXrayError


class BenchmarkError(MMXrayError, RuntimeError):
    """A variant did not run or train; one line with the reason that it gave."""
