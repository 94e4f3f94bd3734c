"""The inspection page's server: radiographs in, findings and 16-bit pixels out, decisions kept.

A FastAPI application, by default on the loopback interface. Neither server nor page uses any other host.
"""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from projects import __version__

from . import operator_page, routes, service, shadow_page, uploads
from .access import Access
from .guard import Guard
from .items import as_text
from .session import Session

__all__ = ['Session', 'build']

# Scripts, styles and pictures of the page; every file in this folder is served.
STATIC = Path(__file__).with_name('static')


def build(
    session: Session, hosts: tuple[str, ...] = ('127.0.0.1', 'localhost'), access: Access | None = None
) -> FastAPI:
    """Return the application.

    Args:
        session: The sitting to serve.
        hosts: Allowed Host headers: another site whose name resolves to this machine is refused.
        access: The access rule; default, everybody who reaches the server.
    """
    app = FastAPI(title='MMXray inspection', version=__version__, docs_url=None, redoc_url=None)
    app.state.session = session
    app.state.limits = uploads.Limits()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(Guard, access=access or Access())  # added last, runs first
    app.add_exception_handler(RequestValidationError, _refused)
    # Requests of the page may change with the page: the schema describes the service for programs alone.
    app.include_router(routes.router, include_in_schema=False)
    app.include_router(operator_page.router, include_in_schema=False)
    app.include_router(shadow_page.router, include_in_schema=False)
    app.include_router(service.router)
    if STATIC.is_dir():
        app.mount('/static', StaticFiles(directory=STATIC))
    return app


async def _refused(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer an invalid request with one line that names the fault and does not repeat the content."""
    first = error.errors()[0]
    place = '.'.join(str(part) for part in first['loc'])
    return JSONResponse(dict(detail=as_text(f'{place}: {first["msg"]}')[:500]), 422)
