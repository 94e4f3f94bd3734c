"""Monitors: a collapsing run raises the alarm and a healthy one does not; probes read what is there."""

import functools
import json
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import torch
from helpers.config_grammar import find
from helpers.pretraining import MASKED, SIMMIM, SIMSIAM, SIZE, VIEWS, run
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope
from mmpretrain.models import SimSiam
from mmpretrain.registry import MODELS

from projects.config.configs import differences, load_config
from projects.runs.running import build_runner, read_config
from projects.xray import compat, preprocessors  # noqa: F401
from projects.xray.datasets import load_defects
from projects.xray.hooks import backbone, resume  # noqa: F401
from projects.xray.hooks.collapse import CollapseError, collapse_level, spread
from projects.xray.hooks.frozen_probe import (
    cut_patches,
    draw_embedding,
    logistic_regression,
    nearest_neighbors,
)
from projects.xray.hooks.reconstruction import draw_reconstructions
from projects.xray.seeding import seed_generators
from projects.xray.transforms import LoadXray


@MODELS.register_module()
class CollapsingSiam(SimSiam):
    """SimSiam without stop-gradient and without predictor: the constant projection is its best answer."""

    def loss(self, inputs, data_samples, **kwargs):
        first, second = (self.neck(self.backbone(view))[0] for view in inputs)
        return dict(loss=-torch.nn.functional.cosine_similarity(first, second).mean())


