"""Requests of the page: the list and its folders, findings and pixels of one radiograph, decisions on it."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, Depends, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from projects.line.runtime.archive import ArchiveError
from projects.line.runtime.inspector import read_one
from projects.radiograph.image import ImagingError
from projects.xray.classes import PALETTE

from .decision import ConflictError
from .items import LONGEST_PART, Item, as_text, check_unchanged
from .pixels import packed
from .session import Session

PAGE = Path(__file__).with_name('page.html')
BLOCK = 2**22  # bytes

router = APIRouter()


def session_of(request: Request) -> Session:
    """Return the sitting of a request's application."""
    return request.app.state.session


Sitting = Annotated[Session, Depends(session_of)]


def item_of(session: Session, key: int) -> Item:
    """Return an item of the list, or answer 404."""
    if key not in session.items:
        raise HTTPException(404, 'no such radiograph')
    return session.items[key]


def not_kept(session: Session, error: OSError) -> HTTPException:
    """Return the answer 507: sent data could not be written, with the remedy."""
    reason = error.strerror or error
    return HTTPException(507, as_text(f'{session.out}: not kept ({reason}); make room there, then try again'))


def folders_of(session: Session) -> dict[str, list[Path]]:
    """Return the archive's folders, or answer 400."""
    try:
        return session.folders()
    except ArchiveError as error:
        raise HTTPException(400, str(error)) from None


@router.get('/')
def page() -> FileResponse:
    """Give the page."""
    return FileResponse(PAGE, media_type='text/html')


@router.get('/api/state')
def state(session: Sitting, since: int = 0) -> dict:
    """Give the detector's facts and the list, or only the items that changed after change `since`."""
    exported = session.inspector.exported
    with session.lock:
        changes, listed = session.changes, list(session.items.items())
    items = [
        dict(
            id=key,
            name=i.name,
            state=i.state,
            reason=i.reason,
            risk=i.risk,
            flagged=i.flagged,
            decision=i.decision,
            revision=i.revision,
            part=i.part,
            thumbnail=i.digest[:12] if i.thumbnail else '',
        )
        for key, i in listed
        if i.changed > since
    ]
    if since:
        return dict(sitting=session.sitting, changes=changes, items=items)
    return dict(
        sitting=session.sitting,
        changes=changes,
        folder=session.inspector.digest,
        reader=session.decisions.reader,
        classes=exported.classes,
        palette=[list(PALETTE[k % len(PALETTE)]) for k in range(len(exported.classes))],
        rejecting=[exported.classes.index(name) for name in exported.rejecting],
        threshold=session.inspector.threshold,
        reason=exported.threshold_reason,
        curve=exported.curve,
        model=exported.origin.get('config', ''),
        precision=exported.precision,
        items=items,
    )


@router.get('/api/drift')
def drift(session: Sitting) -> dict:
    """Give the drift charts, and in `replaced` whether the detector's path now leads to another detector."""
    return session.drift.told() | dict(replaced=as_text(session.served.replaced()))


@router.get('/api/folders')
def folders(session: Sitting) -> list[str]:
    """Name the archive's folders."""
    return list(folders_of(session))


@router.get('/api/images/{key}')
def findings(session: Sitting, key: int) -> dict:
    """Give findings, decision and facts of a radiograph."""
    item = item_of(session, key)
    return dict(
        id=key,
        name=item.name,
        digest=item.digest,
        state=item.state,
        reason=item.reason,
        size=item.size,
        boxes=item.boxes,
        found=item.found,
        risk=item.risk,
        flagged=item.flagged,
        decision=item.decision,
        decided=item.decided,
        revision=item.revision,
        part=item.part,
    )


@router.get('/api/images/{key}/thumbnail')
def small(session: Sitting, key: int) -> Response:
    """Give a small picture of the windowed radiograph."""
    item = item_of(session, key)
    if not item.thumbnail:
        raise HTTPException(404, 'no picture of this radiograph')
    return Response(item.thumbnail, media_type='image/png')


@router.get('/api/images/{key}/pixels')
def pixels(session: Sitting, key: int, digest: str | None = None) -> Response:
    """Give a radiograph's pixels, see `packed`; 400 if the file does not have that digest."""
    item = item_of(session, key)
    if digest not in (None, item.digest):
        raise HTTPException(400, 'its file changed since it was inspected: open it again')
    try:
        if item.state == 'found':
            check_unchanged(item.path, item.digest)
        with session.showing:
            radiograph = read_one(item.path)
    except ImagingError as error:
        raise HTTPException(415, as_text(str(error).replace(str(item.path), item.name))) from None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    content, headers = packed(radiograph, session.inspector.exported.window)
    headers['Content-Length'] = str(len(content))
    # Block by block: in one piece, a film of 200 MB would be copied twice.
    blocks = (content[k : k + BLOCK] for k in range(0, len(content), BLOCK))
    return StreamingResponse(blocks, media_type='application/octet-stream', headers=headers)


@router.post('/api/images/{key}/decision')
def decide(
    request: Request,
    session: Sitting,
    key: int,
    verdict: Annotated[str, Body()],
    boxes: Annotated[list[dict], Body()],
    part: Annotated[str, Body()] = '',
    digest: Annotated[str | None, Body()] = None,
    revision: Annotated[int, Body(strict=True)] = 0,
    inspector: Annotated[str, Body(max_length=LONGEST_PART)] = '',
    viewed: Annotated[dict | None, Body()] = None,
    folder: Annotated[str | None, Body()] = None,
) -> dict:
    """Keep the inspector's decision; 409 if somebody decided since `revision`.

    The answer is also 409 if `folder`, the digest of the page's detector, is not that of the served one.
    """
    if folder not in (None, session.inspector.digest):
        raise HTTPException(409, 'another detector is served now than the one on this page: reload the page')
    item_of(session, key)
    by = dict(client=request.client.host if request.client else '')
    user = request.state.user
    if user.known_by:  # a logged-in user cannot decide under another name
        by |= dict(inspector=user.name, known_by=user.known_by)
    else:
        by |= dict(inspector=inspector, known_by='page') if inspector else session.user
    try:
        now = session.decide(key, verdict, boxes, part, digest, revision, by, viewed)
    except ConflictError as error:
        raise HTTPException(409, str(error)) from None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    except OSError as error:
        raise not_kept(session, error) from None
    return dict(
        saved=as_text(str(session.decisions.record.path)),
        revision=now.revision,
        decision=now.decision,
        decided=now.decided,
        changes=session.changes,
    )
