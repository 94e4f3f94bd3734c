"""An inventory is written by one pass, refreshed by difference, and taken in place of a listing."""

import csv
import gzip
import io
import json
import os
import shutil

import numpy as np
import pytest
from helpers.packed import draw
from helpers.radiograph_files import dicom

from projects.radiograph import inventory, remote
from projects.radiograph.inventory import InventoryError, load, radiographs, take
from projects.xray.datasets import XrayImages
from tools import list_images


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / 'archive'
    for i in range(4):
        draw(folder / f'P{i // 2}' / f'{i}.png', seed=i)
    (folder / 'P9').mkdir()
    (folder / 'P9' / '1.2.840.7').write_bytes(dicom(np.ones((9, 12), np.uint16)))
    (folder / 'P9' / 'README').write_text('none')
    (folder / 'P9' / 'torn.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    (folder / 'notes.txt').write_text('none')
    return folder


IMAGES = ['P0/0.png', 'P0/1.png', 'P1/2.png', 'P1/3.png', 'P9/1.2.840.7']


def looked_at(monkeypatch):
    """Paths that are read from here on."""
    paths, look = [], inventory._look
    monkeypatch.setattr(inventory, '_look', lambda path: paths.append(path) or look(path))
    return paths


def uploaded(s3, archive, bucket):
    s3.mkdir(bucket)
    s3.put(str(archive), f'{bucket}/raw', recursive=True)
    return f's3://{bucket}/raw'


@pytest.mark.parametrize('where', ['folder', 'url'])
def test_what_lies_there_is_read_once(s3, archive, monkeypatch, where):
    place = str(archive) if where == 'folder' else uploaded(s3, archive, 'inventoried')
    entries, looked = take(place, r'P(\d)', workers=3)
    assert (len(entries), looked) == (7, 7)
    assert radiographs(entries) == IMAGES
    assert entries[0][3:] == ('PNG', '96', '120', '0', '')
    assert entries[4][3:] == ('DICOM', '9', '12', '9', '')
    assert entries[5].reason == 'no DICOM' and 'torn.png' in entries[6].reason
    assert load(place) == entries
    paths = looked_at(monkeypatch)
    assert take(place, r'P(\d)') == (entries, 0)
    assert take(place, r'(P)')[0][0].part == 'P'  # another rule needs no reading
    # One comes, one changes, one goes.
    draw(archive / 'P2' / 'a.png', seed=8)
    draw(archive / 'P0' / '0.png', (40, 50), seed=9)
    if where == 'url':
        for name in ('P2/a.png', 'P0/0.png'):
            remote.write_bytes(f'{place}/{name}', (archive / name).read_bytes())
        remote.remove(f'{place}/P1/3.png')
    (archive / 'P1' / '3.png').unlink()
    entries, looked = take(place)
    assert sorted(path.removeprefix(f'{place}/') for path in paths) == ['P0/0.png', 'P2/a.png']
    assert radiographs(entries) == ['P0/0.png', 'P0/1.png', 'P1/2.png', 'P2/a.png', 'P9/1.2.840.7']
    assert (entries[0].height, entries[0].width, entries[0].part) == ('40', '50', '')


def test_a_kill_costs_what_was_read_since_the_last_writing(archive, monkeypatch):
    monkeypatch.setattr(inventory, 'SAVED', 3)

    def stop(results, total):
        for number, entry in enumerate(results):
            if number == 5:
                raise KeyboardInterrupt
            yield entry

    with pytest.raises(KeyboardInterrupt):
        take(str(archive), progress=stop)
    assert len(load(str(archive))) == 3
    assert take(str(archive))[1] == 4


def test_a_data_set_takes_it_in_place_of_a_listing(s3, archive, monkeypatch):
    place = uploaded(s3, archive, 'listed')
    take(place)
    monkeypatch.setattr('projects.xray.datasets.list_remote_radiographs', None)
    dataset = XrayImages(data_root=place, data_prefix='', pipeline=[])
    assert [item['img_path'].removeprefix(f'{place}/') for item in dataset] == IMAGES


def report(s3, place, rows, **changes):
    """Write an S3 inventory report as AWS documents it; returns its manifest."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    s3.pipe(f'{place}/data/1.csv.gz', gzip.compress(text.getvalue().encode()))
    manifest = dict(
        sourceBucket='reported',
        fileFormat='CSV',
        fileSchema='Bucket, Key, Size, LastModifiedDate, ETag',
        files=[dict(key=f'{place.partition("/")[2]}/data/1.csv.gz')],
    )
    s3.pipe(f'{place}/day/manifest.json', json.dumps(manifest | changes).encode())
    return f's3://{place}/day/manifest.json'


def test_an_s3_inventory_report_stands_in_for_the_listing(s3, archive, monkeypatch):
    place = uploaded(s3, archive, 'reported')
    s3.mkdir('reports')
    names = [*IMAGES, 'P9/torn.png', 'P9/README', 'notes.txt']
    tags = {name: remote.tags(place)[name].partition(' ') for name in names}
    rows = [('reported', f'raw/{n}', size, '2026', mark.strip('"')) for n, (size, _, mark) in tags.items()]
    manifest = report(s3, 'reports/own', [*rows, ('reported', 'elsewhere/x.png', 1, '2026', 'a')])
    monkeypatch.setattr(inventory, 'tags', None)
    entries, _ = take(place, report=manifest)
    assert radiographs(entries) == IMAGES
    monkeypatch.undo()
    assert take(place) == (entries, 0)  # and a listing finds the same objects
    for changes in (
        dict(fileSchema=3),
        dict(files=[3]),
        dict(fileFormat='ORC'),
        dict(sourceBucket='other'),
        dict(fileSchema='Bucket, Key'),
    ):
        with pytest.raises(InventoryError, match='manifest.json: expected the manifest .*correct --report'):
            take(place, report=report(s3, 'reports/bad', rows, **changes))


def test_names_of_any_bytes(archive, tmp_path):
    """Local files are named in bytes: an old archive has names in Latin-1."""
    odd = os.fsdecode(b'P9/\xe9t\xe9, "two"\n.png')
    shutil.copy(archive / 'P0' / '0.png', archive / odd)
    entries, _ = take(str(archive))
    assert odd in radiographs(entries) and load(str(archive)) == entries
    dataset = XrayImages(data_prefix=str(archive), pipeline=[])
    assert f'{archive}/{odd}' in [item['img_path'] for item in dataset]


def test_the_tool(archive, tmp_path, capsys):
    assert list_images.main([str(archive)]) == 1
    captured = capsys.readouterr()
    assert captured.out == f'{archive}: 5 radiographs, 7 files read, 1 unreadable\n'
    assert captured.err.count('\n') == 1 and 'torn.png' in captured.err
    (archive / 'P9/torn.png').unlink()
    assert list_images.main([str(archive), '--workers', '2']) == 0
    assert '5 radiographs, 0 files read' in capsys.readouterr().out
    assert list_images.main([str(archive), '--group', 'none']) == 1
    assert list_images.main([str(tmp_path / 'gone')]) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 2
    assert "'none'" in error and 'gone: expected files' in error
    torn = bytearray((archive / inventory.NAME).read_bytes())
    torn[len(torn) // 2] ^= 255
    for wrong in (torn, gzip.compress(b'path,size\n'), gzip.compress(b'x' * 200_000), gzip.compress(b'\xff')):
        (archive / inventory.NAME).write_bytes(wrong)
        assert list_images.main([str(archive)]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert f'{inventory.NAME}: expected an inventory' in line and line.endswith('list_images.py again')
    (archive / inventory.NAME).write_bytes(b'no gzip')
    assert list_images.main([str(archive)]) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert f'{inventory.NAME}: expected an inventory' in error and 'remove it' in error
    for wrong in (['--workers', '0'], ['--group', '(']):
        with pytest.raises(SystemExit) as end:
            list_images.main([str(archive), *wrong])
        assert end.value.code == 2
