"""browse_dataset: what is drawn is what the model gets, for every kind of config and of file."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from helpers.radiograph_files import dicom
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from projects.prepare import browse
from projects.radiograph.pack import pack
from projects.radiograph.recipe import Recipe
from tools import browse_dataset

COLOUR = (213, 94, 0)
DETECTOR = """
custom_imports = dict(imports=['projects.xray.' + n for n in ('datasets', 'transforms', 'preprocessors')])
default_scope = 'mmdet'
model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(type='XrayDetDataPreprocessor', mean=[114.5], std=[57.6], pad_size_divisor=32))
load = dict(type='LoadXray', window=dict(type='absolute', low=1000, high=3000))
boxes = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=(72, 72), keep_ratio=True)
dataset = dict(
    type='XrayDefects', data_root='{root}', data_prefix=dict(img='images'),
    metainfo=dict(classes=('crack', 'gas_pore'), palette=[(213, 94, 0), (86, 180, 233)]))
train_dataloader = dict(collate_fn=dict(type='pseudo_collate'), dataset=dict(
    ann_file='train.json', **dataset,
    pipeline=[load, boxes, resize, dict(type='RandomFlip', prob=0.0), dict(type='PackDetInputs')]))
test_dataloader = dict(collate_fn=dict(type='pseudo_collate'), dataset=dict(
    ann_file='train.json', test_mode=True, **dataset,
    pipeline=[load, resize, boxes, dict(type='PackDetInputs')]))
"""


@pytest.fixture
def detector(tmp_path):
    """Config and image of one 12-bit radiograph of 96 x 64 px in a 16-bit TIFF, with one box."""
    image = np.random.default_rng(0).integers(900, 3100, (64, 96)).astype(np.uint16)
    (tmp_path / 'data/images').mkdir(parents=True)
    tifffile.imwrite(tmp_path / 'data/images/a.tif', image)
    annotate(tmp_path / 'data', 'a.tif')
    config = tmp_path / 'detector.py'
    config.write_text(DETECTOR.replace('{root}', str(tmp_path / 'data')))
    return config, image


def annotate(root, name):
    coco = dict(
        images=[dict(id=1, file_name=name, width=96, height=64)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[16, 8, 32, 16], area=512, iscrowd=0)],
        categories=[dict(id=1, name='crack'), dict(id=2, name='gas_pore')],
    )
    (root / 'train.json').write_text(json.dumps(coco))


def recorded(config, split, index=0, seed=0):
    """The recorder of a config's dataset, one item of it, and what the dataset gives by itself."""
    cfg = Config.fromfile(config)
    loader = cfg[f'{split}_dataloader']
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        # Serialising collects garbage, which takes longer than everything else here.
        plain, watched = (DATASETS.build({**loader['dataset'], 'serialize_data': False}) for _ in range(2))
        preprocess = browse_dataset.preprocessing(cfg, loader, split == 'train')
    recorder = browse.Recorder(watched, loader['dataset']['pipeline'], preprocess)
    item = recorder.run(index, seed)
    browse.seed_all(seed)
    return recorder, item, plain.prepare_data(index)


def stages(item, view=0):
    return [stage for (v, _), stage in sorted(item.stages.items()) if v == view]


def windowed(image):
    return np.rint((np.clip(image, 1000, 3000) - 1000.0) / 2000 * 255)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_every_stage_of_a_detector(detector, split):
    config, image = detector
    recorder, item, packed = recorded(config, split)
    names = [name for name, _ in recorder.columns]
    assert names[0] == 'LoadXray' and names[-2:] == ['PackDetInputs', 'data_preprocessor']
    assert recorder.columns[0][1] == 'window=absolute low=1000 high=3000'
    found = dict(zip(names, stages(item)))
    np.testing.assert_array_equal(found['LoadXray'].image, windowed(image))
    assert len(found['LoadXray'].boxes) == 0
    np.testing.assert_array_equal(found['PackDetInputs'].image, packed['inputs'][0])
    # From 96 to 72 px. A test pipeline keeps boxes in px of the file, yet they are drawn where the flaw is.
    np.testing.assert_allclose(found['PackDetInputs'].boxes, [[12, 6, 36, 18]])
    assert found['LoadAnnotations'].labels.tolist() == [0]
    # Padded to 32 px and drawn as the gray levels that were normalised; 0 after normalisation is the mean.
    last = found['data_preprocessor']
    assert last.image.shape == (64, 96) and last.values == '1 x 3 x 64 x 96 float32, -1.90 to 2.40'
    np.testing.assert_allclose(last.image[:48, :72], packed['inputs'][0], atol=1e-4)
    np.testing.assert_allclose(last.image[48:], 114.5)


