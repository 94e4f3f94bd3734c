"""A second detector in the shadow of the first: its verdicts are recorded, and never acted upon."""

import errno
import json
import logging
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from projects.radiograph.image import ImagingError

from .archive import ArchiveError
from .inspector import Inspection, Inspector

RECORD = 'shadow.jsonl'

log = logging.getLogger('mmxray.service')


class Shadow:
    """A second exported folder that inspects the same radiographs as the first.

    Args:
        inspector: The second detector.
        first: The detector whose verdicts count.
        out: Folder of the record, `shadow.jsonl`: one line per radiograph, appended only.

    Attributes:
        counts: Radiographs of this run by the verdicts of the first and the second detector.

    Raises:
        ArchiveError: Both are the same folder.
    """

    def __init__(self, inspector: Inspector, first: Inspector, out: Path):
        if inspector.digest == first.digest:
            raise ArchiveError('--shadow: is the folder of the first detector; give another')
        self.inspector, self.path = inspector, out / RECORD
        self.counts: Counter[tuple[str, str]] = Counter()

    def see(
        self, name: str, digest: str, path: Path, outcome: Inspection | ImagingError, first: Inspector
    ) -> None:
        """Inspect a radiograph too, and record both verdicts; a failure here does not affect the first.

        Args:
            name: Name of the radiograph.
            digest: SHA-256 of its file.
            path: Its file.
            outcome: Result of the first detector.
            first: The first detector. Nothing is recorded once the line has changed to the shadow's folder.
        """
        if first.digest == self.inspector.digest:
            return
        other = self.inspector.attempt(path)
        both = _facts(outcome, first), _facts(other, self.inspector)
        self.counts[both[0]['verdict'], both[1]['verdict']] += 1
        row = dict(
            time=datetime.now(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z'),
            name=name,
            radiograph=digest,
            agree=both[0]['verdict'] == both[1]['verdict'],
            first=both[0],
            second=both[1],
        )
        try:
            _add_line(self.path, json.dumps(row).encode() + b'\n')
        except OSError as error:
            log.warning('shadow not recorded', extra=dict(facts=dict(name=name, reason=str(error))))

    def in_words(self) -> str:
        """Return in words how often the two verdicts differ."""
        differ = {pair: count for pair, count in self.counts.items() if pair[0] != pair[1]}
        words = ', '.join(
            f'{count} {first} by the first and {second} by the second'
            for (first, second), count in sorted(differ.items())
        )
        total = f'{sum(differ.values())} of {self.counts.total()} verdicts differ'
        return f'shadow: {total}{f" ({words})" if words else ""}; each in {self.path}'


def _add_line(path: Path, line: bytes) -> None:
    """Append a whole line or, on a full disk, nothing: an incomplete line would spoil the next one.

    Raises:
        OSError: The line cannot be written.
    """
    with path.open('ab', buffering=0) as file:
        end, written = file.tell(), 0
        try:
            written = file.write(line)
        finally:
            if written != len(line):
                file.truncate(end)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _facts(outcome: Inspection | ImagingError, inspector: Inspector) -> dict[str, Any]:
    facts: dict[str, Any] = dict(folder=inspector.digest, threshold=inspector.threshold)
    if isinstance(outcome, ImagingError):
        return facts | dict(verdict='unreadable', risk=None, reason=str(outcome))
    return facts | dict(
        verdict=outcome.verdict, risk=outcome.risk, seconds=round(sum(outcome.seconds.values()), 6)
    )
