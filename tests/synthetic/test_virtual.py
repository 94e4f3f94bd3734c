"""Virtual flaws: test sets of known flaws in given radiographs, and their way into the POD."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from helpers.castings import casting
from pycocotools import mask as coco_mask

import projects.xray.compat  # noqa: F401 (first)
from projects.measures.flaws import measure_pod
from projects.measures.images import read_images
from projects.measures.matching import match_all
from projects.radiograph.read import read
from projects.xray.classes import CASTINGS
from projects.xray.datasets import load_defects
from tools import draw_flaws


@pytest.fixture
def archive(tmp_path):
    """Thirty sound castings of 8 bits in two folders, and one of 16 bits."""
    for number in range(30):
        path = tmp_path / 'sound' / f'p{number // 3}' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), casting(number, (160, 200)))
    cv2.imwrite(str(tmp_path / 'sound' / 'deep.png'), casting(99, (160, 200), 'uint16'))
    return tmp_path / 'sound'


def draw(archive, out, *flags):
    assert draw_flaws.main([str(archive), str(out), '--pitch', '0.3', *flags]) == 0
    return json.loads((out / 'test.json').read_text())


def test_flaws_are_known_and_everything_else_is_as_it_was(archive, tmp_path):
    coco = draw(archive, tmp_path / 'out')
    assert len(coco['images']) == 31
    assert [c['name'] for c in coco['categories']] == list(CASTINGS)
    by_image = {image['id']: [] for image in coco['images']}
    for annotation in coco['annotations']:
        by_image[annotation['image_id']].append(annotation)
    for image in coco['images']:
        before = read(archive / image['file_name']).pixels
        after = read(tmp_path / 'out' / 'images' / image['file_name']).pixels
        assert after.dtype == before.dtype
        covered = np.zeros(before.shape, bool)
        for annotation in by_image[image['id']]:
            mask = coco_mask.decode(annotation['segmentation']).astype(bool)
            assert mask.sum() == annotation['area']
            assert coco_mask.toBbox(annotation['segmentation']).tolist() == annotation['bbox']
            assert 0 < annotation['contrast'] <= 0.5
            assert 0 < annotation['cnr'] <= annotation['detectability'] * 1.001
            covered |= mask
        assert ((after == before) | covered).all()
    contrasts = [annotation['contrast'] for annotation in coco['annotations']]
    assert len(contrasts) > 60
    assert min(contrasts) < 0.02 < 0.2 < max(contrasts)
    assert len({annotation['flaw'] for annotation in coco['annotations']}) == len(contrasts)


def test_an_image_depends_on_its_name_and_the_seed_alone(archive, tmp_path):
    everything = draw(archive, tmp_path / 'all')
    (tmp_path / 'list').write_text('p4/12.png\np0/1.png\n')
    some = draw(archive, tmp_path / 'some', '--list', str(tmp_path / 'list'))
    other = draw(archive, tmp_path / 'other', '--list', str(tmp_path / 'list'), '--seed', '1')
    for name in ('p4/12.png', 'p0/1.png'):
        first, again, else_drawn = (
            (tmp_path / folder / 'images' / name).read_bytes() for folder in ('all', 'some', 'other')
        )
        assert first == again
        assert again != else_drawn
    boxes = {tuple(annotation['bbox']) for annotation in everything['annotations']}
    assert {tuple(annotation['bbox']) for annotation in some['annotations']} <= boxes
    assert other['info']['seed'] == 1


def test_the_pod_can_be_measured_against_size_and_contrast(archive, tmp_path):
    """An observer who sees from a certain detectability on gets his curve, by the project's own measures."""
    draw(archive, tmp_path / 'out', '--class', 'defect', '--group', r'p\d+|deep', '--number', '4', '6')
    coco = load_defects(tmp_path / 'out' / 'test.json', ['defect'])
    rng = np.random.default_rng(0)
    found = [
        a for a in coco['annotations'] if rng.random() < 1 / (1 + (15 / max(a['detectability'], 1e-3)) ** 3)
    ]
    detections = [dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=0.9) for a in found]
    matched = match_all(read_images(coco, detections))
    pod = measure_pod(matched, 0.5, 0, by_contrast=True)
    assert pod.fit.flaws == len(coco['annotations'])
    assert pod.fit.hits == len(found)
    assert all(slope > 0 for slope in pod.fit.coefficients[1:])
    assert pod.fit.parts == 10 + 1


