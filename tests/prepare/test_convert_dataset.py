"""convert_dataset: boxes, splits and ledgers of every source format, and one line for bad input."""

import base64
import contextlib
import io
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from helpers.conversion import labelme_file, refused, run
from helpers.damage import HOSTILE, check_mutations, in_process, mutate, peak_memory, restructure
from helpers.radiograph_files import dicom
from PIL import Image

from projects.prepare import gdxray
from projects.prepare.decode import MemoryBudget, measure
from projects.prepare.labels import fields, voc
from projects.prepare.ledger import ConvertError, Counts
from projects.prepare.split import split_groups
from projects.prepare.tile import fill_polygon, tile_origins
from projects.prepare.write import clip_box
from projects.radiograph import safe_parse
from projects.radiograph.read import read
from projects.radiograph.rle import decode_rle, encode_rle
from projects.radiograph.window import apply_window
from tools.convert_dataset import main

# ------------------------------------------------------------------------------------------- GDXray

FRAMES = dict(C0001=6, C0002=2, C0007=2, C0011=2, C0012=1, C0018=3, C0065=2, C0066=2)
TRUTH = dict(
    # k x1 x2 y1 y2, from 1, inclusive; width 32, height 24.
    C0001='1 1 32 1 24\n1 3 4 5 8\n2 5 9 6 6\n3 30 33 0 4\n4 1 2 1 2\n5 1 2 1 2\n6 1 2 1 2\n',
    C0007='1 2.0000000e+00 3 4 5\n',
    C0011='2 2 3 4 5\n',
    C0065='1 2 3 4 5\n2 2 3 4 5\n\n',
)


@pytest.fixture
def castings(tmp_path):
    root = tmp_path / 'GDXray' / 'Castings'
    rng = np.random.default_rng(0)
    for series, count in FRAMES.items():
        (root / series).mkdir(parents=True)
        for k in range(1, count + 1):
            cv2.imwrite(
                str(root / series / f'{series}_{k:04d}.png'), rng.integers(0, 255, (24, 32), np.uint8)
            )
        if series in TRUTH:
            (root / series / 'ground_truth.txt').write_text(TRUTH[series])
    return root


@pytest.fixture
def lists(tmp_path):
    train, test = tmp_path / 'train.txt', tmp_path / 'test.txt'
    train.write_text(
        ''.join(f'Castings/C0001/C0001_000{k}.png\n' for k in range(1, 7)) + 'Castings/C0007/C0007_0001.png\n'
        'Castings/C0011/C0011_0002.png\n'
    )
    test.write_text('Castings/C0065/C0065_0001.png\n\nC0065/C0065_0002.png\n')
    return train, test


def load(path):
    coco = json.loads(path.read_text())
    names = {i['id']: i['file_name'] for i in coco['images']}
    boxes = {}
    for a in coco['annotations']:
        boxes.setdefault(names[a['image_id']], []).append(a['bbox'])
    return coco, boxes


def test_gdxray_boxes_and_protocol_b(castings, tmp_path, capsys):
    out = tmp_path / 'out'
    code, text, _ = run(capsys, 'gdxray', castings.parent, out)
    assert code == 0
    coco, boxes = load(out / 'b' / 'train.json')
    assert boxes['C0001/C0001_0001.png'] == [[0, 0, 32, 24], [2, 4, 2, 4]]
    assert boxes['C0001/C0001_0002.png'] == [[4, 5, 5, 1]]
    assert boxes['C0001/C0001_0003.png'] == [[29, 0, 3, 4]]  # 33 of 32 columns and row 0
    assert coco['categories'] == [dict(id=1, name='defect')]
    image = coco['images'][0]
    assert image == dict(
        id=1, file_name='C0001/C0001_0001.png', width=32, height=24, region='C0001', series='C0001'
    )
    first = coco['annotations'][0]
    assert (first['area'], first['iscrowd'], first['category_id']) == (768, 0, 1)
    assert [a['id'] for a in coco['annotations']] == list(range(1, 8))
    assert set(load(out / 'b' / 'val.json')[1]) == {'C0007/C0007_0001.png'}
    assert set(load(out / 'b' / 'test.json')[1]) == {
        'C0011/C0011_0002.png',
        'C0065/C0065_0001.png',
        'C0065/C0065_0002.png',
    }
    # Nothing of a held-out group, C0012 and C0066 included, may be pretrained on.
    unlabeled = (out / 'b' / 'unlabeled.txt').read_text().split()
    assert {name[:5] for name in unlabeled} == {'C0001', 'C0002', 'C0018'}
    assert len(unlabeled) == 11
    assert all((out / 'images' / name).is_file() for name in unlabeled)
    assert len(list((out / 'images').rglob('*.png'))) == sum(FRAMES.values())
    assert 'annotated images: 10 in = 6 train + 1 val + 3 test' in text
    assert 'boxes: 11 in = 7 train + 1 val + 3 test' in text
    assert 'other images: 10 in = 5 unlabeled.txt + 5 left out' in text
    assert sum(coco['info']['ledger']['repaired'].values()) == 1
    assert coco['info']['ledger']['boxes']['came'] == 11
    assert not (out / 'a').exists()


def test_gdxray_protocol_a(castings, lists, tmp_path, capsys):
    out = tmp_path / 'out'
    argv = 'gdxray', castings, out, '--train-list', lists[0], '--test-list', lists[1]
    code, text, _ = run(capsys, *argv)
    assert code == 0
    splits = {s: set(load(out / 'a' / f'{s}.json')[1]) for s in ('train', 'val', 'test')}
    assert [len(splits[s]) for s in ('train', 'val', 'test')] == [7, 1, 2]
    assert splits['test'] == {'C0065/C0065_0001.png', 'C0065/C0065_0002.png'}
    # C0066 copies C0065, which has test frames; val frames are left out by name.
    unlabeled = set((out / 'a' / 'unlabeled.txt').read_text().split())
    assert {name[:5] for name in unlabeled} <= set(FRAMES) - {'C0065', 'C0066'}
    assert not unlabeled & splits['val']
    assert len(unlabeled) == 18 - 4 + 2 - 1
    assert 'boxes: 11 in = ' in text.split('protocol A')[1]
    # The same call gives the same files, over the old ones.
    before = {p: p.read_text() for p in out.rglob('*.json')}
    assert run(capsys, *argv)[0] == 0
    assert before == {p: p.read_text() for p in out.rglob('*.json')}


def test_gdxray_drop_series(castings, lists, tmp_path, capsys):
    out = tmp_path / 'out'
    argv = '--train-list', lists[0], '--test-list', lists[1], '--drop-series', 'C0011', 'C0018'
    code, text, _ = run(capsys, 'gdxray', castings, out, *argv)
    assert code == 0
    assert not (out / 'images' / 'C0011').exists()
    for protocol in 'ab':
        assert 'C0011' not in ''.join(p.read_text() for p in (out / protocol).glob('*.json')).replace(
            '"dropped_series": ["C0011", "C0018"]', ''
        )
        assert 'C0018' not in (out / protocol / 'unlabeled.txt').read_text()
    assert text.count('1 left out (series dropped: 1)') == 4  # images and boxes, on both protocols
    refused(capsys, 2, 'C0099 is not one', 'gdxray', castings, out, '--drop-series', 'C0099')
    refused(capsys, 1, 'for val, found none', 'gdxray', castings, out, '--drop-series', 'C0007')


def test_the_groups_of_protocol_b_hold_each_series_once():
    names = [s for group in gdxray.GROUPS for s in group]
    assert len(names) == len(set(names))
    assert ('C0062', 'C0065', 'C0066', 'C0067') in gdxray.TEST_GROUPS
    assert any({'C0001', 'C0002'} <= set(group) for group in gdxray.GROUPS)
    assert not any('C0055' in group for group in gdxray.TEST_GROUPS + gdxray.VAL_GROUPS)


