"""An app on a free port of the loopback interface."""

import socket
import threading
import time
from contextlib import contextmanager

import uvicorn


def wait_for(ask, seconds=60):
    """Call `ask` until what it returns is true; returns that."""
    end = time.monotonic() + seconds
    while not (said := ask()):
        assert time.monotonic() < end, f'nothing within {seconds} s'
        time.sleep(0.01)
    return said


@contextmanager
def serving(app):
    """Serve an app on a free port of the loopback interface while the block runs; gives host and port."""
    runner = uvicorn.Server(uvicorn.Config(app, log_level='error', timeout_graceful_shutdown=10))
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    thread = threading.Thread(target=runner.run, args=([listener],), daemon=True)
    thread.start()
    try:
        wait_for(lambda: runner.started or not thread.is_alive())
        assert thread.is_alive()
        yield listener.getsockname()
    finally:
        runner.should_exit = True
        thread.join(60)
    assert not thread.is_alive()
