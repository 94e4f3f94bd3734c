"""Faults planted one at a time, and what the check says of each."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from helpers.check_config import CONFIG
from helpers.conversion import labelme_file
from helpers.radiograph_files import dicom
from mmengine.config import Config

from projects.prepare import anchors, check_boxes, scan
from projects.prepare import page as dataset_page
from projects.prepare.examine import examine
from projects.prepare.image_sets import LABELLED, read_sets
from projects.prepare.table import format_report
from projects.radiograph.gray_levels import MIN_FRAMES
from projects.radiograph.pack import pack
from projects.radiograph.recipe import Recipe
from projects.runs.running import read_config
from tools import check_dataset, convert_dataset


@pytest.fixture
def data(tiny_coco, tmp_path):
    """A sound data set and its config file."""
    root = tiny_coco(n=4, empty=1, size=128)
    shade(root)
    config = tmp_path / 'tiny.py'
    config.write_text(CONFIG.format(root=root, px=128, classes=('crack', 'gas_pore')))
    return root, config


def shade(root):
    """Give every plate an uneven thickness of its own: plain plates look alike, and the check says so."""
    rng = np.random.default_rng(1)
    for path in sorted((root / 'images').iterdir()):
        image = pixels(path)
        top = np.iinfo(image.dtype).max
        field = cv2.resize(
            rng.normal(0, 0.06 * top, (5, 5)), image.shape[::-1], interpolation=cv2.INTER_CUBIC
        )
        cv2.imwrite(str(path), np.clip(image * 0.7 + 0.1 * top + field, 0, top).astype(image.dtype))


def found(config, **options):
    """Findings of a config as `level topic: text; images`, errors first."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options)
    _, findings, _ = examine(cfg, str(config), workers=2)
    return [f'{f.level} {f.topic}: {f.text}; {" ".join(f.images)}' for f in findings]


def edit(root, split, change):
    """Change the annotation file of a split in place."""
    path = root / f'{split}.json'
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


