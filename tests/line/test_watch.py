"""A watched folder: complete files once each, over kills; what changes, is torn, or has another name."""

import json
import os
import random
import subprocess
import sys
import threading
from contextlib import contextmanager

import cv2
import pytest
from helpers.exported import export_to, spot
from helpers.serving import wait_for

from projects.line.runtime import Inspector
from projects.line.runtime.archive import ArchiveError
from projects.line.runtime.watch import Watch
from tools import infer


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / 'arriving'
    folder.mkdir()
    return folder


@pytest.fixture
def inspector(tmp_path):
    return Inspector(export_to(tmp_path / 'exported'))


@contextmanager
def watching(watch):
    """Watch while the block runs; gives the results in their order."""
    stop, results, failed = threading.Event(), [], []

    def run():
        try:
            watch.run(stop, 0.02, results.append)
        except ArchiveError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        stop.set()
        thread.join(60)
    assert not failed


def results_of(out):
    return {path.name: json.loads(path.read_text()) for path in (out / 'results').rglob('*.json')}


def test_what_arrives_is_inspected_once_and_its_result_is_whole(inspector, root, tmp_path):
    out = tmp_path / 'out'
    with watching(Watch(inspector, root, out, settle=0.1)) as results:
        (root / 'notes.txt').write_text('no radiograph')
        (root / 'day').mkdir()
        cv2.imwrite(str(root / 'day' / 'a.png'), spot(20, 30))
        wait_for(lambda: results)
        (root / 'torn.png').write_bytes(b'\x89PNG')
        wait_for(lambda: len(results) == 2)
    first, second = results
    assert (first['name'], first['verdict'], first['folder']) == ('day/a.png', 'reject', inspector.digest)
    assert (second['name'], second['verdict']) == ('torn.png', 'unreadable')
    assert results_of(out)['a.png.json'] == first
    with watching(Watch(inspector, root, out, settle=0.1)) as again:  # after a restart too
        cv2.imwrite(str(root / 'b.png'), spot(20, 30, 110))
        wait_for(lambda: again)
    assert [result['name'] for result in again] == ['b.png']
    assert not list(out.rglob('*.part'))


def test_a_file_that_is_still_being_written_waits(inspector, root, tmp_path):
    content = cv2.imencode('.png', spot(20, 30))[1].tobytes()
    with watching(Watch(inspector, root, tmp_path / 'out', settle=0.5)) as results:
        (root / 'copy.png.part').write_bytes(content)  # what a copying program has not finished
        with (root / 'slow.png').open('wb') as file:
            for k in range(0, len(content), 20):
                file.write(content[k : k + 20])
                file.flush()
                threading.Event().wait(0.05)
            assert not results
        wait_for(lambda: results)
        (root / 'copy.png.part').rename(root / 'copy.png')
        wait_for(lambda: len(results) == 2)
    assert [(result['name'], result['verdict']) for result in results] == [
        ('slow.png', 'reject'),
        ('copy.png', 'reject'),
    ]


def test_a_file_that_changed_is_inspected_again(inspector, root, tmp_path):
    with watching(Watch(inspector, root, tmp_path / 'out', settle=0.1)) as results:
        cv2.imwrite(str(root / 'a.png'), spot(20, 30))
        wait_for(lambda: results)
        cv2.imwrite(str(root / 'a.png'), spot(20, 30, 110))
        os.utime(root / 'a.png', ns=(0, 12345))  # even one that says it is old
        wait_for(lambda: len(results) == 2)
    assert [result['verdict'] for result in results] == ['reject', 'accept']
    assert results_of(tmp_path / 'out')['a.png.json']['verdict'] == 'accept'
    assert results[0]['id'] != results[1]['id']


class Receiver:
    """Takes results when it is there."""

    def __init__(self):
        self.there, self.got = False, []

    def send(self, result):
        if self.there:
            self.got.append(result['id'])
        return self.there


