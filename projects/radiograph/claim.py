"""The claim on a URL: one machine at a time packs into it, without a shared clock.

The writer changes an object `writer.json` every few seconds. A separate thread does this, since a shard may
take minutes to upload. A second machine watches the object. If the object changes, the first machine is at
work. If it stays the same for three times the interval, the first was killed, and the second takes its place.
"""

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import write_whole
from .recipe import StoreError
from .remote import RemoteError, exists, join, read_bytes, remove, write_bytes

CLAIM = 'writer.json'
RENEWED_S = 20.0
"""Seconds between two changes of the claim."""


class Claim:
    """The claim of this machine on a URL.

    Args:
        url: The destination of packing.
        place: Local folder of this packing. It keeps the claim's name, so that a run after a kill reuses it.
    """

    def __init__(self, url: str, place: Path):
        self.url, self.object = url, join(url, CLAIM)
        own = place / CLAIM
        if not own.is_file():
            write_whole(own, uuid.uuid4().hex)
        self.name, self.host = own.read_text(), socket.gethostname()
        self.count = 0
        self.taken: StoreError | None = None
        self._done = threading.Event()
        self._beat = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> 'Claim':
        """Take the URL, once no other machine is at work there.

        Raises:
            StoreError: Another machine is at work there.
        """
        found = self._read()
        if found.get('name') not in (None, self.name):
            deadline = time.monotonic() + 3 * RENEWED_S
            while time.monotonic() < deadline:
                time.sleep(RENEWED_S / 4)
                now = self._read()
                if not now:
                    break
                if now != found:
                    raise self._busy(now)
        self._write()
        self.check()
        self._beat.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Release the URL, unless another machine has taken it."""
        self._done.set()
        self._beat.join()
        try:
            if self._read().get('name') == self.name:
                remove(self.object)
        except RemoteError:
            if kind is None:
                raise

    def check(self) -> None:
        """Make sure that this machine still holds the URL.

        Raises:
            StoreError: Another machine has taken it meanwhile.
        """
        found = self._read()
        if found.get('name') != self.name:
            raise self._busy(found)

    def renewed(self, results: Iterator[Any]) -> Iterator[Any]:
        """Yield the results as long as no other machine has taken the URL.

        Raises:
            StoreError: See `check`.
        """
        for result in results:
            if self.taken:
                raise self.taken
            yield result

    def _renew(self) -> None:
        """Change the claim at each interval, until it is released or taken."""
        while not self._done.wait(RENEWED_S):
            try:
                self.check()
                self._write()
            except StoreError as error:
                self.taken = error
                return
            except RemoteError:  # the server is busy: it answers the next time, or packing raises
                continue

    def _busy(self, found: dict[str, Any]) -> StoreError:
        host = found.get('host', 'another machine')
        return StoreError(
            f'{self.url}: {host} is packing into it too, expected one machine at a time; wait until it '
            'ends, then pack again: packing resumes there'
        )

    def _write(self) -> None:
        self.count += 1
        claim = dict(name=self.name, host=self.host, count=f'{uuid.uuid4().hex[:8]}-{self.count}')
        write_bytes(self.object, json.dumps(claim).encode())

    def _read(self) -> dict[str, Any]:
        if not exists(self.object):
            return {}
        try:
            claim = json.loads(read_bytes(self.object))
            return claim if isinstance(claim, dict) else {}
        except ValueError:
            return {}