def pixels(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def first_box(**values):
    return lambda root: edit(root, 'train', lambda coco: coco['annotations'][0].update(values))


def truncate(root):
    path = root / 'images/train_000.png'
    path.write_bytes(path.read_bytes()[:2000])


def rename_as_tiff(root):
    (root / 'images/train_000.png').rename(root / 'images/train_000.tif')
    edit(root, 'train', lambda coco: coco['images'][0].update(file_name='train_000.tif'))


def archive(root):
    """DICOM as archives name it, and one that calls itself PNG."""
    for old, new in {
        'train_000.png': '1.2.840.5',
        'train_001.png': 'IM01',
        'val_000.png': 'val_000.png',
    }.items():
        image = pixels(root / 'images' / old)
        (root / 'images' / old).unlink()
        (root / 'images' / new).write_bytes(dicom(image))
    for k, new in enumerate(('1.2.840.5', 'IM01')):
        edit(root, 'train', lambda coco, k=k, new=new: coco['images'][k].update(file_name=new))


def deepen(root):
    path = root / 'images/train_000.png'
    cv2.imwrite(str(path), pixels(path).astype(np.uint16) * 257)


def flatten(name):
    return lambda root: cv2.imwrite(str(root / 'images' / name), np.full((128, 128), 77, np.uint8))


def saturate(root):
    path = root / 'images/train_000.png'
    image = pixels(path)
    image[:70] = 255
    cv2.imwrite(str(path), image)


def binarise(root):
    for k in (0, 1):
        path = root / f'images/train_00{k}.png'
        cv2.imwrite(str(path), np.where(pixels(path) > np.median(pixels(path)), 255, 0).astype(np.uint8))


def saturate_the_detector(root):
    """12 of 16 bits, more than half of the pixels at 4095: gray under the full window, not white."""
    for path in sorted((root / 'images').iterdir()):
        cv2.imwrite(str(path), pixels(path).astype(np.uint16) * 16)
    path = root / 'images/train_000.png'
    image = pixels(path)
    image[:70] = 4095
    cv2.imwrite(str(path), image)


def name(text):
    return lambda root: edit(root, 'train', lambda coco: coco['images'][0].update(file_name=text))


def enlarge(root):
    path = root / 'images/train_000.png'
    cv2.imwrite(str(path), cv2.resize(pixels(path), (384, 384)))
    edit(root, 'train', lambda coco: coco['images'][0].update(width=384, height=384))


def draw_twice(root):
    edit(
        root,
        'train',
        lambda coco: coco['annotations'].append({**coco['annotations'][0], 'id': 999}),
    )


def list_twice(root):
    train = json.loads((root / 'train.json').read_text())['images'][0]
    edit(root, 'test', lambda coco: coco['images'].append({**train, 'id': 99, 'part': 'x'}))


def add_to_test(root, name, content):
    (root / 'images' / name).write_bytes(content)
    edit(
        root,
        'test',
        lambda coco: coco['images'].append(dict(id=99, file_name=name, width=128, height=128, part='x')),
    )


def copy_bytes(root):
    add_to_test(root, 'other.png', (root / 'images/train_000.png').read_bytes())


def copy_pixels(root):
    image = pixels(root / 'images/train_000.png')
    add_to_test(root, 'other.png', cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes())


def expose_again(root):
    image = pixels(root / 'images/train_001.png').astype(float)
    image = 0.9 * image + 12 + np.random.default_rng(0).normal(0, 2, image.shape)
    add_to_test(root, 'other.png', cv2.imencode('.png', image.round().astype(np.uint8))[1].tobytes())


def copy_of_val(root):
    """Save a val radiograph again with losses, for test."""
    image = pixels(root / 'images/val_001.png')
    add_to_test(root, 'other.jpg', cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


def copy_within(root):
    shutil.copy(root / 'images/train_000.png', root / 'images/train_001.png')


def share_part(root):
    edit(root, 'test', lambda coco: coco['images'][0].update(part='train0'))


def correct_a_view_of_a_test_part(root):
    """Add a correction of the inspection page to train: another view of a part of test, under another id."""
    cv2.imwrite(str(root / 'images/test0_view7-0123456789ab.png'), pixels(root / 'images/train_003.png').T)
    for split in ('train', 'test'):
        edit(root, split, lambda coco: coco.update(info=dict(group='(test[0-9])_')))
    record = dict(
        id=99, file_name='test0_view7-0123456789ab.png', width=128, height=128, part='as the page said'
    )
    edit(root, 'train', lambda coco: coco['images'].append(record))


def forget_parts(root):
    edit(root, 'test', lambda coco: [record.pop('part') for record in coco['images']])


def copy_unlisted(root):
    shutil.copy(root / 'images/test_002.png', root / 'images/spare.png')


@pytest.mark.parametrize(
    ('plant', 'expected'),
    [
        (truncate, 'error files: 1 image cannot be read; .*train_000.png'),
        (lambda root: (root / 'images/val_002.png').unlink(), 'error files: 1 image cannot be .*val_002.png'),
        (lambda root: (root / 'images/val_002.png').write_bytes(b''), 'error files: 1 image cannot be read'),
        (rename_as_tiff, 'warning files: 1 image with the suffix of another format; .*train_000.tif'),
        (archive, 'warning files: 1 image with the suffix of another format; .*val_000.png'),
        (deepen, r'warning files: 1 image of another bit depth than most: 11 of 8 bit .* 1 of 16 bit'),
        (
            flatten('train_000.png'),
            'error files: 1 image constant: .* boxes are drawn on it; .*train_000.png',
        ),
        (flatten('train_003.png'), 'warning files: 1 image constant: every pixel has one value; .*train_003'),
        (flatten('val_003.png'), 'error files: 1 image constant: .* the runtime refuses such .*val_003.png'),
        (
            flatten('test_003.png'),
            'error files: 1 image constant: .* the runtime refuses such .*test_003.png',
        ),
        (saturate, 'warning files: 1 image saturated: .*train_000.png'),
        (saturate_the_detector, 'warning files: 1 image saturated: .* value of the file; .*train_000.png'),
        (binarise, 'warning files: 2 images binary: every pixel has one of two values'),
        (name('a\0b.png'), r'error boxes: .*a\\x00b.png .*UTF-8'),
        (name('\ud800.png'), r'error boxes: .*\\ud800.png .*UTF-8'),
        (enlarge, 'warning files: 1 image over four times smaller or larger'),
        (
            lambda root: edit(root, 'val', lambda coco: coco['images'][1].update(width=127)),
            'error files: 1 image of another size than the annotation file says; .*val_001.png',
        ),
        (
            first_box(bbox=[100, 100, 30, 29]),
            r'warning boxes: 1 box out of range by up to 2 px, which loading clips \(1 in train\); .*n_000',
        ),
        (first_box(bbox=[10, 10, 0, 9]), 'error boxes: 1 box without area'),
        (first_box(bbox=[10, 'a', None, 9]), 'error boxes: 1 box without area or not of four numbers'),
        (first_box(bbox=[10**400, 1, 2, 3]), 'error boxes: 1 box without area or not of four numbers'),
        (first_box(bbox=[300, 10, 9, 9]), 'error boxes: 1 box wholly outside'),
        (
            first_box(clipped_from=[-3, 10, 20, 20]),
            'warning boxes: 1 box drawn out of range by up to 3 px, which the converter clipped',
        ),
        (draw_twice, 'warning boxes: 1 box drawn twice'),
        (first_box(category_id=7), 'error boxes: .*category_id 7'),
        (first_box(id=2), 'note boxes: train: repaired while loading: annotation ids renumbered: 1'),
        (
            lambda root: edit(root, 'val', lambda coco: coco['images'][1].update(id=1)),
            'error boxes: .*val.json: image id 1 or file name val_001.png occurs twice',
        ),
        (first_box(image_id=[]), 'error boxes: .*which is not in `images`'),
        (
            lambda root: edit(root, 'val', lambda coco: coco['categories'][0].update(name='krack')),
            "error boxes: .*val.json has the types .*'krack'",
        ),
        (
            lambda root: edit(
                root, 'test', lambda coco: [a.update(category_id=1) for a in coco['annotations']]
            ),
            'warning classes: test: no box of gas_pore',
        ),
        (
            lambda root: edit(root, 'train', lambda coco: coco['images'][0].update(file_name='../../etc/x')),
            'error boxes: .*etc/x',
        ),
        (list_twice, 'error leaks: 1 image listed in both train and test; .*train_000.png'),
        (copy_bytes, 'error leaks: 1 image of test byte-equal to one of train: .*other.png'),
        (copy_pixels, 'error leaks: 1 image of test pixel-equal to one of train: .*other.png'),
        (expose_again, 'warning leaks: 1 of 5 images of test look like one of train'),
        (copy_of_val, 'warning leaks: 1 of 5 images of test look like one of val'),
        (copy_within, 'warning leaks: 1 pixel copy within train'),
        (
            share_part,
            r'warning leaks: 1 of 4 images of test share a part or series with train: 1 part \(train0\)',
        ),
        (
            correct_a_view_of_a_test_part,
            r'warning leaks: 2 of 4 images of test share a part or series with train: 1 part \(test0\)',
        ),
        (forget_parts, 'warning parts: .* 4 of 4 images of test'),
        (copy_unlisted, 'warning leaks: 1 pixel copy of listed images among the unlisted ones'),
        (lambda root: (root / 'val.json').write_text('{"images": ['), 'error files: val is left out: .*JSON'),
    ],
)
def test_a_planted_fault_is_found_and_nothing_else_of_its_kind(data, plant, expected):
    root, config = data
    plant(root)
    lines = found(config)
    assert any(re.match(expected, line) for line in lines), lines
    same = [line for line in lines if line.split(':')[0] == expected.split(':')[0].split('.')[0]]
    assert len(same) <= 2, same


@pytest.mark.parametrize(
    ('plant', 'resembling'),
    [
        (lambda root: None, (0, 0)),
        (list_twice, (1, 0)),
        (copy_pixels, (1, 0)),
        (expose_again, (1, 0)),
        (copy_of_val, (0, 1)),
    ],
)
def test_what_resembles_is_on_record_with_the_files_that_were_read(data, plant, resembling):
    """A report that proves something on these files says whether anybody looked."""
    root, config = data
    plant(root)
    report, *_ = examine(Config.fromfile(config), str(config), workers=1)
    assert (report['resembling']['train, test'], report['resembling']['val, test']) == resembling
    read = {row['name']: row['sha256'] for row in report['sets'] if 'sha256' in row}
    assert read == {
        split: hashlib.sha256((root / f'{split}.json').read_bytes()).hexdigest() for split in LABELLED
    }
    assert report['date'].startswith('20')


def test_a_crop_of_a_test_image_in_train_is_on_record(data):
    root, config = data
    large = np.kron(pixels(root / 'images/test_001.png'), np.ones((3, 3), np.uint8))
    noise = np.random.default_rng(0).normal(0, 8, large.shape)
    large = (large + noise).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(root / 'images/test_001.png'), large)
    cv2.imwrite(str(root / 'images/train_003.png'), large[100:228, 90:218])
    edit(root, 'test', lambda coco: coco['images'][1].update(width=384, height=384))
    report, *_ = examine(Config.fromfile(config), str(config), workers=1)
    assert report['resembling']['train, test'] == 1


def test_crowd_is_counted(data):
    root, config = data
    first_box(iscrowd=1)(root)
    assert any(
        re.match(r'note boxes: train: 1 of \d+ boxes are crowd .*train_000.png', f) for f in found(config)
    )
    edit(root, 'val', lambda coco: [a.update(iscrowd=1) for a in coco['annotations']])
    assert any(re.match(r'error boxes: .*val.json: \d+ crowd boxes, which', line) for line in found(config))


def test_a_sound_set_has_no_error_and_no_warning(data):
    _, config = data
    assert [line for line in found(config) if not line.startswith('note')] == []


def test_warnings_alone_do_not_fail_the_check(data, tmp_path, capsys):
    root, config = data
    draw_twice(root)
    assert check_dataset.main([str(config), '--out', str(tmp_path / 'out'), '--workers', '1']) == 0
    assert '0 errors, 1 warning' in capsys.readouterr().out


def test_a_root_behind_a_url_is_checked_alike(data, url):
    root, config = data
    copy_bytes(root)
    draw_twice(root)
    local = found(config)
    served = {f'{s}_dataloader.dataset.data_root': f'{url}/{root.name}' for s in LABELLED}
    remote = [line.replace(f'{url}/{root.name}', str(root)) for line in found(config, **served)]
    assert remote == local and any('byte-equal' in line for line in local)


def test_settings_of_the_config(data):
    _, config = data
    window = {'val_dataloader.dataset.pipeline.0.window': dict(type='percentile', low=1, high=99)}
    assert any('error window: val is loaded with' in line for line in found(config, **window))
    heads = {'model.roi_head.bbox_head.num_classes': 80}
    expected = 'error classes: model.roi_head.bbox_head.num_classes is 80, metainfo.classes has 2; '
    assert expected in found(config, **heads)
    classes = {'test_dataloader.dataset.metainfo.classes': ('gas_pore', 'crack')}
    assert any(re.match('error classes: test has the classes', line) for line in found(config, **classes))


def test_dark_16_bit_images_get_a_window(data, tiny_coco):
    root, config = data
    shutil.rmtree(root)
    tiny_coco(n=4, empty=1, bits=12, size=128)  # in 16-bit files
    cfg = Config.fromfile(config)
    report, findings, _ = examine(cfg, str(config), workers=1)
    wasted = [f for f in findings if f.topic == 'window']
    assert len(wasted) == 1 and 'of 256 gray levels' in wasted[0].text
    low, high = report['suggested']['window']['low'], report['suggested']['window']['high']
    values = np.concatenate([pixels(p).ravel() for p in (root / 'images').glob('train*')])
    np.testing.assert_allclose([low, high], np.percentile(values, [0.5, 99.5]), atol=60)
    assert str(report['suggested']['window']) in wasted[0].remedy
    # With it, the gray scale is used and the measured mean is that of the windowed images.
    options = {f'{s}_dataloader.dataset.pipeline.0.window': report['suggested']['window'] for s in LABELLED}
    assert not any(line.startswith('warning window') for line in found(config, **options))


def test_what_resembles_what_does_not_hang_on_the_window(data):
    root, config = data
    expose_again(root)
    for path in (root / 'images').iterdir():
        # 10 of 16 bits: four gray levels are left of them under the full window.
        noise = np.random.default_rng(len(path.name)).integers(0, 2, (128, 128))
        cv2.imwrite(str(path), (pixels(path).astype(np.uint16) * 4 + noise).astype(np.uint16))

    def leaks(window):
        options = {f'{s}_dataloader.dataset.pipeline.0.window': window for s in LABELLED}
        return [line for line in found(config, **options) if ' leaks: ' in line]

    full = leaks(dict(type='full'))
    assert (
        full == leaks(dict(type='absolute', low=0, high=1023)) == leaks(dict(type='absolute', low=0, high=9))
    )
    assert len(full) == 1 and 'look like' in full[0]


@pytest.mark.parametrize('shape', [(3000, 2), (2, 3000), (1, 1), (700, 1)])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int8', 'int32', 'float32', 'float64'])
def test_an_image_of_any_shape_and_type_is_measured(shape, dtype, tmp_path):
    image = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    tifffile.imwrite(tmp_path / 'a.tif', image)
    window = dict(type='percentile', low=0, high=100)
    one = scan.scan_image(str(tmp_path / 'a.tif'), window, 9)
    assert not one.error and (one.height, one.width) == shape
    assert one.histogram.sum() == image.size and one.small.shape == (32, 32)
    thumbnail = cv2.imdecode(np.frombuffer(one.thumbnail, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert 1 <= max(thumbnail.shape) <= 256
    assert one.at_high == np.mean(image == image.max()) and one.at_low == np.mean(image == image.min())


def test_thousands_of_boxes_of_one_image_are_compared_in_little_memory():
    rng = np.random.default_rng(0)
    boxes = np.hstack([rng.uniform(0, 9000, (9000, 2)), rng.uniform(5, 50, (9000, 2))])
    boxes[[700, 5000, 8999]] = boxes[[3, 699, 0]] + 0.01
    image = np.zeros(9000, int)
    tracemalloc.start()
    twice = check_boxes._duplicates(image, boxes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.flatnonzero(twice).tolist() == [700, 5000, 8999]
    assert peak < 300e6
    assert not check_boxes._duplicates(np.arange(9000), boxes).any()  # each in an image of its own


def test_a_packed_store_is_windowed_already(repo, tiny_coco, monkeypatch, tmp_path):
    root = tiny_coco(n=2, bits=12, types=('crack', 'gas_pore'), unlabeled=12, size=128, name='data/synthetic')
    pack(root / 'unlabeled', root / 'packed', Recipe(0, 8, dict(type='full')))
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(sorted((repo / 'configs/small').glob('simsiam_*_synthetic-*.py'))[0])
    cfg.train_dataloader.dataset.data_prefix.img_path = 'packed'
    report, findings, evidence = examine(cfg, cfg.filename, workers=1)
    # 12 of the 16 bits: too dark, but no window can mend what has been packed; nor is its depth a fault.
    (wasted,) = (f for f in findings if f.topic == 'window')
    assert 'of 256 gray levels' in wasted.text and wasted.remedy.startswith('pack the images again')
    assert report['suggested']['window'] is None and report['suggested']['mean'] < 30
    assert not any('bit depth' in f.text for f in findings)
    assert 'pixels:' not in format_report(report, findings)
    assert '<html' in dataset_page.render(report, findings, **evidence)


def test_mean_and_std_are_those_of_the_pixels(data):
    root, config = data
    report, _, _ = examine(Config.fromfile(config), str(config), workers=1)
    values = np.concatenate([pixels(p).ravel() for p in (root / 'images').glob('val*')]).astype(float)
    row = next(row for row in report['sets'] if row['name'] == 'val')
    assert row['mean'] == pytest.approx(values.mean(), abs=0.01)
    assert row['std'] == pytest.approx(values.std(), abs=0.01)


def test_one_series_that_dominates(data):
    root, config = data

    def crowd(coco):
        for k in range(12):
            box = dict(image_id=1, category_id=1, bbox=[5 * k, 90, 4, 9], area=36, iscrowd=0)
            coco['annotations'].append(dict(id=100 + k, **box))

    edit(root, 'train', crowd)
    lines = found(config)
    assert any(re.match(r'warning boxes: part train0 has \d+% of all boxes', line) for line in lines) is False
    # Parts of two frames hold a sixth of the images: with a series of its own, the frame holds a twelfth.
    for split in LABELLED:
        edit(root, split, lambda coco: [r.update(series=f'{r["part"]}{r["id"]}') for r in coco['images']])
    assert any('warning boxes: series train01 has 54%' in line for line in found(config))


def test_a_crop_of_another_contrast_is_found(tiny_coco, tmp_path):
    root = tiny_coco(n=3, size=400)
    config = tmp_path / 'large.py'
    config.write_text(CONFIG.format(root=root, px=400, classes=('crack', 'gas_pore')))
    image = pixels(root / 'images/train_001.png')[131:301, 87:267]
    # A part of another train image, pasted at its own place, is no crop.
    cv2.imwrite(str(root / 'images/crop.png'), (0.6 * image + 40).round().astype(np.uint8))
    record = dict(id=99, file_name='crop.png', width=180, height=170, part='x')
    edit(root, 'test', lambda coco: coco['images'].append(record))
    lines = [line for line in found(config) if 'crops of larger ones' in line]
    assert len(lines) == 1
    assert re.match(r'warning leaks: 1 of 1 smaller .* across train and test; .*crop.png', lines[0])


def test_boxes_at_the_input_of_a_resize_by_a_factor(data):
    """As detectors that learn from crops are tested."""
    _, config = data
    cfg = Config.fromfile(config)
    for split in ('train', 'val'):
        for step in cfg[f'{split}_dataloader'].dataset.pipeline:
            if step.type == 'Resize':
                step.update(scale=None, scale_factor=0.25, keep_ratio=False)
    report, findings, _ = examine(cfg, str(config), workers=1)
    for row in report['sets'][:2]:
        assert row['box_px_input'] == pytest.approx([v / 4 for v in row['box_px_native']], abs=0.1)
    (finding,) = (f for f in findings if f.topic == 'boxes' and 'under 8 px' in f.text)
    assert '0.25 of its size' in finding.text and 'scale_factor=' in finding.remedy


def test_small_boxes_and_ill_fitting_anchors_get_a_setting(data):
    root, config = data
    assert any(
        re.match('warning boxes: train: .* under 8 px', line)
        for line in found(
            config.parent / 'tiny.py', **{'train_dataloader.dataset.pipeline.2.scale': (32, 32)}
        )
    )
    options = {'model.rpn_head.anchor_generator.scales': [16]}
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options)
    report, findings, _ = examine(cfg, str(config), workers=1)
    finding = next(f for f in findings if f.topic == 'anchors')
    better = report['anchors']['better_scales']
    assert f'scales={better}' in finding.remedy
    cfg.model.rpn_head.anchor_generator.scales = better
    again = examine(cfg, str(config), workers=1)[0]['anchors']
    assert again['share_70'] == report['anchors']['better_70'] > report['anchors']['share_70'] + 0.1


def test_best_anchor_is_that_of_all_anchors_of_the_grid():
    import torch
    from mmdet.models.task_modules import AnchorGenerator
    from mmdet.structures.bbox import bbox_overlaps

    rng = np.random.default_rng(0)
    size = np.array([160.0, 128.0])
    corner = rng.uniform(0, 100, (200, 2))
    scaled = np.hstack([corner, rng.uniform(3, size - corner, (200, 2))])
    generator = AnchorGenerator(scales=[4, 6], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])
    grid = [(int(np.ceil(128 / s)), int(np.ceil(160 / s))) for s in (4, 8, 16, 32, 64)]
    every = torch.cat(generator.grid_priors(grid, device='cpu'))
    corners = torch.from_numpy(np.hstack([scaled[:, :2], scaled[:, :2] + scaled[:, 2:]])).float()
    expected = bbox_overlaps(corners, every).max(1).values.numpy()
    boxes = anchors.Boxes(scaled, scaled, np.tile(size, (200, 1)))
    base = [level.numpy() for level in generator.base_anchors]
    np.testing.assert_allclose(anchors.best_anchor_iou(boxes, base, generator.strides), expected, atol=1e-5)


def test_a_file_that_kills_its_decoder_costs_only_itself(data, monkeypatch):
    root, _ = data
    probe = scan.scan_image
    monkeypatch.setattr(
        scan, 'scan_image', lambda path, *rest: os._exit(1) if '_001' in path else probe(path, *rest)
    )
    paths = sorted(str(path) for path in (root / 'images').iterdir())
    done = []
    probes = scan.Scans(dict.fromkeys(paths, dict(type='full')), 2, done.append)
    assert sum(done) == len(paths)  # the progress bar ends full
    dead = [path for path in paths if probes[path].error]
    assert [Path(path).name for path in dead] == ['test_001.png', 'train_001.png', 'val_001.png']
    assert all('decoder died' in probes[path].error for path in dead)


def test_a_detector_is_compared_with_the_images_its_weights_have_seen(repo, tiny_coco, monkeypatch, tmp_path):
    root = tiny_coco(n=4, types=('crack', 'gas_pore'), unlabeled=12, name='data/synthetic')
    shutil.copy(root / 'images/test_001.png', root / 'unlabeled/00/000.png')
    monkeypatch.chdir(tmp_path)
    names = sorted(p.name for p in (repo / 'configs/small').glob('faster-rcnn_*-simsiam-pre_*_synthetic.py'))
    config = repo / 'configs/small' / names[0]
    lines = found(config)
    expected = 'error leaks: 1 image of test byte-equal to one of pretraining: '
    assert any(line.startswith(expected) and 'test_001.png' in line for line in lines), lines
    # The same from the other end, and without labels.
    pretraining = sorted((repo / 'configs/small').glob('simsiam_*_synthetic-*.py'))[0]
    assert any(line.startswith(expected) for line in found(pretraining))
    # Train and val are listed too, if not by this config.
    assert not any('that no list names' in line for line in found(pretraining))
    # Its labels may be none of this config's business, but its images are.
    edit(root, 'test', lambda coco: coco['categories'][0].update(name='krack'))
    lines = found(pretraining)
    assert any(line.startswith(expected) for line in lines)
    assert [line for line in lines if 'krack' in line][0].startswith('note boxes')
    shutil.rmtree(root / 'images')
    for split in LABELLED:
        (root / f'{split}.json').unlink()
    lines = found(pretraining)
    assert not any(line.startswith('error') for line in lines), lines
    assert any(line.startswith('note files: test is left out: data/synthetic/test.json') for line in lines)


def test_the_window_of_the_command_line_counts_for_related_configs(repo, tiny_coco, monkeypatch, tmp_path):
    tiny_coco(n=4, types=('crack', 'gas_pore'), unlabeled=12, name='data/synthetic')
    monkeypatch.chdir(tmp_path)
    path = sorted((repo / 'configs/small').glob('faster-rcnn_*-simsiam-pre_*_synthetic.py'))[0]
    window = ['xray_load.window.type=percentile', 'xray_load.window.low=1', 'xray_load.window.high=99']
    sets, _ = read_sets(read_config(str(path), window), str(path), window)
    assert {s.side for s in sets} >= {'train', 'test', 'pretraining'}
    assert all(s.window == dict(type='percentile', low=1, high=99) for s in sets)


@pytest.mark.parametrize('mixed', [True, False], ids=['beside labels', 'alone'])
def test_an_archive_with_drawn_flaws_is_checked_as_one_without_labels(tiny_coco, mixed):
    root = str(tiny_coco(n=4, types=('crack', 'gas_pore'), unlabeled=6))
    loaded = [dict(type='LoadXray')]
    labelled = dict(
        type='XrayDefects',
        data_root=root,
        data_prefix=dict(img='images'),
        severity='castings',
        pipeline=loaded,
    )
    archive = dict(
        type='XrayBackgrounds',
        data_root=root,
        data_prefix='unlabeled',
        metainfo=dict(classes=('critical', 'minor')),
        severity='castings',
        pipeline=loaded,
    )
    both = dict(type='XrayMixedDefects', datasets=[dict(labelled, ann_file='train.json'), archive])
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(type='FasterRCNN'),
            train_dataloader=dict(dataset=both if mixed else archive),
            test_dataloader=dict(dataset=dict(labelled, ann_file='test.json')),
        )
    )
    sets, findings = read_sets(cfg, 'mixed.py')
    sides = {s.side: len(s.names) for s in sets}
    assert (sides['pretraining'], sides['test'], sides.get('train')) == (6, 4, 4 if mixed else None)
    assert not [finding for finding in findings if finding.level != 'note']


