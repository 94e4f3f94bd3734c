"""Two folders side by side: the second records and decides nothing; from one to the next, and back."""

import json
import threading
from contextlib import closing

import cv2
import pytest
from helpers.disk import largest_file
from helpers.exported import export_to, spot
from helpers.serving import caller, serving, wait_for

from projects.line.page.server import Session, build
from projects.line.runtime import Inspector, command
from projects.line.runtime.archive import ArchiveError
from projects.line.runtime.shadow import Shadow
from projects.line.runtime.watch import Watch
from tools import infer


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def detectors(tmp_path):
    """Two detectors: the second rejects from a score of 0.43 on, which the first accepts."""
    first = export_to(tmp_path / 'first', threshold=0.9)
    return Inspector(first, cache=False), Inspector(
        export_to(tmp_path / 'second', threshold=0.43), cache=False
    )


def test_the_shadow_of_a_watched_folder_records_and_decides_nothing(detectors, tmp_path):
    root, out, stop, results = tmp_path / 'arriving', tmp_path / 'out', threading.Event(), []
    root.mkdir()
    for name, level in {'a': 255, 'b': 120, 'c': 101}.items():
        cv2.imwrite(str(root / f'{name}.png'), spot(20, 30, level))
    (root / 'torn.png').write_bytes(b'')
    watch = Watch(detectors[0], root, out, 0, shadow=detectors[1])
    thread = threading.Thread(target=watch.run, args=(stop, 0.01, results.append))
    thread.start()
    wait_for(lambda: watch.shadow.counts.total() == 4)
    stop.set()
    thread.join(60)
    assert {case['name']: case['verdict'] for case in results} == {
        'a.png': 'reject',
        'b.png': 'accept',
        'c.png': 'accept',
        'torn.png': 'unreadable',
    }
    assert all(case['folder'] == detectors[0].digest for case in results)
    recorded = {row['name']: row for row in rows(out / 'shadow.jsonl')}
    assert recorded['b.png']['agree'] is False
    assert recorded['b.png']['first']['verdict'] == 'accept'
    assert recorded['b.png']['second']['verdict'] == 'reject'
    assert recorded['b.png']['second']['folder'] == detectors[1].digest
    assert recorded['torn.png']['agree'] is True
    assert not [path for path in (out / 'results').rglob('*') if 'shadow' in path.name]
    assert (
        '1 of 4 verdicts differ (1 accept by the first and reject by the second)' in watch.shadow.in_words()
    )


def test_a_shadow_that_fails_changes_no_verdict(detectors, tmp_path, monkeypatch):
    first, second = detectors
    monkeypatch.setattr(second, '_run', lambda *_: 1 / 0)
    with closing(Session(first, tmp_path / 'out', shadow=second)) as session:
        cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30))
        session.inspect(session.add('a.png', tmp_path / 'a.png'))
        assert (session.items[1].state, session.items[1].risk) == ('found', 1)
    (row,) = rows(tmp_path / 'out' / 'shadow.jsonl')
    assert (row['first']['verdict'], row['second']['verdict']) == ('reject', 'unreadable')
    assert 'ZeroDivisionError' in row['second']['reason']


def test_a_full_disk_spoils_no_line_of_the_record(detectors, tmp_path):
    first, second = detectors
    shadow, record = Shadow(second, first, tmp_path), tmp_path / 'shadow.jsonl'
    cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30, 120))
    said = first.attempt(tmp_path / 'a.png')

    def see(name):
        shadow.see(name, 'a' * 64, tmp_path / 'a.png', said, first)

    see('before.png')
    for room in (0, 40):
        with largest_file(record.stat().st_size + room):
            see('lost.png')
    see('after.png')
    assert [row['name'] for row in rows(record)] == ['before.png', 'after.png']


def test_a_folder_is_not_its_own_shadow(detectors, tmp_path):
    with pytest.raises(ArchiveError, match='is the folder of the first detector'):
        Shadow(detectors[0], detectors[0], tmp_path)


