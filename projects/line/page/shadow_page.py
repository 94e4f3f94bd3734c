"""Requests of the page that compares two detectors: verdicts of each part, and how often they differ."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from .routes import Sitting

PAGE = Path(__file__).with_name('shadow.html')

router = APIRouter()


@router.get('/shadow')
def shadow() -> FileResponse:
    """Give the page."""
    return FileResponse(PAGE, media_type='text/html')


@router.get('/api/shadow')
def compared(session: Sitting) -> dict[str, Any]:
    """Give the verdicts of both detectors, of this server and of the folder that another process watches.

    `runs` says whether this server has a second detector now; records of an earlier time are given too.
    """
    told = [record.told() for record in session.compared]
    return dict(runs=session.shadow is not None, records=[record for record in told if record['first']])
