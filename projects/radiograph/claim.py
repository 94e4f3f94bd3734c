"""Who packs into a URL: one machine at a time, without a clock that they share.

The writer keeps an object `writer.json` that it changes every few seconds. A machine that comes later watches
it: if it changes, another is at work; if it does not for three times as long, that one was killed, and the
later one takes its place.
"""

import json
import socket
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
        url: Where it packs to.
        place: Local folder of this packing; a run after a kill has the name of the one before it.
    """

    def __init__(self, url: str, place: Path):
        self.url, self.object = url, join(url, CLAIM)
        own = place / CLAIM
        if not own.is_file():
            write_whole(own, uuid.uuid4().hex)
        self.name, self.host = own.read_text(), socket.gethostname()
        self.count, self.last = 0, 0.0

    def __enter__(self) -> 'Claim':
        """Take the URL, once nobody else is seen at work there.

        Raises:
            StoreError: Another machine is.
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
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the URL up, unless another machine has taken it."""
        try:
            if self._read().get('name') == self.name:
                remove(self.object)
        except RemoteError:
            if kind is None:
                raise

    def check(self) -> None:
        """Make sure that the URL is still this machine's.

        Raises:
            StoreError: Another machine has taken it meanwhile.
        """
        found = self._read()
        if found.get('name') != self.name:
            raise self._busy(found)

    def renewed(self, results: Iterator[Any]) -> Iterator[Any]:
        """Pass results on, and change the claim as time passes."""
        for result in results:
            if time.monotonic() - self.last > RENEWED_S:
                self.check()
                self._write()
            yield result

    def _busy(self, found: dict[str, Any]) -> StoreError:
        host = found.get('host', 'another machine')
        return StoreError(
            f'{self.url}: {host} is packing into it too, expected one machine at a time; let it end, then '
            'pack again: it goes on from there'
        )

    def _write(self) -> None:
        self.count += 1
        claim = dict(name=self.name, host=self.host, count=f'{uuid.uuid4().hex[:8]}-{self.count}')
        write_bytes(self.object, json.dumps(claim).encode())
        self.last = time.monotonic()

    def _read(self) -> dict[str, Any]:
        if not exists(self.object):
            return {}
        try:
            claim = json.loads(read_bytes(self.object))
            return claim if isinstance(claim, dict) else {}
        except ValueError:
            return {}