@pytest.mark.parametrize(
    'row',
    [
        '1 2 3 4',
        '1 2 3 4 five',
        '0 2 3 4 5',
        '1.5 2 3 4 5',
        '1 3 2 4 5',
        '1 2 3 5 4',
        '1 nan 3 4 5',
        '1 2 1e300 4 5',
    ],
)
def test_gdxray_corrupt_rows_name_file_and_line(castings, tmp_path, capsys, row):
    truth = castings / 'C0001' / 'ground_truth.txt'
    truth.write_text(f'1 2 3 4 5\n{row}\n')
    err = refused(capsys, 1, 'ground_truth.txt, line 2: expected', 'gdxray', castings, tmp_path / 'out')
    assert str(truth) in err and row in err


def test_gdxray_bad_input(castings, lists, tmp_path, capsys):
    out = tmp_path / 'out'
    refused(capsys, 2, 'expected the folder of GDXray castings', 'gdxray', tmp_path / 'none', out)
    refused(capsys, 2, 'expected the folder of GDXray castings', 'gdxray', castings / 'C0001', out)
    refused(capsys, 2, 'outside of the source', 'gdxray', castings, castings / 'out')
    refused(capsys, 2, 'expected both or none', 'gdxray', castings, out, '--train-list', lists[0])
    both = '--train-list', lists[0], '--test-list'
    refused(capsys, 2, 'none.txt: expected a list', 'gdxray', castings, out, *both, tmp_path / 'none.txt')
    lists[1].write_text('Castings/C0065/C0065_0001.png\nCastings/C0099/C0099_0001.png\n')
    refused(capsys, 1, 'test.txt, line 2: .*C0099', 'gdxray', castings, out, *both, lists[1])
    lists[1].write_text('C0018/C0018_0001.png\n')
    refused(capsys, 1, 'line 1: .*not an annotated image', 'gdxray', castings, out, *both, lists[1])
    lists[1].write_text('C0001/C0001_0001.png\n')
    refused(capsys, 1, 'C0001_0001.png is in both', 'gdxray', castings, out, *both, lists[1])
    (tmp_path / 'file').write_text('')
    refused(capsys, 2, 'writable OUT', 'gdxray', castings, tmp_path / 'file')
    image = castings / 'C0018' / 'C0018_0002.png'
    image.write_bytes(image.read_bytes()[:100])
    refused(capsys, 1, 'C0018_0002.png: expected a complete PNG', 'gdxray', castings, out)
    image.unlink()
    (castings / 'C0001' / 'C0001_0004.png').unlink()
    refused(capsys, 1, 'expected frame 4', 'gdxray', castings, out)


def test_as_a_program(castings, tmp_path, repo):
    tool = repo / 'tools' / 'convert_dataset.py'
    argv = [sys.executable, str(tool), 'gdxray', str(castings), str(tmp_path / 'out')]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'protocol B' in done.stdout


