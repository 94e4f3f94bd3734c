"""The record of decisions: who, when, on what; two inspectors, changed and torn lines, an older version."""

import gc
import json
import os
import shutil
from contextlib import closing

import cv2
import pytest
from helpers.exported import export_to, spot
from helpers.serving import caller, serving

from projects.line.page import decisions as kept_decisions
from projects.line.page import verify
from projects.line.page.decision import ConflictError
from projects.line.page.record import FIRST, Record, read_record
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector
from projects.line.runtime.archive import ArchiveError

BOX = dict(box=[16, 26, 24, 34], label=0)


@pytest.fixture
def inspector(tmp_path):
    return Inspector(export_to(tmp_path / 'exported'), cache=False)


def open_image(session, path, level=255):
    """List and inspect a radiograph; returns its key."""
    if not path.is_file():
        cv2.imwrite(str(path), spot(20, 30, level))
    key = session.add(path.name, path)
    session.inspect(key)
    return key


def record_of(out):
    return [entry for entry, _ in read_record(out / 'decisions.jsonl')]


def test_a_decision_is_recorded_with_who_when_and_what_the_detector_said(inspector, tmp_path):
    with (
        closing(Session(inspector, tmp_path / 'out', name='anna')) as session,
        serving(build(session)) as address,
    ):
        call = caller(address)
        key = open_image(session, tmp_path / 'a.png')
        content = call('GET', f'/api/images/{key}')[1]
        body = dict(verdict='reject', boxes=[BOX], part='p7', digest=content['digest'], viewed=dict(zoom=2.0))
        answer, kept = call('POST', f'/api/images/{key}/decision', body)
        assert (answer.status, kept['revision'], kept['decision']) == (200, 1, 'reject')
        named = dict(verdict='withdraw', boxes=[], revision=1, inspector='ben')
        assert call('POST', f'/api/images/{key}/decision', named)[1]['decision'] is None
        assert call('GET', f'/api/images/{key}')[1]['boxes'] == content['boxes'] == content['found']
    first, second = record_of(tmp_path / 'out')
    assert (first['inspector'], first['known_by']) == ('anna', 'option')
    assert (second['inspector'], second['known_by'], second['verdict']) == ('ben', 'page', 'withdraw')
    assert first['time'].endswith('Z')
    assert first['time'] <= second['time']
    assert (first['radiograph'], first['part'], first['viewed']) == (content['digest'], 'p7', dict(zoom=2.0))
    assert first['boxes'] == [{'box': [16, 26, 24, 34], 'class': 'critical'}]
    detector = first['detector']
    assert (detector['verdict'], detector['risk'], detector['threshold']) == ('reject', 1, 0.9)
    assert (detector['folder'], detector['boxes'][0]['score']) == (inspector.digest, 1)
    assert [(e['revision_before'], e['revision']) for e in (first, second)] == [(0, 1), (1, 2)]
    assert json.loads((tmp_path / 'out' / 'corrections.json').read_text())['images'] == []


def test_of_two_who_decide_at_once_the_second_is_told(inspector, tmp_path):
    with (
        closing(Session(inspector, tmp_path / 'out', name='anna')) as session,
        serving(build(session)) as address,
    ):
        call = caller(address)
        key = open_image(session, tmp_path / 'a.png')
        place = f'/api/images/{key}/decision'
        assert call('POST', place, dict(verdict='reject', boxes=[BOX]))[0].status == 200
        answer, body = call('POST', place, dict(verdict='accept', boxes=[], inspector='ben'))
        assert answer.status == 409
        assert body['detail'].startswith('anna decided on this radiograph meanwhile (reject, 20')
        assert call('POST', place, dict(verdict='accept', boxes=[], revision=7))[0].status == 409
        assert call('POST', place, dict(verdict='accept', boxes=[], revision='1'))[0].status == 422
        assert call('POST', place, dict(verdict='accept', boxes=[], revision=1))[0].status == 200
    assert [entry['verdict'] for entry in record_of(tmp_path / 'out')] == ['reject', 'accept']


