"""The last verdicts, for the operator's page: of this process, or kept by a process that watches a folder."""

import json
import os
import secrets
import shutil
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2

from projects.radiograph.files import write_whole
from projects.radiograph.image import ImagingError

from .inspector import Inspection
from .pictures import overlay

MOST = 13
SIDE = 720  # px of a picture's longer side
LINE = 3  # line width of a box in px: visible from afar
FOLDER, VERDICTS = 'last', 'verdicts.json'
BEAT = 1.0  # seconds between two signs of life
SILENT = 5.0  # seconds without a sign of life after which a process counts as ended


class LastVerdicts:
    """The last verdicts of a process, newest first; `add` may be called from several threads."""

    def __init__(self) -> None:
        self._entries: deque[tuple[dict[str, Any], bytes]] = deque(maxlen=MOST)
        self._start = secrets.token_hex(4)  # keeps pictures' names unique, also after a restart
        self._count = 0
        self._lock = threading.Lock()

    def add(self, name: str, outcome: Inspection | ImagingError, threshold: float) -> dict[str, Any]:
        """Add a verdict.

        Args:
            name: Name of the radiograph.
            outcome: Result of `Inspector.attempt`.
            threshold: Lowest score of the boxes that are drawn.

        Returns:
            The entry: `key`, `name`, `verdict`, `flagged`, `time` (UTC), and `picture`, whether there is one.
        """
        facts: dict[str, Any] = dict(name=name, verdict='unreadable', flagged=False)
        facts['time'] = datetime.now(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')
        picture = b''
        if isinstance(outcome, Inspection):
            facts |= dict(verdict=outcome.verdict, flagged=outcome.flagged)
            scale = min(SIDE / max(outcome.pixels.shape), 1)
            size = [max(round(side * scale), 1) for side in reversed(outcome.pixels.shape)]  # at least 1 px
            small = cv2.resize(outcome.pixels, size, interpolation=cv2.INTER_AREA)
            shrunk = replace(outcome, pixels=small, boxes=outcome.boxes * scale, masks=None)
            drawn = overlay(shrunk, threshold, LINE)
            picture = cv2.imencode('.png', drawn)[1].tobytes()
        with self._lock:
            self._count += 1
            facts |= dict(key=f'{self._start}-{self._count}', picture=bool(picture))
            self._entries.appendleft((facts, picture))
        return facts

    def listed(self) -> list[dict[str, Any]]:
        """Return the entries, newest first."""
        with self._lock:
            return [facts for facts, _ in self._entries]

    def picture(self, key: str) -> bytes:
        """Return the PNG of an entry; empty if the entry is gone or has no picture."""
        with self._lock:
            return next((picture for facts, picture in self._entries if facts['key'] == key), b'')


class KeptVerdicts:
    """The last verdicts of a watched folder, kept in `last/` of its OUT for another process; `close` ends it.

    Until then, a thread gives a sign of life each second: it sets the time of change of `verdicts.json`.

    Args:
        out: Output folder of the watched folder. Verdicts of an earlier process there are deleted.

    Raises:
        OSError: The verdicts cannot be written.
    """

    def __init__(self, out: Path):
        self.place = out / FOLDER
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        self._last = LastVerdicts()
        self._requalify: list[str] = []
        self._write()
        self._ended = threading.Event()
        self._living = threading.Thread(target=self._live, daemon=True)
        self._living.start()

    def add(
        self, name: str, outcome: Inspection | ImagingError, threshold: float, requalify: list[str]
    ) -> None:
        """Keep a verdict and the reasons to requalify the detector; see `LastVerdicts.add`.

        Raises:
            OSError: The verdict cannot be written.
        """
        facts = self._last.add(name, outcome, threshold)
        self._requalify = requalify
        if facts['picture']:
            write_whole(self._path(facts['key']), self._last.picture(facts['key']))
        self._write()
        kept = {facts['key'] for facts in self._last.listed()}
        for path in self.place.glob('*.png'):
            if path.stem not in kept:
                path.unlink()

    def close(self) -> None:
        """End the signs of life."""
        self._ended.set()
        self._living.join()

    def _path(self, key: str) -> Path:
        return self.place / f'{key}.png'

    def _write(self) -> None:
        content = dict(last=self._last.listed(), requalify=self._requalify)
        write_whole(self.place / VERDICTS, json.dumps(content) + '\n')

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):
                os.utime(self.place / VERDICTS)


def read_kept(out: Path) -> dict[str, Any]:
    """Return the kept verdicts of a watched folder: `last`, `requalify`, `runs` (whether its process runs).

    Args:
        out: Output folder of the watched folder.
    """
    path = out / FOLDER / VERDICTS
    try:
        # `abs`: with a clock that was ahead, an ended process must not seem to run.
        runs = abs(time.time() - path.stat().st_mtime) < SILENT
        content = json.loads(path.read_bytes())
        return dict(last=content['last'], requalify=content['requalify'], runs=runs)
    except (OSError, ValueError, KeyError, TypeError):
        return dict(last=[], requalify=[], runs=False)


def read_picture(out: Path, key: str) -> bytes:
    """Return the PNG of a listed verdict; empty if the verdict is not listed or has no picture."""
    if all(facts['key'] != key for facts in read_kept(out)['last']):
        return b''
    try:
        return (out / FOLDER / f'{key}.png').read_bytes()
    except OSError:
        return b''
