"""GDXray welds: boxes to the pixel with their masks, folds of whole films, an archive without any of them."""

import json

import cv2
import numpy as np
import pytest
from helpers.conversion import refused, run

from projects.prepare import welds
from projects.radiograph.rle import decode_rle

# Films of 40 x 90 px; a flaw at (10, 5) of 6 x 4 px is written by its pixel edges, from 0.5 on.
ROWS = {
    1: [(10, 5, 6, 4), (60, 20, 8, 8), (30, 5, 5, 5)],
    2: [(0, 0, 3, 40)],
    3: [(80, 30, 10, 10)] * 2,
    4: [(2, 2, 3, 3)],
}


@pytest.fixture
def films(tmp_path):
    """A small set in the layout of GDXray's; film 4 has no mask."""
    root = tmp_path / 'GDXray' / 'Welding'
    rng = np.random.default_rng(0)
    rows = []
    for folder in ('W0001', 'W0002', 'W0003'):
        (root / folder).mkdir(parents=True)
    for k, boxes in ROWS.items():
        pixels = rng.integers(0, 255, (40, 90), np.uint8)
        mask = np.zeros((40, 90), np.uint8)
        for x, y, w, h in boxes:
            mask[y : y + h, x : x + w] = 255
            rows.append(f'{k} {x + 0.5} {x + w + 0.5} {y + 0.5} {y + h + 0.5}')
        cv2.imwrite(str(root / 'W0001' / f'W0001_{k:04d}.png'), pixels)
        if k == 1:
            cv2.imwrite(str(root / 'W0001' / 'W0001_0000.png'), pixels)
        if k != 4:
            cv2.imwrite(str(root / 'W0002' / f'W0002_{k:04d}.png'), mask)
    for number in (1, 6, 68, 11):  # 68 and 11 are where films 1 and 2 come from
        cv2.imwrite(str(root / 'W0003' / f'W0003_{number:04d}.png'), rng.integers(0, 255, (50, 70), np.uint8))
    (root / 'W0001' / 'ground_truth.txt').write_text('\n'.join(rows) + '\n')
    return root


def split_of(out, fold):
    """Films of each split, and all images with their annotations."""
    films, annotations = {}, {}
    for split in ('train', 'val', 'test'):
        coco = json.loads((out / str(fold) / f'{split}.json').read_text())
        films[split] = {image['region'] for image in coco['images']}
        assert not any('part' in image for image in coco['images'])  # nobody knows which weld a film shows
        for image in coco['images']:
            boxes = [a for a in coco['annotations'] if a['image_id'] == image['id']]
            annotations[image['file_name']] = image, boxes
    return films, annotations