@pytest.mark.parametrize(
    ('argv', 'code'), [(['--help'], 0), (['gdxray', '--help'], 0), (['tiff', 'a', 'b'], 2)]
)
def test_help_and_wrong_use(argv, code, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == code
    out, err = capsys.readouterr()
    assert 'convert_dataset.py gdxray' in out if code == 0 else 'invalid choice' in err


# ----------------------------------------------------------------------------------- labelling tools

HEIGHT, WIDTH = 48, 64
PARTS = 10
# Two views of each part: a crack with a polygon in the first, a pore and a crack in the second.
POLYGON = [8.0, 4.0, 24.0, 4.0, 16.0, 20.0]
VIEWS = {
    'a': [('crack', [8.0, 4.0, 24.0, 20.0], POLYGON)],
    'b': [('pore', [0.0, 0.0, 4.0, 6.0], None), ('crack', [32.0, 24.0, 64.0, 48.0], None)],
}
BOXES = {'a': [('crack', [8, 4, 16, 16])], 'b': [('pore', [0, 0, 4, 6]), ('crack', [32, 24, 32, 24])]}
SEVERITY = 'crack: critical\npore: minor\nflash: minor\n'


def draw(folder, empty=1, plain=2):
    """16-bit images of `PARTS` parts in two views, `empty` free of defects and `plain` without annotation."""
    rng = np.random.default_rng(0)
    (folder / 'images').mkdir(parents=True)
    names = {f'P{k:02d}_{view}': VIEWS[view] for k in range(PARTS) for view in VIEWS}
    names |= {f'E{k:02d}_a': [] for k in range(empty)}
    for k, name in enumerate([*names, *(f'U{k:02d}_a' for k in range(plain))]):
        pixels = rng.integers(0, 65535, (HEIGHT, WIDTH), np.uint16)
        if k % 2:
            cv2.imwrite(str(folder / 'images' / f'{name}.png'), pixels)
        else:
            tifffile.imwrite(folder / 'images' / f'{name}.tif', pixels, compression='zlib')
    return names


def image_of(folder, name):
    return next((folder / 'images').glob(f'{name}.*'))


def voc_xml(objects, filename=''):
    items = ''.join(
        f'<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>'
        f'<ymax>{y2}</ymax></bndbox></object>'
        for label, (x1, y1, x2, y2) in objects
    )
    return f'<annotation><filename>{filename}</filename>{items}</annotation>'


def make_voc(folder, **options):
    names = draw(folder, **options)
    (folder / 'Annotations').mkdir()
    for name, objects in names.items():
        text = voc_xml([o[:2] for o in objects], image_of(folder, name).name)
        (folder / 'Annotations' / f'{name}.xml').write_text(text)
    return folder


def make_yolo(folder, **options):
    names = draw(folder, **options)
    (folder / 'labels').mkdir()
    (folder / 'data.yaml').write_text('names: [pore, crack]\n')
    for name, objects in names.items():
        rows = []
        for label, (x1, y1, x2, y2), polygon in objects:
            values = [(x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]
            if polygon:
                values = [v / (HEIGHT if i % 2 else WIDTH) for i, v in enumerate(polygon)]
            rows.append(' '.join([str(int(label == 'crack')), *(f'{v:.6f}' for v in values)]))
        (folder / 'labels' / f'{name}.txt').write_text('\n'.join(rows))
    return folder


def make_labelme(folder, **options):
    names = draw(folder, **options)
    (folder / 'json').mkdir()
    for name, objects in names.items():
        shapes = []
        for label, (x1, y1, x2, y2), polygon in objects:
            kind, points = 'rectangle', [[x2, y2], [x1, y1]]
            if polygon:
                kind, points = 'polygon', np.reshape(polygon, (-1, 2)).tolist()
            shapes.append(dict(label=label, shape_type=kind, points=points))
        value = dict(imagePath=f'..\\images\\{image_of(folder, name).name}', shapes=shapes, imageData=None)
        (folder / 'json' / f'{name}.json').write_text(json.dumps(value))
    return folder


def make_coco(folder, **options):
    names = draw(folder, **options)
    coco = dict(images=[], annotations=[], categories=[dict(id=7, name='crack'), dict(id=9, name='pore')])
    for k, (name, objects) in enumerate(names.items()):
        coco['images'].append(dict(id=k, file_name=image_of(folder, name).name, width=WIDTH, height=HEIGHT))
        for label, (x1, y1, x2, y2), polygon in objects:
            row = dict(id=len(coco['annotations']), image_id=k, category_id=7 if label == 'crack' else 9)
            row |= dict(bbox=[x1, y1, x2 - x1, y2 - y1], segmentation=[polygon] if polygon else [])
            coco['annotations'].append(row)
    (folder / 'instances.json').write_text(json.dumps(coco))
    return folder


MAKERS = {'voc': make_voc, 'yolo': make_yolo, 'labelme': make_labelme, 'coco': make_coco}
SPLITS = ('train', 'val', 'test')
GROUP = '--group', '([A-Z][0-9]+)_'


def read_splits(out):
    """(types and boxes by image stem), (split by image stem), (whole JSON by split)."""
    rows, where, whole = {}, {}, {}
    for split in SPLITS:
        coco = whole[split] = json.loads((out / f'{split}.json').read_text())
        types = {c['id']: c['name'] for c in coco['categories']}
        for image in coco['images']:
            stem = Path(image['file_name']).stem
            where[stem] = split
            rows[stem] = [
                (types[a['category_id']], a['bbox'])
                for a in coco['annotations']
                if a['image_id'] == image['id']
            ]
    return rows, where, whole


@pytest.mark.parametrize('kind', MAKERS)
def test_every_format_gives_the_same_boxes(kind, tmp_path, capsys):
    src, out = MAKERS[kind](tmp_path / 'src'), tmp_path / 'out'
    severity = tmp_path / 'severity.yaml'
    severity.write_text(SEVERITY)
    code, text, err = run(capsys, kind, src, out, '--severity', severity, *GROUP)
    assert (code, err) == (0, '')
    rows, where, whole = read_splits(out)
    assert rows == {f'P{k:02d}_{v}': BOXES[v] for k in range(PARTS) for v in VIEWS} | {'E00_a': []}
    for k in range(PARTS):
        assert where[f'P{k:02d}_a'] == where[f'P{k:02d}_b']
    parts = {split: {s[:3] for s, w in where.items() if w == split and s[0] == 'P'} for split in SPLITS}
    assert [len(parts[s]) for s in SPLITS] == [7, 1, 2]
    for split in SPLITS:
        assert [c['name'] for c in whole[split]['categories']] == ['crack', 'pore', 'flash']
        for image in whole[split]['images']:
            assert (image['width'], image['height']) == (WIDTH, HEIGHT)
            assert image['part'] == Path(image['file_name']).stem[:3]
            original, copy = (top / 'images' / image['file_name'] for top in (src, out))
            np.testing.assert_array_equal(read(copy).pixels, read(original).pixels)
        polygons = [a['segmentation'] for a in whole[split]['annotations'] if a.get('segmentation')]
        expected = [[POLYGON]] * len(parts[split]) if kind != 'voc' else []
        assert polygons == expected
    assert sorted(p.stem for p in (out / 'unlabeled').rglob('*.*')) == ['U00_a', 'U01_a']
    assert (out / 'severity.yaml').read_text() == SEVERITY
    assert (out / 'quarantine.txt').read_text() == ''
    assert text.splitlines() == [
        f'{kind} annotations',
        '  images: 23 in = 15 train + 2 val + 4 test + 2 unlabeled',
        '  boxes: 30 in = 21 train + 3 val + 6 test',
        f'  annotation files: {1 if kind == "coco" else 21} in = {1 if kind == "coco" else 21} used',
        # Their files name the image without its folder.
        *(['  repaired: image found by name alone: 21'] if kind in ('voc', 'coco') else []),
    ]


def test_without_group_every_image_is_a_part_and_the_tool_says_so(tmp_path, capsys):
    src, out = make_yolo(tmp_path / 'src'), tmp_path / 'out'
    code, text, _ = run(capsys, 'yolo', src, out)
    assert code == 0 and 'no --group: parts not known' in text
    whole = read_splits(out)[2]
    assert [c['name'] for c in whole['train']['categories']] == ['crack', 'pore']
    # What is not known is not written: a measure of parts must not take images for them.
    assert not any('part' in image for coco in whole.values() for image in coco['images'])
    assert not (out / 'severity.yaml').exists()


def test_a_part_id_of_two_plants_is_told_of(tmp_path, capsys):
    rng, src = np.random.default_rng(0), tmp_path / 'src'
    for plant, first in (('plant-a', 0), ('plant-b', 3)):
        (src / plant).mkdir(parents=True)
        for k in range(first, first + 4):
            cv2.imwrite(str(src / plant / f'P{k}_a.png'), rng.integers(0, 255, (32, 48), np.uint8))
            labelme_file(src / plant, f'P{k}_a.json', f'P{k}_a.png')
    code, text, _ = run(capsys, 'labelme', src, tmp_path / 'out', '--group', 'P[0-9]+')
    assert code == 0
    said = 'note: 1 of 7 parts have images in several folders, such as P3 in plant-a and plant-b: one id'
    assert said in text
    code, text, _ = run(capsys, 'labelme', src, tmp_path / 'apart', '--group', '[^/]+/P[0-9]+')
    assert code == 0 and 'several folders' not in text


def test_a_part_typed_in_lower_case_is_the_same_part(tmp_path, capsys):
    """Else its views would meet in train and test, which the report finds once everything is trained."""
    src, out = make_yolo(tmp_path / 'src'), tmp_path / 'out'
    for k in range(PARTS):
        for path in (image_of(src, f'P{k:02d}_b'), src / 'labels' / f'P{k:02d}_b.txt'):
            path.rename(path.with_name(path.name.replace('P', 'p')))
    code, text, _ = run(capsys, 'yolo', src, out, '--group', '([A-Za-z][0-9]+)_')
    assert code == 0
    note = f'{PARTS} parts are written in upper and in lower case, such as P00 and p00: each counts as one'
    assert note in text
    _, where, whole = read_splits(out)
    assert all(where[f'P{k:02d}_a'] == where[f'p{k:02d}_b'] for k in range(PARTS))
    parts = {image['part'] for coco in whole.values() for image in coco['images']}
    assert {f'P{k:02d}' for k in range(PARTS)} <= parts and not any(part[0] == 'p' for part in parts)


def test_a_type_without_severity_stops_the_conversion(tmp_path, capsys):
    src, out = make_coco(tmp_path / 'src'), tmp_path / 'out'
    severity = tmp_path / 'severity.yaml'
    severity.write_text('flash: minor\n')
    remedy = 'severity.yaml: .*found none for crack, pore; add a line such as `crack: critical`'
    refused(capsys, 1, remedy, 'coco', src, out, '--severity', severity)
    assert not out.exists()
    for text in ('crack: severe', '[crack]', 'crack: [critical]', '1: minor', '{', ''):
        severity.write_text(text)
        refused(capsys, 2, 'expected YAML lines', 'coco', src, out, '--severity', severity)
    refused(capsys, 2, 'none.yaml: expected', 'coco', src, out, '--severity', tmp_path / 'none.yaml')


def test_unlabelled_views_of_held_out_parts_are_not_pretrained_on(tmp_path, capsys):
    src, out = make_voc(tmp_path / 'src', plain=0), tmp_path / 'out'
    for k in range(PARTS):
        shutil.copy(image_of(src, f'P{k:02d}_a'), src / 'images' / f'P{k:02d}_c.tif')
    code, text, _ = run(capsys, 'voc', src, out, *GROUP)
    assert code == 0
    where = read_splits(out)[1]
    got = {p.stem[:3] for p in (out / 'unlabeled').rglob('*.*')}
    assert got == {name[:3] for name, split in where.items() if split == 'train' and name[0] == 'P'}
    assert 'not annotated, its part is in val or test: 3' in text


def test_wrong_use(tmp_path, capsys):
    src, out = make_voc(tmp_path / 'src'), tmp_path / 'out'
    refused(capsys, 2, 'expected a folder with images', 'voc', tmp_path / 'none', out)
    refused(capsys, 2, 'outside of the source', 'voc', src, src / 'out')
    refused(capsys, 2, 'regular expression', 'voc', src, out, '--group', '(')
    refused(capsys, 1, 'expected a match of --group', 'voc', src, out, '--group', 'P[0-9]+')
    refused(capsys, 1, 'at least 3 parts', 'voc', src, out, '--group', 'images/')
    refused(capsys, 2, 'add --tile', 'voc', src, out, '--overlap', 3)
    refused(capsys, 2, 'overlap', 'voc', src, out, '--tile', 32, '--overlap', 32)
    refused(capsys, 2, 'overlap', 'voc', src, out, '--tile', 1)
    refused(capsys, 2, 'expected labelme annotations', 'labelme', src, out)
    refused(capsys, 1, 'class names', 'yolo', src, out)
    (out / 'images').mkdir(parents=True)
    (out / 'images' / 'old.png').write_text('')
    refused(capsys, 2, 'earlier conversion', 'voc', src, out)


# What is put aside: (format, file to write, its content, part of the reason).
BROKEN = [
    ('voc', 'Annotations/P00_a.xml', '<annotation><object>', 'XML'),
    ('voc', 'Annotations/P00_a.xml', '<html/>', 'VOC annotation'),
    ('voc', 'Annotations/P00_a.xml', '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', 'document type'),
    ('voc', 'Annotations/P00_a.xml', '<annotation><object><name>x</name></object></annotation>', 'bndbox'),
    ('voc', 'Annotations/P00_a.xml', '<annotation><filename>none.png</filename></annotation>', 'none.png'),
    ('yolo', 'labels/P00_a.txt', '2 .5 .5 .1 .1', 'class of the names file in line 1'),
    ('yolo', 'labels/P00_a.txt', '-1 .5 .5 .1 .1', 'class of the names file in line 1'),
    ('yolo', 'labels/P00_a.txt', '0 .5 .5 .1', '4 numbers'),
    ('yolo', 'labels/P00_a.txt', '0 .5 .5 .1 .1\n0 .5 .5 nan .1', 'line 2'),
    ('yolo', 'labels/P00_a.txt', '0 320 240 64 64', 'relative to the image'),
    ('labelme', 'json/P00_a.json', '{"shapes": [', 'JSON'),
    ('labelme', 'json/P00_a.json', '[' * 100_000, 'at most 100 lists'),
    ('labelme', 'json/P00_a.json', '[]', 'JSON object'),
    ('labelme', 'json/P00_a.json', '{"imagePath": "P00_a.tif"}', 'shapes'),
    ('labelme', 'json/P00_a.json', '{"shapes": [{"label": "x", "points": [[1, NaN]]}]}', 'finite'),
    ('labelme', 'json/P00_a.json', '{"shapes": [{"label": "", "points": [[1, 2]]}]}', 'type name'),
    (
        'labelme',
        'json/P00_a.json',
        '{"shapes": [{"label": "x", "points": [[1, 2]], "shape_type": "cube"}]}',
        'cube',
    ),
]


DEEP = """
import sys
from projects.radiograph.safe_parse import FormatError, parse_json, parse_yaml
sys.setrecursionlimit(2**20)
for parse, text in [
    (parse_json, '[' * 100_000),
    (parse_json, '{"a":' * 100_000),
    (parse_json, '["' + ']' * 10**5 + '",' + '[' * 10**5 + ']' * 10**5),
    (parse_yaml, '[' * 100_000),
    (parse_yaml, '- ' * 100_000),
    (parse_yaml, '{a: ' * 50_000),
]:
    try:
        print('read', parse(text.encode()))
    except FormatError as error:
        print(error)
print(parse_json(b'["' + b'[' * 1000 + b'\\\\"[", 1]')[1])
"""


def test_deep_lists_are_refused_whatever_the_recursion_limit(repo):
    # In a process of its own: a parser that descends a hundred thousand lists overruns its stack.
    done = subprocess.run([sys.executable, '-c', DEEP], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *refusals, good = done.stdout.splitlines()
    assert good == '1' and len(refusals) == 6
    assert all('of at most 100 lists within each other' in line for line in refusals)


@pytest.mark.parametrize('window', [1, 2, 7, 64, 2**20])
def test_lists_are_counted_outside_of_strings_wherever_a_window_ends(window, monkeypatch):
    monkeypatch.setattr(safe_parse, '_WINDOW', window)
    monkeypatch.setattr(safe_parse, 'MAX_DEPTH', 3)
    rng = random.Random(window)
    texts = [
        '"[[[[\\\\"',
        '"[\\"[["',
        '"]]"',
        '"\\\\\\""',
        '{"a":[[1]]}',
        '[[[1]]]',
        '[[[[1]]]]',
        '""',
        '"é[🔩"',
    ]
    for _ in range(60):
        values = [rng.choice(texts) for _ in range(rng.randrange(6))]
        text = f'[{",".join(values)}]'
        if '[[[[1]]]]' in values or '[[[1]]]' in values or '{"a":[[1]]}' in values:
            with pytest.raises(safe_parse.FormatError, match='at most 3 lists within each other'):
                safe_parse.parse_json(text.encode())
        else:
            assert safe_parse.parse_json(text.encode()) == json.loads(text)


# Made only where they are needed: the reader's process imports this file too.
HUGE = {
    'list.yaml': lambda: b'[' + b'a,' * 131_000 + b']',
    'deep.xml': lambda: b'<annotation>' + b'<a>' * 900_000,
    'dicts.json': lambda: (
        b'['
        + b'{"a":1},' * 900_000
        + b'"\xe2\x82\xac",' * 2_000_000  # no string takes more room for its bytes
        + b'1.5,' * 7_000_000
        + b'"\xf0\x9f\x94\xa9"]'
    ),
}


def read_huge(folder, name):
    """CPU seconds and peak memory in GiB of one reader."""
    path = folder / name
    start = time.process_time()
    with contextlib.suppress(safe_parse.FormatError):
        if name.endswith('.json'):
            fields.read_json(path)
        elif name.endswith('.xml'):
            voc._objects(path)
        else:
            safe_parse.parse_yaml(path.read_bytes())
    return time.process_time() - start, peak_memory()


@pytest.mark.long
def test_the_largest_files_are_read_or_refused_in_bounds(tmp_path):
    for name, content in HUGE.items():
        (tmp_path / name).write_bytes(content())
        seconds, peak = in_process(read_huge, tmp_path, name, seconds=300)
        assert seconds < 5, name  # of CPU time: a hang
        assert peak < 1, name  # GiB


@pytest.mark.parametrize(('kind', 'name', 'content', 'reason'), BROKEN)
def test_damaged_annotations_are_put_aside_and_named(kind, name, content, reason, tmp_path, capsys):
    src, out = MAKERS[kind](tmp_path / 'src'), tmp_path / 'out'
    (src / name).write_text(content)
    code, text, err = run(capsys, kind, src, out, *GROUP)
    assert code == 0
    assert re.fullmatch(rf'quarantine: {name}: expected .*{reason}.*\n', err), err
    assert (out / 'quarantine.txt').read_text() == err.removeprefix('quarantine: ')
    rows, _, _ = read_splits(out)
    assert len(rows) == 20 and 'P00_a' not in rows
    # Nor does its image pass for an unlabelled one.
    assert not list((out / 'unlabeled').rglob('P00*'))
    assert 'annotation files: 21 in = 20 used + 1 left out' in text


def test_a_damaged_image_is_put_aside_with_its_boxes(tmp_path, capsys):
    src, out = make_coco(tmp_path / 'src'), tmp_path / 'out'
    image = image_of(src, 'P03_b')
    image.write_bytes(image.read_bytes()[:300])
    code, text, err = run(capsys, 'coco', src, out, *GROUP)
    assert code == 0 and err.startswith('quarantine: images/P03_b.') and 'expected a readable' in err
    assert 'boxes: 30 in = ' in text and '2 left out (image or annotation in quarantine: 2)' in text


def test_a_damaged_coco_file_stops_or_blocks(tmp_path, capsys):
    src, out = make_coco(tmp_path / 'src'), tmp_path / 'out'
    good = json.loads((src / 'instances.json').read_text())
    for key, value, reason in [
        ('images', 3, 'list `images`'),
        ('annotations', [[]], 'list `annotations`'),
        ('annotations', [dict(id=1, image_id=99, category_id=7)], 'listed image'),
        ('images', [dict(id=1, file_name='a'), dict(id=1, file_name='b')], 'different image ids'),
        ('categories', [dict(id=[], name='x')], 'ids'),
    ]:
        (src / 'instances.json').write_text(json.dumps(good | {key: value}))
        refused(capsys, 1, f'all are in quarantine; the first is instances.json.*{reason}', 'coco', src, out)
    (src / 'instances.json').write_text(json.dumps(good))
    (src / 'second.json').write_text('{"images": ')
    code, text, _ = run(capsys, 'coco', src, out)
    assert code == 0
    assert not (out / 'unlabeled').exists()  # second.json may have been about them
    assert 'perhaps annotated in second.json, which is in quarantine' in text


def test_a_json_that_is_no_annotation_is_one_of_the_other_files(tmp_path, capsys):
    src, out = make_coco(tmp_path / 'src'), tmp_path / 'out'
    run(capsys, 'coco', src, tmp_path / 'without')
    (src / 'notes.json').write_text('{"generator": 1}')
    code, text, _ = run(capsys, 'coco', src, out)
    assert code == 0
    assert re.search(r'other files: 1 in = 1 left out \(\.json: 1\)', text)
    assert not (out / 'quarantine.txt').exists() or 'notes' not in (out / 'quarantine.txt').read_text()
    unlabeled = [sorted(p.name for p in (o / 'unlabeled').rglob('*.*')) for o in (out, tmp_path / 'without')]
    assert unlabeled[0] == unlabeled[1] != []


def test_paths_in_annotations_never_leave_the_source(tmp_path, capsys):
    src, out = make_voc(tmp_path / 'src'), tmp_path / 'out'
    secret = tmp_path / 'secret.png'
    cv2.imwrite(str(secret), np.zeros((9, 9), np.uint8))
    for name, path in {'P00_a': '../../secret.png', 'P01_a': str(secret), 'P02_a': '/etc/passwd'}.items():
        xml = src / 'Annotations' / f'{name}.xml'
        xml.write_text(re.sub('<filename>.*</filename>', f'<filename>{path}</filename>', xml.read_text()))
    code, _, err = run(capsys, 'voc', src, out, *GROUP)
    assert code == 0 and err.count('found none') == 3
    assert not list(out.rglob('secret*')) and not list(out.rglob('passwd*'))


def test_two_annotations_of_one_image_and_boxes_without_area(tmp_path, capsys):
    src, out = make_voc(tmp_path / 'src'), tmp_path / 'out'
    rows = [(9, 9, 9, 20), (70, 5, 80, 9), (60, 40, 70, 50), (20, 20, 10, 10)]
    (src / 'Annotations' / 'P00_a.xml').write_text(voc_xml([('pore', row) for row in rows]))
    xml = src / 'Annotations' / 'P01_b.xml'
    xml.write_text(xml.read_text().replace('<filename>', '<filename>../images/'))
    (src / 'again').mkdir()
    shutil.copy(xml, src / 'again' / 'P01_b.xml')
    code, text, err = run(capsys, 'voc', src, out, *GROUP)
    assert code == 0 and 'again/P01_b.xml: images/P01_b' in err and 'a second one' in err
    assert read_splits(out)[0]['P00_a'] == [('pore', [60, 40, 4, 8]), ('pore', [10, 10, 10, 10])]
    assert 'annotation in quarantine: 2, no area: 1, outside of the image: 1' in text
    assert 'repaired: box clipped to its image: 1' in text and 'repaired: corners swapped: 1' in text


def test_further_frames_are_counted(tmp_path, capsys):
    src, out = make_yolo(tmp_path / 'src'), tmp_path / 'out'
    stack = np.zeros((3, HEIGHT, WIDTH), np.uint16)
    image_of(src, 'P00_a').unlink()
    tifffile.imwrite(src / 'images' / 'P00_a.tif', stack, photometric='minisblack', metadata=None)
    code, text, _ = run(capsys, 'yolo', src, out, *GROUP)
    assert code == 0 and 'frames beyond the first: 2 in = 2 left out (not read: 2)' in text


def declare(kind, folder, name, width, height):
    """Make the annotation of an image say that it was drawn on one of this size."""
    if kind == 'voc':
        path = folder / 'Annotations' / f'{name}.xml'
        size = f'<size><width>{width}</width><height>{height}</height></size><object>'
        path.write_text(path.read_text().replace('<object>', size, 1))
    elif kind == 'labelme':
        path = folder / 'json' / f'{name}.json'
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(imageWidth=width, imageHeight=height)))
    else:
        path = folder / 'instances.json'
        coco = json.loads(path.read_text())
        next(i for i in coco['images'] if i['file_name'].startswith(name)).update(width=width, height=height)
        path.write_text(json.dumps(coco))


@pytest.mark.parametrize('kind', ['voc', 'labelme', 'coco'])
def test_boxes_drawn_on_an_image_of_another_size_are_put_aside(kind, tmp_path, capsys):
    src, out = MAKERS[kind](tmp_path / 'src'), tmp_path / 'out'
    declare(kind, src, 'P00_a', 2 * WIDTH, 2 * HEIGHT)
    declare(kind, src, 'P01_a', WIDTH, HEIGHT)
    # Tools write 0, or text, where they do not know.
    for name, size in {'P02_a': (0, 0), 'P03_a': ('', ''), 'P04_a': (64.0, 48.5), 'P05_a': (-64, 99)}.items():
        declare(kind, src, name, *size)
    code, text, err = run(capsys, kind, src, out, *GROUP)
    assert code == 0
    result = r'quarantine: images/P00_a\.tif: expected an image of 128 x 96 px as annotated, found 64 x 48\n'
    assert re.fullmatch(result, err), err
    rows, _, _ = read_splits(out)
    assert 'P00_a' not in rows and all(f'P0{k}_a' in rows for k in range(1, 6))
    assert 'boxes: 30 in = ' in text and ' + 1 left out (' in text


def draw_frames(folder, *names):
    """Small images, no two alike."""
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((HEIGHT, WIDTH), 10 * k, np.uint8))


