"""Labels that are masks alone: boxes enclose them, and teach a detector what boxes alone would."""

import copy
import json

import cv2
import numpy as np
import pytest
import torch
from helpers.config_grammar import dataset, find, resolved
from helpers.conversion import run
from helpers.plates import draw_radiograph, outline_of
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings

from projects.radiograph.rle import decode_rle, encode_rle
from tools.export_labels import main as export_labels

SIDE = 96
CLASSES = dict(crack='critical', gas_pore='minor')


def flaws(rng):
    """A radiograph with flaws of every form, each with its type, its mask and the box around that."""
    pixels, boxes = draw_radiograph(rng, SIDE, 3)
    ring = np.zeros((SIDE, SIDE), bool)
    x, y, w, h = (round(v) for v in boxes[0])
    ring[y : y + h, x : x + w] = True
    ring[y + h // 3 : y + h // 2, x + w // 3 : x + w // 2] = False
    ring[2:5, 2:6] = True  # its second part, away from the first
    rows, columns = np.flatnonzero(ring.any(1)), np.flatnonzero(ring.any(0))
    corners = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    first = [int(v) for v in (*corners[:2], corners[2] - corners[0], corners[3] - corners[1])]
    polygons = [outline_of(box) for box in boxes[1:]]
    xs, ys = (np.array([v for polygon in polygons for v in polygon[k::2]]) for k in (0, 1))
    both = [float(v) for v in (xs.min(), ys.min(), np.ptp(xs), np.ptp(ys))]
    return pixels, [('crack', encode_rle(ring), first), ('gas_pore', polygons, both)]


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """Roots of one data set, converted from masks without boxes, and from the boxes without masks."""
    folder = tmp_path_factory.mktemp('labels')
    roots = {}
    for kind in ('masks', 'boxes'):
        rng = np.random.default_rng(0)
        src = folder / f'{kind}-src'
        (src / 'images').mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, 13):
            pixels, found = flaws(rng)
            name = f'P{number:02d}_a.png'
            cv2.imwrite(str(src / 'images' / name), (pixels * 255).astype(np.uint8))
            images.append(dict(id=number, file_name=name, width=SIDE, height=SIDE))
            for type_, mask, box in found:
                labelled = dict(segmentation=mask) if kind == 'masks' else dict(bbox=box)
                row = dict(
                    id=len(annotations) + 1, image_id=number, category_id=list(CLASSES).index(type_) + 1
                )
                annotations.append(row | labelled | dict(iscrowd=0))
        categories = [dict(id=k, name=name) for k, name in enumerate(CLASSES, 1)]
        content = dict(images=images, annotations=annotations, categories=categories)
        (src / 'instances.json').write_text(json.dumps(content))
        roots[kind] = (src, folder / kind)
    return roots


@pytest.fixture
def roots(converted, capsys):
    for src, out in converted.values():
        if not out.exists():
            code, _, err = run(capsys, 'coco', src, out, '--group', r'P\d+')
            assert (code, err) == (0, '')
    return {kind: out for kind, (_, out) in converted.items()}


def rows_of(root):
    return {split: json.loads((root / f'{split}.json').read_text()) for split in ('train', 'val', 'test')}


def test_boxes_enclose_masks_that_keep_holes_and_parts(roots):
    masks, boxes = rows_of(roots['masks']), rows_of(roots['boxes'])
    rng, wanted = np.random.default_rng(0), {}
    for number in range(1, 13):
        wanted[f'P{number:02d}_a.png'] = flaws(rng)[1]
    seen = 0
    for split, coco in masks.items():
        assert coco['images'] == boxes[split]['images']
        names = {image['id']: image['file_name'] for image in coco['images']}
        for row, other in zip(coco['annotations'], boxes[split]['annotations'], strict=True):
            assert row['bbox'] == pytest.approx(other['bbox'], abs=1e-9)
            assert 'segmentation' not in other
            (mask,) = [
                m for t, m, _ in wanted[names[row['image_id']]] if t == types(coco)[row['category_id']]
            ]
            if isinstance(mask, dict):
                pixels = decode_rle(row['segmentation'])
                np.testing.assert_array_equal(pixels, decode_rle(mask))
                assert row['area'] == pixels.sum() < row['bbox'][2] * row['bbox'][3]
            else:
                assert row['segmentation'] == mask and len(mask) == 2
            seen += 1
    assert seen == 24


def types(coco):
    return {category['id']: category['name'] for category in coco['categories']}


