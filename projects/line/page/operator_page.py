"""Read-only requests of the operator's page: the last verdicts and their pictures."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse

from projects.line.runtime.last import MOST, read_kept, read_picture

from .items import as_text
from .routes import Sitting

PAGE = Path(__file__).with_name('operator.html')

router = APIRouter()


@router.get('/operator')
def operator() -> FileResponse:
    """Give the operator's page."""
    return FileResponse(PAGE, media_type='text/html')


@router.get('/api/last')
def last(session: Sitting) -> dict[str, Any]:
    """Give the last verdicts, newest first, and warnings about the detector.

    `away` says why no verdict is shown: if the watched folder's process does not run, an operator would take
    an old verdict for the next part's.
    """
    answer: dict[str, Any] = dict(last=session.last.listed(), requalify=session.drift.requalify, away='')
    answer['replaced'] = as_text(session.served.replaced())
    if session.watched is None:
        return answer
    kept = read_kept(session.watched)
    if not kept['runs']:
        return answer | dict(
            last=[], away=f'nothing inspects the folder whose results go to {session.watched}'
        )
    answer['requalify'] += [f'watched folder: {reason}' for reason in kept['requalify']]
    together = sorted([*answer['last'], *kept['last']], key=lambda facts: facts['time'], reverse=True)
    return answer | dict(last=together[:MOST])


@router.get('/api/last/{key}/picture')
def picture(session: Sitting, key: str) -> Response:
    """Give the picture of a listed verdict."""
    content = session.last.picture(key)
    if not content and session.watched:
        content = read_picture(session.watched, key)
    if not content:
        raise HTTPException(404, 'no such picture any more')
    return Response(content, media_type='image/png')
