"""Who may ask for what: tokens, a proxy that logs people in, roles, and what is not served to a network."""

import base64
import re
from contextlib import closing

import cv2
import pytest
from helpers.exported import export_to, spot
from helpers.serving import caller, serving

from projects.line.page.access import Access, AccessError, add_user, read_tokens
from projects.line.page.command import main, parse_args, settings
from projects.line.page.record import read_record
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector


@pytest.fixture
def session(tmp_path):
    inspector = Inspector(export_to(tmp_path / 'exported'), cache=False)
    cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30))
    with closing(Session(inspector, tmp_path / 'out')) as opened:
        opened.inspect(opened.add('a.png', tmp_path / 'a.png'))
        yield opened


def basic(token):
    return 'Basic ' + base64.b64encode(f'anybody:{token}'.encode()).decode()


def test_a_token_says_who_decides_and_what_is_allowed(session, tmp_path):
    file = tmp_path / 'tokens'
    anna, ben = add_user(file, 'anna:inspector'), add_user(file, 'ben b.:reader')
    assert anna not in file.read_text()
    decision = dict(verdict='accept', boxes=[], inspector='somebody else')
    place = '/api/images/1/decision'
    with serving(build(session, access=Access(read_tokens(file)))) as address:
        call = caller(address)
        for case in ({}, dict(authorization='Bearer '), dict(authorization=basic(anna[:-1]))):
            answer, _ = call('GET', '/api/state', **case)
            assert (answer.status, answer.headers['www-authenticate']) == (401, 'Basic realm="inspection"')
            assert call('POST', place, decision, **case)[0].status == 401
            assert call('GET', '/', **case)[0].status == 401
        for wrong in ('Basic %%%', 'Basic ' + base64.b64encode(b'\xff').decode(), 'Digest x', 'bearer'):
            assert call('GET', '/api/state', authorization=wrong)[0].status == 401
        for right in (f'Bearer {ben}', basic(ben), f'bearer {anna}'):
            assert call('GET', '/api/state', authorization=right)[0].status == 200
        answer, body = call('POST', place, decision, authorization=f'Bearer {ben}')
        assert (answer.status, body['detail'][:24]) == (403, 'ben b. may look, not dec')
        answer, _ = call('POST', place, decision, authorization=f'Bearer {anna}', **{'x-inspect': 'no'})
        assert answer.status == 403
        assert call('POST', place, decision, authorization=f'Bearer {anna}')[0].status == 200
    ((entry, _),) = read_record(tmp_path / 'out' / 'decisions.jsonl')
    assert (entry['inspector'], entry['known_by']) == ('anna', 'token')


def test_a_proxy_that_logs_people_in_is_believed_and_nobody_else(session, tmp_path):
    access = Access(user_header='x-user', role_header='x-role')
    with serving(build(session, access=access)) as address:
        call = caller(address)
        assert call('GET', '/api/state')[0].status == 401
        assert call('GET', '/api/state', **{'x-user': 'anna', 'x-role': 'admin'})[0].status == 401
        body, reader = dict(verdict='accept', boxes=[]), {'x-user': 'ben', 'x-role': 'reader'}
        assert call('GET', '/api/state', **reader)[0].status == 200
        assert call('POST', '/api/images/1/decision', body, **reader)[0].status == 403
        inspector = {'x-user': 'anna', 'x-role': 'inspector'}
        assert call('POST', '/api/images/1/decision', body, **inspector)[0].status == 200
    ((entry, _),) = read_record(tmp_path / 'out' / 'decisions.jsonl')
    assert (entry['inspector'], entry['known_by'], entry['client']) == ('anna', 'proxy', '127.0.0.1')
    elsewhere = Access(user_header='x-user', proxies=('10.0.0.7',))
    with serving(build(session, access=elsewhere), **settings(parse_args(['exported']))) as address:
        result = {'x-user': 'anna', 'x-forwarded-for': '10.0.0.7'}
        assert caller(address)('GET', '/api/state', **result)[0].status == 401


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--host', '10.1.2.3'], 'anybody there could decide on parts; add --tokens FILE'),
        (['--host', '10.1.2.3', '--user-header', 'x-user'], 'anybody there could decide'),
        (['--host', '10.1.2.3', '--tokens', 'f'], 'tokens could be read on their way; add --tls-cert'),
        (['--tls-cert', 'c'], '--tls-cert and --tls-key together'),
        (['--role-header', 'x-role'], '--role-header: add --user-header'),
        (['--add-user', 'anna:inspector'], '--add-user: add --tokens'),
    ],
)
def test_what_others_could_misuse_is_not_served(options, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args(['exported', *options])
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_certificate_that_cannot_be_served_is_said_at_once(tmp_path, capsys):
    (tmp_path / 'cert.pem').write_text('no certificate')
    for cert in ('cert.pem', 'none.pem'):
        files = ['--tls-cert', str(tmp_path / cert), '--tls-key', str(tmp_path / 'cert.pem')]
        assert main(['exported', *files]) == 1
        errors = capsys.readouterr().err
        assert errors.startswith(
            f'error: {tmp_path}/{cert}, {tmp_path}/cert.pem: expected a certificate and its'
        )
        assert errors.count('\n') == 1


def test_a_file_of_tokens_is_its_owners_and_whole(tmp_path, capsys):
    file = tmp_path / 'tokens'
    assert main(['--tokens', str(file), '--add-user', 'anna:inspector']) == 0
    token = capsys.readouterr().out.strip()
    assert Access(read_tokens(file)).user_of(dict(authorization=f'Bearer {token}'), '').name == 'anna'
    assert main(['--tokens', str(file), '--add-user', 'anna:king']) == 2
    assert re.match('error: --add-user anna:king: expected NAME:ROLE', capsys.readouterr().err)
    good = file.read_text()
    file.chmod(0o644)
    with pytest.raises(AccessError, match='others can read it; chmod 600'):
        read_tokens(file)
    file.chmod(0o600)
    for damaged in ('', 'anna:inspector:1234\n', good + 'anna\n', good.replace('inspector', 'king')):
        file.write_text(damaged)
        with pytest.raises(AccessError, match='tokens: '):
            read_tokens(file)
    with pytest.raises(AccessError, match='No such file'):
        read_tokens(tmp_path / 'none')
