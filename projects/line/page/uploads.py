"""Uploaded radiographs: written to the disk, checked for size and content, then inspected.

An upload stays in `uploads/` until a decision on it, when its copy goes to `images/`, or until the page ends.
The size of undecided uploads is limited.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from projects.line.runtime.inspector import Inspection, read_one
from projects.radiograph.files import sha256
from projects.radiograph.image import ImagingError
from projects.radiograph.listing import SUFFIXES

from .items import kept_name
from .session import Session

RECEIVED_AT_ONCE = 8
MOST_WAITING = 64
KEPT_BYTES = 4 * 2**30
STEP = 2**20


class Limits:
    """The limit of uploads that an application receives at once."""

    def __init__(self) -> None:
        self.receiving = asyncio.Semaphore(RECEIVED_AT_ONCE)
        self.waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place to receive an upload, or answer 503 if too many wait."""
        if self.waiting >= MOST_WAITING:
            raise HTTPException(503, 'too many radiographs at once: send it again', {'Retry-After': '5'})
        self.waiting += 1
        try:
            async with self.receiving:
                yield
        finally:
            self.waiting -= 1


def limits_of(request: Request) -> Limits:
    """Return the limits of an application."""
    return request.app.state.limits


Bounds = Annotated[Limits, Depends(limits_of)]


def plain_name(name: str) -> str:
    """Return the last part of a file's name, without characters with a meaning in a path or a shell."""
    return re.sub(r'[^\w.-]+', '_', Path(name.replace('\\', '/')).name).lstrip('.')


async def receive(request: Request, path: Path, name: str) -> str:
    """Write a request's body to a file and return its SHA-256; refuse a body that cannot be a radiograph.

    Raises:
        HTTPException: 415, the body cannot be a radiograph.
        OSError: The file cannot be written.
    """
    digest, head, batch = hashlib.sha256(), b'', bytearray()
    with path.open('wb') as file:
        async for chunk in request.stream():
            digest.update(chunk)
            head += chunk[: 132 - len(head)]
            batch += chunk
            if len(batch) >= STEP:
                await run_in_threadpool(file.write, bytes(batch))
                batch.clear()
        file.write(batch)
    if not name or Path(name).suffix.lower() not in SUFFIXES and head[128:] != b'DICM':
        raise HTTPException(415, f'expected a radiograph ({", ".join(SUFFIXES)}, or DICOM content)')
    return digest.hexdigest()


def keep_upload(
    session: Session, name: str, draft: Path, digest: str
) -> tuple[int, Inspection | ImagingError]:
    """Inspect an upload and put it on the list for a decision.

    Args:
        session: The sitting.
        name: Displayed name.
        draft: File of the upload, which is moved.
        digest: SHA-256 of its content.

    Returns:
        Its number on the list, and the result of `Inspector.attempt`.

    Raises:
        HTTPException: 415, the page cannot show it; 507, uploads take too much room.
        OSError: The upload cannot be written.
    """
    file_name = kept_name(name, digest)
    path, decided = session.uploads / file_name, session.out / 'images' / file_name

    def is_decided() -> bool:
        return decided.is_file() and sha256(decided) == digest

    if not is_decided():
        with session.lock:  # refuse early, before the detector runs
            _check_room(session, draft, path)
    outcome = session.detect(name, draft, digest)
    if isinstance(outcome, ImagingError):
        _check_shown(session, name, draft)
        outcome = ImagingError(str(outcome).replace(str(draft), name))
    if is_decided():
        path = decided
    else:
        with session.lock:  # two uploads at once must not share the last room
            _check_room(session, draft, path)
            draft.replace(path)
    key = session.add(name, path)
    session.set_outcome(key, digest, outcome)
    return key, outcome


def _check_shown(session: Session, name: str, draft: Path) -> None:
    """Refuse a file that is not a radiograph; a radiograph that only the detector refuses is kept."""
    try:
        with session.decoding:
            read_one(draft, name)
    except ImagingError as error:
        raise HTTPException(415, str(error)) from None


def _check_room(session: Session, draft: Path, path: Path) -> None:
    """Refuse an upload if the undecided uploads take too much room."""
    others = [other for other in session.uploads.iterdir() if other.suffix != '.part' and other != path]
    kept = sum(other.stat().st_size for other in others)
    if kept + draft.stat().st_size > KEPT_BYTES:
        raise HTTPException(
            507,
            f'{session.uploads}: {kept / 2**30:.1f} of {KEPT_BYTES / 2**30:g} GiB hold uploads that nobody '
            'decided on; decide on some, or start the page again, which drops them',
        )