def test_labels_do_not_land_on_the_image_of_another_folder(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'out'
    draw_frames(src, 'cam2/001.png', '004.png', *(f'cam2/{k}.png' for k in 'abc'), 'cam3/009.png')
    draw_frames(src, 'cam3/005.png', 'cam3/006.tif')
    for k in 'abc':
        labelme_file(src, f'cam2/{k}.json', f'{k}.png')
    labelme_file(src, 'cam1/001.json', '001.png')  # its image is missing
    labelme_file(src, 'cam2/001.json', '001.png', ('pore',))
    labelme_file(src, 'a/004.json', '004.png')  # before the file beside the image, in the order of names
    labelme_file(src, 'b/004.json', '004.png')
    labelme_file(src, '004.json', '004.png', ('pore',))
    labelme_file(src, 'left/005.json', '005.png')  # one of the two has lost its image: which?
    labelme_file(src, 'right/005.json', '005.png')
    labelme_file(
        src, 'cam3/000.json', '006.png'
    )  # an image whose suffix differs goes to who names it exactly
    labelme_file(src, 'cam3/006.json', '006.tif', ('pore',))
    labelme_file(
        src, 'json/009.json', '..\\elsewhere\\009.png'
    )  # the only image of this name, named by nobody else
    code, text, err = run(capsys, 'labelme', src, out)
    assert code == 0
    put_aside = ['a/004', 'b/004', 'cam1/001', 'cam3/000', 'left/005', 'right/005']
    assert re.findall(r'quarantine: (.*?)\.json:', err) == put_aside
    assert err.count('found only cam2/001.png, which others name too') == 1
    assert err.count('found only cam3/005.png, which others name too') == 2
    rows, _, _ = read_splits(out)
    assert (
        [t for t, _ in rows['001']] == [t for t, _ in rows['004']] == [t for t, _ in rows['006']] == ['pore']
    )
    assert '005' not in rows and not (out / 'unlabeled').exists()
    assert [t for t, _ in rows['009']] == ['crack']
    assert 'repaired: image found by name alone: 1' in text
    assert 'annotation files: 13 in = 7 used + 6 left out (in quarantine: 6)' in text


def test_an_image_that_a_coco_file_lacks_blocks_no_other(tmp_path, capsys):
    src, out = make_coco(tmp_path / 'src'), tmp_path / 'out'
    image_of(src, 'P00_a').unlink()
    code, text, err = run(capsys, 'coco', src, out, *GROUP)
    assert code == 0 and "instances.json: 'P00_a.tif': expected its image 'P00_a.tif' below" in err
    assert sorted(p.stem for p in (out / 'unlabeled').rglob('*.*')) == ['U00_a', 'U01_a']
    assert 'boxes: 30 in = ' in text and '1 left out (annotation in quarantine: 1)' in text


def test_a_coco_file_without_images_is_named(tmp_path, capsys):
    src, out = make_coco(tmp_path / 'src'), tmp_path / 'out'
    (src / 'later.json').write_text(json.dumps(dict(images=[], annotations=[], categories=[])))
    code, text, err = run(capsys, 'coco', src, out, *GROUP)
    assert (
        code == 0 and err == 'quarantine: later.json: expected at least one image in the file, found none\n'
    )
    assert 'annotation files: 2 in = 1 used + 1 left out (in quarantine: 1)' in text
    assert len(list((out / 'unlabeled').rglob('*.*'))) == 2


@pytest.mark.parametrize('box', [5, '12', {'x': 1}, [1, 2, 3], ['a', 1, 2, 3], [1, 2, -3, 4], True])
def test_a_coco_box_that_is_none_is_put_aside(box, tmp_path, capsys):
    src, out = make_coco(tmp_path / 'src'), tmp_path / 'out'
    coco = json.loads((src / 'instances.json').read_text())
    coco['annotations'][0]['bbox'] = box
    (src / 'instances.json').write_text(json.dumps(coco))
    code, _, err = run(capsys, 'coco', src, out, *GROUP)
    assert code == 0 and re.fullmatch(r'quarantine: images/P00_a\.tif: expected .*bbox.*\n', err), err


def test_damaged_images_without_annotation_are_put_aside_too(tmp_path, capsys):
    src, out = make_yolo(tmp_path / 'src'), tmp_path / 'out'
    image = image_of(src, 'U01_a')
    image.write_bytes(image.read_bytes()[:300])
    code, text, err = run(capsys, 'yolo', src, out, *GROUP)
    assert code == 0 and re.fullmatch(r'quarantine: images/U01_a\.\w+: expected a readable image .*\n', err)
    assert [p.stem for p in (out / 'unlabeled').rglob('*.*')] == ['U00_a']
    assert 'unlabeled + 1 left out (' in text


def test_names_that_are_no_text_are_put_aside(tmp_path, capsys):
    src, out = make_labelme(tmp_path / 'src'), tmp_path / 'out'
    for old, new in {'U00_a': 'gr\udcfcn', 'P00_a': 'two\nlines'}.items():
        image = image_of(src, old)
        image.rename(image.with_name(f'{new}{image.suffix}'))
        if old.startswith('P'):
            labelme_file(src, f'json/{old}.json', f'../images/{new}{image.suffix}')
    labelme_file(src, 'json/b\udcff.json', 'none.png')
    code, text, err = run(capsys, 'labelme', src, out, *GROUP[:1], '^')
    assert code == 1 and 'a match of --group' in err  # and no traceback
    code, text, err = run(capsys, 'labelme', src, out)
    assert code == 0
    put_aside = (out / 'quarantine.txt').read_text(encoding='utf-8').splitlines()
    assert len(put_aside) == 3 == err.count('\n')
    assert [re.match(r'(\S+): expected', line)[1] for line in put_aside] == [
        r'images/gr\udcfcn.png',
        r'images/two\nlines.tif',
        r'json/b\udcff.json',
    ]
    assert 'U00_a' not in str(list(out.rglob('*'))) and 'lines' not in str(list(out.rglob('*')))


def test_every_file_is_counted(tmp_path, capsys):
    src, out = make_yolo(tmp_path / 'src'), tmp_path / 'out'
    elsewhere = tmp_path / 'archive'
    draw_frames(elsewhere, 'far.png')
    (src / 'images/archive').symlink_to(elsewhere)
    (src / 'labels/archive').mkdir()
    (src / 'labels/archive/far.txt').write_text('0 .5 .5 .1 .1')
    for name in ('notes.txt', 'images/a.npy', 'README', '.DS_Store', 'labels/classes.txt'):
        (src / name).write_text('images/P00_a.tif')
    (src / 'lost.txt').write_text('0 .5 .5 .1 .1\n')  # rows of boxes, and no image of this name
    (src / 'labels/LOST.TXT').write_text('')
    code, text, err = run(capsys, 'yolo', src, out)
    assert code == 0
    assert re.findall('quarantine: (.*?):', err) == ['labels/LOST.TXT', 'lost.txt']
    assert read_splits(out)[0]['far'] == [('pore', [28.8, 21.6, 6.4, 4.8])]
    assert 'annotation files: 24 in = 22 used + 2 left out (in quarantine: 2)' in text
    assert 'other files: 5 in = 5 left out (.npy: 1, .txt: 2, hidden: 1, no suffix: 1)' in text


def test_dicom_without_a_suffix_is_converted(tmp_path, capsys):
    src, out = make_labelme(tmp_path / 'src'), tmp_path / 'out'
    for name in ('1.2.840.5', '1.2.840.7'):
        (src / 'images' / name).write_bytes(dicom(np.full((HEIGHT, WIDTH), 9, np.uint16), 12))
    labelme_file(src, 'images/1.2.840.5.json', '1.2.840.5')
    assert run(capsys, 'labelme', src, out)[0] == 0
    assert (out / 'unlabeled/1.2.840.7').is_file()
    assert (out / 'images/1.2.840.5').is_file()


def test_what_is_difficult_or_to_be_ignored_stays_so(tmp_path, capsys):
    src, out = make_voc(tmp_path / 'voc'), tmp_path / 'voc_out'
    path = src / 'Annotations/P00_b.xml'
    path.write_text(path.read_text().replace('</name>', '</name><difficult>1</difficult>', 1))
    code, text, _ = run(capsys, 'voc', src, out, *GROUP)
    assert code == 0 and [a['iscrowd'] for a in masks_of(out, 'P00_b')] == [1, 0]
    assert 'object marked difficult or to be ignored kept as iscrowd: 1' in text
    src, out = make_coco(tmp_path / 'coco'), tmp_path / 'coco_out'
    coco = json.loads((src / 'instances.json').read_text())
    coco['annotations'][0]['ignore'] = 1
    (src / 'instances.json').write_text(json.dumps(coco))
    code, text, _ = run(capsys, 'coco', src, out, *GROUP)
    assert code == 0 and [a['iscrowd'] for a in masks_of(out, 'P00_a')] == [1]
    assert 'kept as iscrowd: 1' in text


def test_a_document_type_is_refused_in_any_encoding(tmp_path, capsys):
    src, out = make_voc(tmp_path / 'src'), tmp_path / 'out'
    bomb = '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'
    plain = '<annotation><filename>P03_a.tif</filename></annotation>'
    for name, text, encoding in [
        ('P00_a', bomb, 'utf-16'),
        ('P01_a', f'<?xml version="1.0" encoding="utf-16"?>{bomb}', 'utf-16-be'),
        ('P02_a', bomb, 'utf-8-sig'),
        ('P03_a', plain, 'utf-16'),
    ]:
        (src / 'Annotations' / f'{name}.xml').write_bytes(text.encode(encoding))
    code, _, err = run(capsys, 'voc', src, out, *GROUP)
    assert code == 0 and err.count('without a document type') == 3 == err.count('\n')
    assert read_splits(out)[0]['P03_a'] == []


# -------------------------------------------------------------------------------------------- masks


def blob():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:20, 5:30] = True
    mask[12, 7] = False
    mask[40:, 60:] = True
    return mask


