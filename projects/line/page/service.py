"""Requests of the page and other programs: `/v1/inspect`, health, version, metrics; see `/openapi.json`."""

import shutil
import threading
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, ValidationError

from projects import __version__
from projects.line.runtime.inspector import Inspection
from projects.line.runtime.results import as_result
from projects.radiograph.files import sha256
from projects.radiograph.image import ImagingError

from .items import as_text
from .routes import Sitting, folders_of, not_kept
from .session import Session
from .uploads import Bounds, keep_upload, plain_name, receive

MOST_PATHS = 100
MOST_IN_FOLDER = 5_000
LEAST_ROOM = 256 * 2**20  # bytes; with less, decisions and uploads may fail at any time

router = APIRouter()


class Paths(BaseModel):
    """A batch: radiographs of the archive that the server was started with."""

    paths: list[str] = Field(min_length=1, max_length=MOST_PATHS, description='relative to --images')


class Folder(BaseModel):
    """A folder of the archive that the server was started with."""

    folder: str = Field(description='relative to --images')


class Listed(BaseModel):
    """Counts of a folder that was put on the page's list."""

    added: int
    outside: int = Field(description='links that lead out of the archive, which are not opened')


class Box(BaseModel):
    """A finding."""

    box: list[float] = Field(description='x1, y1, x2, y2 in px of the stored radiograph')
    severity: str = Field(alias='class')
    score: float
    mask: dict[str, Any] | None = Field(None, description="COCO's run lengths; of a detector with masks")
    area: int | None = Field(None, description='of the mask, px²')


class Result(BaseModel):
    """The findings on a radiograph. Only the verdict `accept` is an acceptance."""

    name: str
    radiograph: str = Field(description='SHA-256 of its file')
    verdict: Literal['accept', 'reject', 'unreadable']
    reason: str = Field(description='why it is unreadable')
    risk: float | None = Field(description='highest score of a rejecting class')
    boxes: list[Box]
    unusual: float | None = Field(description='score of the second opinion; null without one')
    flagged: bool = Field(description='the second opinion asks an inspector to look, whatever the verdict')
    size: list[int] | None = Field(description='height and width in px')
    threshold: float
    folder: str = Field(description="SHA-256 that identifies the detector's folder")
    engine: str
    seconds: dict[str, float] = Field(description='of decode, window, network and merge')
    time: str = Field(description='UTC')
    requalify: list[str] = Field(description='drift charts that have called; they change no verdict')
    id: int | None = Field(None, description="on the page's list; with keep")


class Results(BaseModel):
    """Results in the order of the request."""

    results: list[Result]


BODY = {
    'requestBody': {
        'required': True,
        'content': {
            'application/octet-stream': {'schema': {'type': 'string', 'format': 'binary'}},
            'application/dicom': {'schema': {'type': 'string', 'format': 'binary'}},
            'application/json': {'schema': Paths.model_json_schema()},
        },
    }
}


KEEP = Query(description="put it on the page's list for a decision; needs the role inspector")


# Without `unset` fields: the results of a detector of boxes alone have no key for masks.
@router.post('/v1/inspect', response_model=Results, response_model_exclude_unset=True, openapi_extra=BODY)
async def inspect(
    session: Sitting,
    limits: Bounds,
    request: Request,
    name: Annotated[str, Query(description='of an uploaded radiograph', max_length=1000)] = 'radiograph.dcm',
    keep: Annotated[bool, KEEP] = False,
) -> dict[str, Any]:
    """Inspect one radiograph, the request's body, or several of the archive, by a JSON list of paths.

    Without `keep`, nothing of an upload is kept. An unreadable radiograph has the verdict `unreadable`. With
    `keep`, an upload that the page cannot show is refused (415).
    """
    if keep:
        _check_role(request)
    if request.headers.get('content-type', '').partition(';')[0].strip().lower() == 'application/json':
        try:
            asked = Paths.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors()[0]
            raise HTTPException(400, f'paths: {first["msg"]}') from None
        files = [_inside(session, path) for path in asked.paths]
        async with limits.place():
            found = [
                await run_in_threadpool(_inspect, session, path, file, keep)
                for path, file in zip(asked.paths, files, strict=True)
            ]
        return dict(results=found)
    # A name of this request alone: the same radiograph may be sent twice at once.
    draft = session.uploads / f'{uuid.uuid4().hex}.part'
    plain = plain_name(name)
    try:
        async with limits.place():
            digest = await receive(request, draft, plain)
            if keep:
                return dict(results=[await run_in_threadpool(_keep, session, plain, draft, digest)])
            return dict(results=[await run_in_threadpool(_inspect, session, plain, draft, False)])
    except OSError as error:
        raise not_kept(session, error) from None
    finally:
        draft.unlink(missing_ok=True)