def test_boxes_are_drawn_where_the_flaw_is(detector, tmp_path, capsys):
    config, _ = detector
    assert browse_dataset.main([str(config), '--out', str(tmp_path / 'out'), '--num', '3']) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / f'out/{s}.png') for s in ('train', 'test')]
    sheet = np.asarray(Image.open(tmp_path / 'out/train.png'))
    # Six columns; the box of the fourth, 12..36 of 72 px across and 6..18 of 48 px down, on a tile of 256 px.
    assert sheet.shape[1] == 2 * browse.MARGIN + 6 * (browse.TILE + browse.GAP) - browse.GAP
    rows, columns = np.nonzero((sheet == COLOUR).all(2))
    left = browse.MARGIN + 3 * (browse.TILE + browse.GAP)
    inside = (columns >= left) & (columns < left + browse.TILE)
    across, down = columns[inside] - left, rows[inside]
    assert abs(across.min() - 12 * 256 / 72) <= 2 and abs(across.max() - 36 * 256 / 72) <= 2
    assert abs(np.ptp(down) - 12 * 256 / 72) <= 2


@pytest.fixture
def synthetic(tiny_coco, tmp_path, monkeypatch, repo):
    """The folder of the CPU-scale configs, in a place where their data lie."""
    tiny_coco(n=4, unlabeled=6, size=160, name='data/synthetic')
    monkeypatch.chdir(tmp_path)
    return repo / 'configs/small'


def one(folder, pattern):
    return sorted(folder.glob(pattern))[0]


def test_both_views_of_simsiam_are_those_of_training(synthetic):
    config = one(synthetic, 'simsiam_*_synthetic-*.py')
    recorder, item, packed = recorded(config, 'train', index=3, seed=5)
    first, second = stages(item, 0), stages(item, 1)
    # Loading happens once, everything after it once per view.
    assert len(first) == len(recorder.columns) and len(second) == len(first) - 1
    for view, found in enumerate((first, second)):
        np.testing.assert_array_equal(found[-2].image, packed['inputs'][view][0])
        np.testing.assert_allclose(found[-1].image, packed['inputs'][view][0], atol=1e-4)
    assert not np.array_equal(first[-1].image, second[-1].image)
    again = recorder.run(3, 5)
    np.testing.assert_array_equal(stages(again, 1)[-1].image, second[-1].image)
    assert not np.array_equal(stages(recorder.run(3, 6))[-1].image, first[-1].image)


def test_the_mask_of_simmim_covers_what_is_reconstructed(synthetic, tmp_path):
    config = one(synthetic, 'simmim_*_synthetic-*.py')
    recorder, item, packed = recorded(config, 'train')
    last = stages(item)[-1]
    np.testing.assert_array_equal(last.mask, packed['data_samples'].mask.numpy().squeeze().astype(bool))
    assert 0.4 < last.mask.mean() < 0.8
    assert stages(item)[0].mask is None
    # Behind the mask the drawing is nearly flat and bluish, beside it gray.
    sheet = np.asarray(browse.draw_sheet(recorder, [item], '')).astype(int)
    height, width = sheet.shape[:2]
    tile = sheet[height - 400 :, width - browse.MARGIN - browse.TILE : width - browse.MARGIN]
    blue = ((tile[..., 2] - tile[..., 0]) > 40).sum() / browse.TILE**2
    assert blue == pytest.approx(last.mask.mean(), abs=0.02)