# pycocotools' encoding of `blob`.
COMPRESSED = 'j7:V100HkN5U13000000000000000000000000000000000000000000n]1NTbN00000'


def test_rle_is_cocos():
    rle = encode_rle(blob())
    np.testing.assert_array_equal(decode_rle(rle), blob())
    assert encode_rle(np.ones((2, 3), bool)) == dict(size=[2, 3], counts=[0, 6])
    assert encode_rle(np.array([[0, 1], [0, 0]], bool)) == dict(size=[2, 2], counts=[2, 1, 1])


def masks_of(out, stem):
    for coco in read_splits(out)[2].values():
        for image in coco['images']:
            if Path(image['file_name']).stem == stem:
                return [a for a in coco['annotations'] if a['image_id'] == image['id']]
    return None


def test_pixel_masks_stay_in_the_json(tmp_path, capsys):
    box = [5, 10, 59, 38]
    # COCO, compressed and not, without a box.
    src = make_coco(tmp_path / 'coco')
    coco = json.loads((src / 'instances.json').read_text())
    first = coco['annotations'][0]
    for value in (dict(size=[HEIGHT, WIDTH], counts=COMPRESSED), encode_rle(blob())):
        del first['bbox']
        first |= dict(segmentation=value, iscrowd=1)
        (src / 'instances.json').write_text(json.dumps(coco))
        out = tmp_path / f'out{len(value["counts"])}'
        assert run(capsys, 'coco', src, out, *GROUP)[0] == 0
        (got,) = masks_of(out, 'P00_a')
        np.testing.assert_array_equal(decode_rle(got['segmentation']), blob())
        assert (got['bbox'], got['iscrowd'], got['area']) == (box, 1, blob().sum())
        first['bbox'] = None
    for counts in ('oo', '~~~~', [-1, 3073], [3], [3072.0], None):
        first['segmentation'] = dict(size=[HEIGHT, WIDTH], counts=counts)
        (src / 'instances.json').write_text(json.dumps(coco))
        out = tmp_path / f'bad{counts}'
        _, _, err = run(capsys, 'coco', src, out, *GROUP)
        assert 'quarantine: images/P00_a' in err and 'run lengths' in err
    # VOC: instance image, value k is the k-th object.
    src, out = make_voc(tmp_path / 'voc'), tmp_path / 'voc_out'
    (src / 'SegmentationObject').mkdir()
    palette = Image.fromarray(blob().astype(np.uint8), 'P')
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.save(src / 'SegmentationObject' / 'P00_a.png')
    assert run(capsys, 'voc', src, out, *GROUP)[0] == 0
    (got,) = masks_of(out, 'P00_a')
    np.testing.assert_array_equal(decode_rle(got['segmentation']), blob())
    assert got['bbox'] == BOXES['a'][0][1]
    # labelme: a PNG of the mask's extent.
    src, out = make_labelme(tmp_path / 'labelme'), tmp_path / 'labelme_out'
    crop = cv2.imencode('.png', blob()[10:, 5:].astype(np.uint8))[1].tobytes()
    shape = dict(
        label='crack', shape_type='mask', points=[[5, 10], [63, 47]], mask=base64.b64encode(crop).decode()
    )
    circle = dict(label='pore', shape_type='circle', points=[[20, 20], [23, 24]])
    line = dict(label='crack', shape_type='linestrip', points=[[1, 1], [9, 3], [12, 2]])
    (src / 'json' / 'P00_a.json').write_text(json.dumps(dict(shapes=[shape, circle, line])))
    assert run(capsys, 'labelme', src, out, *GROUP)[0] == 0
    mask, disc, strip = masks_of(out, 'P00_a')
    np.testing.assert_array_equal(decode_rle(mask['segmentation']), blob())
    assert (mask['bbox'], disc['bbox'], strip['bbox']) == (box, [15, 15, 10, 10], [1, 1, 11, 2])


