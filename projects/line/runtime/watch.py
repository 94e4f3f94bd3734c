"""A watched folder: radiographs are inspected as they arrive complete, once each, over restarts and kills.

Each radiograph has one result, `<out>/results/<name>.json`. A result is written whole or not at all, and
records the state of the file. There is no other memory: a file without a result of its present state is
inspected. The folder is listed again and again, since a network share does not report new files.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from projects.radiograph.files import locked, sha256, write_whole

from .archive import ArchiveError, NothingFoundError, find_images, fitting_name, stamp_of
from .drift import Drift, Line
from .inspector import Inspector
from .last import KeptVerdicts
from .results import as_result
from .shadow import Shadow

RESULTS, OUTBOX = 'results', 'outbox'
# Suffixes by which copying programs mark an unfinished file.
UNFINISHED = ('.part', '.tmp', '.filepart', '.crdownload', '~')

OnResult = Callable[[dict[str, Any]], object]
Stamp = list[int]
"""Size of a file in bytes, and the time of its last change in ns."""


class Receiver(Protocol):
    """Takes results elsewhere, such as to a broker."""

    def send(self, result: dict[str, Any]) -> bool:
        """Return whether a result has arrived; otherwise it is sent again later."""


class Watch:
    """A watched folder.

    Args:
        inspector: The detector.
        root: The folder; it may be empty.
        out: Folder of the results, outside `root`.
        settle: Seconds without a change after which a file counts as complete.
        receiver: Takes each result too, at least once.
        line: Facts about the line, for the drift charts.
        report: Writes a report beside each result, see `structured.write_report`.
        shadow: A second detector. Its verdicts are recorded after the first's result is kept, and never acted
            upon.
        newer: Called before each radiograph; returns the next detector, or None to keep the present one.

    Raises:
        ArchiveError: Another process watches with this `out`.
    """

    def __init__(
        self,
        inspector: Inspector,
        root: Path,
        out: Path,
        settle: float = 2.0,
        receiver: Receiver | None = None,
        line: Line | None = None,
        report: Callable[[Path, dict[str, Any], Path], str] | None = None,
        shadow: Inspector | None = None,
        newer: Callable[[], Inspector | None] = lambda: None,
    ):
        self.inspector, self.root, self.out = inspector, root, out
        self.settle, self.receiver, self.line, self.report = settle, receiver, line, report
        self.newer = newer
        self.shadow = Shadow(shadow, inspector, out) if shadow else None
        self._seen: dict[str, tuple[Stamp, float]] = {}  # state of a file, and since when
        self._done: dict[str, Stamp] = {}

    def run(
        self,
        stop: threading.Event,
        every: float = 1.0,
        on_result: OnResult = lambda result: None,
    ) -> None:
        """Inspect arriving radiographs until `stop` is set.

        Args:
            stop: Ends the run after the present radiograph.
            every: Seconds between two listings of the folder.
            on_result: Called with each result once it is kept.

        Raises:
            ArchiveError: Another process watches with this `out`, the folder cannot be listed, or a result
                cannot be written.
        """
        for folder in (RESULTS, OUTBOX):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        busy = ArchiveError(
            f'{self.out}: another process writes results there; end it, or give another --out'
        )
        with locked(self.out, busy):
            for draft in self.out.rglob('*.part'):  # of a process that was killed
                draft.unlink()
            self.drift = Drift(self.inspector, self.out, self.line)
            try:
                self._last = KeptVerdicts(self.out)
            except OSError as error:
                raise self._not_written(error) from None
            try:
                self._go_on(stop, every, on_result)
            finally:
                self._last.close()
                self.drift.close()

    def _go_on(self, stop: threading.Event, every: float, on_result: OnResult) -> None:
        while not stop.is_set():
            self._send_left()
            for name in self._complete():
                if stop.is_set():
                    return
                self._change_detector()
                if (result := self._inspect(name)) is not None:
                    on_result(result)
            stop.wait(every)

    def _change_detector(self) -> None:
        """Change to the next detector if there is one; its drift charts begin again."""
        if (other := self.newer()) is not None:
            self.inspector = other
            self.drift.close()
            self.drift = Drift(other, self.out, self.line)

    def _complete(self) -> list[str]:
        """Return the radiographs that are unchanged for `settle` seconds and have no result, oldest first."""
        now, found, seen = time.monotonic(), [], {}
        for name in _listed(self.root):
            stamp = stamp_of(self.root / name)
            if stamp is None or name.lower().endswith(UNFINISHED):
                continue
            before = self._seen.get(name)
            since = before[1] if before and before[0] == stamp else now
            seen[name] = stamp, since
            if now - since >= self.settle and not self._has_result(name, stamp):
                found.append((stamp[1], name))
        self._seen = seen  # without deleted files
        return [name for _, name in sorted(found)]

    def _has_result(self, name: str, stamp: Stamp) -> bool:
        if name not in self._done:
            try:
                done = json.loads(self._path(name).read_bytes())['stamp']
                self._done[name] = done
            except (OSError, ValueError, KeyError, TypeError):
                return False
        return self._done[name] == stamp

    def _path(self, name: str, end: str = '.json') -> Path:
        return self.out / RESULTS / fitting_name(name, end)

    def _inspect(self, name: str) -> dict[str, Any] | None:
        """Inspect a radiograph and keep its result; None if the file changed meanwhile or is gone."""
        path = self.root / name
        stamp = stamp_of(path)
        try:
            digest = sha256(path)
        except OSError:
            digest = ''
        outcome = self.inspector.attempt(path)
        if stamp is None or stamp_of(path) != stamp:
            return None  # the next listing takes it as new
        shown = os.fsencode(name).decode(errors='replace')
        self.drift.update(shown, digest, outcome)
        result = as_result(shown, digest, outcome, self.inspector) | dict(stamp=stamp)
        result['requalify'] = self.drift.requalify
        try:
            # Before the result: a radiograph with a result must have its report.
            if self.report:
                result['report'] = self.report(path, result, self._path(name, '.sr.dcm'))
        except OSError as error:
            raise self._not_written(error) from None
        result['id'] = f'{digest[:16]}-{stamp[1]}'  # the same if it is sent twice
        content = json.dumps(result) + '\n'
        try:
            if self.receiver:
                # Before the result: after a kill between the two, the radiograph is inspected again and sent.
                write_whole(self._waiting(name), content, durable=True)
            write_whole(self._path(name), content, durable=True)
            self._last.add(shown, outcome, self.inspector.threshold, self.drift.requalify)
        except OSError as error:
            raise self._not_written(error) from None
        self._done[name] = stamp
        if self.receiver and self.receiver.send(result):
            self._waiting(name).unlink()
        if self.shadow:
            self.shadow.see(shown, digest, path, outcome, self.inspector)
        return result

    def _not_written(self, error: OSError) -> ArchiveError:
        return ArchiveError(
            f'{self.out}: not written ({error.strerror or error}); make room there, then start it again: '
            'nothing is lost'
        )

    def _waiting(self, name: str) -> Path:
        return self.out / OUTBOX / fitting_name(name, '.json')

    def _send_left(self) -> None:
        """Send the results that a receiver missed while it was away, in the order of the files' names."""
        if not self.receiver:
            return
        for path in sorted((self.out / OUTBOX).rglob('*.json')):
            content = path.read_bytes()
            kept = self.out / RESULTS / path.relative_to(self.out / OUTBOX)
            # A waiting result without its file is of a killed process: the radiograph is inspected again.
            if (
                kept.is_file()
                and kept.read_bytes() == content
                and not self.receiver.send(json.loads(content))
            ):
                return
            path.unlink()


def _listed(root: Path) -> list[str]:
    try:
        return find_images(root)[1]
    except NothingFoundError:
        return []  # nothing has arrived yet
