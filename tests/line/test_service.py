"""The service that other programs call: uploads, batches, health, version, metrics, description, logs."""

import hashlib
import json
import logging
from contextlib import closing

import cv2
import numpy as np
import pytest
from helpers.exported import export_to, spot
from helpers.serving import caller, serving, wait_for
from prometheus_client.parser import text_string_to_metric_families

from projects import __version__
from projects.line.page import service
from projects.line.page.access import Access, User
from projects.line.page.logs import log_to
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector


def png(level=255):
    return cv2.imencode('.png', spot(20, 30, level))[1].tobytes()


@pytest.fixture
def session(tmp_path):
    archive = tmp_path / 'archive'
    (archive / 'day').mkdir(parents=True)
    (archive / 'day' / 'good.png').write_bytes(png(110))
    (archive / 'day' / 'bad.png').write_bytes(png())
    (archive / 'torn.png').write_bytes(b'\x89PNG')
    (tmp_path / 'secret.png').write_bytes(png())
    (archive / 'link.png').symlink_to(tmp_path / 'secret.png')
    inspector = Inspector(export_to(tmp_path / 'exported'), cache=False)
    with closing(Session(inspector, tmp_path / 'out', archive)) as opened:
        yield opened


@pytest.fixture
def call(session):
    with serving(build(session)) as address:
        yield caller(address)


def program(kind='application/octet-stream'):
    """Headers of a program that is not the page."""
    return {'x-inspect': '', 'content-type': kind}


def test_an_upload_is_inspected_and_nothing_is_kept(call, session):
    answer, body = call('POST', '/v1/inspect?name=part%207.png', png(), **program())
    assert answer.status == 200
    (result,) = body['results']
    assert (result['name'], result['verdict'], result['risk']) == ('part_7.png', 'reject', 1)
    assert result['boxes'] == [{'box': [16, 26, 24, 34], 'class': 'critical', 'score': 1}]
    assert (result['size'], result['threshold'], result['engine']) == ([64, 64], 0.9, 'openvino')
    assert result['radiograph'] == hashlib.sha256(png()).hexdigest()
    assert result['folder'] == session.inspector.digest
    assert set(result['seconds']) == {'decode', 'window', 'network', 'merge'}
    assert (
        call('POST', '/v1/inspect?name=a.png', png(110), **program())[1]['results'][0]['verdict'] == 'accept'
    )
    assert not list(session.uploads.iterdir())
    assert not session.items


def test_what_cannot_be_read_is_no_acceptance(call):
    (result,) = call('POST', '/v1/inspect?name=a.png', b'\x89PNG', **program())[1]['results']
    assert (result['verdict'], result['risk'], result['boxes']) == ('unreadable', None, [])
    assert result['reason'].startswith('a.png: expected')
    assert call('POST', '/v1/inspect?name=a.txt', b'text', **program())[0].status == 415


def test_a_batch_of_the_archive_is_inspected_in_order(call):
    paths = ['day/bad.png', 'torn.png', 'day/good.png', 'none.png']
    answer, body = call('POST', '/v1/inspect', dict(paths=paths), **program('application/json'))
    assert answer.status == 200
    verdicts = [result['verdict'] for result in body['results']]
    assert verdicts == ['reject', 'unreadable', 'accept', 'unreadable']
    assert [result['name'] for result in body['results']] == paths
    assert body['results'][1]['reason'].startswith('torn.png: expected')


def test_what_is_to_be_kept_goes_onto_the_list_of_the_page(call, session):
    answer, body = call('POST', '/v1/inspect?keep=true&name=a.png', png(110), **program())
    assert (answer.status, body['results'][0]['verdict'], body['results'][0]['id']) == (200, 'accept', 1)
    asked = dict(paths=['day/bad.png', 'torn.png'])
    body = call('POST', '/v1/inspect?keep=true', asked, **program('application/json'))[1]
    assert [(case['id'], case['verdict']) for case in body['results']] == [(2, 'reject'), (3, 'unreadable')]
    # The same again, as a folder: no radiograph is listed twice.
    answer, body = call('POST', '/v1/inspect/folder', dict(folder='day'), **program('application/json'))
    assert (answer.status, body) == (202, dict(added=2, outside=0))
    wait_for(lambda: all(item.state != 'waiting' for item in session.items.values()))
    assert {item.name: item.state for item in session.items.values()} == {
        'a.png': 'found',
        'day/bad.png': 'found',
        'torn.png': 'unreadable',
        'day/good.png': 'found',
    }
    # The detector has seen these bytes; who asks again has its findings again, and the decision stays.
    decision = dict(verdict='reject', boxes=[dict(box=[16, 26, 24, 34], label=0)])
    assert call('POST', '/api/images/2/decision', decision)[0].status == 200
    asked = dict(paths=['day/bad.png'])
    body = call('POST', '/v1/inspect?keep=true', asked, **program('application/json'))[1]
    assert (body['results'][0]['verdict'], session.items[2].decision) == ('reject', 'reject')


def test_what_nobody_can_look_at_is_not_kept(call, session):
    answer, body = call('POST', '/v1/inspect?keep=true&name=a.png', b'\x89PNG', **program())
    assert (answer.status, body['detail'][:16]) == (415, 'a.png: expected ')
    # The detector alone refuses a frame without a picture; it is looked at, and decided on.
    blank = cv2.imencode('.png', np.full((64, 64), 9, np.uint8))[1].tobytes()
    (result,) = call('POST', '/v1/inspect?keep=true&name=blank.png', blank, **program())[1]['results']
    assert (result['verdict'], result['id'], session.items[1].state) == ('unreadable', 1, 'unreadable')
    assert result['reason'] == session.items[1].reason and result['reason'].startswith('blank.png: ')
    assert len(list(session.uploads.iterdir())) == 1