def test_the_mask_of_an_image_is_that_of_its_own_folder(tmp_path, capsys):
    src, out = make_voc(tmp_path / 'src'), tmp_path / 'out'
    draw_frames(src, 'cam1/images/001.png', 'cam2/images/001.png')
    for camera in ('cam1', 'cam2'):
        (src / camera / 'Annotations').mkdir()
        text = voc_xml([('crack', (0, 0, 9, 9))], '../images/001.png')
        (src / camera / 'Annotations/001.xml').write_text(text)
    (src / 'cam2/SegmentationObject').mkdir()
    cv2.imwrite(str(src / 'cam2/SegmentationObject/001.png'), blob().astype(np.uint8))
    cv2.imwrite(str(src / 'cam2/SegmentationObject/002.png'), blob().astype(np.uint8))
    code, text, err = run(capsys, 'voc', src, out)
    assert (code, err) == (0, '')
    found = {i['file_name']: coco for coco in read_splits(out)[2].values() for i in coco['images']}
    masks = {}
    for name in ('cam1/images/001.png', 'cam2/images/001.png'):
        image = next(i for i in found[name]['images'] if i['file_name'] == name)
        own = [a for a in found[name]['annotations'] if a['image_id'] == image['id']]
        masks[name[:4]] = [a.get('segmentation') for a in own]
    assert masks == {'cam1': [None], 'cam2': [encode_rle(blob())]}
    assert 'other files: 1 in = 1 left out (.png: 1)' in text


