"""The exported folder that a server has loaded, and whether its path now leads to another folder."""

import threading
from pathlib import Path

from projects.line.runtime.folder import METADATA, stated_digest
from projects.line.runtime.inspector import Inspector


class Served:
    """The detector with which a server began. It stays until the server is started again.

    A model is never swapped under an inspector: a change of the path is only reported.

    Args:
        inspector: The detector.
    """

    def __init__(self, inspector: Inspector):
        self.source, self.digest = inspector.source, inspector.digest
        self._seen: tuple[int, ...] = ()
        self._there = self.digest
        self._lock = threading.Lock()

    def replaced(self) -> str:
        """Return in words that the path leads to another detector or to none; '' if it is unchanged."""
        if self.source is None:
            return ''
        with self._lock:
            now = _state(self.source / METADATA)
            if now != self._seen or not now:
                self._seen, self._there = now, stated_digest(self.source)
            there = self._there
        if there == self.digest:
            return ''
        found = f'to the detector {there[:12]}' if there else 'to no exported detector'
        return (
            f'{self.source} now leads {found}; this server continues with {self.digest[:12]} until it is '
            'started again'
        )


def _state(path: Path) -> tuple[int, ...]:
    """Return numbers that change with the file or the link to it; () if the file is gone."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