def test_parts_of_test_are_found_among_unlabelled_names(tmp_path, repo, monkeypatch):
    """A pretraining list made apart from the converter, whose --group knows the parts of its names."""
    source = tmp_path / 'source'
    source.mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        for view in 'ab':
            plate = cv2.resize(rng.normal(128, 40, (6, 6)).clip(0, 255), (96, 96))
            cv2.imwrite(str(source / f'P{k:02d}_{view}.png'), plate.astype(np.uint8))
            labelme_file(source, f'P{k:02d}_{view}.json', f'P{k:02d}_{view}.png', ('crack', 'gas pore'))
    monkeypatch.chdir(tmp_path)
    argv = ['labelme', 'source', 'data/synthetic', '--group', '(P[0-9]+)_']
    assert convert_dataset.main(argv) == 0
    test = json.loads((tmp_path / 'data/synthetic/test.json').read_text())['images']
    (tmp_path / 'data/synthetic/unlabeled').mkdir()
    for image in test:
        plate = cv2.resize(rng.normal(128, 40, (6, 6)).clip(0, 255), (96, 96)).astype(np.uint8)
        third = image['file_name'].replace('_a', '_c').replace('_b', '_d')
        cv2.imwrite(str(tmp_path / 'data/synthetic/unlabeled' / third), plate)
    path = sorted((repo / 'configs/small').glob('simsiam_*_synthetic-*.py'))[0]
    lines = found(path)
    parts = len({image['part'] for image in test})
    expected = (
        f'warning leaks: {len(test)} of {len(test)} images of test share a part or series with pretraining'
    )
    assert any(line.startswith(f'{expected}: {parts} parts') for line in lines), lines


