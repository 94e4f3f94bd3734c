"""One sitting at the page: its radiographs, what the detector finds on them, the inspector's decisions."""

import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from projects.line.runtime.archive import ArchiveError, find_images
from projects.line.runtime.inspector import Inspector
from projects.radiograph.files import locked, sha256
from projects.radiograph.image import ImagingError
from projects.radiograph.parts import part_by_rule

from .corrections import Corrections, as_decided
from .decision import check_decision
from .items import LONGEST_PART, Item, as_text


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
        (self.out / 'images').mkdir(parents=True, exist_ok=True)
        busy = ArchiveError(
            f'{self.out}: another page keeps corrections there; end it, or give another --out'
        )
        with ExitStack() as stack:
            stack.enter_context(locked(self.out, busy))
            self.corrections = Corrections(self.out, inspector.exported)
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
            if now.state == 'found' and now.file_name in self.corrections.rows:
                now = replace(now, **as_decided(*self.corrections.rows[now.file_name]))
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
            ValueError: It cannot be, see `check_decision`, or the file has changed.
        """
        item = self.items[key]
        kept = check_decision(self.inspector.exported, item, verdict, boxes, part, digest)
        self.corrections.keep_file(item)
        with self.lock:
            decided = replace(item, boxes=kept, decision=verdict, part=part.strip() or item.part)
            self.corrections.save(decided)
            if self.items[key].digest == item.digest:
                self.items[key] = decided
