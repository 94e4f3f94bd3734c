"""Atomic writing of files and folders, folders locked for one writer, and the SHA-256 of a file."""

import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_drafts = itertools.count()


@contextmanager
def draft_of(path: Path, durable: bool = False) -> Iterator[Path]:
    """Give the name of a draft that replaces a file at the end; an error removes the draft.

    Args:
        path: the file; a missing folder is made.
        durable: wait until the content is on the disk: a power cut leaves the old file or the new file.

    Yields:
        A path beside the file, unique to this call, so that threads may write the same file. A kill leaves
        the draft, named `<file>.<process>-<number>.part`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'{path.name}.{os.getpid()}-{next(_drafts)}.part')
    try:
        yield draft
        if durable:
            _sync(draft)
        draft.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(out: Path) -> Iterator[None]:
    """Make a folder, or take an empty one, for what is written meanwhile; an error leaves it as it was.

    Args:
        out: a path where nothing is, or an empty folder. A kill leaves what was written until then.

    Raises:
        FileExistsError: the folder is not empty.
    """
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(errno.EEXIST, 'expected a new or empty folder', str(out))
    try:
        yield
    except BaseException:
        for path in out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if new:
            out.rmdir()
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes | str, durable: bool = False) -> None:
    """Write a file atomically, text in UTF-8; see `draft_of`."""
    with draft_of(path, durable) as draft:
        draft.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write a JSON file atomically; see `draft_of`."""
    write_whole(path, json.dumps(content, indent=indent) + '\n')


@contextmanager
def locked(folder: Path, busy: Exception) -> Iterator[None]:
    """Keep other processes out of a folder while this one writes to it.

    Args:
        folder: an existing folder.
        busy: raised where another process holds the lock.
    """
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
