"""An app on a free port of the loopback interface, and calls to it as the page makes them."""

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

import uvicorn


def wait_for(ask, seconds=60):
    """Call `ask` until what it returns is true; returns that.

    For pages, too: Playwright's `wait_for_function` polls by what their content security policy forbids.
    """
    end = time.monotonic() + seconds
    while not (result := ask()):
        assert time.monotonic() < end, f'nothing within {seconds} s'
        time.sleep(0.01)
    return result


@contextmanager
def serving(app, **settings):
    """Serve an app on a free port of the loopback interface while the block runs; gives host and port."""
    # Configured logging would close what other tests of this process log to: absl's stream, MMEngine's files.
    options = dict(log_level='error', timeout_graceful_shutdown=10) | settings | dict(log_config=None)
    runner = uvicorn.Server(uvicorn.Config(app, **options))
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


def caller(address):
    """Return a function that calls a server as the page does: method, path, body -> answer, content.

    Its `send` sends a radiograph that is kept to be decided on: name, content -> answer, its result.
    """

    def call(method, path, body=None, **headers):
        connection = http.client.HTTPConnection(*address, timeout=60)
        if method == 'POST':
            headers = {'x-inspect': 'page', 'content-type': 'application/json'} | headers
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kind = answer.headers.get('content-type', '')
        return answer, json.loads(content) if 'json' in kind else content

    def send(name, content):
        kind = {'content-type': 'application/octet-stream'}
        answer, body = call('POST', f'/v1/inspect?keep=true&name={name}', content, **kind)
        return answer, body['results'][0] if 'results' in body else body

    call.send = send
    return call
