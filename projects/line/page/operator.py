"""Requests of the operator's page: the last verdicts and their pictures; nothing can be changed."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse

from .routes import Sitting

PAGE = Path(__file__).with_name('operator.html')

router = APIRouter()


@router.get('/operator')
def operator() -> FileResponse:
    """Give the operator's page."""
    return FileResponse(PAGE, media_type='text/html')


@router.get('/api/last')
def last(session: Sitting) -> dict[str, Any]:
    """Give the last verdicts, newest first, and whether the detector is to be qualified again."""
    return dict(last=session.last.listed(), requalify=session.drift.requalify)


@router.get('/api/last/{number}/picture')
def picture(session: Sitting, number: int) -> Response:
    """Give the picture of one of them."""
    content = session.last.picture(number)
    if not content:
        raise HTTPException(404, 'no such picture any more')
    return Response(content, media_type='image/png')