def test_a_probe_shows_the_class_of_each_image(synthetic):
    recorder, item, packed = recorded(one(synthetic, 'resnet18-*-scratch_*_synthetic-*.py'), 'val')
    assert item.label == recorder.dataset.metainfo['classes'][int(packed['data_samples'].gt_label)]
    np.testing.assert_array_equal(stages(item)[-2].image, packed['inputs'][0])


def test_dicom_and_packed_images(detector, tmp_path):
    config, image = detector
    data = tmp_path / 'data'
    (data / 'images/a.dcm').write_bytes(dicom(4095 - image, 12, PhotometricInterpretation='MONOCHROME1'))
    (data / 'images/a.tif').unlink()
    annotate(data, 'a.dcm')
    text = config.read_text().replace('low=1000, high=3000', 'low=1095, high=3095')
    config.write_text(text)
    item = recorded(config, 'train')[1]
    np.testing.assert_allclose(stages(item)[0].image, windowed(image), atol=1)
    recipe = Recipe(0, 16, dict(type='absolute', low=1095, high=3095))
    pack(data / 'images', data / 'packed', recipe)
    store = text.replace("img='images'", "img='packed'").replace('high=3095)', "high=3095), dtype='uint16'")
    config.write_text(store)
    packed = recorded(config, 'train')[1]
    assert stages(packed)[0].values.startswith('64 x 96 uint16')
    np.testing.assert_allclose(stages(packed)[0].image / 257, stages(item)[0].image, atol=0.51)
    # And on the sheet 16 bits are as bright as 8.
    shown = [np.asarray(browse._tile(stages(i)[0], [COLOUR])) for i in (item, packed)]
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= 1


def test_a_transform_that_is_not_applied_leaves_its_place_empty(detector):
    config, _ = detector
    flip = dict(type='RandomFlip', prob=1.0)
    cfg = Config.fromfile(config)
    cfg.train_dataloader.dataset.pipeline[3] = dict(type='RandomApply', transforms=[flip], prob=0.0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'serialize_data': False})
    recorder = browse.Recorder(dataset, cfg.train_dataloader.dataset.pipeline)
    assert [name for name, _ in recorder.columns][3] == 'RandomFlip'
    item = recorder.run(0, 0)
    assert [column for _, column in item.stages] == [0, 1, 2, 4]
    browse.draw_sheet(recorder, [item], 'title')


def test_wrong_use(detector, tmp_path, capsys):
    config, _ = detector
    out = ['--out', str(tmp_path / 'out')]

    def refused(code, expected, *argv):
        assert browse_dataset.main([str(a) for a in argv]) == code
        err = capsys.readouterr().err
        assert err.count('\n') == 1 and expected in err, err

    refused(2, 'no val_dataloader', config, *out, '--split', 'val')
    refused(2, 'no such config', tmp_path / 'none.py', *out)
    (tmp_path / 'fragment.py').write_text('x = 1\n')
    refused(2, 'no train_dataloader, val_dataloader, test_dataloader', tmp_path / 'fragment.py', *out)
    refused(2, 'expected a folder to write', config, '--out', config)
    for argv in (['--num', '0'], ['--num', 'x'], ['--seed', '-1'], ['--split', 'all']):
        with pytest.raises(SystemExit) as error:
            browse_dataset.main([str(config), *out, *argv])
        assert error.value.code == 2
    with pytest.raises(SystemExit):
        browse_dataset.main([str(config)])
    capsys.readouterr()
    image = tmp_path / 'data/images/a.tif'
    image.write_bytes(image.read_bytes()[:200])
    refused(1, f'{image}: expected', config, *out)
    image.unlink()
    refused(1, 'a.tif', config, *out)


def test_help(repo, tmp_path):
    command = [sys.executable, str(repo / 'tools/browse_dataset.py'), '--help']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and 'example:' in done.stdout