def scalars(folder):
    (path,) = folder.rglob('scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def pictures(folder, name):
    found = sorted(folder.rglob(f'vis_image/{name}_*.png'))
    return {int(path.stem.split('_')[-1]): cv2.imread(str(path)) for path in found}


def siamese(collapsing):
    model = dict(SIMSIAM, type='CollapsingSiam' if collapsing else 'SimSiam')
    if collapsing:
        model['neck'] = dict(model['neck'], with_last_bn=False)
    return model


@pytest.mark.parametrize('collapsing', [True, False])
def test_the_alarm_is_raised_by_a_collapse_alone(tiny_coco, tmp_path, collapsing):
    root = tiny_coco(n=1, types=('crack',), unlabeled=64, size=48)
    hooks = dict(CollapseHook=dict(interval=1, window=3))
    run(root, tmp_path / 'run', siamese(collapsing), VIEWS, hooks, epochs=7)
    rows = [row for row in scalars(tmp_path / 'run') if 'collapse_level' in row]
    assert [row['step'] for row in rows] == list(range(1, 29))
    assert all(0 <= row['collapse_level'] <= 1 for row in rows)
    assert {row['projection_std_healthy'] for row in rows} == {32**-0.5}
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert log.count('the projections have collapsed') == collapsing
    assert (rows[-1]['collapse_level'] > 0.5) == collapsing
    assert sorted(pictures(tmp_path / 'run', 'collapse')) == list(range(1, 8))


def test_a_collapse_can_stop_the_run(tiny_coco, tmp_path):
    root = tiny_coco(n=1, types=('crack',), unlabeled=64, size=48)
    hooks = dict(CollapseHook=dict(interval=1, window=2, loss=-0.5, level=0.4, stop=True))
    with pytest.raises(CollapseError, match=r'collapsed, level 0\.\d\d \(alarm above 0\.4\), loss -0\.[5-9]'):
        run(root, tmp_path / 'run', siamese(True), VIEWS, hooks, epochs=7)


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_what_it_had_measured(tiny_coco, tmp_path):
    root = tiny_coco(n=1, types=('crack',), unlabeled=48, size=48)

    def measured(name, epochs, **more):
        hooks = dict(CollapseHook=dict(interval=1, window=5), ResumeHook={})
        model, folder = siamese(False), tmp_path / name
        runner = run(root, folder, model, VIEWS, hooks, epochs=epochs, checkpoint=1, **more)
        (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'CollapseHook')
        return hook.curve, list(hook.recent)

    whole = measured('whole', 3)
    assert [iteration for iteration, *_ in whole[0]] == list(range(1, 10))
    measured('begun', 2)
    assert measured('resumed', 3, resume=True, load_from=str(tmp_path / 'begun' / 'epoch_2.pth')) == whole
    started = measured('started', 1, load_from=str(tmp_path / 'begun' / 'epoch_2.pth'))
    assert [iteration for iteration, *_ in started[0]] == [1, 2, 3]


def test_level_of_known_projections():
    generator = torch.Generator().manual_seed(0)
    sphere = torch.randn(4096, 64, generator=generator)
    assert spread(sphere) == pytest.approx(64**-0.5, rel=0.02)
    assert collapse_level(sphere) == pytest.approx(0, abs=0.02)
    assert collapse_level(torch.ones(16, 64)) == 1
    # Half the sphere's spread about one direction.
    cone = torch.nn.functional.normalize(sphere, dim=1) + torch.eye(64)[0] * 3**0.5
    assert collapse_level(cone) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize('method', ['simsiam', 'simmim'])
def test_probe_sees_patches_before_and_after(tiny_coco, tmp_path, method):
    root = tiny_coco(n=12, unlabeled=32, size=96)
    hooks = dict(ProbeHook=dict(interval=2))
    model, pipeline = dict(simsiam=(siamese(False), VIEWS), simmim=(SIMMIM, MASKED))[method]
    run(root, tmp_path / 'run', model, pipeline, hooks, epochs=3)
    rows = [row for row in scalars(tmp_path / 'run') if 'probe/knn_accuracy' in row]
    assert [row['step'] for row in rows] == [0, 2, 3]
    assert all(0 <= row[f'probe/{kind}_accuracy'] <= 1 for row in rows for kind in ('knn', 'linear'))
    assert sorted(pictures(tmp_path / 'run', 'embedding')) == [0, 2, 3]
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    # A radiograph may have no room for a patch without a defect.
    assert 20 <= int(re.search(r'Probe: (\d+) patches of', log)[1]) <= 24
    assert 'Probe after epoch 3: knn_accuracy' in log


@pytest.fixture
def web(tmp_path):
    """URL of an HTTP server of `tmp_path`."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_probe_reads_the_labels_behind_a_url(tiny_coco, tmp_path, web):
    root = tiny_coco(n=6, unlabeled=16, size=96)
    found = {}
    for name, place in (('url', f'{web}/data'), ('local', root)):
        run(place, tmp_path / name, siamese(False), VIEWS, dict(ProbeHook=dict(interval=1)), epochs=1)
        rows = [row for row in scalars(tmp_path / name) if 'probe/knn_accuracy' in row]
        assert [row['step'] for row in rows] == [0, 1]
        found[name] = rows
    assert found['url'] == found['local']


@pytest.mark.parametrize('remote', [False, True])
def test_probe_without_labels_is_off(tiny_coco, tmp_path, web, remote):
    root = tiny_coco(unlabeled=32, size=48)
    (root / 'val.json').unlink()
    place, result = (f'{web}/data', 'expected an object') if remote else (root, 'no such annotation file')
    run(place, tmp_path / 'run', siamese(False), VIEWS, dict(ProbeHook={}), epochs=1)
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert f'Probe: off, no readable labelled split beside the archive ({place}/val.json: {result}' in log


def spoil_split(root, damage):
    """Damage the labelled training set."""
    path = root / 'train.json'
    coco = json.loads(path.read_text())
    first, image = coco['annotations'][0], root / 'images' / 'train_000.png'
    if damage == 'missing':
        image.unlink()
    elif damage == 'torn':
        image.write_bytes(image.read_bytes()[:100])
    elif damage == 'wide':
        cv2.imwrite(str(image), np.zeros((96, 48), np.uint8))
    elif damage == 'no box':
        del first['bbox']
    elif damage == 'outside':
        first['bbox'] = [200, 10, 8, 8]
    elif damage == 'no area':
        first['bbox'] = [10, 10, 0, 8]
    elif damage == 'crowd':
        coco['annotations'] = [dict(ann, iscrowd=1) for ann in coco['annotations']]
    path.write_text(json.dumps(coco))


@pytest.mark.parametrize(
    ('damage', 'expected'),
    [
        ('missing', r'no readable labelled split .*train_000\.png: expected a readable'),
        ('torn', r'no readable labelled split .*train_000\.png: expected a complete PNG'),
        ('wide', r'no readable labelled split .*train_000\.png: 48 x 96 px as loaded, but .* 96 x 96 px'),
        ('no box', r'no readable labelled split .*annotation 1 \(train_000\.png\) has the box None'),
        ('outside', r'no readable labelled split .*annotation 1 .* wholly outside its image'),
        ('no area', r'no readable labelled split .*annotation 1 .* without area'),
        ('crowd', 'no readable labelled split .*crowd boxes'),
    ],
)
def test_a_bad_labelled_split_costs_the_probe_alone(tiny_coco, tmp_path, damage, expected):
    root = tiny_coco(n=4, unlabeled=16, size=96)
    spoil_split(root, damage)
    runner = run(root, tmp_path / 'run', siamese(False), VIEWS, dict(ProbeHook={}), epochs=1)
    assert runner.iter == 1
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert re.search(f'Probe: off, {expected}', log)
    assert not [row for row in scalars(tmp_path / 'run') if 'probe/knn_accuracy' in row]


def test_monitors_change_no_weight(tiny_coco, tmp_path):
    root = tiny_coco(n=4, unlabeled=32, size=64)
    all_hooks = dict(CollapseHook=dict(interval=1), ProbeHook=dict(interval=1))
    bare = run(root, tmp_path / 'bare', siamese(False), VIEWS, dict(ResumeHook={}))
    watched = run(root, tmp_path / 'watched', siamese(False), VIEWS, dict(ResumeHook={}, **all_hooks))
    other = watched.model.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in bare.model.state_dict().items())


@pytest.mark.parametrize('size', [0, 48])
def test_patches_hold_a_defect_or_none(tiny_coco, size):
    """On a white radiograph with black boxes: mean below white where there is a defect."""
    root = tiny_coco(n=6, size=96)
    coco = json.loads((root / 'train.json').read_text())
    for image in coco['images']:
        pixels = np.full((96, 96), 255, np.uint8)
        for annotation in coco['annotations']:
            if annotation['image_id'] == image['id']:
                x, y, w, h = annotation['bbox']
                pixels[int(y) : int(y + h), int(x) : int(x + w)] = 0
        cv2.imwrite(str(root / 'images' / image['file_name']), pixels)
    split = cut_patches(coco, root / 'images', LoadXray(size=size), 16, 0.3, 4)
    assert split['patches'].shape == (8, 1, 16, 16)
    assert split['labels'].tolist() == [1, 0] * 4
    darkest = split['patches'].min((1, 2, 3))
    # A shrunk radiograph shows an antialiased edge of a box beside the patch.
    assert (darkest[split['labels'] == 0] > 200).all()
    # The defect is in the middle, where the border of the image leaves room.
    assert (darkest[split['labels'] == 1] < 60).all()
    assert split['parts'][::2] == ['train0', 'train1', 'train1', 'train2']
    again = cut_patches(coco, root / 'images', LoadXray(size=size), 16, 0.3, 4)
    assert (again['patches'] == split['patches']).all()


def test_patches_are_drawn_as_boxes_are_learnt(tiny_coco):
    """Never around a box to be ignored, nor where there is one instead of nothing."""
    root = tiny_coco(n=6, size=96)
    path = root / 'train.json'
    coco = json.loads(path.read_text())
    coco['annotations'], number = [], 0
    for image in coco['images']:
        pixels = np.full((96, 96), 255, np.uint8)
        # Of each kind: box, what its pixels are, and how it is marked. The last image has none to learn.
        rows = [([4, 4, 8, 8], 0, {}), ([70, 8, 20, 80], 120, dict(iscrowd=1))]
        rows += [([8, 70, 50, 20], 120, dict(ignore=1)), ([-4, 30, 8, 8], 0, {})]
        for (x, y, w, h), level, marks in rows[1:3] if image['id'] == 6 else rows:
            pixels[y : y + h, max(x, 0) : x + w] = level
            number += 1
            ann = dict(id=number, image_id=image['id'], category_id=1, bbox=[x, y, w, h], area=w * h)
            coco['annotations'].append(dict(ann, **marks))
        cv2.imwrite(str(root / 'images' / image['file_name']), pixels)
    path.write_text(json.dumps(coco))
    split = cut_patches(load_defects(path, None), root / 'images', LoadXray(), 16, 0.2, 10)
    assert split['labels'].tolist() == [1, 0] * 5
    darkest = split['patches'].min((1, 2, 3))
    assert (darkest[split['labels'] == 1] < 60).all()
    assert (darkest[split['labels'] == 0] == 255).all()


def test_readers_of_features_learn_what_can_be_read():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(200) % 3
    features = torch.randn(200, 8, generator=generator) + 4 * torch.eye(8)[truth]
    features = torch.nn.functional.normalize(features, dim=1)
    for read in (nearest_neighbors, logistic_regression):
        assert (read(features[:100], truth[:100], features[100:]) == truth[100:]).float().mean() > 0.95
        noise = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
        assert (read(noise[:100], truth[:100], noise[100:]) == truth[100:]).float().mean() < 0.55


def test_the_map_shows_every_patch(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(60) % 2
    features = torch.randn(60, 16, generator=generator) + 3 * torch.eye(16)[labels]
    split = dict(labels=labels, parts=[f'part {i // 5}' for i in range(60)])
    picture = draw_embedding(features, split, 5)
    assert picture.shape == (500, 1100, 3)
    left = picture[:, :550].reshape(-1, 3).astype(int)
    for colour in ((213, 94, 0), (86, 180, 233)):
        assert (abs(left - colour).max(1) < 80).sum() > 100
    assert (draw_embedding(features, split, 5) == picture).all()


def test_reconstructions_show_input_mask_and_prediction(tiny_coco, tmp_path):
    root = tiny_coco(unlabeled=32, size=48)
    hooks = dict(ReconstructionHook=dict(interval=2, num_images=3))
    runner = run(root, tmp_path / 'run', SIMMIM, MASKED, hooks, epochs=3)
    found = pictures(tmp_path / 'run', 'reconstruction')
    assert sorted(found) == [2, 3]
    sheet = found[3][..., 0]
    assert sheet.shape == (3 * (SIZE + 4), 3 * SIZE + 4)
    shown, masked, rebuilt = np.split(sheet[2 : 2 + SIZE, 2:-2].astype(int), 3, axis=1)
    dataset = runner.train_dataloader.dataset
    pixels = dataset[0]['inputs'][0].numpy()
    assert abs(shown - pixels).max() <= 1
    hidden = masked == 128
    assert 0.5 < hidden.mean() < 0.75
    assert (masked[~hidden] == shown[~hidden]).all()
    assert (rebuilt[~hidden] == shown[~hidden]).all()
    assert (rebuilt[hidden] != shown[hidden]).any()


def test_pictures_draw_no_number_of_the_run(tiny_coco):
    root = tiny_coco(unlabeled=4, size=48)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(
            dict(type='XrayImages', data_root=str(root), pipeline=[*MASKED, dict(type='PackInputs')])
        )
        model = MODELS.build(SIMMIM).train()
    seed_generators(1)
    expected = np.random.rand(), torch.rand(1).item()
    seed_generators(1)
    first = draw_reconstructions(model, dataset, 2)
    assert (np.random.rand(), torch.rand(1).item()) == expected
    assert model.training
    assert (draw_reconstructions(model, dataset, 2) == first).all()


SSL = [
    'simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px',
    'simmim_swin-narrow_1xb32-coslr-20e_synthetic-96px',
]


@pytest.mark.parametrize('stem', SSL)
def test_a_recipe_logs_its_gradient_norm(two_iterations, tmp_path, stem):
    """The recipe itself, except for the size of the run."""
    options = [*two_iterations, f'work_dir={tmp_path / "run"}']
    build_runner(read_config(str(find(stem)), options)).train()
    norms = [row['grad_norm'] for row in scalars(tmp_path / 'run') if 'loss' in row]
    assert len(norms) == 2
    assert all(0 < norm < float('inf') for norm in norms)
    assert next((tmp_path / 'run').rglob('*.log')).read_text().count('grad_norm: ') == 2


TRACKED = [
    *SSL,
    'swin-base-in1k-pre_4xb64-linear-coslr-90e_industrial-384px',
    'faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial',
]


@pytest.mark.parametrize('backend', ['MLflowVisBackend', 'WandbVisBackend'])
@pytest.mark.parametrize('stem', TRACKED)
def test_one_option_puts_another_tracker_in_tensorboards_place(tmp_path, stem, backend):
    """The one that configs/_base_/xray_runtime.py names."""
    cfg = read_config(str(find(stem)), [f'visualizer.vis_backends.1.type={backend}'])
    assert cfg.visualizer.vis_backends == [dict(type='LocalVisBackend'), dict(type=backend)]
    changed = differences(load_config(find(stem)), cfg)
    assert all(key.startswith('visualizer.vis_backends') for key in changed), changed
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        visualizer = VISUALIZERS.build(dict(cfg.visualizer, name=str(tmp_path), save_dir=str(tmp_path)))
    assert [type(one).__name__ for one in visualizer._vis_backends.values()] == ['LocalVisBackend', backend]
