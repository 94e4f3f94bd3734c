"""The inspection page's server: radiographs in, findings and 16-bit pixels out, corrections kept as COCO.

FastAPI on the loopback interface. Nothing is fetched from or sent to anywhere else, the page included.
"""

import hashlib
import json
import re
import shutil
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, JSONResponse

from projects.line.runtime.archive import ArchiveError, find_images, fitting_name
from projects.line.runtime.inspector import Inspector, read_one
from projects.radiograph.files import draft_of, locked, sha256, write_json, write_whole
from projects.radiograph.image import MAX_FRAME_BYTES, ImagingError
from projects.radiograph.listing import SUFFIXES
from projects.radiograph.parts import part_by_rule, recorded_part
from projects.xray.classes import PALETTE

PAGE = Path(__file__).with_name('page.html')
MOST_IN_FOLDER = 5_000
LONGEST_PART = 100  # characters
HEADERS = {
    'Content-Security-Policy': "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}


@dataclass
class Item:
    """One radiograph on the page.

    Attributes:
        name: As shown.
        path: Its file.
        digest: SHA-256 of the file when it was inspected.
        state: 'waiting', 'found' or 'unreadable'.
        reason: Why it is unreadable.
        size: (height, width) in px.
        boxes: Findings {box [x1, y1, x2, y2], label, score}, best first; the inspector's own after a
            decision, which have a score of None.
        risk: Highest score of a rejecting class.
        decision: 'accept' or 'reject' once the inspector has decided.
        part: Id of the physical part: what the inspector gave, else what the rule of the data set that the
            detector was made with finds in the name; '' where it finds none, as a part that is not known.
    """

    name: str
    path: Path
    digest: str = ''
    state: str = 'waiting'
    reason: str = ''
    size: tuple[int, int] = (0, 0)
    boxes: list[dict] = field(default_factory=list)
    risk: float = 0.0
    decision: str | None = None
    part: str = ''

    @property
    def file_name(self) -> str:
        """Of its copy beside the corrections."""
        return kept_name(self.name, self.digest)


def kept_name(name: str, digest: str) -> str:
    """Put a file's hash into its name: another file of the same name is another radiograph."""
    path = Path(name)
    return fitting_name(str(path.with_suffix('')), f'-{digest[:12]}{path.suffix}')


def as_text(name: str) -> str:
    """Return a file's name as JSON and pages take it: bytes that are no UTF-8 become question marks."""
    return name.encode(errors='replace').decode()


def check_unchanged(path: Path, digest: str) -> None:
    """Refuse a file that is no longer what was inspected: findings and decision would be of another.

    Raises:
        ValueError: Its hash is not `digest`, or it cannot be read.
    """
    try:
        now = sha256(path)
    except OSError as error:
        raise ValueError(f'its file can no longer be read ({error.strerror}): open it again') from None
    if now != digest:
        raise ValueError('its file changed since it was inspected: open it again')


def as_decided(image: dict, annotations: list[dict]) -> dict:
    """Return what an item has after the decision that an image of the corrections, with its boxes, holds.

    Raises:
        ValueError: No decision of this page; or KeyError, TypeError.
    """
    if image['verdict'] not in ('accept', 'reject'):
        raise ValueError(image['verdict'])
    boxes = []
    for annotation in annotations:
        x, y, width, height = annotation['bbox']
        # Both sides were rounded when they were kept.
        x2, y2 = min(round(x + width, 1), image['width']), min(round(y + height, 1), image['height'])
        boxes.append(dict(box=[x, y, x2, y2], label=annotation['category_id'] - 1, score=None))
    return dict(decision=image['verdict'], part=recorded_part(image) or '', boxes=boxes)


class Session:
    """The radiographs of one sitting, and the inspector's corrections; `close` ends it.

    Decisions of earlier sittings come back with their radiograph.

    Args:
        inspector: The detector.
        out: Folder of the corrections: `corrections.json` (COCO) and `images/`.
        root: Archive whose folders can be picked; None offers none.

    Raises:
        ArchiveError: `out` holds corrections in other classes, or damaged ones, or another sitting is on.
    """

    def __init__(self, inspector: Inspector, out: Path, root: Path | None = None):
        self.inspector = inspector
        self.out, self.root = Path(out), root and Path(root).resolve()
        self.items: dict[int, Item] = {}
        self.lock = threading.Lock()
        self.categories = [dict(id=k + 1, name=name) for k, name in enumerate(inspector.exported.classes)]
        (self.out / 'images').mkdir(parents=True, exist_ok=True)
        busy = ArchiveError(
            f'{self.out}: another page keeps corrections there; end it, or give another --out'
        )
        with ExitStack() as stack:
            stack.enter_context(locked(self.out, busy))
            self.kept = self._earlier()
            self._held = stack.pop_all()

    def close(self) -> None:
        """Let another sitting keep its corrections in this place."""
        self._held.close()

    def add(self, name: str, path: Path) -> int:
        """List a radiograph; the same file again is the same item, to be looked at for changes."""
        name = as_text(name)
        with self.lock:
            for key, item in self.items.items():
                if (item.name, item.path) == (name, path):
                    self.items[key] = replace(item, state='waiting')
                    return key
            key = len(self.items) + 1
            self.items[key] = self._item(name, path)
            return key

    def _item(self, name: str, path: Path, digest: str = '') -> Item:
        """Return a new item, with the part that the rule of the data set finds in its name."""
        part = part_by_rule(self.inspector.exported.origin.get('part_rule'), name)
        return Item(name, path, digest, part=(part or '')[:LONGEST_PART])

    def inspect(self, key: int) -> None:
        """Run the detector on an item unless it has seen these bytes; what was decided on them comes back."""
        item = self.items[key]
        try:
            digest = sha256(item.path)
            known = digest == item.digest and not item.reason
            said = None if known else self.inspector.attempt(item.path)
        except OSError as error:
            digest = ''
            said = ImagingError(f'{item.name}: expected a readable file ({error.strerror}); open it again')
        now = replace(item, state='found') if said is None else self._item(item.name, item.path, digest)
        if isinstance(said, ImagingError):
            now.reason, now.state = as_text(str(said).replace(str(item.path), item.name)), 'unreadable'
        elif said:
            now.size, now.risk, now.state = said.pixels.shape, said.risk, 'found'
            now.boxes = [
                dict(box=[round(float(v), 1) for v in box], label=int(label), score=float(score))
                for box, label, score in zip(said.boxes, said.labels, said.scores, strict=True)
            ]
        with self.lock:
            if now.state == 'found' and now.file_name in self.kept:
                now = replace(now, **as_decided(*self.kept[now.file_name]))
            self.items[key] = now

    def inspect_all(self, keys: list[int]) -> None:
        """Run the detector on items one after the other; for a thread of its own."""
        for key in keys:
            self.inspect(key)

    def folders(self) -> dict[str, list[Path]]:
        """List radiographs of the archive, and what may be one, by their folder's name; not those outside it.

        Raises:
            ArchiveError: A folder of the archive cannot be listed, or none has any.
        """
        if not self.root:
            return {}
        root, names = find_images(self.root)
        places: dict[Path, list[Path]] = {}
        for name in names:
            places.setdefault((root / name).parent, []).append(root / name)
        found: dict[str, list[Path]] = {}
        for place, paths in sorted(places.items()):
            if place.resolve().is_relative_to(root):
                found.setdefault(as_text(str(place.relative_to(root))), []).extend(paths)
        return found

    def decide(
        self, key: int, verdict: str, boxes: list[dict], part: str = '', digest: str | None = None
    ) -> None:
        """Keep the inspector's decision and boxes, as COCO with a copy of the radiograph.

        Args:
            key: Of the item.
            verdict: 'accept' or 'reject'.
            boxes: What is there, {box [x1, y1, x2, y2], label} each.
            part: Id of the physical part; empty for what the item has, which may be none.
            digest: Of the file that the inspector saw; None for what the item is now.

        Raises:
            ValueError: A verdict, part, label or box that cannot be; a part accepted with a box that
                rejects it, or rejected without one, which the next training would take for the truth; or
                the file has changed.
        """
        item = self.items[key]
        if item.state != 'found':
            raise ValueError('this radiograph has not been inspected')
        if digest not in (None, item.digest):
            raise ValueError('this is not the radiograph that was decided on: open it again')
        if verdict not in ('accept', 'reject'):
            raise ValueError("expected a verdict of 'accept' or 'reject'")
        if len(part) > LONGEST_PART:
            raise ValueError(f'expected a part of at most {LONGEST_PART} characters')
        exported = self.inspector.exported
        height, width = item.size
        kept = []
        for entry in boxes:
            label = entry.get('label')
            try:
                x1, y1, x2, y2 = (float(v) for v in entry.get('box', ()))
            except (TypeError, ValueError):
                raise ValueError('expected boxes of four numbers') from None
            if type(label) is not int or not 0 <= label < len(exported.classes):
                raise ValueError('expected a label of a class')
            if verdict == 'accept' and exported.classes[label] in exported.rejecting:
                raise ValueError(
                    f'a {exported.classes[label]} defect is still marked: take its box away, or reject'
                )
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                raise ValueError(f'expected boxes within {width} x {height} px')
            kept.append(dict(box=[x1, y1, x2, y2], label=label, score=None))
        if verdict == 'reject' and not any(exported.classes[b['label']] in exported.rejecting for b in kept):
            raise ValueError(
                f'expected a box of {" or ".join(exported.rejecting)} around what rejects the part: draw it, '
                'or lower the threshold until it shows'
            )
        self._keep(item)
        with self.lock:
            decided = replace(item, boxes=kept, decision=verdict, part=part.strip() or item.part)
            self._save(decided)
            if self.items[key].digest == item.digest:
                self.items[key] = decided

    def _keep(self, item: Item) -> None:
        """Copy an item's file to the corrections, if it is still what was inspected."""
        target = self.out / 'images' / item.file_name
        if target.is_file() and sha256(target) == item.digest:
            return
        check_unchanged(item.path, item.digest)
        with draft_of(target) as draft:
            shutil.copyfile(item.path, draft)
            check_unchanged(draft, item.digest)

    def _earlier(self) -> dict[str, tuple[dict, list[dict]]]:
        """Read the corrections that are there: each image and its annotations, by the name of its file."""
        path = self.out / 'corrections.json'
        if not path.is_file():
            return {}
        try:
            earlier = json.loads(path.read_text())
            categories = earlier['categories']
            rows = {image['id']: (image, []) for image in earlier['images']}
            for annotation in earlier['annotations']:
                rows[annotation['image_id']][1].append(annotation)
            kept = {image['file_name']: (image, annotations) for image, annotations in rows.values()}
            labels = {box['label'] for row in rows.values() for box in as_decided(*row)['boxes']}
            if len(kept) < len(earlier['images']) or not labels <= set(range(len(categories))):
                raise ValueError('an id or name twice, or a label of no class')
        except (ValueError, KeyError, TypeError):
            raise ArchiveError(f'{path}: expected corrections of this page; give another --out') from None
        if categories != self.categories:
            names = [[category['name'] for category in found] for found in (categories, self.categories)]
            raise ArchiveError(
                f'{path}: holds corrections in the classes {names[0]}, expected {names[1]} as of this '
                'detector; give another --out'
            )
        return kept

    def _save(self, item: Item) -> None:
        """Add a decision to those of this and of earlier sittings; a radiograph's last one counts."""
        rows = self._earlier()
        image = dict(file_name=item.file_name, width=item.size[1], height=item.size[0])
        image |= dict(verdict=item.decision, **(dict(part=item.part) if item.part else {}))
        boxes = [
            dict(
                category_id=entry['label'] + 1,
                bbox=[x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)],
                area=round((x2 - x1) * (y2 - y1), 1),
                iscrowd=0,
            )
            for entry in item.boxes
            for x1, y1, x2, y2 in [entry['box']]
        ]
        rows[item.file_name] = (image, boxes)
        images, annotations = [], []
        for image, boxes in rows.values():
            images.append(image | dict(id=len(images) + 1))
            for box in boxes:
                annotations.append(box | dict(id=len(annotations) + 1, image_id=len(images)))
        content = dict(
            info=dict(
                description='corrections by an inspector',
                origin=self.inspector.exported.origin,
                group=self.inspector.exported.origin.get('part_rule'),
            ),
            images=images,
            annotations=annotations,
            categories=self.categories,
        )
        write_json(self.out / 'corrections.json', content)
        self.kept = rows


