"""Atomic writing of files and folders, folders locked for one writer, and the SHA-256 of a file."""

import fcntl
import hashlib
import itertools
import json
import os
import shutil
import tempfile
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
def draft_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that becomes `out` at the end; an error removes it with all its content.

    Args:
        out: a path where nothing is, or an empty folder.

    Yields:
        The draft, named `.<out>.<random>`. A kill leaves it.
    """
    out = out.resolve()  # renaming replaces an empty folder, but no link to one
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp's mode lets its owner alone read
        draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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
