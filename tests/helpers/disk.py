"""A disk on which a file finds no room."""

import resource
from contextlib import contextmanager


@contextmanager
def largest_file(size):
    """No file of this process may grow beyond so many bytes while the block runs: as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
