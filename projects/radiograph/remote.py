"""Radiographs and annotation files behind a URL: `s3://`, `http(s)://` and every other protocol of fsspec.

The driver reads credentials and endpoints: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, … for S3,
`FSSPEC_<PROTOCOL>_<SETTING>` for any driver (fsspec.readthedocs.io, "Configuration"). This module counts the
tries. The drivers' own retries are off; otherwise an overloaded server would get a hundred requests for one
file.
"""

import errno
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import fsspec

from projects.errors import one_line

from .image import ImagingError, Radiograph
from .listing import SUFFIXES, is_companion, may_be_dicom
from .read import read

ATTEMPTS = 5
"""Tries of a read."""
BACKOFF_S = 0.5
"""Longest wait after the first failure, in seconds; it doubles after each: 0.5 + 1 + 2 + 4 = 7.5 s in all.

The wait is drawn between half of this and this, so that loaders that failed together do not retry together.
"""
CONNECT_S, READ_S = 10, 30
"""Seconds without a connection, and without a byte on it, after which a try fails; aiohttp's default is five
minutes, botocore's one."""

# A second try does not help against these errors.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)


class RemoteError(ImagingError, OSError):
    """A URL cannot be read: one line with the URL, what was expected, and the remedy."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL such as `s3://bucket/key`, which `pathlib` would damage."""
    return '://' in str(path)


def join(folder: str, name: str) -> str:
    """Return the path or URL of a file in a folder; over HTTP, special characters are escaped."""
    return f'{folder}/{quote(name) if _is_http(folder) else name}'


def name_in(folder: str, path: str) -> str:
    """Return the name from which `join` made a path or URL; the path itself where it is not in the folder."""
    name = path.removeprefix(f'{folder}/')
    return unquote(name) if _is_http(folder) and name != path else name


def _is_http(url: str) -> bool:
    return url.startswith(('http://', 'https://'))


def read_bytes(url: str) -> bytes:
    """Read a whole object.

    Args:
        url: Any URL that fsspec and its installed drivers read.

    Raises:
        RemoteError: The object is missing, not permitted, or not readable after `ATTEMPTS` tries.
    """
    data: bytes = _retry(url, lambda fs, path: fs.cat_file(path))
    return data


def read_range(url: str, start: int, end: int) -> bytes:
    """Read a part of an object by one request.

    Args:
        url: See `read_bytes`.
        start: First byte.
        end: One more than the last byte; beyond the end of the object, the result is shorter.

    Raises:
        RemoteError: See `read_bytes`; or the server sends more than the range.
    """
    data: bytes = _retry(url, lambda fs, path: _range_of(fs, path, start, end))
    if len(data) > end - start:
        raise RemoteError(
            f'{url}: expected {end - start} bytes from byte {start} on, got {len(data)}; use a server that '
            'answers range requests'
        )
    return data


def _range_of(fs: fsspec.AbstractFileSystem, path: str, start: int, end: int) -> bytes:
    try:
        data: bytes = fs.cat_file(path, start=start, end=end)
        return data
    except Exception as error:
        # 416, range not satisfiable: the object ends before `start`.
        code = getattr(error, 'status', None) or getattr(error, 'errno', None)
        if start and (code in (416, errno.EINVAL) or 'InvalidRange' in str(error)):
            return b''
        raise


def write_bytes(url: str, data: bytes) -> None:
    """Write an object; in an object store the write is atomic.

    Raises:
        RemoteError: The object cannot be written after `ATTEMPTS` tries.
    """
    _retry(url, lambda fs, path: _ready(fs, path).pipe_file(path, data), writing=True)


def upload(source: Path, url: str) -> None:
    """Write an object from a local file; see `write_bytes`."""
    _retry(url, lambda fs, path: _ready(fs, path).put_file(str(source), path), writing=True)


def remove(url: str) -> None:
    """Remove an object; a missing object is no error.

    Raises:
        RemoteError: The object cannot be removed.
    """

    def rm(fs: fsspec.AbstractFileSystem, path: str) -> None:
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    _retry(url, rm, writing=True)


