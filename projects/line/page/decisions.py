"""A reader's decisions: in the record, with a copy of each radiograph, and as corrections for training."""

import gc
import hashlib
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from projects.line.runtime.archive import ArchiveError
from projects.line.runtime.inspector import Inspector
from projects.radiograph.files import draft_of, sha256

from .corrections import read_corrections, write_corrections
from .decision import ConflictError
from .items import Item
from .record import RECORD, Record, check_entry

# Up to this number of radiographs, each decision writes the corrections; beyond it, within `WAIT` seconds.
AT_ONCE = 500
WAIT = 5.0
COPIED = 2**22  # bytes per block: with smaller blocks, a copying thread waits more often for its turn


class Decisions:
    """The decisions of this and of earlier sittings.

    Args:
        out: Folder of the record, the corrections and `images/`.
        inspector: The detector whose proposals the inspector sees.
        second: A second reader decides: the first reader's decisions are not shown. The corrections go to
            another file, so that the two can be compared.

    Attributes:
        latest: The last entry on each radiograph, by the name of its copy.

    Raises:
        ArchiveError: The record was changed or damaged, or its decisions are in other classes.
    """

    def __init__(self, out: Path, inspector: Inspector, second: bool = False):
        self.out, self.inspector = out, inspector
        self.reader = 'second' if second else 'first'
        self.path = out / ('corrections-second.json' if second else 'corrections.json')
        self.record = Record(out / RECORD)
        self.latest: dict[str, dict[str, Any]] = {}
        self._writing = threading.Lock()
        self._timer: threading.Timer | None = None
        self._stale = False
        entries, self.record.entries = self.record.entries, []
        for entry in entries:
            check_entry(self.record.path, entry)
            self._check_classes(self.record.path, entry['classes'])
            if entry['reader'] == self.reader:
                self.latest[entry['file']] = entry
        if not entries and (out / 'corrections.json').is_file():
            self._take_over(out / 'corrections.json')
        if self.latest:
            self.write()
        if len(self.latest) > AT_ONCE:
            # Exclude millions of lasting objects from garbage collection, which would delay a decision.
            gc.collect()
            gc.freeze()

    def revision_of(self, file_name: str) -> int:
        """Return the number of decisions on a radiograph."""
        entry = self.latest.get(file_name)
        return entry['revision'] if entry else 0

    def give_back(self, item: Item) -> dict[str, Any]:
        """Return the fields of an item that its last decision sets, whatever detector was served then."""
        entry = self.latest.get(item.file_name)
        if entry is None:
            return {}
        if entry['verdict'] == 'withdraw':
            return dict(decision=None, decided={}, revision=entry['revision'], boxes=list(item.found))
        classes = self.inspector.exported.classes
        detector = entry['detector'] or {}
        return dict(
            decision=entry['verdict'],
            decided=dict(time=entry['time'], inspector=entry['inspector'], folder=detector.get('folder', '')),
            revision=entry['revision'],
            part=entry['part'],
            boxes=[dict(box=b['box'], label=classes.index(b['class']), score=None) for b in entry['boxes']],
        )

    def keep_file(self, item: Item) -> None:
        """Copy an item's file to the corrections, if it is unchanged since its inspection.

        Raises:
            ValueError: The file changed.
            OSError: The copy cannot be written.
        """
        target = self.out / 'images' / item.file_name
        if not item.digest or target.is_file() and sha256(target) == item.digest:
            return
        with draft_of(target, durable=True) as draft:
            if _copy(item.path, draft) != item.digest:
                raise ValueError('its file changed since it was inspected: open it again')

    def add(
        self,
        item: Item,
        verdict: str,
        boxes: list[dict],
        part: str,
        revision: int | None,
        by: dict[str, str],
        viewed: dict[str, Any],
    ) -> None:
        """Add a decision to the record; the caller holds the lock against other decisions.

        Args:
            item: The radiograph with the detector's findings.
            verdict: See `decision.VERDICTS`.
            boxes: Checked boxes, {box, label} each.
            part: Id of the physical part.
            revision: Revision that the inspector saw; None for the last.
            by: `inspector`, who decided; `known_by`, the source of the name.
            viewed: The page's facts on how the radiograph was viewed.

        Raises:
            ConflictError: Somebody decided on the radiograph since that revision.
            OSError: The record could not be written; nothing is kept.
        """
        last = self.latest.get(item.file_name)
        before = last['revision'] if last else 0
        if revision not in (None, before):
            if last is None:
                raise ConflictError('nothing was decided on this radiograph: open it again')
            raise ConflictError(
                f'{last["inspector"] or "somebody"} decided on this radiograph meanwhile ({last["verdict"]}, '
                f'{last["time"]}): open it again, and decide on what is there now'
            )
        classes = self.inspector.exported.classes
        facts = dict(
            name=item.name,
            file=item.file_name,
            radiograph=item.digest,
            size=list(item.size),
            part=part,
            verdict=verdict,
            boxes=[{'box': b['box'], 'class': classes[b['label']]} for b in boxes],
            detector=self._proposal(item),
            revision=before + 1,
            revision_before=before,
            viewed=viewed,
        )
        self.latest[item.file_name] = self.record.append(self._entry(by, facts, self.reader))
        self._stale = True
        if len(self.latest) <= AT_ONCE:
            # The decision is in the record; if the corrections cannot be written now, they are written later.
            with suppress(OSError):
                self.write()
        elif self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(WAIT, self._write_later)
            self._timer.daemon = True
            self._timer.start()

    def write(self) -> None:
        """Write the corrections from the record.

        Raises:
            OSError: The corrections cannot be written; the next start writes them.
        """
        with self._writing:
            self._stale = False
            exported = self.inspector.exported
            try:
                rule = exported.origin.get('part_rule')
                write_corrections(self.path, list(self.latest.values()), exported.classes, rule)
            except OSError:
                self._stale = True
                raise

    def close(self) -> None:
        """Write the corrections if decisions were added since the last writing.

        Raises:
            OSError: The corrections cannot be written; the next start writes them.
        """
        if self._timer:
            self._timer.cancel()
        if self._stale:
            self.write()

    def _write_later(self) -> None:
        with suppress(OSError):
            self.write()

    def _entry(self, by: dict[str, str], facts: dict[str, Any], reader: str) -> dict[str, Any]:
        return dict(
            time=datetime.now(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z'),
            reader=reader,
            inspector=by.get('inspector', ''),
            known_by=by.get('known_by', ''),
            host=socket.gethostname(),
            client=by.get('client', ''),
            classes=self.inspector.exported.classes,
            **facts,
        )

    def _proposal(self, item: Item) -> dict[str, Any]:
        """Return the detector's findings on an item, with scores, and the facts of the detector."""
        inspector = self.inspector
        return dict(
            folder=inspector.digest,
            origin={k: inspector.exported.origin.get(k) for k in ('config', 'sha256', 'commit')},
            engine=inspector.engine,
            threshold=inspector.threshold,
            verdict='unreadable'
            if item.reason
            else 'reject'
            if item.risk >= inspector.threshold
            else 'accept',
            reason=item.reason,
            risk=item.risk,
            flagged=item.flagged,
            boxes=[
                {'box': b['box'], 'class': inspector.exported.classes[b['label']], 'score': b['score']}
                for b in item.found
            ],
        )

    def _take_over(self, path: Path) -> None:
        """Begin the record with corrections of a version without a record: inspector and time are unknown."""
        classes, found = read_corrections(path)
        self._check_classes(path, classes)
        with draft_of(self.record.path, durable=True) as draft:  # all or none of them
            record = Record(draft, durable=False)
            for row in found:
                copy = self.out / 'images' / row['file']
                facts = dict(name=row['file'], radiograph=sha256(copy) if copy.is_file() else '', **row)
                facts |= dict(detector=None, revision=1, revision_before=0, viewed={})
                record.append(self._entry(dict(known_by=f'taken over from {path.name}'), facts, 'first'))
        self.record = Record(self.record.path)
        if self.reader == 'first':
            self.latest = {entry['file']: entry for entry in self.record.entries}
        self.record.entries = []

    def _check_classes(self, path: Path, classes: list[str]) -> None:
        if classes != self.inspector.exported.classes:
            raise ArchiveError(
                f'{path}: holds corrections in the classes {classes}, expected '
                f'{self.inspector.exported.classes} as of this detector; give another --out'
            )


def _copy(source: Path, target: Path) -> str:
    """Copy a file and return the SHA-256 of the copied bytes, with one read of the file.

    Raises:
        ValueError: The source cannot be read.
        OSError: The copy cannot be written.
    """
    digest = hashlib.sha256()
    try:
        file = source.open('rb')
    except OSError as error:
        raise ValueError(f'its file can no longer be read ({error.strerror}): open it again') from None
    with file, target.open('wb') as copy:
        while block := file.read(COPIED):
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()