def test_once_the_line_goes_on_with_it_a_shadow_has_nothing_to_compare(detectors, tmp_path):
    first, second = detectors
    shadow = Shadow(second, first, tmp_path)
    cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30, 120))
    for now in (first, second):
        inspection = now.attempt(tmp_path / 'a.png')
        shadow.see('a.png', 'a' * 64, tmp_path / 'a.png', inspection, now)
    assert len(rows(tmp_path / 'shadow.jsonl')) == 1 and '1 of 1 verdicts differ' in shadow.in_words()


def test_the_link_leads_to_the_next_detector_and_back(tmp_path, capsys):
    first, second = (export_to(tmp_path / name, threshold=t) for name, t in (('one', 0.9), ('two', 0.43)))
    broken = export_to(tmp_path / 'broken', threshold=0.3)
    (broken / 'model.onnx').write_bytes(b'')
    link, root, out = tmp_path / 'detector', tmp_path / 'arriving', tmp_path / 'out'
    root.mkdir()
    link.symlink_to(first)
    digests = {name: Inspector(path).digest for name, path in (('one', first), ('two', second))}

    def arrive(name):
        cv2.imwrite(str(root / f'{name}.png'), spot(20, 30, 120))
        place = out / 'results' / f'{name}.png.json'
        wait_for(place.is_file)
        return json.loads(place.read_text())

    def lead(target):
        (tmp_path / 'new').symlink_to(target)
        (tmp_path / 'new').rename(link)

    args = [str(link), str(root), '--out', str(out), '--watch', '--settle', '0']
    parsed, detector = command.parse_args(args, True), Inspector(link)
    watch, stop = Watch(detector, root, out, 0, newer=command.Successor(parsed, detector)), threading.Event()
    thread = threading.Thread(target=watch.run, args=(stop, 0.01))
    thread.start()
    try:
        result = arrive('a')
        assert (result['verdict'], result['folder']) == ('accept', digests['one'])
        lead(second)
        result = arrive('b')
        assert (result['verdict'], result['folder']) == ('reject', digests['two'])
        lead(broken)
        result = arrive('c')  # refused: the one before goes on
        assert (result['verdict'], result['folder']) == ('reject', digests['two'])
        lead(first)
        result = arrive('d')
        assert (result['verdict'], result['folder']) == ('accept', digests['one'])
    finally:
        stop.set()
        thread.join(60)
    told = capsys.readouterr()
    assert f'detector {digests["two"]}, before it {digests["one"]}' in told.out
    assert 'not taken' in told.err and 'checksum' in told.err


def test_the_operator_sees_the_last_verdicts(detectors, tmp_path):
    with closing(Session(detectors[0], tmp_path / 'out')) as session, serving(build(session)) as address:
        call = caller(address)
        assert call('GET', '/api/last')[1] == dict(last=[], requalify=[], replaced='', away='')
        program = {'x-inspect': '', 'content-type': 'application/octet-stream'}
        for k, level in enumerate([120] * 14 + [255]):
            content = cv2.imencode('.png', spot(20, 30 + k, level))[1].tobytes()
            call('POST', f'/v1/inspect?name=p{k}.png', content, **program)
        call('POST', '/v1/inspect?name=torn.png', b'\x89PNG', **program)
        last = call('GET', '/api/last')[1]['last']
        assert [case['verdict'] for case in last[:3]] == ['unreadable', 'reject', 'accept']
        assert len(last) == 13 and last[1]['name'] == 'p14.png'
        answer, picture = call('GET', f'/api/last/{last[1]["key"]}/picture')
        assert answer.status == 200 and picture.startswith(b'\x89PNG')
        assert call('GET', f'/api/last/{last[0]["key"]}/picture')[0].status == 404
        assert call('GET', '/operator')[1].startswith(b'<!doctype html>')
        assert call('POST', '/api/last', {})[0].status == 405


def test_wrong_use_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        infer.main(['exported', str(tmp_path / 'in'), '--out', str(tmp_path / 'out'), '--shadow', 'x'])
    assert '--shadow: add --watch' in capsys.readouterr().err
