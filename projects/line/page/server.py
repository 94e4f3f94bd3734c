"""The inspection page's server: radiographs in, findings and 16-bit pixels out, corrections kept as COCO.

FastAPI on the loopback interface. Nothing is fetched from or sent to anywhere else, the page included.
"""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from . import routes, uploads
from .session import Session

__all__ = ['Session', 'build']

# Scripts, styles and pictures that the page loads; whatever lies there is public.
STATIC = Path(__file__).with_name('static')
HEADERS = {
    'Content-Security-Policy': "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}


def build(session: Session, hosts: tuple[str, ...] = ('127.0.0.1', 'localhost')) -> FastAPI:
    """Return the application.

    Args:
        session: What it serves.
        hosts: Names under which it may be called: a page of another site that resolves to this machine is
            refused by its Host header.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.session = session
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.middleware('http')(_guard)
    app.include_router(routes.router)
    app.include_router(uploads.router)
    if STATIC.is_dir():
        app.mount('/static', StaticFiles(directory=STATIC))
    return app


async def _guard(request: Request, answer):
    # A form or script of another site cannot send this header without asking first.
    if request.method == 'POST' and request.headers.get('x-inspect') != 'page':
        return JSONResponse(dict(detail='expected a request of the page'), 403)
    response = await answer(request)
    response.headers.update(HEADERS)
    return response