def build(session: Session, hosts: tuple[str, ...] = ('127.0.0.1', 'localhost')) -> FastAPI:
    """Return the application.

    Args:
        session: What it serves.
        hosts: Names under which it may be called: a page of another site that resolves to this machine is
            refused by its Host header.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    exported = session.inspector.exported

    @app.middleware('http')
    async def guard(request: Request, answer):
        # A form or script of another site cannot send this header without asking first.
        if request.method == 'POST' and request.headers.get('x-inspect') != 'page':
            return JSONResponse(dict(detail='expected a request of the page'), 403)
        response = await answer(request)
        response.headers.update(HEADERS)
        return response

    def not_kept(error: OSError) -> HTTPException:
        reason = error.strerror or error
        return HTTPException(507, f'{session.out}: not kept ({reason}); make room there, then try again')

    def item_of(key: int) -> Item:
        if key not in session.items:
            raise HTTPException(404, 'no such radiograph')
        return session.items[key]

    @app.get('/')
    def page():
        return FileResponse(PAGE, media_type='text/html')

    @app.get('/api/state')
    def state():
        items = [
            dict(id=key, name=i.name, state=i.state, reason=i.reason, risk=i.risk, decision=i.decision)
            for key, i in list(session.items.items())
        ]
        return dict(
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

    def folders_of_archive() -> dict[str, list[Path]]:
        try:
            return session.folders()
        except ArchiveError as error:
            raise HTTPException(400, str(error)) from None

    @app.get('/api/folders')
    def folders():
        return list(folders_of_archive())

    @app.post('/api/folders')
    def pick(folder: str = Body(embed=True)):
        paths = folders_of_archive().get(folder)
        if not paths:
            raise HTTPException(400, 'no such folder of the archive')
        if len(paths) > MOST_IN_FOLDER:
            raise HTTPException(
                400, f'{len(paths)} radiographs, expected at most {MOST_IN_FOLDER}; use infer.py'
            )
        inside = [path for path in paths if path.resolve().is_relative_to(session.root)]
        keys = [session.add(str(path.relative_to(session.root)), path) for path in inside]
        threading.Thread(target=session.inspect_all, args=(keys,), daemon=True).start()
        return dict(added=len(keys), outside=len(paths) - len(inside))

    @app.post('/api/images')
    async def upload(request: Request, name: str):
        plain = re.sub(r'[^\w.-]+', '_', Path(name.replace('\\', '/')).name).lstrip('.')
        suffix = Path(plain).suffix.lower()
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_FRAME_BYTES:
                raise HTTPException(413, f'expected at most {MAX_FRAME_BYTES >> 20} MiB')
        if not plain or suffix not in SUFFIXES and content[128:132] != b'DICM':
            raise HTTPException(415, f'expected a radiograph ({", ".join(SUFFIXES)}, or DICOM content)')
        return await run_in_threadpool(_receive, plain, bytes(content))

    def _receive(name: str, content: bytes):
        try:
            read_one(content, name)
        except ImagingError as error:
            raise HTTPException(415, str(error)) from None
        path = session.out / 'images' / kept_name(name, hashlib.sha256(content).hexdigest())
        try:
            write_whole(path, content)
        except OSError as error:
            raise not_kept(error) from None
        key = session.add(name, path)
        session.inspect(key)
        return dict(id=key)

    @app.get('/api/images/{key}')
    def findings(key: int):
        item = item_of(key)
        return dict(
            id=key,
            name=item.name,
            digest=item.digest,
            state=item.state,
            reason=item.reason,
            size=item.size,
            boxes=item.boxes,
            risk=item.risk,
            decision=item.decision,
            part=item.part,
        )

    @app.get('/api/images/{key}/pixels')
    def pixels(key: int):
        item = item_of(key)
        try:
            if item.state == 'found':
                check_unchanged(item.path, item.digest)
            radiograph = read_one(item.path)
        except ImagingError as error:
            raise HTTPException(415, as_text(str(error).replace(str(item.path), item.name))) from None
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        values, low, high = as_16_bit(radiograph.pixels)
        headers = {
            'X-Height': str(values.shape[0]),
            'X-Width': str(values.shape[1]),
            'X-Low': repr(low),
            'X-High': repr(high),
            'X-Invert': str(int(radiograph.invert)),
        }
        return Response(values.tobytes(), media_type='application/octet-stream', headers=headers)

    @app.post('/api/images/{key}/decision')
    def decide(
        key: int,
        verdict: str = Body(),
        boxes: list[dict] = Body(),  # noqa: B008 (FastAPI's way)
        part: str = Body(''),
        digest: str | None = Body(None),
    ):
        item_of(key)
        try:
            session.decide(key, verdict, boxes, part, digest)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        except OSError as error:
            raise not_kept(error) from None
        return dict(saved=str(session.out / 'corrections.json'))

    return app


def as_16_bit(pixels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return pixels as a browser takes them, losing nothing of files up to 16 bits.

    Args:
        pixels: (H, W) in the file's own depth.

    Returns:
        (H, W) uint16, little endian, and the file's values that 0 and 65535 stand for.
    """
    if pixels.dtype.kind in 'iu' and pixels.dtype.itemsize <= 2:
        low = float(np.iinfo(pixels.dtype).min)
        return (pixels.astype(np.int32) - int(low)).astype('<u2'), low, low + 65535
    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    scaled = (np.nan_to_num(pixels.astype(np.float64)) - low) / ((high - low) or 1.0)
    return (scaled.clip(0, 1) * 65535).round().astype('<u2'), low, high