@router.post('/v1/inspect/folder', status_code=202, response_model=Listed)
def inspect_folder(session: Sitting, request: Request, asked: Folder) -> dict[str, int]:
    """Put a folder's radiographs on the page's list and inspect them in the background.

    The request needs the role inspector.
    """
    _check_role(request)
    paths = folders_of(session).get(asked.folder)
    if not paths:
        raise HTTPException(400, 'no such folder of the archive')
    if len(paths) > MOST_IN_FOLDER:
        raise HTTPException(400, f'{len(paths)} radiographs, expected at most {MOST_IN_FOLDER}; use infer.py')
    inside = [path for path in paths if path.resolve().is_relative_to(session.root)]
    keys = [session.add(str(path.relative_to(session.root)), path) for path in inside]
    threading.Thread(target=session.inspect_all, args=(keys,), daemon=True).start()
    return dict(added=len(keys), outside=len(paths) - len(inside))


def _check_role(request: Request) -> None:
    """Refuse a reader's request that adds to the inspectors' list."""
    user = request.state.user
    if user.role != 'inspector':
        raise HTTPException(403, f'{user.name} may look, not decide: ask for the role inspector')


def _inside(session: Session, path: str) -> Path:
    """Return a file of the archive, or answer 400 if the file lies elsewhere."""
    if session.root is None:
        raise HTTPException(
            400, 'paths: this server has no archive; start it with --images, or send the file'
        )
    try:
        file = (session.root / path).resolve()
    except (OSError, ValueError):  # a NUL, or a loop of links
        file = Path('/')
    if not file.is_relative_to(session.root):
        raise HTTPException(400, f'paths: {as_text(path)[:200]!r} does not lie in the archive')
    return file


def _inspect(session: Session, name: str, file: Path, keep: bool) -> dict[str, Any]:
    """Inspect a file; with `keep`, a file of the archive, which is put on the list."""
    if keep:
        key = session.add(str(file.relative_to(session.root)), file)
        digest, outcome = session.inspect(key, again=True)
        return _result(session, name, file, digest, outcome) | dict(id=key)
    try:
        digest = sha256(file)
    except OSError as error:
        outcome = ImagingError(f'{name}: expected a readable file ({error.strerror}); correct the path')
        digest = ''
        session.metrics.count(name, outcome)
    else:
        outcome = session.detect(name, file, digest)
    return _result(session, name, file, digest, outcome)


def _keep(session: Session, name: str, draft: Path, digest: str) -> dict[str, Any]:
    key, outcome = keep_upload(session, name, draft, digest)
    return _result(session, name, draft, digest, outcome) | dict(id=key)


def _result(
    session: Session, name: str, file: Path, digest: str, outcome: Inspection | ImagingError
) -> dict[str, Any]:
    result = as_result(as_text(name), digest, outcome, session.inspector)
    reason = as_text(result['reason'].replace(str(file), name))
    return result | dict(reason=reason, requalify=session.drift.requalify)


@router.get('/health/live')
async def live() -> dict[str, str]:
    """Answer that the process is alive."""
    return dict(status='live')


@router.get('/health/ready')
async def ready(session: Sitting, response: Response) -> dict[str, str]:
    """Answer whether radiographs can be inspected and decisions kept; 503 if not.

    A server whose detector was replaced is not ready either: its verdicts come from a withdrawn detector.
    """
    if replaced := await run_in_threadpool(session.served.replaced):
        response.status_code = 503
        return dict(status=f'not ready: {as_text(replaced)}')
    try:
        room = shutil.disk_usage(session.uploads).free
    except OSError:
        room = 0
    if room < LEAST_ROOM:
        response.status_code = 503
        return dict(status=f'not ready: less than {LEAST_ROOM >> 20} MiB free where decisions are kept')
    return dict(status='ready')


@router.get('/version')
async def version(session: Sitting) -> dict[str, Any]:
    """Give version, detector, engine and threshold of the server."""
    inspector = session.inspector
    return dict(
        version=__version__,
        folder=inspector.digest,
        config=inspector.exported.origin.get('config', ''),
        precision=inspector.exported.precision,
        engine=inspector.engine,
        threshold=inspector.threshold,
        classes=inspector.exported.classes,
    )


@router.get('/metrics', response_class=Response)
def metrics(session: Sitting) -> Response:
    """Give the metrics in Prometheus' text format."""
    return Response(session.metrics.text(), media_type='text/plain; version=0.0.4; charset=utf-8')