# Series as in GDXray: frames, and whether they are annotated. C0055 has a grid of drilled holes, C0002 is cut
# out of C0001 at another contrast, C0066 copies C0065.
SERIES = dict(
    C0001=(12, True),
    C0002=(3, True),
    C0007=(8, True),
    C0011=(8, True),
    C0055=(3, True),
    C0065=(6, True),
    C0066=(6, False),
)


@pytest.fixture
def castings(repo, tmp_path, monkeypatch):
    """Generated castings with GDXray's structure and defects, converted as `data/gdxray`."""
    rng = np.random.default_rng(0)
    source = tmp_path / 'Castings'
    plates = {}
    for series, (count, annotated) in SERIES.items():
        (source / series).mkdir(parents=True)
        field = cv2.resize(rng.normal(0, 30, (5, 7)), (300, 240), interpolation=cv2.INTER_CUBIC)
        rows = []
        for k in range(1, count + 1):
            name = f'{series}/{series}_{k:04d}.png'
            # Frames of one sequence: the part moves by some px from one to the next.
            image = 120 + field[k : k + 160, 3 * k : 3 * k + 208] + rng.normal(0, 1, (160, 208))
            image = image.clip(0, 255).round().astype(np.uint8)
            if series == 'C0002':
                image = (
                    (plates[f'C0001/C0001_{k + 1:04d}.png'][16:128, 32:144] * 0.7 + 30)
                    .round()
                    .astype(np.uint8)
                )
            if series == 'C0066':
                image = plates[name.replace('C0066', 'C0065')]
            plates[name] = image
            cv2.imwrite(str(source / name), image)
            # k x1 x2 y1 y2, from 1, inclusive.
            boxes = [(30 + 2 * k, 45 + 2 * k, 40, 60)]
            if series == 'C0055':
                boxes = [(x, x + 8, y, y + 8) for x in (20, 40, 60, 80, 100) for y in (20, 40, 60, 80)]
            if name == 'C0001/C0001_0004.png':
                boxes.append((190, 209, 20, 30))
            if name == 'C0007/C0007_0003.png':
                boxes.append((20, 30, 0, 12))
            if name == 'C0011/C0011_0008.png':
                boxes.append((40, 50, 100, 161))
            rows += [f'{k} {x1} {x2} {y1} {y2}' for x1, x2, y1, y2 in boxes]
        if annotated:
            (source / series / 'ground_truth.txt').write_text('\n'.join(rows))
    # Protocol A: frames at random, test from the middle of sequences that train has seen.
    annotated = [name for name in plates if SERIES[name[:5]][1]]
    test = annotated[1::4]
    (tmp_path / 'test.txt').write_text('\n'.join(test))
    (tmp_path / 'train.txt').write_text('\n'.join(sorted(set(annotated) - set(test))))
    monkeypatch.chdir(tmp_path)
    lists = ['--train-list', 'train.txt', '--test-list', 'test.txt']
    assert convert_dataset.main(['gdxray', str(source), 'data/gdxray', *lists]) == 0
    return repo / 'configs/faster_rcnn'


