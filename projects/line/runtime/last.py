"""The last verdicts, for the operator's page: what was inspected, with its picture."""

import threading
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import cv2

from projects.line.runtime.inspector import Inspection
from projects.line.runtime.pictures import overlay
from projects.radiograph.image import ImagingError

MOST = 13
SIDE = 720  # px of a picture's longer side


class LastVerdicts:
    """The last verdicts of a process, newest first; `add` may be called from several threads.

    Args:
        threshold: Of the boxes that are drawn.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self._said: deque[tuple[dict[str, Any], bytes]] = deque(maxlen=MOST)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, name: str, said: Inspection | ImagingError) -> None:
        """Take in a verdict."""
        facts: dict[str, Any] = dict(name=name, verdict='unreadable', flagged=False)
        facts['time'] = datetime.now(UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')
        picture = b''
        if isinstance(said, Inspection):
            facts |= dict(verdict=said.verdict, flagged=said.flagged)
            scale = min(SIDE / max(said.pixels.shape), 1)
            small = cv2.resize(said.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            drawn = overlay(replace(said, pixels=small, boxes=said.boxes * scale, masks=None), self.threshold)
            picture = cv2.imencode('.png', drawn)[1].tobytes()
        with self._lock:
            self._count += 1
            self._said.appendleft((facts | dict(number=self._count, picture=bool(picture)), picture))

    def listed(self) -> list[dict[str, Any]]:
        """Return them, newest first."""
        with self._lock:
            return [facts for facts, _ in self._said]

    def picture(self, number: int) -> bytes:
        """Return a PNG; empty where there is none any more."""
        with self._lock:
            return next((picture for facts, picture in self._said if facts['number'] == number), b'')