def losses(stem, root, steps=3):
    """Losses of a few steps of a small recipe on the training set of a root."""
    config = resolved(find(stem))
    import_modules_from_strings(**config.custom_imports)
    data = dataset(config.train_dataloader).to_dict() | dict(data_root=str(root), severity=CLASSES)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        rows = DATASETS.build(data)
        model = MODELS.build(copy.deepcopy(config.model))
    model.init_weights()
    model.train()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    found = []
    for step in range(steps):
        np.random.seed(step)
        torch.manual_seed(step)
        items = [rows[2 * step % len(rows)], rows[(2 * step + 1) % len(rows)]]
        batch = dict(
            inputs=[item['inputs'] for item in items], data_samples=[item['data_samples'] for item in items]
        )
        result = model.train_step(batch, optimizer)
        found.append({key: float(value) for key, value in result.items()})
    return found


def test_a_detector_learns_from_masks_what_it_learns_from_their_boxes(roots):
    stem = 'faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic'
    masks, boxes = (losses(stem, roots[kind]) for kind in ('masks', 'boxes'))
    assert masks == boxes
    assert all(np.isfinite(step['loss']) for step in masks)
    assert masks[0]['loss'] != masks[1]['loss']


def test_a_mask_detector_learns_from_masks_without_boxes(roots):
    found = losses('mask-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic', roots['masks'])
    assert all(0 < step['loss_mask'] < 5 for step in found)


def test_masks_go_back_to_the_tool_and_come_again(roots, tmp_path, capsys):
    """Holes and parts survive export and a second conversion."""
    assert export_labels([str(roots['masks']), str(tmp_path / 'labels.json')]) == 0
    back = json.loads((tmp_path / 'labels.json').read_text())
    before = [row for coco in rows_of(roots['masks']).values() for row in coco['annotations']]
    assert sorted(map(str, (r['segmentation'] for r in back['annotations']))) == sorted(
        map(str, (r['segmentation'] for r in before))
    )


def segments(folder):
    """One set of polygons, as YOLO's segments and as COCO: roots of both, converted."""
    rng = np.random.default_rng(3)
    coco = dict(images=[], annotations=[], categories=[dict(id=k, name=n) for k, n in enumerate(CLASSES, 1)])
    for kind in ('yolo', 'coco'):
        (folder / kind / 'images').mkdir(parents=True)
    (folder / 'yolo' / 'labels').mkdir()
    (folder / 'yolo' / 'data.yaml').write_text('names: {0: crack, 1: gas_pore}\n')
    for number in range(1, 13):
        pixels, boxes = draw_radiograph(rng, SIDE, 3)
        name, rows = f'P{number:02d}_a', []
        for kind in ('yolo', 'coco'):
            cv2.imwrite(str(folder / kind / 'images' / f'{name}.png'), (pixels * 255).astype(np.uint8))
        coco['images'].append(dict(id=number, file_name=f'{name}.png', width=SIDE, height=SIDE))
        for type_, box in enumerate(boxes):
            # A quarter of a px is kept by six digits of a share of the side.
            polygon = (np.round(4 * np.array(outline_of(box))) / 4).tolist()
            rows.append(' '.join([str(type_ % 2), *(f'{v / SIDE:.6f}' for v in polygon)]))
            row = dict(id=len(coco['annotations']) + 1, image_id=number, category_id=type_ % 2 + 1)
            coco['annotations'].append(row | dict(segmentation=[polygon], iscrowd=0))
        (folder / 'yolo' / 'labels' / f'{name}.txt').write_text('\n'.join(rows) + '\n')
    (folder / 'coco' / 'instances.json').write_text(json.dumps(coco))


def test_segments_of_yolo_are_the_masks_that_coco_gives(tmp_path, capsys):
    """Polygons, pixels and the losses of a mask detector that learns from them are the same."""
    segments(tmp_path)
    for kind in ('yolo', 'coco'):
        code, _, err = run(capsys, kind, tmp_path / kind, tmp_path / f'{kind}-out', '--group', r'P\d+')
        assert (code, err) == (0, '')
    yolo, coco = (rows_of(tmp_path / f'{kind}-out') for kind in ('yolo', 'coco'))
    for split in ('train', 'val', 'test'):
        for row, other in zip(yolo[split]['annotations'], coco[split]['annotations'], strict=True):
            assert row['segmentation'] == other['segmentation'] and len(row['segmentation'][0]) >= 6
            assert (row['bbox'], row['area']) == (other['bbox'], other['area'])
    stem = 'mask-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic'
    learnt = [losses(stem, tmp_path / f'{kind}-out', steps=2) for kind in ('yolo', 'coco')]
    assert learnt[0] == learnt[1] and 0 < learnt[0][0]['loss_mask'] < 5