def test_text_that_is_no_unicode_does_not_stop_the_page(inspector, tmp_path):
    """JSON can hold half a character, which no answer can: one decision must not keep everybody out."""
    out = tmp_path / os.fsdecode(b'out\xff')
    with closing(Session(inspector, out)) as session, serving(build(session)) as address:
        call = caller(address)
        key = open_image(session, tmp_path / 'a.png')
        place = f'/api/images/{key}/decision'
        odd = dict(verdict='accept', boxes=[], part='p\ud800', viewed={'\ud800': '\ud800'})
        answer, body = call('POST', place, odd | dict(inspector='a\udc00'))
        assert (answer.status, body['detail'][:15]) == (422, 'body.inspector:')
        assert call('POST', place, odd | {'digest': '\ud800'})[0].status == 400
        assert call('POST', place, odd | {'verdict': '\ud800'})[0].status == 400
        assert call('POST', place, odd)[0].status == 200
        assert call('GET', '/api/state')[1]['items'][0]['part'] == 'p?'
        assert call('GET', f'/api/images/{key}')[1]['part'] == 'p?'
        folder = dict(folder='\ud800')
        assert call('POST', '/v1/inspect/folder', folder)[0].status == 400
    assert (out / 'corrections.json').is_file()


def test_the_list_tells_what_changed_since(inspector, tmp_path):
    with closing(Session(inspector, tmp_path / 'out')) as session, serving(build(session)) as address:
        call = caller(address)
        keys = [open_image(session, tmp_path / f'{k}.png', 200 + k) for k in range(3)]
        before = call('GET', '/api/state')[1]
        assert (len(before['items']), before['folder']) == (3, inspector.digest)
        assert call('GET', f'/api/state?since={before["changes"]}')[1] == dict(
            sitting=session.sitting, changes=before['changes'], items=[]
        )
        session.decide(keys[1], 'accept', [])
        after = call('GET', f'/api/state?since={before["changes"]}')[1]
        assert [(item['id'], item['decision'], item['revision']) for item in after['items']] == [
            (keys[1], 'accept', 1)
        ]


def test_decisions_of_another_detector_stay_its_own(inspector, tmp_path):
    """What an inspector decided comes back; which detector had been seen stays with it."""
    with closing(Session(inspector, tmp_path / 'out')) as session:
        session.decide(open_image(session, tmp_path / 'a.png'), 'reject', [BOX])
    other = Inspector(export_to(tmp_path / 'other', threshold=0.5), cache=False)
    assert other.digest != inspector.digest
    with closing(Session(other, tmp_path / 'out')) as session:
        key = open_image(session, tmp_path / 'a.png')
        item = session.items[key]
        assert (item.decision, item.decided['folder']) == ('reject', inspector.digest)
        session.decide(open_image(session, tmp_path / 'b.png', 254), 'accept', [])
    content = json.loads((tmp_path / 'out' / 'corrections.json').read_text())
    assert [image['detector'] for image in content['images']] == [inspector.digest, other.digest]
    assert set(content['info']['detectors']) == {inspector.digest, other.digest}
    assert 'origin' not in content['info']


def test_a_second_reader_does_not_see_the_first(inspector, tmp_path):
    with closing(Session(inspector, tmp_path / 'out', name='anna')) as session:
        key = open_image(session, tmp_path / 'a.png')
        session.decide(key, 'reject', [BOX])
    with closing(Session(inspector, tmp_path / 'out', second=True, name='ben')) as session:
        key = open_image(session, tmp_path / 'a.png')
        item = session.items[key]
        assert (item.decision, item.revision, item.boxes) == (None, 0, item.found)
        session.decide(key, 'accept', [], revision=0)
    names = ('corrections.json', 'corrections-second.json')
    content = [json.loads((tmp_path / 'out' / name).read_text())['images'][0] for name in names]
    assert [(image['inspector'], image['verdict']) for image in content] == [
        ('anna', 'reject'),
        ('ben', 'accept'),
    ]
    assert verify.main([str(tmp_path / 'out')]) == 0


def test_an_unreadable_part_is_decided_too_but_not_trained_on(inspector, tmp_path):
    (tmp_path / 'torn.png').write_bytes(b'\x89PNG')
    with closing(Session(inspector, tmp_path / 'out')) as session:
        session.decide(open_image(session, tmp_path / 'torn.png'), 'reject', [])
    (entry,) = record_of(tmp_path / 'out')
    assert (entry['verdict'], entry['detector']['verdict']) == ('reject', 'unreadable')
    assert 'torn.png: expected' in entry['detector']['reason']
    assert json.loads((tmp_path / 'out' / 'corrections.json').read_text())['images'] == []


def three_decisions(inspector, tmp_path):
    with closing(Session(inspector, tmp_path / 'out')) as session:
        for k in range(3):
            session.decide(open_image(session, tmp_path / f'{k}.png', 250 + k), 'accept', [])
    return tmp_path / 'out' / 'decisions.jsonl'


