"""Files as wholes: written whole or not at all, folders of one writer, and the SHA-256 of a file."""

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_drafts = itertools.count()


@contextmanager
def draft_of(path: Path, durable: bool = False) -> Iterator[Path]:
    """Give the name of a draft that takes the place of a file at the end; an error leaves nothing of it.

    Args:
        path: the file; its folder is made where it is missing.
        durable: wait until the content is on the disk: a power cut leaves the old file or the new one.

    Yields:
        A path beside the file, of this call alone, so that threads may write the same file; a kill leaves it,
        named `<file>.<process>-<number>.part`.
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes | str, durable: bool = False) -> None:
    """Write a file, in UTF-8, so that it is there whole or not at all; see `draft_of`."""
    with draft_of(path, durable) as draft:
        draft.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write a JSON file so that it is there whole or not at all; see `draft_of`."""
    write_whole(path, json.dumps(content, indent=indent) + '\n')


@contextmanager
def locked(folder: Path, busy: Exception) -> Iterator[None]:
    """Keep other processes out of a folder that is written to.

    Args:
        folder: it is there.
        busy: raised where another process is in it.
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