def test_who_may_only_look_puts_nothing_onto_the_list(session):
    access = Access({hashlib.sha256(b'secret').hexdigest(): User('plc', 'reader', 'token')})
    with serving(build(session, access=access)) as address:
        call, login = caller(address), dict(authorization='Bearer secret')
        octets, lines = program() | login, program('application/json') | login
        assert call('POST', '/v1/inspect?name=a.png', png(), **octets)[0].status == 200
        assert call('POST', '/v1/inspect?name=a.png&keep=true', png(), **octets)[0].status == 403
        assert call('POST', '/v1/inspect?keep=true', dict(paths=['torn.png']), **lines)[0].status == 403
        assert call('POST', '/v1/inspect/folder', dict(folder='day'), **lines)[0].status == 403
    assert not session.items and not list(session.uploads.iterdir())


@pytest.mark.parametrize(
    'body',
    [
        dict(paths=['../secret.png']),
        dict(paths=['link.png']),
        dict(paths=['/etc/passwd']),
        dict(paths=['day/\0.png']),
        dict(paths=[]),
        dict(paths='day/bad.png'),
        dict(paths=[1]),
        dict(paths=['day/good.png'] * 101),
        dict(),
        '[' * 100_000,
    ],
    ids=['above', 'link', 'absolute', 'nul', 'none', 'text', 'number', 'many', 'nothing', 'deep'],
)
def test_a_batch_that_cannot_be_is_refused(call, body):
    answer, content = call('POST', '/v1/inspect', body, **program('application/json'))
    assert (answer.status, content['detail'][:6]) == (400, 'paths:')


def test_a_page_of_another_site_cannot_have_anything_inspected(call):
    for kind in ('text/plain', 'multipart/form-data', 'application/x-www-form-urlencoded', ''):
        assert call('POST', '/v1/inspect?name=a.png', png(), **program(kind))[0].status == 403


def test_health_needs_no_login_and_the_rest_does(session, monkeypatch):
    access = Access({hashlib.sha256(b'secret').hexdigest(): User('plc', 'reader', 'token')})
    with serving(build(session, access=access)) as address:
        call = caller(address)
        assert call('GET', '/health/live')[1] == dict(status='live')
        assert call('GET', '/health/ready')[1] == dict(status='ready')
        for path in ('/version', '/metrics', '/openapi.json', '/'):
            assert call('GET', path)[0].status == 401
        result = dict(authorization='Bearer secret')
        assert call('POST', '/v1/inspect?name=a.png', png(), **program(), **result)[0].status == 200
        monkeypatch.setattr(service, 'LEAST_ROOM', 2**80)
        assert call('GET', '/health/ready')[0].status == 503


def test_metrics_count_what_was_inspected_wherever_it_came_from(call, session):
    call('POST', '/v1/inspect?name=a.png', png(), **program())
    call('POST', '/v1/inspect?name=a.png', b'\x89PNG', **program())
    key = call.send('page.png', png(110))[1]['id']
    assert call('POST', f'/api/images/{key}/decision', dict(verdict='accept', boxes=[]))[0].status == 200
    answer, text = call('GET', '/metrics')
    assert answer.headers['content-type'].startswith('text/plain; version=0.0.4')
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    counted = [samples['mmxray_radiographs_total', v] for v in ('accept', 'reject', 'unreadable')]
    assert counted == [1, 1, 1]
    assert samples['mmxray_stage_seconds_count', 'network'] == 2
    assert samples['mmxray_risk_count',] == samples['mmxray_mean_gray_count',] == 2
    assert samples['mmxray_decisions_total', 'accept'] == 1
    assert ('mmxray_detector_info', 'openvino', session.inspector.digest, __version__) in samples


def test_version_and_description(call, session):
    body = call('GET', '/version')[1]
    assert (body['version'], body['folder']) == (__version__, session.inspector.digest)
    described = call('GET', '/openapi.json')[1]
    health = {'/health/live', '/health/ready'}
    assert set(described['paths']) == {'/v1/inspect', '/v1/inspect/folder', '/version', '/metrics', *health}
    asked = described['paths']['/v1/inspect']['post']['parameters']
    assert {parameter['name'] for parameter in asked} == {'name', 'keep'}
    kinds = described['paths']['/v1/inspect']['post']['requestBody']['content']
    assert set(kinds) == {'application/octet-stream', 'application/dicom', 'application/json'}


def test_logs_are_json_lines_whatever_a_name_holds(session, tmp_path):
    logger = logging.getLogger('mmxray')
    log_to(str(tmp_path / 'log'))
    try:
        (tmp_path / 'a\n{"event": "decided"}.png').write_bytes(png())
        key = session.add('a\n{"event": "decided"}.png', tmp_path / 'a\n{"event": "decided"}.png')
        session.inspect(key)
    finally:
        for name in ('mmxray', 'uvicorn'):
            for handler in logging.getLogger(name).handlers[:]:
                logging.getLogger(name).removeHandler(handler)
                handler.close()
        logger.setLevel(logging.NOTSET)
    (line,) = (tmp_path / 'log').read_text().splitlines()
    content = json.loads(line)
    assert (content['event'], content['verdict'], content['folder']) == (
        'inspected',
        'reject',
        session.inspector.digest,
    )