_BUCKETS = {'s3', 's3a', 'gs', 'gcs', 'az', 'abfs', 'abfss', 'oci', 'oss'}


def _ready(fs: fsspec.AbstractFileSystem, path: str) -> fsspec.AbstractFileSystem:
    """Make the folder of a file where folders exist; the owner makes buckets."""
    if not _BUCKETS & {fs.protocol, *fs.protocol}:
        fs.makedirs(fs._parent(path), exist_ok=True)
    return fs


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text file from a path or a URL.

    Raises:
        RemoteError: See `read_bytes`; for a local file, the errors of `Path.read_text`.
    """
    return read_bytes(str(path)).decode() if is_url(path) else Path(path).read_text(encoding='utf-8')


def exists(url: str) -> bool:
    """Whether there is an object, or a folder, at the URL."""
    return bool(_retry(url, lambda fs, path: fs.exists(path)))


def read_radiograph(path: str) -> Radiograph:
    """Read a radiograph from a path or a URL.

    Raises:
        ImagingError: See `radiograph.read.read` and `read_bytes`.
    """
    return read(read_bytes(path), name=path) if is_url(path) else read(path)


def list_radiographs(folder: str) -> tuple[list[str], dict[str, int]]:
    """List the radiographs below a URL; see `listing.list_radiographs` for a local folder.

    Over HTTP the server must offer an index page per folder.

    Returns:
        Paths relative to the folder, sorted; and the number of other files by suffix.

    Raises:
        RemoteError: The folder cannot be listed.
    """
    names: list[str] = []
    unsure: list[str] = []
    others: Counter[str] = Counter()
    for name, size in sizes(folder).items():
        own = PurePosixPath(name)
        suffix = own.suffix.lower()
        if own.name.startswith('.'):
            others['hidden'] += 1
        elif suffix in SUFFIXES:
            names.append(name)
        elif may_be_dicom(suffix) and not is_companion(name) and (size is None or size > 132):
            unsure.append(name)
        else:
            others[suffix or 'no suffix'] += 1
    for name, head in zip(unsure, _heads([join(folder, name) for name in unsure])):
        if head[128:132] == b'DICM':
            names.append(name)
        else:
            others[PurePosixPath(name).suffix or 'no suffix'] += 1
    return sorted(names), dict(sorted(others.items()))


def tags(folder: str) -> dict[str, str]:
    """Return size and ETag or time of each file below a URL, which differ from those of a former version.

    Returns:
        Size and mark by path relative to the folder, sorted; a mark is empty where the listing has none.

    Raises:
        RemoteError: The folder cannot be listed.
    """
    marks = {}
    for name, info in _details(folder).items():
        mark = next((info[key] for key in ('ETag', 'LastModified', 'mtime', 'created') if info.get(key)), '')
        marks[name] = f'{info.get("size")} {mark}'
    return marks


def list_files(folder: str) -> list[str]:
    """Return the files below a URL, recursive and sorted, as paths relative to it.

    Raises:
        RemoteError: The folder cannot be listed.
    """
    return list(sizes(folder))


def sizes(folder: str) -> dict[str, int | None]:
    """Return the size of each file below a URL in bytes, sorted by path; None where the listing has none.

    Raises:
        RemoteError: The folder cannot be listed.
    """
    return {name: info.get('size') for name, info in _details(folder).items()}


def _details(folder: str) -> dict[str, dict[str, Any]]:
    """Return the entry of each file in the listing of a URL, by path relative to the URL, sorted."""

    def find(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, dict[str, Any]]:
        root = path.rstrip('/')
        fs.invalidate_cache()  # new files since the last listing count
        found = fs.find(f'{root}/', detail=True).items()
        own = {name_in(root, k): info for k, info in found if k.startswith(f'{root}/')}
        return dict(sorted(own.items()))

    found: dict[str, dict[str, Any]] = _retry(folder, find)
    return found


def _heads(urls: list[str]) -> list[bytes]:
    """Return the first 132 bytes of objects of one driver: in one request, or one by one where it fails."""
    if not urls:
        return []

    def read_all(fs: fsspec.AbstractFileSystem, path: str) -> list[Any]:
        paths = [fs._strip_protocol(url) for url in urls]
        heads: list[Any] = fs.cat_ranges(paths, [0] * len(urls), [132] * len(urls), on_error='return')
        return heads

    return [
        head if isinstance(head, bytes) else _retry(url, lambda fs, path: fs.cat_file(path, start=0, end=132))
        for url, head in zip(urls, _retry(urls[0], read_all))
    ]


def _retry(url: str, action: Callable[..., Any], writing: bool = False) -> Any:
    """Call `action(file system, path)` until it succeeds; the wait doubles after each failed try."""
    what = 'writable' if writing else 'readable'
    wait = BACKOFF_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # The driver is looked up each time: fsspec keeps one per process, and none may cross a fork.
            return action(*_driver(str(url)))
        except FileNotFoundError:
            if writing:
                raise RemoteError(
                    f'{url}: expected a bucket or folder to write to, found none; make it, or correct OUT'
                ) from None
            raise RemoteError(
                f'{url}: expected an object at this URL, found none; upload it, or correct `data_root`, '
                '`data_prefix` or `ann_file`'
            ) from None
        except ImportError as error:
            protocol = str(url).partition('://')[0]
            raise RemoteError(
                f'{url}: expected a driver for {protocol}:// ({one_line(error)}); install it into .venv'
            ) from None
        except Exception as error:  # each driver raises its own: aiohttp, botocore, socket, …
            if type(error).__name__ in ('NoCredentialsError', 'PartialCredentialsError'):  # botocore's
                raise RemoteError(
                    f'{url}: expected credentials for S3, found none or half of them; set AWS_ACCESS_KEY_ID '
                    'and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public bucket'
                ) from None
            status, reason = getattr(error, 'status', None), one_line(error)
            if isinstance(error, _FINAL) or status in (401, 403):
                raise RemoteError(
                    f'{url}: expected a {what} object ({reason}); check the URL and the credentials'
                ) from None
            if attempt == ATTEMPTS:
                raise RemoteError(
                    f'{url}: expected an answer within {ATTEMPTS} tries ({reason}); check the network '
                    'and the server'
                ) from None
        # Not the global generator, whose draws must repeat from training to training.
        time.sleep(wait * random.SystemRandom().uniform(0.5, 1))
        wait *= 2
    raise AssertionError('unreachable')


def _driver(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL, which fsspec keeps, and the path in it.

    fsspec chains file systems by `::` (`simplecache::s3://…`). Only a `::` in front of the first `://` chains
    here; in a key, `::` is part of the key.
    """
    protocol = url.partition('://')[0]
    if '::' in protocol:
        chained: tuple[Any, str] = fsspec.core.url_to_fs(url)
        return chained
    kind = fsspec.get_filesystem_class(protocol)
    settings = {**kind._get_kwargs_from_urls(url), **_options(url)}
    driver = fsspec.filesystem(protocol, **settings)
    if protocol == 's3':
        driver.retries = 1
    return driver, driver._strip_protocol(url)


def _options(url: str) -> dict[str, Any]:
    """Return the settings of a driver: its timeouts, unless its environment (`FSSPEC_…`) sets them."""
    if url.startswith('s3://'):
        timeouts = dict(connect_timeout=CONNECT_S, read_timeout=READ_S, retries=dict(total_max_attempts=1))
        # One request per read: s3fs asks for the size first if it may split a read.
        return dict(max_concurrency=1, config_kwargs=timeouts | _configured('s3', 'config_kwargs'))
    if _is_http(url):
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        return dict(client_kwargs=dict(timeout=timeout) | _configured('http', 'client_kwargs'))
    return {}


def _configured(protocol: str, setting: str) -> dict[str, Any]:
    own = fsspec.config.conf.get(protocol, {}).get(setting)
    return own if isinstance(own, dict) else {}