def test_boxes_are_those_of_the_pixels_and_carry_their_masks(films, tmp_path, capsys):
    out = tmp_path / 'out'
    code, text, _ = run(capsys, 'gdxray-welds', films.parent, out, '--tile', 64)
    assert code == 0
    assert 'images: 5 in + 4 further tiles = 8 tiles + 1 left out (copy of an annotated film: 1)' in text
    assert 'box without a region of the mask: the box alone: 1' in text  # film 4 has no mask
    _, annotations = split_of(out, 0)
    assert len(annotations) == 8
    for image, boxes in annotations.values():
        pixels = cv2.imread(str(out / 'images' / image['file_name']), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (image['height'], image['width'])
        for box in boxes:
            if 'segmentation' in box and not box['iscrowd']:
                rows, columns = np.nonzero(decode_rle(box['segmentation']))
                x, y, w, h = box['bbox']
                assert [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1] == [x, y, w, h]
    _, boxes = annotations['W0001/W0001_0001.png_x00000_y00000.png']
    assert [10, 5, 6, 4] in [box['bbox'] for box in boxes]
    assert sum('segmentation' not in box for _, found in annotations.values() for box in found) == 1


@pytest.mark.parametrize('folds', [3, 4])
def test_folds_divide_no_film_and_test_each_once(films, tmp_path, capsys, folds):
    out = tmp_path / 'out'
    assert run(capsys, 'gdxray-welds', films, out, '--tile', 64, '--folds', folds)[0] == 0
    tested = []
    for fold in range(folds):
        films_of, annotations = split_of(out, fold)
        assert all(films_of.values())
        assert len(set.union(*films_of.values())) == sum(map(len, films_of.values())) == len(ROWS)
        assert len(annotations) == 8
        tested += sorted(films_of['test'])
    assert sorted(tested) == [f'W0001_{k:04d}' for k in ROWS]


def test_folds_of_an_earlier_conversion_are_not_left_beside_new_ones(films, tmp_path, capsys):
    out = tmp_path / 'out'
    for folds in (3, 4):
        assert run(capsys, 'gdxray-welds', films, out, '--tile', 64, '--folds', folds)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
    expected = f'{out / "3"}: is of a conversion with more than 3 folds; remove {out} first'
    refused(capsys, 2, expected, 'gdxray-welds', films, out, '--tile', 64, '--folds', 3)
    assert {path: path.read_bytes() for path in out.rglob('*') if path.is_file()} == before


def test_the_archive_holds_no_film_that_an_annotated_strip_was_cut_from(films, tmp_path, capsys):
    out = tmp_path / 'out'
    _, text, _ = run(capsys, 'gdxray-welds', films, out, '--tile', 64)
    # Films 6 and 11 are sources of strips 9 and 2, 68 of 1.
    assert 'further films: 4 in = 1 unlabeled.txt + 3 left out (an annotated film was cut from it: 3)' in text
    names = (out / 'unlabeled.txt').read_text().split()
    assert {name.split('.png')[0] for name in names} == {'W0003/W0003_0001'}
    assert all((out / 'images' / name).is_file() for name in names)


def test_groups_hold_about_as_many_boxes():
    counts = {f'W0001_{k:04d}': n for k, n in enumerate((193, 37, 21, 44, 88, 30, 61, 11, 97, 59), 1)}
    groups = welds.group_films(counts, 3)
    assert sorted(film for group in groups for film in group) == sorted(counts)
    assert [sum(counts[film] for film in group) for group in groups] == [223, 214, 204]


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ('1 1 2 3 4', 'expected pixel edges'),
        ('1 8.5 8.5 1.5 2.5', 'expected pixel edges'),
        ('1 8.5 9.5', 'line 1'),
        ('1 80.5 99.5 1.5 2.5', 'inside of W0001_0001.png'),
        ('7 1.5 2.5 1.5 2.5', 'film 7 as W0001_0007.png'),
        ('', 'ground_truth.txt: boxes of 0 films, expected 3 at least'),
        ('1 1.5 2.5 1.5 2.5', 'ground_truth.txt: boxes of 1 films, expected 3 at least'),
    ],
)
def test_damaged_rows_are_named(films, tmp_path, capsys, row, expected):
    (films / 'W0001' / 'ground_truth.txt').write_text(f'{row}\n')
    refused(capsys, 1, expected, 'gdxray-welds', films, tmp_path / 'out', '--tile', 64)


def test_a_fold_without_films_to_learn_from_is_refused_before_a_tile_is_written(films, tmp_path, capsys):
    rows = (films / 'W0001' / 'ground_truth.txt').read_text().splitlines()
    # Film 1 has half of all boxes, so that one fold tests the three others.
    (films / 'W0001' / 'ground_truth.txt').write_text('\n'.join([rows[0]] * 9 + rows[3:]))
    expected = '--folds 2: leaves no film for train; choose more folds'
    refused(capsys, 2, expected, 'gdxray-welds', films, tmp_path / 'out', '--tile', 64, '--folds', 2)
    assert not (tmp_path / 'out').exists()


def test_a_mask_of_another_size_is_named(films, tmp_path, capsys):
    cv2.imwrite(str(films / 'W0002' / 'W0002_0001.png'), np.zeros((9, 9), np.uint8))
    refused(capsys, 1, 'mask of 90 x 40 px', 'gdxray-welds', films, tmp_path / 'out', '--tile', 64)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--tile', 8], 'a tile of 32 px'),
        (['--folds', 1], '2 to 4'),
        (['--folds', 5], '2 to 4'),
        (['--overlap', -1], ''),
    ],
)
def test_wrong_arguments_are_refused(films, tmp_path, capsys, options, expected):
    refused(capsys, 2, expected, 'gdxray-welds', films, tmp_path / 'out', *options)
    refused(capsys, 2, 'expected the folder of GDXray welds', 'gdxray-welds', tmp_path, tmp_path / 'out')
    refused(capsys, 2, 'outside of the source', 'gdxray-welds', films, films / 'out')
