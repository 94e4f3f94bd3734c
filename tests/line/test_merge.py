"""One table of an archive inspected in shards: whole, or refused in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from helpers.exported import export_to

from projects.line.runtime import Inspector
from projects.line.runtime.archive import find_images, inspect_archive
from tools import merge_shards as tool

TABLES = ('coco.json', 'detections.csv', 'images.csv', 'quarantine.csv')


@pytest.fixture
def exported(tmp_path):
    return export_to(tmp_path / 'exported')


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / 'archive'
    root.mkdir()
    for k in range(30):
        image = np.full((64, 64), 60, np.uint8)
        image[30, 2 * k + 2] = 100 + 5 * k
        cv2.imwrite(str(root / f'{k:02d}.png'), image)
    (root / 'torn.tif').write_bytes(b'II*\0')
    return root


def inspect(exported, archive, out, shards, **options):
    inspector, (root, names) = Inspector(exported, **options), find_images(archive)
    for shard in shards:
        inspect_archive(inspector, root, names, out, shard, overlays='none')


def by_name(folder):
    """What the table says, whatever the order and the ids of the images."""
    coco = json.loads((folder / 'coco.json').read_text())
    names = {image.pop('id'): image['file_name'] for image in coco['images']}
    boxes = {}
    for box in coco['annotations']:
        box.pop('id')
        boxes.setdefault(names[box.pop('image_id')], []).append(box)
    assert len(names) == len(coco['images'])
    images = {image['file_name']: image for image in coco['images']}
    csv = {name: sorted((folder / name).read_text().splitlines()) for name in TABLES[1:]}
    return coco['info'], coco['categories'], images, boxes, csv


def test_the_merged_table_is_that_of_the_whole_archive(exported, archive, tmp_path, capsys):
    inspect(exported, archive, tmp_path / 'whole', [(1, 1)])
    inspect(exported, archive, tmp_path / 'out', [(k, 4) for k in (3, 1, 4, 2)])
    assert tool.main([str(tmp_path / 'out')]) == 0
    assert capsys.readouterr().out.startswith(f'{tmp_path / "out"}: 31 radiographs, ')
    assert by_name(tmp_path / 'out') == by_name(tmp_path / 'whole' / 'shard-1-of-1')
    ids = [box['id'] for box in json.loads((tmp_path / 'out' / 'coco.json').read_text())['annotations']]
    assert ids == list(range(1, len(ids) + 1))


def test_a_shard_that_was_killed_is_no_part_of_a_table(repo, exported, archive, tmp_path, capsys):
    """SIGKILL in the middle of a shard; the same command then goes on, and the table is whole."""
    out = tmp_path / 'out'
    inspect(exported, archive, out, [(1, 2)])
    slow = (
        'import sys, time; sys.path.insert(0, sys.argv.pop(1))\n'
        'from projects.line.runtime import archive\n'
        'row = archive._row\n'
        'archive._row = lambda *args: (time.sleep(0.2), row(*args))[1]\n'
        'from projects.line.runtime.command import main\n'
        'sys.exit(main())'
    )
    command = [sys.executable, '-c', slow, str(repo), str(exported), str(archive), '--out', str(out)]
    running = subprocess.Popen(
        [*command, '--shard', '2/2', '--overlays', 'none'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = out / 'shard-2-of-2' / 'journal.jsonl'
    try:
        deadline = time.monotonic() + 120
        while not (journal.is_file() and journal.read_text().count('\n') >= 3):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    assert tool.main([str(out)]) == 1
    errors = capsys.readouterr().err
    assert '1 of 2 shards missing or not complete (2/2); run tools/infer.py again with --shard 2/2' in errors
    assert errors.count('\n') == 1 and not (out / 'images.csv').exists()
    inspect(exported, archive, out, [(2, 2)])
    assert tool.main([str(out)]) == 0
    inspect(exported, archive, tmp_path / 'whole', [(1, 1)])
    assert by_name(out) == by_name(tmp_path / 'whole' / 'shard-1-of-1')


def test_shards_that_do_not_belong_together_are_refused(exported, archive, tmp_path, capsys):
    out = tmp_path / 'out'

    def refused(message):
        before = (out / 'images.csv').read_bytes()
        assert tool.main([str(out)]) == 1
        errors = capsys.readouterr().err
        assert message in errors and errors.count('\n') == 1
        assert (out / 'images.csv').read_bytes() == before

    inspect(exported, archive, out, [(1, 2), (2, 2)])
    assert tool.main([str(out)]) == 0
    second = out / 'shard-2-of-2'
    kept = tmp_path / 'kept'
    shutil.copytree(second, kept)

    def restore():
        shutil.rmtree(second)
        shutil.copytree(kept, second)

    shutil.rmtree(second)
    refused('1 of 2 shards missing or not complete (2/2)')
    second.mkdir()
    inspect(exported, archive, tmp_path / 'other', [(2, 2)], threshold=0.3)
    shutil.rmtree(second)
    shutil.copytree(tmp_path / 'other' / 'shard-2-of-2', second)
    refused('of another detector, engine, threshold or archive')
    restore()
    shutil.copy(out / 'shard-1-of-2' / 'journal.jsonl', second / 'journal.jsonl')
    refused('was inspected twice')
    restore()
    lines = (second / 'journal.jsonl').read_text().splitlines(keepends=True)
    (second / 'journal.jsonl').write_text(''.join(lines[:-1]))
    refused('as at its completion')
    restore()
    (second / 'done.json').write_text('{')
    refused('damaged; inspect the shard again')
    restore()
    whole, done = ((folder / 'done.json').read_text() for folder in (out / 'shard-1-of-2', kept))
    done = json.loads(done)
    for wrong in (done | dict(head={}), done | dict(head=dict(categories=[1])), [done]):
        for folder in (out / 'shard-1-of-2', second):
            (folder / 'done.json').write_text(json.dumps(wrong))
        refused('damaged; inspect the shard again')
    (out / 'shard-1-of-2' / 'done.json').write_text(whole)
    restore()
    found = next(k for k, line in enumerate(lines) if json.loads(line).get('boxes'))
    row = json.loads(lines[found])
    for wrong in (
        dict(image=[1]),
        dict(scores=row['scores'][:-1]),
        dict(labels=[-1] * len(row['labels'])),
        dict(boxes=[box[:3] for box in row['boxes']]),
        dict(masks=[]) | dict(boxes=7),
    ):
        changed = [*lines[:found], json.dumps(row | wrong) + '\n', *lines[found + 1 :]]
        (second / 'journal.jsonl').write_text(''.join(changed))
        refused(f'line {found + 1} is damaged')
    restore()
    (out / 'shard-1-of-3').mkdir()
    refused('shards of 2 and of 3, expected one division')


def test_a_folder_without_shards_is_refused(tmp_path, capsys):
    assert tool.main([str(tmp_path)]) == 1
    assert 'no shard-1-of-n' in capsys.readouterr().err
