"""convert_dataset: boxes, splits and ledgers of every source format, and one line for bad input."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from projects.xray import gdxray
from projects.xray.converters import Account, clip_box
from tools.convert_dataset import main


def run(capsys, *argv):
    """Exit code, standard output and standard error of one call."""
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, code, match, *argv):
    got, out, err = run(capsys, *argv)
    assert got == code, err
    assert re.search(match, err), err
    assert err.count('\n') == 1 and 'Traceback' not in err
    return err


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
        id=1, file_name='C0001/C0001_0001.png', width=32, height=24, part='C0001', series='C0001'
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
    assert 'box clipped to its image: 1' in text
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


# ------------------------------------------------------------------------------------------- shared


def test_clip_box():
    assert clip_box([-2, 3, 5, 40], 32, 24) == ([0, 3, 3, 21], True)
    assert clip_box([0, 0, 32, 24], 32, 24) == ([0, 0, 32, 24], False)
    assert clip_box([40, 3, 5, 4], 32, 24)[0][2] == 0


def test_an_account_that_does_not_balance_is_refused():
    account = Account('boxes', came=3)
    account.went['train'] += 2
    with pytest.raises(RuntimeError, match='does not balance'):
        account.check()
    account.left['zero area'] += 1
    account.check()
    assert str(account) == 'boxes: 3 in = 2 train + 1 left out (zero area: 1)'
