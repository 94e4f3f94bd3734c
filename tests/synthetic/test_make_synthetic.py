"""tools/make_synthetic.py: the folder it writes, that it repeats itself, and what it refuses."""

import hashlib
import json
import subprocess
import sys
from collections import defaultdict

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from projects.synthetic import generate
from projects.xray.classes import CASTINGS
from tools import make_synthetic

SMALL = ['--labeled', '20', '--unlabeled', '5', '--size', '160', '--bits', '12']


def digest(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def annotations_of(root):
    """The annotations of all splits, each with its part."""
    found = []
    for split in ('train', 'val', 'test'):
        coco = json.loads((root / f'{split}.json').read_text())
        part = {image['id']: image['part'] for image in coco['images']}
        found += [{**a, 'part': part[a['image_id']]} for a in coco['annotations']]
    return found


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('synthetic') / 'set'
    assert make_synthetic.main([str(out), *SMALL, '--workers', '1']) == 0
    return out


def test_layout(made):
    names = {path.name for path in made.iterdir()}
    assert names == {'images', 'unlabeled', 'synthetic.json', 'train.json', 'val.json', 'test.json'}
    assert len(list((made / 'unlabeled').glob('*.png'))) == 5
    listed, parts, sound = [], {}, 0
    for split in ('train', 'val', 'test'):
        content = json.loads((made / f'{split}.json').read_text())
        assert [c['name'] for c in content['categories']] == list(CASTINGS)
        assert [c['id'] for c in content['categories']] == list(range(1, 20))
        assert content['info']['bits'] == 12
        annotated = {a['image_id'] for a in content['annotations']}
        for image in content['images']:
            listed.append(image['file_name'])
            assert parts.setdefault(image['part'], split) == split
            sound += image['id'] not in annotated
            pixels = cv2.imread(str(made / 'images' / image['file_name']), cv2.IMREAD_UNCHANGED)
            assert pixels.dtype == np.uint16 and pixels.shape == (image['height'], image['width']) == (
                160,
                160,
            )
            assert 1024 < pixels.max() <= 4095
    assert sorted(listed) == sorted(path.name for path in (made / 'images').iterdir()) and len(listed) == 20
    assert sound >= 8


def test_masks_are_the_boxes_footprints(made, capsys):
    coco = COCO(made / 'train.json')
    assert coco.anns
    for annotation in coco.anns.values():
        rows, columns = np.nonzero(coco.annToMask(annotation))
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation['bbox'] == box
        assert annotation['area'] == len(rows)
        assert annotation['contrast'] > 0 and annotation['iscrowd'] == 0


def test_a_flaw_is_the_same_in_every_view(made):
    seen = defaultdict(list)
    for split in ('train', 'val', 'test'):
        content = json.loads((made / f'{split}.json').read_text())
        images = {image['id']: image for image in content['images']}
        for annotation in content['annotations']:
            image = images[annotation['image_id']]
            assert annotation['flaw'].split('/')[0] == image['part']
            seen[annotation['flaw']].append((image['view'], annotation['category_id']))
    assert any(len(found) > 1 for found in seen.values())
    for found in seen.values():
        assert len({view for view, _ in found}) == len(found) and len({kind for _, kind in found}) == 1


def test_same_bytes_whatever_the_workers(made, tmp_path):
    assert make_synthetic.main([str(tmp_path / 'two'), *SMALL, '--workers', '2']) == 0
    assert digest(tmp_path / 'two') == digest(made)


def test_interrupted_run_is_taken_up(made, tmp_path, monkeypatch, capsys):
    out, calls, draw = tmp_path / 'set', [], generate.plan.draw

    def stop_at_eighth(*args):
        calls.append(args)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(generate.plan, 'draw', stop_at_eighth)
    assert make_synthetic.main([str(out), *SMALL, '--workers', '1']) == 130
    assert not (out / 'train.json').exists()
    assert make_synthetic.main([str(out), *SMALL, '--workers', '1']) == 0
    assert len(calls) == 8 + 25 - 7  # the seven that were written are not drawn again
    assert digest(out) == digest(made)
    capsys.readouterr()
    assert make_synthetic.main([str(out), *SMALL]) == 0
    assert 'complete' in capsys.readouterr().out and len(calls) == 26


def test_eight_bits_and_another_seed(made, tmp_path):
    args = [str(tmp_path / 'set'), '--labeled', '2', '--unlabeled', '0', '--size', '160', '--workers', '1']
    assert make_synthetic.main([*args, '--bits', '8', '--seed', '1']) == 0
    pixels = cv2.imread(str(tmp_path / 'set' / 'images' / 'p00000_v0.png'), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint8
    same_view = cv2.imread(str(made / 'images' / 'p00000_v0.png'), cv2.IMREAD_UNCHANGED) // 16
    assert np.abs(pixels.astype(int) - same_view).mean() > 3


def test_deeper_and_more_defects(made, tmp_path):
    out = tmp_path / 'set'
    args = [str(out), *SMALL, '--depth', '3', '--extra', '4', '--workers', '1']
    assert make_synthetic.main(args) == 0
    plain, deep = annotations_of(made), annotations_of(out)
    assert len(deep) > 1.5 * len(plain)
    assert np.median([a['contrast'] for a in deep]) > 1.3 * np.median([a['contrast'] for a in plain])
    names = list(CASTINGS)
    for part in {a['part'] for a in deep}:  # a part is critical or minor, not both
        assert len({CASTINGS[names[a['category_id'] - 1]] for a in deep if a['part'] == part}) == 1


def test_refuses_another_generation_and_foreign_files(made, tmp_path, capsys):
    before = digest(made)
    assert make_synthetic.main([str(made), *SMALL, '--seed', '5']) == 2
    message = capsys.readouterr().err
    assert 'another generation' in message and 'seed' in message and message.count('\n') == 1
    assert digest(made) == before
    (tmp_path / 'notes.txt').write_text('mine')
    assert make_synthetic.main([str(tmp_path), *SMALL]) == 2
    assert make_synthetic.main([str(tmp_path / 'notes.txt'), *SMALL]) == 2
    (tmp_path / 'synthetic.json').write_text('{')
    assert make_synthetic.main([str(tmp_path), *SMALL]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith('make_synthetic: ') and 'another OUT' in line
    assert (tmp_path / 'notes.txt').read_text() == 'mine'


@pytest.mark.parametrize(
    'wrong',
    [
        ['--labeled', '-1'],
        ['--size', '10'],
        ['--bits', '10'],
        ['--workers', '0'],
        ['--depth', '0'],
        ['--extra', '-1'],
        ['--seed', 'x'],
        ['--seed', '-1'],
        ['--labeled', '0', '--unlabeled', '0'],
    ],
)
def test_wrong_values_end_with_status_2(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        make_synthetic.main([str(tmp_path / 'set'), *wrong])
    assert stop.value.code == 2
    assert 'Traceback' not in capsys.readouterr().err
    assert not (tmp_path / 'set').exists()


def test_help_has_an_example(repo):
    done = subprocess.run(
        [sys.executable, 'tools/make_synthetic.py', '--help'],
        cwd=repo,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert 'python tools/make_synthetic.py data/synthetic' in done.stdout
