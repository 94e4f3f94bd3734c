"""Connections of the page's server: none waits for ever, and a slow client takes no other one's place.

uvicorn ends a connection that is idle between two requests, but not one whose request never becomes whole,
nor one that does not take its answer.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # from its beginning, or from the last answer, until a request's head is whole
STALL_SECONDS = 60.0  # that a client may take nothing of its answer
MOST_CONNECTIONS = 200


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for each request's head and for each answer, and a bound on connections."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; of too many, the one that has waited longest for its head makes room."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [other for other in self.connections if other is not self and other._deadline]
            oldest = min(waiting, key=lambda other: other._deadline.when(), default=self)
            # It is lost later: a burst of others must not find it again.
            oldest._deadline = _cancel(oldest._deadline)
            self.connections.discard(oldest)
            oldest.transport.abort()
        if not transport.is_closing():
            self._wait_for_head()

    def handle_events(self) -> None:
        """Take what came; a whole head ends the wait."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._deadline = _cancel(self._deadline)

    def on_response_complete(self) -> None:
        """Wait for the next request, if there is one."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._deadline, self._stalled = _cancel(self._deadline), _cancel(self._stalled)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes nothing more for now."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client goes on."""
        self._stalled = _cancel(self._stalled)
        super().resume_writing()

    def _wait_for_head(self) -> None:
        _cancel(self._deadline)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
