"""Connections of the page's server: each has deadlines, so that slow clients do not block others.

uvicorn ends a connection that is idle between two requests. It does not end a connection whose request never
becomes complete or whose client does not read the answer.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # from the connection or the last answer until a request's head is complete
STALL_SECONDS = 60.0  # for which a client may read nothing of its answer
MOST_CONNECTIONS = 200


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with deadlines for each request's head and each answer, and a limit of connections."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; if there are too many, abort the one that has waited longest for its head."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [other for other in self.connections if other is not self and other._deadline]
            oldest = min(waiting, key=lambda other: other._deadline.when(), default=self)
            # `connection_lost` comes later: further connections must not choose this one again.
            oldest._deadline = _cancel(oldest._deadline)
            self.connections.discard(oldest)
            oldest.transport.abort()
        if not transport.is_closing():
            self._wait_for_head()

    def handle_events(self) -> None:
        """Process received data; a complete head ends the deadline."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._deadline = _cancel(self._deadline)

    def on_response_complete(self) -> None:
        """Begin the deadline of the next request, if the connection stays open."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadlines."""
        self._deadline, self._stalled = _cancel(self._deadline), _cancel(self._stalled)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin the deadline of an answer that the client does not read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """End the deadline: the client reads again."""
        self._stalled = _cancel(self._stalled)
        super().resume_writing()

    def _wait_for_head(self) -> None:
        _cancel(self._deadline)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
