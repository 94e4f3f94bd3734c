"""One sitting at the page: its radiographs, the detector's findings, the inspector's decisions."""

import getpass
import secrets
import shutil
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from projects.line.runtime.archive import ArchiveError, find_images
from projects.line.runtime.compared import Compared
from projects.line.runtime.drift import Drift, Line
from projects.line.runtime.inspector import Inspection, Inspector
from projects.line.runtime.last import LastVerdicts
from projects.line.runtime.shadow import RECORD, Shadow
from projects.radiograph.files import locked, sha256
from projects.radiograph.image import ImagingError
from projects.radiograph.parts import part_by_rule

from .decision import check_decision, check_facts
from .decisions import Decisions
from .items import LONGEST_PART, Item, as_text
from .metrics import Metrics
from .pixels import thumbnail
from .served import Served


class Session:
    """The radiographs of one sitting, and the inspector's corrections; `close` ends it.

    Decisions of earlier sittings come back with their radiograph.

    Args:
        inspector: The detector.
        out: Folder of the corrections: `corrections.json` (COCO) and `images/`.
        root: Archive whose folders the page offers; None offers no folder.
        name: Name of the inspector; default, the login name.
        second: A second reader's sitting: the first reader's decisions are not shown, see `Decisions`.
        line: Facts about the line, for the drift charts.
        shadow: A second detector whose verdicts are recorded and not acted upon.
        watched: OUT of a process that watches a folder; the operator's page shows its verdicts too.

    Attributes:
        served: Tells whether the detector's path now leads to another detector.
        compared: Comparisons of the detector with a shadow, from the records of `out` and `watched`.
        sitting: Random id of this sitting: a page that sees another id knows that the server was restarted.
        changes: Number of the last change of the list; `Item.changed` holds such numbers.

    Raises:
        ArchiveError: `out` holds decisions in other classes, or a record that was changed or damaged, or
            another sitting uses it.
    """

    def __init__(
        self,
        inspector: Inspector,
        out: Path,
        root: Path | None = None,
        second: bool = False,
        name: str = '',
        line: Line | None = None,
        shadow: Inspector | None = None,
        watched: Path | None = None,
    ):
        self.inspector, self.watched = inspector, watched
        self.served, self.sitting = Served(inspector), secrets.token_hex(8)
        self.out, self.root = Path(out), root and Path(root).resolve()
        self.user = dict(inspector=name, known_by='option') if name else _login()
        # One file at a time: a frame of 256 MiB may need three times that memory to decode.
        self.decoding = threading.BoundedSemaphore(1)
        # A separate semaphore: opening a radiograph does not wait for the inspection of a folder.
        self.showing = threading.BoundedSemaphore(1)
        self.items: dict[int, Item] = {}
        self.changes = 0
        self.lock = threading.Lock()
        (self.out / 'images').mkdir(parents=True, exist_ok=True)
        busy = ArchiveError(
            f'{self.out}: another page keeps corrections there; end it, or give another --out'
        )
        with ExitStack() as stack:
            stack.enter_context(locked(self.out, busy))
            for draft in (self.out / 'images').rglob('*.part'):  # of a page that was killed
                draft.unlink()
            self.decisions = Decisions(self.out, inspector, second)
            self.drift = Drift(inspector, self.out, line)
            self.shadow = shadow and Shadow(shadow, inspector, self.out)
            rule = inspector.exported.origin.get('part_rule')
            self.compared = [Compared(place / RECORD, rule) for place in (self.out, watched) if place]
            self.metrics = Metrics(inspector, self.drift, self.served, watched)
            self.last = LastVerdicts()
            self.uploads = self.out / 'uploads'
            self._drop_uploads()
            self.uploads.mkdir()
            self._held = stack.pop_all()

    def close(self) -> None:
        """Write pending corrections and drift charts, and release `out` for another sitting.

        Raises:
            OSError: The corrections cannot be written; the record, their source, is complete.
        """
        with self._held:
            self._drop_uploads()
            self.decisions.close()
            self.drift.close()

    def _drop_uploads(self) -> None:
        """Remove uploads that nobody decided on; they can be sent again."""
        shutil.rmtree(self.uploads, ignore_errors=True)

    def _put(self, key: int, item: Item) -> None:
        """Set an item; the caller holds the lock."""
        self.changes += 1
        self.items[key] = replace(item, changed=self.changes)

    def add(self, name: str, path: Path) -> int:
        """Add a radiograph to the list; a listed file keeps its item and is checked for changes again."""
        name = as_text(name)
        with self.lock:
            for key, item in self.items.items():
                if (item.name, item.path) == (name, path):
                    self._put(key, replace(item, state='waiting'))
                    return key
            key = len(self.items) + 1
            self._put(key, self._item(name, path))
            return key

    def _item(self, name: str, path: Path, digest: str = '') -> Item:
        """Return a new item, with the part that the data set's rule finds in its name."""
        part = part_by_rule(self.inspector.exported.origin.get('part_rule'), name)
        return Item(name, path, digest, part=(part or '')[:LONGEST_PART])

    def detect(self, name: str, path: Path, digest: str) -> Inspection | ImagingError:
        """Run the detector on a file, one file at a time; count, chart and log the outcome."""
        with self.decoding:
            outcome = self.inspector.attempt(path)
            if self.shadow:
                self.shadow.see(as_text(name), digest, path, outcome, self.inspector)
        self.last.add(as_text(name), outcome, self.inspector.threshold)
        self.metrics.count(as_text(name), outcome)
        for chart in self.drift.update(as_text(name), digest, outcome):
            self.metrics.call(chart)
        return outcome

    def inspect(self, key: int, again: bool = False) -> tuple[str, Inspection | ImagingError | None]:
        """Run the detector on an item; an earlier decision on the same bytes is restored.

        Args:
            key: Number of the item.
            again: Run the detector also on bytes that it has already seen.

        Returns:
            SHA-256 of the file, '' if unreadable; the outcome, None for bytes that were seen before.
        """
        item = self.items[key]
        outcome: Inspection | ImagingError | None = None
        try:
            digest = sha256(item.path)
            if again or digest != item.digest or item.reason:
                outcome = self.detect(item.name, item.path, digest)
        except OSError as error:
            digest = ''
            outcome = ImagingError(f'{item.name}: expected a readable file ({error.strerror}); open it again')
        self.set_outcome(key, digest, outcome)
        return digest, outcome

    def set_outcome(self, key: int, digest: str, outcome: Inspection | ImagingError | None) -> None:
        """Set the outcome of an item, see `inspect`; None keeps its findings."""
        item = self.items[key]
        now = replace(item, state='found') if outcome is None else self._item(item.name, item.path, digest)
        if isinstance(outcome, ImagingError):
            now.reason, now.state = as_text(str(outcome).replace(str(item.path), item.name)), 'unreadable'
        elif outcome:
            now.size, now.risk, now.state = outcome.pixels.shape, outcome.risk, 'found'
            now.flagged = outcome.flagged
            now.found = [
                dict(box=[round(float(v), 1) for v in box], label=int(label), score=float(score))
                for box, label, score in zip(outcome.boxes, outcome.labels, outcome.scores, strict=True)
            ]
            for row, mask in zip(now.found, outcome.masks or []):
                row['outlines'] = mask.outlines()
            now.boxes = list(now.found)
            now.thumbnail = thumbnail(outcome.pixels)
        with self.lock:
            self._put(key, replace(now, **self.decisions.give_back(now)))

    def inspect_all(self, keys: list[int]) -> None:
        """Run the detector on items, one after the other, in a background thread."""
        for key in keys:
            self.inspect(key)

    def folders(self) -> dict[str, list[Path]]:
        """List files of the archive that are or may be radiographs, by folder; not those outside the archive.

        Raises:
            ArchiveError: A folder of the archive cannot be listed, or there is no radiograph.
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
        self,
        key: int,
        verdict: str,
        boxes: list[dict],
        part: str = '',
        digest: str | None = None,
        revision: int | None = None,
        by: dict[str, str] | None = None,
        viewed: dict[str, Any] | None = None,
    ) -> Item:
        """Keep the inspector's decision and boxes in the record, with a copy of the radiograph.

        Args:
            key: Number of the item.
            verdict: 'accept' or 'reject', or 'withdraw' for a decision taken back.
            boxes: The inspector's boxes, {box [x1, y1, x2, y2], label} each.
            part: Id of the physical part; empty keeps the item's part, which may be unknown.
            digest: SHA-256 of the file that the inspector saw; None for the item's present file.
            revision: Revision of the decision that the inspector saw, 0 for none; None for the last.
            by: The inspector, see `Decisions.add`.
            viewed: The page's facts on how the radiograph was viewed.

        Returns:
            The item after the decision.

        Raises:
            ConflictError: Somebody decided on the radiograph meanwhile.
            ValueError: The decision is invalid, see `check_decision`, or the file has changed.
            OSError: The decision could not be kept.
        """
        item = self.items[key]
        kept = check_decision(self.inspector.exported, item, verdict, boxes, part, digest)
        viewed = check_facts(viewed or {})
        by = {key: as_text(value) for key, value in (by or self.user).items()}
        self.decisions.keep_file(item)
        with self.lock:
            part = as_text(part).strip() or item.part
            self.decisions.add(item, verdict, kept, part, revision, by, viewed)
            now = replace(item, **self.decisions.give_back(item))
            sent = item.path.parent == self.uploads
            path = self.out / 'images' / item.file_name if sent else item.path
            for other, listed in list(self.items.items()):
                # The same radiograph may be listed twice.
                if listed.digest == item.digest and listed.file_name == item.file_name:
                    moved = dict(path=path) if listed.path == item.path else {}
                    self._put(other, replace(listed, **moved, **self.decisions.give_back(listed)))
        self.metrics.count_decision(verdict, item.name, by.get('inspector', ''))
        if sent:
            item.path.unlink(missing_ok=True)
        return now


def _login() -> dict[str, str]:
    try:
        return dict(inspector=getpass.getuser(), known_by='login')
    except (OSError, KeyError):  # a container's user need not have a name
        return dict(inspector='', known_by='')
