"""The operator's page beside a watched folder: verdicts with pictures, and none where nothing inspects."""

import os
import threading
import time
from contextlib import closing, contextmanager

import cv2
import numpy as np
import pytest
from helpers.exported import export_to, spot
from helpers.serving import caller, serving, wait_for

from projects.line.page import command
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector
from projects.line.runtime.last import BEAT, LastVerdicts, read_kept, read_picture
from projects.line.runtime.watch import Watch


@pytest.fixture
def inspector(tmp_path):
    return Inspector(export_to(tmp_path / 'exported'), cache=False)


@contextmanager
def watching(inspector, root, out):
    stop = threading.Event()
    thread = threading.Thread(target=Watch(inspector, root, out, 0).run, args=(stop, 0.01))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture
def folders(tmp_path):
    for name in ('arriving', 'found'):
        (tmp_path / name).mkdir()
    return tmp_path / 'arriving', tmp_path / 'found'


def arrive(root, name, level):
    draft = root / f'{name}.part'
    draft.write_bytes(cv2.imencode('.png', spot(20, 30, level))[1].tobytes())
    draft.rename(root / name)


def test_what_a_watched_folder_says_is_on_the_operators_page(inspector, folders, tmp_path):
    root, found = folders
    with (
        closing(Session(inspector, tmp_path / 'out', watched=found)) as session,
        serving(build(session)) as address,
    ):
        call = caller(address)
        body = call('GET', '/api/last')[1]
        assert body['last'] == [] and 'nothing inspects the folder' in body['away']
        assert b'mmxray_watched_runs 0.0' in call('GET', '/metrics')[1]
        with watching(inspector, root, found):
            wait_for(lambda: not call('GET', '/api/last')[1]['away'])
            arrive(root, 'bad.png', 255)
            wait_for(lambda: call('GET', '/api/last')[1]['last'])
            cv2.imwrite(str(tmp_path / 'own.png'), spot(20, 30, 120))
            session.inspect(session.add('own.png', tmp_path / 'own.png'))
            (root / 'torn.png').write_bytes(b'')
            wait_for(lambda: len(call('GET', '/api/last')[1]['last']) == 3)
            last = call('GET', '/api/last')[1]['last']
            assert [(row['name'], row['verdict'], row['picture']) for row in last] == [
                ('torn.png', 'unreadable', False),
                ('own.png', 'accept', True),
                ('bad.png', 'reject', True),
            ]
            for row in last[1:]:
                answer, content = call('GET', f'/api/last/{row["key"]}/picture')
                assert answer.status == 200
                picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
                assert picture.shape[:2] == (64, 64)
            assert call('GET', f'/api/last/{last[0]["key"]}/picture')[0].status == 404
            assert b'mmxray_watched_runs 1.0' in call('GET', '/metrics')[1]
            assert call('GET', '/api/last/..%2Fverdicts/picture')[0].status == 404
        past = time.time() - 60
        os.utime(found / 'last' / 'verdicts.json', (past, past))
        body = call('GET', '/api/last')[1]
        assert body['last'] == [] and 'nothing inspects the folder' in body['away']


def test_a_process_gives_signs_of_life_also_while_it_inspects(inspector, folders, monkeypatch):
    root, found = folders
    going, seen = threading.Event(), threading.Event()
    attempt = inspector.attempt

    def slow(path):
        seen.set()
        assert going.wait(60)
        return attempt(path)

    monkeypatch.setattr(inspector, 'attempt', slow)
    with watching(inspector, root, found):
        arrive(root, 'film.png', 255)
        assert seen.wait(60)
        place = found / 'last' / 'verdicts.json'
        os.utime(place, (0, 0))
        wait_for(lambda: place.stat().st_mtime > 0, BEAT + 60)
        assert read_kept(found)['runs']
        going.set()
        wait_for(lambda: read_kept(found)['last'])


def test_after_a_restart_nothing_old_is_shown(inspector, folders):
    root, found = folders
    keys = []
    for name in ('a.png', 'b.png'):
        with watching(inspector, root, found):
            wait_for(lambda: read_kept(found)['runs'])
            arrive(root, name, 255)
            wait_for(lambda name=name: [row['name'] for row in read_kept(found)['last']] == [name])
            keys.append(read_kept(found)['last'][0]['key'])
    # A browser that knows the first picture does not show it for the second.
    assert keys[0] != keys[1]
    assert read_picture(found, keys[0]) == b'' != read_picture(found, keys[1])


def test_pictures_are_kept_as_long_as_their_verdicts(inspector, folders):
    root, found = folders
    with watching(inspector, root, found):
        for k in range(15):
            arrive(root, f'{k}.png', 200 + k)
        wait_for(lambda: len(list((found / 'results').glob('*.json'))) == 15)
        wait_for(lambda: len(list((found / 'last').glob('*.png'))) == 13)
        names = {row['key'] for row in read_kept(found)['last']}
        assert {path.stem for path in (found / 'last').glob('*.png')} == names


@pytest.mark.parametrize('shape', [(2, 6000), (6000, 2)])
def test_a_sliver_has_a_picture_too(inspector, shape):
    pixels = np.full(shape, 100, np.uint8)
    pixels[0, 0] = 255
    last = LastVerdicts()
    facts = last.add('sliver.png', inspector(pixels), 0.9)
    picture = cv2.imdecode(np.frombuffer(last.picture(facts['key']), np.uint8), cv2.IMREAD_COLOR)
    assert sorted(picture.shape[:2]) == [1, 720]


def test_a_wrong_out_is_said(tmp_path, capsys):
    assert command.main([str(tmp_path), '--watched', str(tmp_path / 'none')]) == 2
    assert 'expected the --out of a watched folder' in capsys.readouterr().err