@pytest.mark.parametrize(
    'change',
    [
        lambda lines: [lines[0].replace(b'accept', b'reject', 1), *lines[1:]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [lines[0], b'{}\n', *lines[1:]],
        lambda lines: [lines[0], b'[' * 100_000 + b'\n', *lines[1:]],
    ],
    ids=['changed', 'taken out', 'moved', 'first gone', 'twice', 'another', 'deep'],
)
def test_a_record_that_was_changed_is_refused(inspector, tmp_path, capsys, change):
    path = three_decisions(inspector, tmp_path)
    path.write_bytes(b''.join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(ArchiveError, match='does not follow from the one before'):
        Session(inspector, tmp_path / 'out')
    assert verify.main([str(tmp_path / 'out')]) == 1
    assert capsys.readouterr().err.count('\n') == 1


def test_the_hash_of_the_last_line_shows_that_lines_were_taken_away(inspector, tmp_path, capsys):
    path = three_decisions(inspector, tmp_path)
    assert verify.main([str(tmp_path / 'out')]) == 0
    head = capsys.readouterr().out.split()[-1]
    assert verify.main([str(tmp_path / 'out'), '--head', head]) == 0
    path.write_bytes(b''.join(path.read_bytes().splitlines(keepends=True)[:2]))
    with closing(
        Session(inspector, tmp_path / 'out')
    ):  # writes the corrections that follow from what is left
        pass
    assert verify.main([str(tmp_path / 'out')]) == 0
    assert verify.main([str(tmp_path / 'out'), '--head', head]) == 1


def test_copies_and_corrections_must_fit_the_record(inspector, tmp_path, capsys):
    three_decisions(inspector, tmp_path)
    copies = sorted((tmp_path / 'out' / 'images').iterdir())
    shutil.copy(copies[0], copies[1])
    copies[2].unlink()
    (tmp_path / 'out' / 'corrections.json').write_text('{"images": []')
    assert verify.main([str(tmp_path / 'out')]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [('not the radiograph' in line, 'bring it back' in line, 'follow' in line) for line in errors] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert verify.main([str(tmp_path)]) == 2


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content['annotations'][0].update(category_id=2),
        lambda content: content['annotations'][0].update(bbox=[0, 0, 5, 5]),
        lambda content: content['annotations'][0].update(category_id=0),
        lambda content: content['annotations'].append(content['annotations'][0]),
        lambda content: content['annotations'][0].update(image_id=99),
        lambda content: content['categories'].reverse(),
        lambda content: content['images'][0].update(verdict='accept'),
        lambda content: content['images'][0].update(part='other'),
        lambda content: content['images'][0].update(width=9),
        lambda content: content['images'].append(content['images'][0] | dict(file_name='x.png')),
        lambda content: content.update(images=7),
        lambda content: content.clear(),
    ],
)
def test_corrections_that_were_edited_do_not_follow_from_the_record(inspector, tmp_path, capsys, change):
    """Whatever is learnt from them is compared: class and box of each flaw too."""
    with closing(Session(inspector, tmp_path / 'out')) as session:
        key = open_image(session, tmp_path / 'a.png')
        session.decide(key, 'reject', [BOX, dict(box=[1, 2, 6.5, 8], label=1)], part='p7')
    path = tmp_path / 'out' / 'corrections.json'
    assert verify.main([str(tmp_path / 'out')]) == 0
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert verify.main([str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert 'corrections.json: does not follow from decisions.jsonl' in error and error.count('\n') == 1


@pytest.mark.parametrize(
    'change',
    [
        lambda entry: entry.pop('reader'),
        lambda entry: entry.update(file=['a']),
        lambda entry: entry.update(size=[1]),
        lambda entry: entry.update(boxes=[dict(box=[1, 2, 3, 4])]),
        lambda entry: entry.update(boxes=[{'box': [1, 2, 3, 4], 'class': 'rust'}]),
        lambda entry: entry.update(detector=dict(verdict='accept')),
        lambda entry: entry.update(revision='1'),
    ],
)
def test_a_last_line_that_is_no_decision_is_refused(inspector, tmp_path, capsys, change):
    """Its hash is nowhere, so that it follows from the one before whatever it says."""
    path = three_decisions(inspector, tmp_path)
    *lines, last = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(last)
    change(entry)
    path.write_bytes(b''.join(lines) + json.dumps(entry).encode() + b'\n')
    with pytest.raises(ArchiveError, match='line 3 is no decision of the page'):
        Session(inspector, tmp_path / 'out')
    assert verify.main([str(tmp_path / 'out')]) == 1
    assert capsys.readouterr().err.count('\n') == 1


def test_a_torn_last_line_was_never_kept(inspector, tmp_path):
    """A power cut leaves half a line; nobody was told that it is kept."""
    path = three_decisions(inspector, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number": 4, "ti')
    with closing(Session(inspector, tmp_path / 'out')) as session:
        session.decide(open_image(session, tmp_path / '3.png', 253), 'accept', [])
    assert path.read_bytes().startswith(whole)
    assert [entry['number'] for entry in record_of(tmp_path / 'out')] == [1, 2, 3, 4]


def test_what_another_program_wrote_is_not_overwritten(tmp_path):
    record = Record(tmp_path / 'decisions.jsonl')
    record.append(dict(a=1))
    with record.path.open('a') as file:
        file.write('{}\n')
    with pytest.raises(OSError, match='changed by another program'):
        record.append(dict(a=2))
    assert record.path.read_bytes().endswith(b'{}\n')
    assert record.count == 1


def test_corrections_of_a_version_without_a_record_begin_it(inspector, tmp_path):
    three_decisions(inspector, tmp_path)
    before = json.loads((tmp_path / 'out' / 'corrections.json').read_text())
    (tmp_path / 'out' / 'decisions.jsonl').unlink()
    with closing(Session(inspector, tmp_path / 'out')) as session:
        item = session.items[open_image(session, tmp_path / '1.png')]
        assert (item.decision, item.revision, item.decided['inspector']) == ('accept', 1, '')
        with pytest.raises(ConflictError):
            session.decide(1, 'reject', [BOX], revision=0)
    entries = record_of(tmp_path / 'out')
    assert [entry['known_by'] for entry in entries] == ['taken over from corrections.json'] * 3
    assert entries[0]['previous'] == FIRST
    stated = json.loads((tmp_path / 'out' / 'corrections.json').read_text())
    names = [[image['file_name'] for image in content['images']] for content in (before, stated)]
    assert names[0] == names[1]


def test_many_decisions_do_not_wait_for_the_corrections(inspector, tmp_path, monkeypatch):
    """Beyond a number they are written later, and at the end in any case."""
    monkeypatch.setattr(kept_decisions, 'AT_ONCE', 1)
    monkeypatch.setattr(kept_decisions, 'WAIT', 3600)
    path = tmp_path / 'out' / 'corrections.json'
    with closing(Session(inspector, tmp_path / 'out')) as session:
        for k in range(3):
            session.decide(open_image(session, tmp_path / f'{k}.png', 250 + k), 'accept', [])
        assert len(json.loads(path.read_text())['images']) == 1
    assert len(json.loads(path.read_text())['images']) == 3


def test_a_long_record_is_not_gone_through_for_garbage(inspector, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_decisions, 'AT_ONCE', 1)
    with closing(Session(inspector, tmp_path / 'out')) as session:
        for k in range(3):
            session.decide(open_image(session, tmp_path / f'{k}.png', 250 + k), 'accept', [])
    gc.unfreeze()
    try:
        with closing(Session(inspector, tmp_path / 'out')) as session:
            assert gc.get_freeze_count() > 0
            assert len(session.decisions.latest) == 3
    finally:
        gc.unfreeze()


def test_the_copy_is_what_was_inspected(inspector, tmp_path):
    with closing(Session(inspector, tmp_path / 'out')) as session:
        key = open_image(session, tmp_path / 'a.png')
        (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes() + b'x')
        with pytest.raises(ValueError, match='its file changed since'):
            session.decide(key, 'accept', [])
        (tmp_path / 'a.png').unlink()
        with pytest.raises(ValueError, match='can no longer be read'):
            session.decide(key, 'accept', [])
        assert not list((tmp_path / 'out' / 'images').iterdir())
        assert not session.decisions.record.count


def test_corrections_that_cannot_be_written_do_not_undo_a_decision(inspector, tmp_path):
    """They follow from the record, which is whole."""
    path = tmp_path / 'out' / 'corrections.json'
    path.mkdir(parents=True)
    (path / 'x').write_text('')
    session = Session(inspector, tmp_path / 'out')
    session.decide(open_image(session, tmp_path / 'a.png'), 'accept', [])
    with pytest.raises(OSError):  # noqa: PT011 (which one depends on the file system)
        session.close()
    shutil.rmtree(path)
    with closing(Session(inspector, tmp_path / 'out')):
        assert len(json.loads(path.read_text())['images']) == 1