@pytest.mark.parametrize(
    ('flags', 'complaint'),
    [
        (['--pitch', '0'], 'expected 0 < LOW <= HIGH'),
        (['--contrast', '0.5', '0.1'], 'expected 0 < LOW <= HIGH'),
        (['--pitch', 'inf'], '--pitch inf inf: expected 0 < LOW <= HIGH'),
        (['--contrast', '0.1', 'inf'], 'expected 0 < LOW <= HIGH'),
        (['--air', 'nan'], '--air nan: expected a gray level'),
        (['--class', ''], '--class: expected the name'),
        (['--types', 'scab'], '--types scab: expected some of crack'),
        (['--group', '('], '--group or --window'),
        (['--window', 'type=moon'], '--group or --window'),
        (['--number', '3', '1'], 'expected 0 <= LOW <= HIGH'),
        (['--number', '2', '100000'], 'expected 0 <= LOW <= HIGH <= 1000'),
    ],
)
def test_wrong_use_ends_with_a_line(archive, tmp_path, capsys, flags, complaint):
    with pytest.raises(SystemExit) as end:
        draw_flaws.main([str(archive), str(tmp_path / 'out'), *flags])
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_paths_that_cannot_be_are_named(archive, tmp_path, capsys):
    assert draw_flaws.main([str(tmp_path / 'none'), str(tmp_path / 'out')]) == 2
    assert draw_flaws.main([str(archive), str(archive / 'out')]) == 2
    assert draw_flaws.main([str(archive), str(archive)]) == 2
    (tmp_path / 'list').write_text('p9/none.png\n')
    assert draw_flaws.main([str(archive), str(tmp_path / 'a'), '--list', str(tmp_path / 'list')]) == 1
    assert draw_flaws.main([str(archive), str(tmp_path / 'b'), '--list', str(tmp_path / 'none')]) == 1
    (tmp_path / 'list').write_bytes(b'\xff\xfe')
    assert draw_flaws.main([str(archive), str(tmp_path / 'e'), '--list', str(tmp_path / 'list')]) == 1
    (tmp_path / 'list').write_text('\n')
    assert draw_flaws.main([str(archive), str(tmp_path / 'c'), '--list', str(tmp_path / 'list')]) == 2
    cv2.imwrite(str(archive / 'blank.png'), np.full((64, 64), 9, np.uint8))
    (tmp_path / 'list').write_text('blank.png\n')
    assert draw_flaws.main([str(archive), str(tmp_path / 'd'), '--list', str(tmp_path / 'list')]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8
    assert all(line.startswith('error: ') for line in lines)


@pytest.mark.parametrize(
    ('lines', 'flags', 'complaint'),
    [
        ('{archive}/deep.png', [], 'expected a file below SRC'),
        ('../sound/deep.png', [], 'expected a file below SRC'),
        ('p0/../deep.png', [], 'expected a file below SRC'),
        ('deep.png\ndeep.tif', [], 'deep.tif: is written to the same file as deep.png'),
        ('deep.png\np0/0.png\ndeep.png', [], 'deep.png: listed twice'),
        ('deep.png\np0/0.png', ['--group', r'p\d+'], 'deep.png: no match of the group'),
    ],
)
def test_no_name_leads_out_of_the_folder_or_to_another_file(
    archive, tmp_path, capsys, lines, flags, complaint
):
    cv2.imwrite(str(archive / 'deep.tif'), casting(98, (160, 200)))
    before = {path: path.read_bytes() for path in archive.rglob('*') if path.is_file()}
    (tmp_path / 'list').write_text(lines.format(archive=archive))
    out = tmp_path / 'out' / 'virtual'
    assert draw_flaws.main([str(archive), str(out), '--list', str(tmp_path / 'list'), *flags]) == 1
    assert complaint in capsys.readouterr().err
    assert {path: path.read_bytes() for path in archive.rglob('*') if path.is_file()} == before
    assert not out.parent.exists()


def test_a_damaged_file_leaves_nothing_that_blocks_the_next_call(archive, tmp_path, capsys):
    damaged = archive / 'p5' / '15.png'
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / 'out'
    before = sorted(tmp_path.iterdir())
    assert draw_flaws.main([str(archive), str(out), '--pitch', '0.3']) == 1
    assert '15.png' in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    damaged.write_bytes(whole)
    out.mkdir()  # an empty folder is as good as none
    assert len(draw(archive, out)['images']) == 31
    assert sorted(path.name for path in out.iterdir()) == ['images', 'test.json']


def test_a_pattern_without_groups_names_the_part_by_its_match(archive, tmp_path):
    coco = draw(archive, tmp_path / 'out', '--group', r'p\d+|deep')
    assert {image['part'] for image in coco['images']} == {*(f'p{k}' for k in range(10)), 'deep'}


def test_help_shows_an_example(repo):
    shown = subprocess.run(
        [sys.executable, 'tools/draw_flaws.py', '--help'],
        cwd=repo,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'python tools/draw_flaws.py data/industrial/sound data/virtual' in shown.stdout