def test_what_is_known_to_be_wrong_with_gdxray_is_found(castings):
    lines = found(castings / 'faster-rcnn_r50-in1k-pre_fpn_4xb4-6x_gdxray-a.py')

    def one(pattern):
        matches = [line for line in lines if re.search(pattern, line)]
        assert len(matches) == 1, (pattern, lines)
        return matches[0]

    # The boxes out of range, by file, though the converter has clipped them.
    clipped = one('warning boxes: 3 boxes drawn out of range by up to 1 px')
    assert set(clipped.partition('; ')[2].split()) == {
        f'data/gdxray/images/{name}'
        for name in ('C0001/C0001_0004.png', 'C0007/C0007_0003.png', 'C0011/C0011_0008.png')
    }
    # 60 of 100 boxes in 3 of 40 images.
    one(r'warning boxes: series C0055 has 60% of all boxes \(60 of 100\) in 8% of the labelled images')
    copies = one(
        r'warning leaks: 6 pixel copies of listed images among the unlisted ones: C0065 = C0066 \(6\)'
    )
    assert copies.count('images/C0066/') == 6
    one(r'warning leaks: 3 of 3 smaller images searched for are crops .*: C0002 in C0001 \(3\); some across')
    # Protocol A's leak: the series are on both sides, nearly every test frame has a neighbour in train.
    one('warning leaks: 10 of 10 images of test share a part or series with train')
    one(r'warning leaks: \d+ of 10 images of test have an adjacent frame in train')