def test_the_area_is_that_of_the_polygon(tmp_path, capsys):
    src, out = make_labelme(tmp_path / 'src'), tmp_path / 'out'
    beyond = [[50, 40], [80, 40], [80, 60], [50, 60]]
    shapes = [dict(label='crack', shape_type='polygon', points=beyond)]
    value = json.loads((src / 'json/P01_a.json').read_text())
    (src / 'json/P01_a.json').write_text(json.dumps(value | dict(shapes=shapes)))
    assert run(capsys, 'labelme', src, out, *GROUP)[0] == 0
    (triangle,), (clipped,) = masks_of(out, 'P00_a'), masks_of(out, 'P01_a')
    assert (triangle['bbox'], triangle['area']) == ([8, 4, 16, 16], 128)
    assert (clipped['bbox'], clipped['area']) == ([50, 40, 14, 8], 112)


# ------------------------------------------------------------------------------------------- tiling


def test_tile_origins():
    assert tile_origins(48, 64, 8) == [0]
    assert tile_origins(64, 64, 8) == [0]
    assert tile_origins(100, 40, 10) == [0, 30, 60]
    assert tile_origins(101, 40, 10) == [0, 30, 60, 61]


def test_tiles(tmp_path, capsys):
    src, out = make_voc(tmp_path / 'src', plain=0), tmp_path / 'out'
    rows = [
        ('whole', (2, 2, 8, 8)),  # in the upper left tile only
        ('both', (24, 2, 30, 8)),  # in the overlap of the two upper tiles
        ('cut', (20, 36, 28, 44)),  # lower tiles: 8 and 4 columns of it, half is kept
        ('sliver', (12, 36, 26, 44)),  # 14 and 2 columns: the sliver is to be ignored
        ('long', (0, 10, 64, 12)),  # longer than any tile
    ]
    (src / 'Annotations' / 'P00_a.xml').write_text(voc_xml(rows))
    code, text, _ = run(capsys, 'voc', src, out, *GROUP, '--tile', 32, '--overlap', 8)
    assert code == 0
    got, where, whole = read_splits(out)
    pieces = {name: rows for name, rows in got.items() if name.startswith('P00_a')}
    # 64 x 48 px: x 0, 24, 32 and y 0, 16.
    key = 'P00_a.tif_x{:05d}_y{:05d}'
    assert set(pieces) == {key.format(x, y) for x in (0, 24, 32) for y in (0, 16)}
    assert pieces[key.format(0, 0)] == [
        ('whole', [2, 2, 6, 6]),
        ('both', [24, 2, 6, 6]),
        ('long', [0, 10, 32, 2]),
    ]
    assert pieces[key.format(24, 0)] == [('both', [0, 2, 6, 6]), ('long', [0, 10, 32, 2])]
    assert pieces[key.format(32, 0)] == [('long', [0, 10, 32, 2])]
    assert pieces[key.format(0, 16)] == [('cut', [20, 20, 8, 8]), ('sliver', [12, 20, 14, 8])]
    assert pieces[key.format(24, 16)] == [('cut', [0, 20, 4, 8]), ('sliver', [0, 20, 2, 8])]
    ignored = [a['bbox'] for coco in whole.values() for a in coco['annotations'] if a['iscrowd']]
    assert [0, 20, 2, 8] in ignored and [0, 20, 4, 8] not in ignored
    assert len({where[name] for name in pieces}) == 1
    assert f'sliver of a box in a tile kept as iscrowd: {len(ignored)}' in text
    assert "box cut by a tile's border: " in text
    counts = next(iter(whole.values()))['info']['ledger']
    for name in ('images', 'boxes'):
        a = counts[name]
        assert a['came'] + sum(a['added'].values()) == sum(a['went'].values()) + sum(a['left'].values())
    assert counts['images']['went'] == dict(Counter(where.values()))
    # 16 bits stay 16 bits.
    original = read(image_of(src, 'P00_a')).pixels
    np.testing.assert_array_equal(
        read(out / 'images' / f'{key.format(24, 16)}.png').pixels, original[16:, 24:56]
    )


