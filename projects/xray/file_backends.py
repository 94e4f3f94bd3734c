"""mmengine's file I/O for URLs: a config's `data_root` may be any URL that fsspec supports.

Importing this module registers the backend in place of mmengine's own backends for s3 and http (petrel,
urlopen), which neither retry nor list folders.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from mmengine.fileio import BaseStorageBackend, register_backend

from projects.radiograph.remote import exists, read_bytes


class FsspecBackend(BaseStorageBackend):
    """The methods that mmengine's data sets call on a backend, for URLs and with retries."""

    def get(self, filepath: str) -> bytes:
        """Return the content of an object."""
        return read_bytes(filepath)

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Return the content of an object as text."""
        return read_bytes(filepath).decode(encoding)

    def exists(self, filepath: str) -> bool:
        """Whether an object or a folder exists at the URL."""
        return exists(filepath)

    def join_path(self, filepath: str, *filepaths: str) -> str:
        """Join parts of a URL with single slashes."""
        return '/'.join([str(filepath).rstrip('/'), *(str(part).strip('/') for part in filepaths if part)])

    @contextmanager
    def get_local_path(self, filepath: str) -> Iterator[str]:
        """Yield the path of a temporary copy, for readers of local files."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, str(filepath).rpartition('/')[2])
            copy.write_bytes(read_bytes(filepath))
            yield str(copy)


register_backend(
    'fsspec',
    FsspecBackend,
    force=True,
    prefixes=[name for name in fsspec.available_protocols() if name not in ('file', 'local')],
)