def test_what_a_receiver_has_not_got_is_sent_later(inspector, root, tmp_path):
    receiver = Receiver()
    cv2.imwrite(str(root / 'a.png'), spot(20, 30))
    cv2.imwrite(str(root / 'b.png'), spot(20, 30, 110))
    with watching(Watch(inspector, root, tmp_path / 'out', 0.1, receiver)) as results:
        wait_for(lambda: len(results) == 2)
    assert not receiver.got
    # One whose result was not kept before the kill is inspected, and sent, again.
    (tmp_path / 'out' / 'results' / 'b.png.json').unlink()
    receiver.there = True
    with watching(Watch(inspector, root, tmp_path / 'out', 0.1, receiver)) as again:
        wait_for(lambda: again and len(receiver.got) == 2)
    assert sorted(receiver.got) == sorted(result['id'] for result in results)
    assert not [path for path in (tmp_path / 'out' / 'outbox').rglob('*') if path.is_file()]


def test_one_process_at_a_time_watches(inspector, root, tmp_path):
    with watching(Watch(inspector, root, tmp_path / 'out', 0)):
        wait_for((tmp_path / 'out' / 'lock').is_file)
        with pytest.raises(ArchiveError, match='another process writes results there'):
            Watch(inspector, root, tmp_path / 'out', 0).run(threading.Event())


def test_a_full_disk_is_said_and_loses_nothing(inspector, root, tmp_path, monkeypatch):
    cv2.imwrite(str(root / 'a.png'), spot(20, 30))
    out = tmp_path / 'out'
    (out / 'results' / 'a.png.json').mkdir(parents=True)
    with pytest.raises(ArchiveError, match='make room there, then start it again: nothing is lost'):
        Watch(inspector, root, out, 0).run(threading.Event(), 0.01)
    (out / 'results' / 'a.png.json').rmdir()
    with watching(Watch(inspector, root, out, 0)) as results:
        wait_for(lambda: results)


def test_nothing_is_lost_or_twice_over_kills(repo, root, tmp_path):
    """Radiographs arrive while the command is killed and started again."""
    exported, out = export_to(tmp_path / 'exported'), tmp_path / 'out'
    command = [sys.executable, repo / 'tools' / 'infer.py', exported, root, '--out', out]
    command += ['--watch', '--settle', '0.1', '--overlays', 'none']
    rng, count = random.Random(0), 60
    arrived = threading.Thread(target=arrive, args=(root, count))
    arrived.start()
    messages = []
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            # Results alone: a process that starts removes the last one's folder of verdicts.
            before = len(results_of(out))
            wait_for(lambda before=before: len(results_of(out)) > before or not arrived.is_alive())
            threading.Event().wait(rng.uniform(0, 0.3))
            process.kill()
            messages += process.stdout.read().splitlines()
    arrived.join()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(results_of(out)) == count, 120)
        process.terminate()
        messages += process.stdout.read().splitlines()
    assert process.returncode == 0
    for k in range(count):
        result = results_of(out)[f'{k}.png.json']
        assert (result['verdict'], result['name']) == ('reject' if k % 2 else 'accept', f'{k}.png')
    told = [line.partition(':')[0] for line in messages if line.endswith(('accept', 'reject'))]
    assert len(told) == len(set(told))


def arrive(root, count):
    for k in range(count):
        content = cv2.imencode('.png', spot(20, 30, 255 if k % 2 else 110))[1].tobytes()
        draft = root / f'{k}.png.part'
        draft.write_bytes(content)
        draft.rename(root / f'{k}.png')
        threading.Event().wait(0.1)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--mqtt', 'mqtt://h/t'], '--mqtt: add --watch'),
        (['--watch', '--shard', '1/2'], 'expected an exported folder, and no --shard'),
        (['--watch', '--settle', '-1'], 'expected seconds'),
    ],
)
def test_wrong_use_is_said(tmp_path, capsys, options, expected):
    with pytest.raises(SystemExit) as stop:
        infer.main(['exported', str(tmp_path / 'in'), '--out', str(tmp_path / 'out'), *options])
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    'address', ['broker/t', 'http://h/t', 'mqtt://h', 'mqtt://h/#', 'mqtt://u:secret@h/t', 'mqtt://h:99999/t']
)
def test_an_address_of_no_broker_is_refused(inspector, root, tmp_path, capsys, address):
    command = [
        str(tmp_path / 'exported'),
        str(root),
        '--out',
        str(tmp_path / 'out'),
        '--watch',
        '--mqtt',
        address,
    ]
    assert infer.main(command) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f'error: {address}: expected')
    assert errors.count('\n') == 1
