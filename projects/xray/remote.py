"""Radiographs and annotation files behind a URL: `s3://`, `http(s)://` and whatever else fsspec speaks.

Importing this file registers the backend with mmengine's file I/O, so that a config's `data_root` may be a
URL. Credentials and endpoints are the driver's business: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, … for S3,
`FSSPEC_<PROTOCOL>_<SETTING>` for any driver (fsspec.readthedocs.io, "Configuration").
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from mmengine.fileio import BaseStorageBackend, register_backend

from .imaging import SUFFIXES, ImagingError, Radiograph, read

ATTEMPTS = 5
"""How often a read is tried."""
BACKOFF_S = 0.5
"""Wait after the first failure, in seconds; doubled after each: 0.5 + 1 + 2 + 4 = 7.5 s in all."""

# No second try makes these better.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)


class RemoteError(ImagingError, OSError):
    """A URL cannot be read: one line with the URL, what was expected, and the remedy."""


def is_url(path: str | os.PathLike) -> bool:
    """Whether a path is a URL such as `s3://bucket/key`, which `pathlib` would damage."""
    return '://' in str(path)


def read_bytes(url: str) -> bytes:
    """Read a whole object.

    Args:
        url: Any URL that fsspec and its installed drivers read.

    Raises:
        RemoteError: The object is missing, not permitted, or not readable after `ATTEMPTS` tries.
    """
    return _retry(url, lambda fs, path: fs.cat_file(path))


def read_text(path: str | os.PathLike) -> str:
    """Read a UTF-8 text file from a path or a URL.

    Raises:
        RemoteError: See `read_bytes`; a local file raises what `Path.read_text` does.
    """
    return read_bytes(path).decode() if is_url(path) else Path(path).read_text(encoding='utf-8')


def read_radiograph(path: str) -> Radiograph:
    """Read a radiograph from a path or a URL.

    Raises:
        ImagingError: See `imaging.read` and `read_bytes`.
    """
    return read(read_bytes(path), name=path) if is_url(path) else read(path)


def list_radiographs(folder: str) -> tuple[list[str], dict[str, int]]:
    """List the radiographs below a URL, as `packing.list_radiographs` does below a local folder.

    Over HTTP the server must offer an index page per folder.

    Returns:
        Paths relative to the folder, sorted; and how many other files of each suffix there are.

    Raises:
        RemoteError: The folder cannot be listed.
    """
    names, others = [], Counter()
    for name in list_files(folder):
        own = Path(name)
        if own.name.startswith('.'):
            others['hidden'] += 1
        elif own.suffix.lower() in SUFFIXES:
            names.append(name)
        else:
            others[own.suffix.lower() or 'no suffix'] += 1
    return names, dict(sorted(others.items()))


def list_files(folder: str) -> list[str]:
    """Return the files below a URL, recursive and sorted, as paths relative to it.

    Raises:
        RemoteError: The folder cannot be listed.
    """

    def find(fs, path):
        root = path.rstrip('/') + '/'
        return sorted(name.removeprefix(root) for name in fs.find(root) if name.startswith(root))

    return _retry(folder, find)


def _retry(url: str, action: Callable):
    """Call `action(file system, path)` until it succeeds, with a doubling wait after a dropped connection."""
    wait = BACKOFF_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # Asked for anew each time: fsspec keeps one per process, and none may cross a fork.
            return action(*fsspec.core.url_to_fs(str(url), **_options(str(url))))
        except FileNotFoundError:
            raise RemoteError(
                f'{url}: expected an object at this URL, found none; upload it, or correct `data_root`, '
                '`data_prefix` or `ann_file`'
            ) from None
        except ImportError as error:
            protocol = str(url).partition('://')[0]
            raise RemoteError(
                f'{url}: expected a driver for {protocol}:// ({_line(error)}); install it into .venv'
            ) from None
        except Exception as error:  # each driver raises its own: aiohttp, botocore, socket, …
            status = getattr(error, 'status', None)
            if isinstance(error, _FINAL) or status in (401, 403):
                raise RemoteError(
                    f'{url}: expected a readable object ({_line(error)}); check the URL and the credentials'
                ) from None
            if attempt == ATTEMPTS:
                raise RemoteError(
                    f'{url}: expected an answer within {ATTEMPTS} tries ({_line(error)}); check the network '
                    'and the server'
                ) from None
        time.sleep(wait)
        wait *= 2
    raise AssertionError('unreachable')


def _options(url: str) -> dict:
    """Settings of a driver: s3fs, unless kept from splitting a read, asks for the size before each."""
    return dict(max_concurrency=1) if url.startswith('s3://') else {}


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200] or type(error).__name__


class FsspecBackend(BaseStorageBackend):
    """mmengine's file I/O for URLs: what its datasets ask of a backend, with retries."""

    def get(self, filepath: str) -> bytes:
        """Return the content of an object."""
        return read_bytes(filepath)

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Return the content of an object as text."""
        return read_bytes(filepath).decode(encoding)

    def exists(self, filepath: str) -> bool:
        """Whether there is an object, or a folder, at the URL."""
        return _retry(filepath, lambda fs, path: fs.exists(path))

    def join_path(self, filepath: str, *filepaths: str) -> str:
        """Join parts of a URL with single slashes."""
        return '/'.join([str(filepath).rstrip('/'), *(str(part).strip('/') for part in filepaths if part)])

    @contextmanager
    def get_local_path(self, filepath: str) -> Iterator[str]:
        """Yield the path of a temporary copy, for readers that know local files only."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, str(filepath).rpartition('/')[2])
            copy.write_bytes(read_bytes(filepath))
            yield str(copy)


# mmengine's own s3 and http backends (petrel, urlopen) neither retry nor list.
register_backend(
    'fsspec',
    FsspecBackend,
    force=True,
    prefixes=[name for name in fsspec.available_protocols() if name not in ('file', 'local')],
)
