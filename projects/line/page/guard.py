"""The check of every request: login and role, requests from other sites, size and time of its body."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import HTTPException
from fastapi.datastructures import Headers

from projects.radiograph.image import MAX_FRAME_BYTES

from .access import Access

MAX_BODY_BYTES = 2**20  # of a request without a radiograph
BODY_SECONDS = 30.0  # for a body, plus one second for each `SLOWEST_BYTES` received
SLOWEST_BYTES = 100_000
DRAIN_SECONDS = 5.0
HEADERS = {
    'Content-Security-Policy': "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}
CODED_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
# Paths without a login; they reveal only whether the server works.
WITHOUT_LOGIN = ('/health/live', '/health/ready')
UPLOADS = ('/v1/inspect',)
# Content types that a page of another site cannot send without a CORS preflight.
OF_PROGRAMS = ('application/octet-stream', 'application/dicom', 'application/json')

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Guard:
    """ASGI middleware around the application.

    Args:
        app: The application.
        access: The access rule.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], access: Access):
        self.app, self.access = app, access

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or let the application answer it."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def answer(message: dict[str, Any]) -> None:
            if message['type'] == 'http.response.start':
                message['headers'] = [*message['headers'], *CODED_HEADERS]
            await send(message)

        most = MAX_FRAME_BYTES if scope['path'] in UPLOADS else MAX_BODY_BYTES
        status, reason = self._refusal(scope, headers)
        length = headers.get('content-length', '0')
        if not status and (not length.isdecimal() or len(length) > 15 or int(length) > most):
            status, reason = 413, _too_large(most)
        if status:
            await _drain(receive)
            await _say(answer, status, reason)
        else:
            await self.app(scope, _bounded(receive, most), answer)

    def _refusal(self, scope: dict[str, Any], headers: Headers) -> tuple[int, str]:
        """Return status and reason of a refusal; status 0 if the request is allowed."""
        user = self.access.user_of(headers, (scope.get('client') or ('',))[0])
        scope.setdefault('state', {})['user'] = user
        if user is None and scope['path'] not in WITHOUT_LOGIN:
            return 401, 'expected a token'
        if scope['method'] in ('GET', 'HEAD'):
            return 0, ''
        # A form or script of another site cannot send this header or such a type without a CORS preflight.
        kind = headers.get('content-type', '').partition(';')[0].strip().lower()
        program = scope['path'].startswith('/v1/') and kind in OF_PROGRAMS
        if headers.get('x-inspect') != 'page' and not program:
            return 403, 'expected a request of the page'
        if user and user.role != 'inspector' and not scope['path'].startswith('/v1/'):
            return 403, f'{user.name} may look, not decide: ask for the role inspector'
        return 0, ''


async def _drain(receive: Receive) -> None:
    """Read and drop the rest of a body, for a limited time: a client that still sends reads no answer."""
    seen = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while seen <= MAX_FRAME_BYTES:
                message = await receive()
                seen += len(message.get('body', b''))
                if not message.get('more_body', False):
                    return


def _too_large(most: int) -> str:
    return f'expected at most {most >> 20} MiB'


def _bounded(receive: Receive, most: int) -> Receive:
    """Limit the size of a body, and its time from the moment when the application first asks for it."""
    seen, begin, more = 0, 0.0, True

    async def bounded() -> dict[str, Any]:
        nonlocal seen, begin, more
        begin = begin or time.monotonic()
        left = begin + BODY_SECONDS + seen / SLOWEST_BYTES - time.monotonic()
        try:
            # After the body, the only message is the end of the connection, which has no deadline.
            message = await asyncio.wait_for(receive(), max(left, 0.001) if more else None)
        except TimeoutError:
            raise HTTPException(408, 'the body did not come in time', dict(connection='close')) from None
        if message['type'] == 'http.request':
            seen += len(message.get('body', b''))
            more = message.get('more_body', False)
        if seen > most:
            await _drain(receive)
            raise HTTPException(413, _too_large(most), dict(connection='close'))
        return message

    return bounded


async def _say(send: Send, status: int, reason: str) -> None:
    body = json.dumps(dict(detail=reason)).encode()
    headers = [(b'content-type', b'application/json'), (b'content-length', str(len(body)).encode())]
    headers.append((b'connection', b'close'))  # the rest of the body is not read
    if status == 401:
        headers.append((b'www-authenticate', b'Basic realm="inspection"'))
    await send(dict(type='http.response.start', status=status, headers=headers))
    await send(dict(type='http.response.body', body=body))
