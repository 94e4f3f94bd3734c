"""The page under attack: half-open requests, slow and large bodies, many uploads, paths beside the page."""

import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack, closing

import cv2
import pytest
from helpers.exported import export_to, spot
from helpers.serving import caller, serving, wait_for

from projects.line.page import connections, guard, uploads
from projects.line.page.command import parse_args, settings
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector


@pytest.fixture
def session(tmp_path):
    inspector = Inspector(export_to(tmp_path / 'exported'), cache=False)
    with closing(Session(inspector, tmp_path / 'out')) as opened:
        yield opened


@pytest.fixture
def address(session):
    """A server as the command starts it."""
    with serving(build(session), **settings(parse_args(['exported']))) as place:
        yield place


def png(level=255):
    return cv2.imencode('.png', spot(20, 30, level))[1].tobytes()


def ended(connection):
    """Whether the server has ended a connection; waits for it."""
    connection.settimeout(60)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_requests_that_never_become_whole_are_ended(address, monkeypatch):
    monkeypatch.setattr(connections, 'HEAD_SECONDS', 0.5)
    heads = [b'', b'GET / HT', b'GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b']
    waiting = [socket.create_connection(address) for _ in heads]
    for connection, head in zip(waiting, heads, strict=True):
        connection.sendall(head)
    # Also after a whole request, on the same connection.
    again = socket.create_connection(address)
    again.sendall(b'GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT')
    assert all(ended(connection) for connection in [*waiting, again])


def test_half_open_requests_keep_nobody_out(address, monkeypatch):
    monkeypatch.setattr(connections, 'HEAD_SECONDS', 600)
    monkeypatch.setattr(connections, 'MOST_CONNECTIONS', 20)
    waiting = [socket.create_connection(address) for _ in range(60)]
    for connection in waiting:
        connection.sendall(b'GET / HTTP/1.1\r\n')
    assert caller(address)('GET', '/api/state')[0].status == 200
    assert all(ended(connection) for connection in waiting[:40])
    for connection in waiting:
        connection.close()


def test_half_open_handshakes_keep_nobody_out(session, tmp_path):
    """Also where the server speaks TLS, whose handshake comes before any request."""
    cert, key = tmp_path / 'cert.pem', tmp_path / 'key.pem'
    command = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost']
    subprocess.run([*command, '-keyout', key, '-out', cert], check=True, capture_output=True)
    result = settings(parse_args(['exported', '--tls-cert', str(cert), '--tls-key', str(key)]))
    context = ssl.create_default_context(cafile=cert)
    with serving(build(session), **result) as address, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(address))
        connection = http.client.HTTPSConnection('localhost', address[1], timeout=60, context=context)
        connection.request('GET', '/health/live')
        assert connection.getresponse().status == 200
        connection.close()


def test_a_body_that_does_not_come_is_given_up(address, monkeypatch):
    monkeypatch.setattr(guard, 'BODY_SECONDS', 0.5)
    head = (
        'POST {} HTTP/1.1\r\nHost: localhost\r\nX-Inspect: page\r\nContent-Type: application/json\r\n'
        'Content-Length: 1000\r\n\r\n'
    )
    for path in ('/v1/inspect?keep=true&name=a.png', '/v1/inspect/folder'):
        with socket.create_connection(address) as connection:
            connection.sendall(head.format(path).encode() + b'{')
            connection.settimeout(60)
            assert connection.recv(65536).startswith(b'HTTP/1.1 408')
            assert ended(connection)


def test_an_answer_that_is_not_taken_is_given_up(session, address, monkeypatch, tmp_path):
    monkeypatch.setattr(connections, 'STALL_SECONDS', 0.5)
    cv2.imwrite(str(tmp_path / 'large.png'), spot(20, 30).repeat(64, 0).repeat(64, 1))
    key = session.add('large.png', tmp_path / 'large.png')
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        connection.sendall(f'GET /api/images/{key}/pixels HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
        assert connection.recv(10).startswith(b'HTTP/1.1 2')
        time.sleep(2)
        assert ended(connection)


def test_a_body_is_bounded_whether_it_says_its_size_or_not(address):
    call = caller(address)
    boxes = json.dumps(dict(verdict='accept', boxes=[dict(box=[1, 2, 3, 4], label=1)] * 200_000))
    assert call('POST', '/api/images/1/decision', boxes)[0].status == 413
    pieces = (b'x' * 65536 for _ in range(40))
    answer, body = call('POST', '/api/images/1/decision', pieces)
    assert (answer.status, body['detail']) == (413, 'expected at most 1 MiB')
    assert call('POST', '/v1/inspect/folder', b'{}', **{'content-length': '-1'})[0].status in (400, 413)


def test_one_radiograph_sent_many_times_at_once_is_one(session, address, tmp_path):
    call, content, answers = caller(address), png(), []

    def send():
        answer, body = call.send('a.png', content)
        answers.append((answer.status, body.get('id')))

    threads = [threading.Thread(target=send) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert set(answers) == {(200, 1)}
    assert len(list(session.uploads.iterdir())) == 1


def test_too_many_who_wait_are_told_to_come_again(address, monkeypatch):
    monkeypatch.setattr(uploads, 'MOST_WAITING', 0)
    answer, body = caller(address).send('a.png', png())
    assert (answer.status, answer.headers['retry-after']) == (503, '5')
    assert body['detail'].startswith('too many radiographs at once')


def test_uploads_that_nobody_decided_on_are_bounded_and_go_at_the_end(
    session, address, monkeypatch, tmp_path
):
    call = caller(address)
    monkeypatch.setattr(uploads, 'KEPT_BYTES', len(png()) + 100)
    assert call.send('a.png', png())[1]['id'] == 1
    answer, body = call.send('b.png', png(254))
    assert answer.status == 507
    assert 'hold uploads that nobody decided on; decide on some' in body['detail']
    # A decided one is kept with the corrections, and makes room.
    assert call('POST', '/api/images/1/decision', dict(verdict='accept', boxes=[]))[0].status == 200
    assert call.send('b.png', png(254))[1]['id'] == 2
    assert call('GET', '/api/images/1/pixels')[0].status == 200
    assert call.send('a.png', png())[1]['id'] == 1
    session.close()
    assert not session.uploads.exists()
    assert len(list((tmp_path / 'out' / 'images').iterdir())) == 1


def test_an_upload_that_breaks_off_leaves_nothing(session, address):
    with socket.create_connection(address) as connection:
        connection.sendall(
            b'POST /v1/inspect?keep=true&name=a.png HTTP/1.1\r\nHost: localhost\r\nX-Inspect: page\r\n'
            b'Content-Length: 3000000\r\n\r\n' + bytes(2_000_000)
        )
        wait_for(lambda: list(session.uploads.iterdir()))
    wait_for(lambda: not list(session.uploads.iterdir()))
    assert not session.items


@pytest.mark.parametrize(
    'path',
    ['/static/../server.py', '/static/..%2fserver.py', '/static/%2e%2e/server.py', '/static//etc/passwd'],
)
def test_nothing_beside_the_page_is_served(address, path):
    assert caller(address)('GET', path)[0].status in (400, 404)