def test_tiles_of_images_whose_names_differ_in_a_dot_only_stay_apart(tmp_path, capsys):
    src, out = tmp_path / 'src', tmp_path / 'out'
    names = ['a.b.png', 'a_b.png', 'a.b.bmp']
    draw_frames(src, *names)
    for name in names:
        labelme_file(src, f'{name}.json', name)
    code, text, _ = run(capsys, 'labelme', src, out, '--tile', 32)
    assert code == 0 and 'images: 3 in + 9 further tiles' in text
    written = {i['file_name'] for coco in read_splits(out)[2].values() for i in coco['images']}
    assert len(written) == 12 == len(list((out / 'images').iterdir()))
    for k, name in enumerate(names):
        assert all((read(p).pixels == 10 * k).all() for p in out.glob(f'images/{name}_x*'))


def test_a_polygon_covers_the_pixels_whose_centres_it_holds():
    square = np.array([[2, 1], [5, 1], [5, 3], [2, 3]])
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(fill_polygon(square, 6, 8), expected)
    np.testing.assert_array_equal(fill_polygon(square[::-1] + 0.4, 6, 8), expected)
    # Beyond the border, with a notch from below whose tip is at (4, 0).
    notched = np.array([[-5, -5], [20, -5], [20, 6], [7, 6], [4, 0], [1, 6], [-5, 6]])
    mask = fill_polygon(notched, 6, 8)
    assert mask[0].all()
    assert mask[5].tolist() == [True, *[False] * 6, True]


def test_tiles_keep_masks_and_polarity(tmp_path, capsys):
    src, out = make_coco(tmp_path / 'src'), tmp_path / 'out'
    pixels = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    name = image_of(src, 'P00_a')
    tifffile.imwrite(name, pixels, photometric='miniswhite')
    assert run(capsys, 'coco', src, out, *GROUP, '--tile', 32, '--overlap', 16)[0] == 0
    tile = read(next(out.rglob('P00_a.*_x00000_y00000.tif')))
    np.testing.assert_array_equal(
        apply_window(tile, dict(type='full')), apply_window(read(name), dict(type='full'))[:32, :32]
    )
    (got,) = masks_of(out, f'{name.name}_x00000_y00000')
    mask = decode_rle(got['segmentation'])
    assert mask.shape == (32, 32) and got['bbox'] == [8, 4, 16, 16]
    # The triangle of POLYGON has half the area of its box.
    assert mask.sum() == pytest.approx(128, rel=0.1)
    assert not mask[:4].any() and not mask[20:].any() and mask[8, 16]


# ---------------------------------------------------------------------------------------- mutations


NAMES = ('gr\udcfcn', 'two\nlines', 'a' * 240, '100%', '#1?', '-rf', ' ', '..x', 'Ü\u2028', '1.2.840.5')


@contextlib.contextmanager
def damaged(path, rng):
    """One file, damaged or renamed for a while."""
    original, there = path.read_bytes(), path
    choice = rng.randrange(5)
    if choice < 2 and path.suffix == '.json':
        path.write_bytes(restructure(original, rng))
    elif choice < 2:
        path.write_bytes(mutate(original, rng))
    elif choice < 4:
        token = rng.choice(list(re.finditer(rb'[^\s<>"\[\],:{}]+', original)))
        path.write_bytes(original[: token.start()] + rng.choice(HOSTILE) + original[token.end() :])
    else:
        there = path.rename(
            path.with_name(rng.choice(NAMES) + rng.choice((path.suffix, '', '.json', '.PNG')))
        )
    yield
    there.unlink()
    path.write_bytes(original)


def convert_mutations(seed, count):
    """Convert `count` sets with one damaged file each; returns how many named it, CPU time and memory.

    Raises AssertionError, with the mutation's number, for a traceback, a wrong exit code or a silent loss.
    """
    rng, named, longest = random.Random(seed), 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind, maker in MAKERS.items():
            maker(root / kind, plain=1)
        for k in range(count):
            kind = rng.choice(list(MAKERS))
            files = sorted(p for p in (root / kind).rglob('*') if p.is_file() and p.stat().st_size)
            labels = [p for p in files if p.suffix in ('.xml', '.txt', '.json', '.yaml')]
            path = rng.choice(files if rng.random() < 0.2 else labels)
            out, err, start = root / 'out', io.StringIO(), time.process_time()
            with damaged(path, rng):
                try:
                    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
                        code = main([kind, str(root / kind), str(out), *GROUP])
                    assert code in (0, 1, 2) and err.getvalue().count('\n') <= 11, err.getvalue()
                    assert code == 0 or err.getvalue().count('\n') == 1, err.getvalue()
                    err.getvalue().encode()
                except Exception as error:
                    raise AssertionError(f'mutation {k} of seed {seed}, {path.name}: {error!r}') from error
            longest = max(longest, time.process_time() - start)
            named += bool(err.getvalue())
            shutil.rmtree(out, ignore_errors=True)
    return named, longest, peak_memory()


def test_damaged_sets_end_in_one_line_or_a_quarantine():
    check_mutations(convert_mutations, 0, 80)


@pytest.mark.long
@pytest.mark.parametrize('seed', range(1, 4))
def test_many_damaged_sets_end_in_one_line_or_a_quarantine(seed):
    check_mutations(convert_mutations, seed, 700)


# ------------------------------------------------------------------------------------------- memory


def test_threads_share_room_and_what_is_larger_waits_for_all_of_it():
    budget, held, most = MemoryBudget(10), [], []

    def work(size):
        budget.take(size)
        held.append(size)
        most.append(list(held))
        time.sleep(0.002)
        held.remove(size)
        budget.give(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [3, 4, 25, 5, 2, 2, 9, 1, 25, 6] * 4, timeout=60))
    assert len(most) == 40 and max(map(len, most)) > 1
    assert all(sum(sizes) <= 10 or sizes == [25] for sizes in most)


def measure_films(folder):
    """Peak memory in GiB of measuring the images of a folder."""
    found = measure({path.name: path for path in folder.iterdir()})
    assert all(size == (9000, 10_000, 1) for size in found.values()), found
    return peak_memory()


@pytest.mark.long
def test_many_films_at_once_take_no_more_memory_than_the_largest(tmp_path):
    film = cv2.imencode('.png', np.zeros((9000, 10_000), np.uint16))[1].tobytes()
    for k in range(8):
        (tmp_path / f'{k}.png').write_bytes(film)
    assert in_process(measure_films, tmp_path, seconds=600) < 1


# ------------------------------------------------------------------------------------------- shared


def test_splits_share_out_every_class():
    rng = random.Random(1)
    features = {
        f'part{k}': Counter(images=rng.randint(1, 6), critical=rng.randint(0, 3), minor=rng.randint(0, 9))
        for k in range(60)
    }
    splits = split_groups(features)
    assert splits == split_groups(features) and set(splits) == set(features)
    total = sum(features.values(), Counter())
    for split, share in dict(train=0.7, val=0.1, test=0.2).items():
        held = sum((features[g] for g, s in splits.items() if s == split), Counter())
        for feature in total:
            assert held[feature] / total[feature] == pytest.approx(share, abs=0.03)
    few = split_groups({g: features[g] for g in list(features)[:3]})
    assert sorted(few.values()) == ['test', 'train', 'val']
    with pytest.raises(ConvertError, match='at least 3 parts'):
        split_groups({'a': Counter(images=9), 'b': Counter(images=9)})


def test_clip_box():
    assert clip_box([-2, 3, 5, 40], 32, 24) == ([0, 3, 3, 21], True)
    assert clip_box([0, 0, 32, 24], 32, 24) == ([0, 0, 32, 24], False)
    assert clip_box([40, 3, 5, 4], 32, 24)[0][2] == 0


def test_an_account_that_does_not_balance_is_refused():
    counts = Counts('boxes', came=3)
    counts.went['train'] += 2
    with pytest.raises(RuntimeError, match='does not balance'):
        counts.check()
    counts.left['zero area'] += 1
    counts.check()
    assert str(counts) == 'boxes: 3 in = 2 train + 1 left out (zero area: 1)'
