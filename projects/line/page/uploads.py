"""Radiographs that are sent to the page: checked by size and content, then kept and inspected."""

import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from projects.line.runtime.inspector import read_one
from projects.radiograph.files import write_whole
from projects.radiograph.image import MAX_FRAME_BYTES, ImagingError
from projects.radiograph.listing import SUFFIXES

from .items import kept_name
from .routes import Sitting, not_kept
from .session import Session

router = APIRouter()


@router.post('/api/images')
async def upload(session: Sitting, request: Request, name: str) -> dict:
    """Take one radiograph, the request's body, and inspect it."""
    plain = re.sub(r'[^\w.-]+', '_', Path(name.replace('\\', '/')).name).lstrip('.')
    suffix = Path(plain).suffix.lower()
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_FRAME_BYTES:
            raise HTTPException(413, f'expected at most {MAX_FRAME_BYTES >> 20} MiB')
    if not plain or suffix not in SUFFIXES and content[128:132] != b'DICM':
        raise HTTPException(415, f'expected a radiograph ({", ".join(SUFFIXES)}, or DICOM content)')
    return await run_in_threadpool(_receive, session, plain, bytes(content))


def _receive(session: Session, name: str, content: bytes) -> dict:
    try:
        read_one(content, name)
    except ImagingError as error:
        raise HTTPException(415, str(error)) from None
    path = session.out / 'images' / kept_name(name, hashlib.sha256(content).hexdigest())
    try:
        write_whole(path, content)
    except OSError as error:
        raise not_kept(session, error) from None
    key = session.add(name, path)
    session.inspect(key)
    return dict(id=key)