def test_protocol_b_of_gdxray_has_no_such_leak(castings):
    for name in (
        'faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-6x_gdxray-b.py',
        'small/simsiam_resnet18-narrow_1xb64-coslr-20e_castings-b-128px.py',
    ):
        lines = [line for line in found(castings.parent / name) if ' leaks: ' in line]
        assert not any('share a part' in line or 'adjacent frame' in line for line in lines), lines
    # The castings that protocol B tests on stay out of pretraining; those of protocol A's frames do not.
    lines = found(castings / 'faster-rcnn_r50-simsiam-castings-pre_fpn_4xb4-6x_gdxray-b.py')
    assert any(line.startswith('note') for line in lines)
    assert not any('of pretraining' in line for line in lines if not line.startswith('note')), lines


def test_page_and_table(data, tmp_path, capsys):
    root, config = data
    copy_pixels(root)
    truncate(root)
    edit(root, 'val', lambda coco: coco['images'][0].update(part='<script>alert(1)</script>'))
    edit(root, 'train', lambda coco: coco['images'][2].update(part='<script>alert(1)</script>'))
    out = tmp_path / 'out'
    assert check_dataset.main([str(config), '--out', str(out), '--workers', '1']) == 1
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100 + len(str(tmp_path)) * 2
    assert re.search(r'^ERROR +files +1 image cannot be read', text, re.MULTILINE)
    assert re.search(r'^train +4 +\d+ +1 \(25%\) ', text, re.MULTILINE)
    report = json.loads((out / 'dataset.json').read_text())
    assert report['images'] == 13 and report['findings'][0]['level'] == 'error'
    page = (out / 'dataset.html').read_text()
    assert page.count('<svg') >= 4 + 12 and 'cannot be read' in page and '1 (25%)' in page
    assert '<script' not in page and '&lt;script' in page
    # Self-contained: nothing is fetched.
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)


