"""An S3 server on localhost, behind a cable that cuts connections or delays what comes."""

import contextlib
import socket
import socketserver
import threading

import fsspec
import pytest
from moto.server import ThreadedMotoServer

BUSY = (
    b'HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 56\r\n'
    b'Connection: close\r\n\r\n'
    b'<Error><Code>SlowDown</Code><Message>x</Message></Error>'
)


class Cable(socketserver.BaseRequestHandler):
    """Passes on what comes on one connection; cuts as many of them as the server's `cuts` says.

    Answers as many requests as `busy` says with 503, on any connection.
    """

    def handle(self):
        with socket.create_connection(self.server.target, timeout=60) as there:
            if self.server.cuts > 0:
                self.server.cuts -= 1
                there.sendall(self.request.recv(2**16))
                self.request.sendall(there.recv(2**16)[:20])  # not even a whole header
                return
            back = threading.Thread(target=self.pump, args=(there, self.request), daemon=True)
            back.start()
            self.pump(self.request, there, self.server)
            back.join(60)

    @staticmethod
    def pump(source, target, server=None):
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                if (
                    server
                    and server.busy > 0
                    and data.split(b' ', 1)[0] in (b'GET', b'PUT', b'HEAD', b'POST')
                ):
                    server.busy -= 1
                    source.sendall(BUSY)
                    source.shutdown(socket.SHUT_WR)
                    break
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope='module')
def cable():
    """A TCP server in front of an S3 server without content."""
    moto = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
    moto.start()
    server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Cable)
    server.daemon_threads, server.block_on_close = True, False
    server.target, server.cuts, server.busy = moto.get_host_and_port(), 0, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
    moto.stop()


@pytest.fixture(scope='module')
def s3(cable):
    """The S3 server's file system; the environment names it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('AWS_ENDPOINT_URL', f'http://127.0.0.1:{cable.server_address[1]}')
        patch.setenv('AWS_ACCESS_KEY_ID', 'nobody')
        patch.setenv('AWS_SECRET_ACCESS_KEY', 'nothing')
        patch.setenv('AWS_DEFAULT_REGION', 'us-east-1')
        files = fsspec.filesystem('s3', skip_instance_cache=True)
        type(files).clear_instance_cache()  # one of another test module speaks to a server that is gone
        yield files
        type(files).clear_instance_cache()
