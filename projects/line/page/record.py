"""The record of decisions: `decisions.jsonl`, append-only; each line holds the hash of the line before.

The field `previous` of a line is the SHA-256 of the line before, including its line feed; in the first line
it is zeros. The hash of the last line (`tail -n 1 decisions.jsonl | sha256sum`) identifies the whole record.
Noted elsewhere, such as in a shift's protocol, the hash later proves that no line before it was changed.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from projects.line.runtime.archive import ArchiveError

RECORD = 'decisions.jsonl'
FIRST = '0' * 64


def read_record(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Read a record and prove that each line follows from the line before.

    Args:
        path: The file; a missing file is an empty record. A last line without a line feed does not belong to
            the record: a power cut interrupted that decision, and its client got no answer.

    Yields:
        Each entry and the hash of its line.

    Raises:
        ArchiveError: A line is damaged, or was changed, added, removed or moved.
    """
    if not path.is_file():
        return
    previous = FIRST
    with path.open('rb') as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b'\n'):
                return
            try:
                entry = json.loads(line)
                if (entry['number'], entry['previous']) != (number, previous):
                    raise ValueError
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ArchiveError(
                    f'{path}: line {number} does not follow from the one before: the record was changed or '
                    'damaged there; bring back a copy of it, or give another --out'
                ) from None
            previous = hashlib.sha256(line).hexdigest()
            yield entry, previous


def check_entry(path: Path, entry: dict[str, Any]) -> None:
    """Make sure that an entry is a decision: the hashes do not protect the last line of a record.

    Raises:
        ArchiveError: The entry is not a decision.
    """
    try:
        text = ('time', 'reader', 'inspector', 'file', 'radiograph', 'part', 'verdict')
        right = all(isinstance(entry[key], str) for key in text) and type(entry['revision']) is int
        detector, (height, width) = entry['detector'] or None, entry['size']
        right &= height >= 0 and width >= 0 and (detector is None or {'folder', 'origin'} <= detector.keys())
        for box in entry['boxes']:
            x1, y1, x2, y2 = box['box']
            right &= x2 >= x1 and y2 >= y1 and box['class'] in entry['classes']
    except (KeyError, TypeError, ValueError, AttributeError):
        right = False
    if not right:
        raise ArchiveError(
            f'{path}: line {entry["number"]} is no decision of the page: the record was changed or damaged '
            'there; bring back a copy of it, or give another --out'
        )


class Record:
    """A record to which one process at a time appends.

    Args:
        path: The file.
        durable: Wait for the disk with each entry.

    Attributes:
        entries: The entries read at the start; the caller may empty the list.
        count: Number of entries in the record.
        head: Hash of the last line.

    Raises:
        ArchiveError: The record was changed or damaged, see `read_record`.
    """

    def __init__(self, path: Path, durable: bool = True):
        self.path, self.durable = path, durable
        self.entries: list[dict[str, Any]] = []
        self.head = FIRST
        for entry, self.head in read_record(path):
            self.entries.append(entry)
        self.count = len(self.entries)
        self._end = self._whole_bytes()

    def append(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Append an entry; on return the entry is on the disk, or not in the record at all.

        Args:
            entry: Facts to keep, of JSON's types.

        Returns:
            The entry with its number and the hash of the line before.

        Raises:
            OSError: The entry could not be written, or another program wrote to the file.
        """
        entry = dict(number=self.count + 1, **entry, previous=self.head)
        line = json.dumps(entry, allow_nan=False).encode() + b'\n'
        new = not self.path.exists()
        with self.path.open('ab', buffering=0) as file:
            if file.seek(0, os.SEEK_END) != self._end:
                self._cut_torn(file)
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[file.write(rest) :]
                if self.durable:
                    os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # otherwise the next entry cuts the torn line off
                    file.truncate(self._end)
                raise
        if new and self.durable:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self.count, self.head = self.count + 1, hashlib.sha256(line).hexdigest()
        self._end += len(line)
        return entry

    def _whole_bytes(self) -> int:
        """Return the offset of the end of the last complete line."""
        if not self.path.is_file():
            return 0
        with self.path.open('rb') as file:
            at = file.seek(0, os.SEEK_END)
            while at:
                start = max(at - 2**16, 0)
                file.seek(start)
                last = file.read(at - start).rfind(b'\n')
                if last >= 0:
                    return start + last + 1
                at = start
        return 0

    def _cut_torn(self, file) -> None:
        """Cut off an incomplete last line; lines of another program stay and are refused.

        Raises:
            OSError: Another program wrote to the file.
        """
        with self.path.open('rb') as there:
            size = there.seek(0, os.SEEK_END)
            there.seek(min(self._end, size))
            if size < self._end or b'\n' in there.read():
                raise OSError(errno.EBUSY, f'{self.path} was changed by another program')
        file.truncate(self._end)