def test_boxes_smaller_than_a_pixel_are_drawn(data):
    _, config = data
    cfg = Config.fromfile(config)
    for split in LABELLED:
        cfg[f'{split}_dataloader'].dataset.pipeline[2].scale = (2, 2)
    report, findings, evidence = examine(cfg, str(config), workers=1)
    assert evidence['boxes']['train'].scaled[:, 2:].max() < 0.9
    assert 'Box sizes after the resize' in dataset_page.render(report, findings, **evidence)


def test_names_of_files_that_are_no_text_do_not_spoil_the_report(data, tmp_path, capsys):
    root, config = data
    shutil.copy(root / 'images/test_002.png', root / 'images/gr\udcfcn\n.png')
    out = tmp_path / 'out'
    assert check_dataset.main([str(config), '--out', str(out), '--workers', '1']) == 0
    assert r'gr\udcfcn\n.png' in (out / 'dataset.html').read_text(encoding='utf-8')
    capsys.readouterr().out.encode()
    assert 'gr' in str(json.loads((out / 'dataset.json').read_text())['findings'])


def test_wrong_use_and_missing_data(data, tmp_path, capsys):
    root, config = data
    assert check_dataset.main([str(tmp_path / 'none.py')]) == 2
    assert 'no such config' in capsys.readouterr().err
    (tmp_path / 'fragment.py').write_text('x = 1\n')
    assert check_dataset.main([str(tmp_path / 'fragment.py')]) == 2
    assert capsys.readouterr().err.count('\n') == 1
    with pytest.raises(SystemExit) as error:
        check_dataset.main([str(config), '--workers', '0'])
    assert error.value.code == 2
    shutil.rmtree(root)
    out = tmp_path / 'out'
    assert check_dataset.main([str(config), '--out', str(out)]) == 1
    missing = [f'{root}/{split}.json: ' for split in LABELLED]
    printed = ''.join(capsys.readouterr().out.split())
    assert all(name.strip() in printed for name in missing)
    # The report is written all the same.
    page = (out / 'dataset.html').read_text()
    assert all(name in page for name in missing)
    report = json.loads((out / 'dataset.json').read_text())
    assert report['images'] == 0 and len(report['findings']) == 3


@pytest.mark.slow
def test_command_line(repo, data, tmp_path):
    _, config = data
    command = [sys.executable, repo / 'tools/check_dataset.py']
    done = subprocess.run(
        [*command, config, '--out', tmp_path / 'x'], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert '0 errors, 0 warnings' in done.stdout
    usage = subprocess.run([*command, '--help'], capture_output=True, text=True, cwd=tmp_path)
    assert usage.returncode == 0 and 'example:' in usage.stdout


def test_frames_that_the_line_would_refuse_are_named(tiny_coco, tmp_path):
    """A test image whose 8-bit content was shifted down lies outside of what val looks like."""
    root = tiny_coco(n=MIN_FRAMES, empty=1, size=128)
    shade(root)
    config = tmp_path / 'tiny.py'
    config.write_text(CONFIG.format(root=root, px=128, classes=('crack', 'gas_pore')))
    what = 'unlike those of val in their gray levels: an exported detector would refuse them'
    assert not any(what in line for line in found(config))
    path = root / 'images/test_000.png'
    cv2.imwrite(str(path), pixels(path) // 16)
    (line,) = [line for line in found(config) if what in line]
    assert line.startswith('warning files: 1 image of test') and 'test_000.png' in line
