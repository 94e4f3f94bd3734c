"""Linear probe: the recipe of the small configs reads a solvable task, whatever the size of the features."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from projects.runs import running
from projects.xray.datasets import XraySeverity
from projects.xray.lite0 import EfficientNetLite0
from projects.xray.necks import StandardisedPooling

SIDE = 96
IN1K = dict(type='Pretrained', checkpoint='package://efficientnet-lite0', prefix='backbone.')
PROBE = (
    Path(__file__).parents[2]
    / 'configs/small/resnet18-narrow-scratch_1xb64-linear-coslr-20e_synthetic-128px.py'
)


def draw_large_and_small_flaws(root, counts, contrast=70, noise=6):
    """Write plates with one large critical flaw or one small minor one, `counts` of each per split."""
    rng = np.random.default_rng(0)
    (root / 'images').mkdir(parents=True)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    for split, (critical, minor) in counts.items():
        images, annotations = [], []
        for number in range(critical + minor):
            kind = int(number >= critical)
            radius = rng.uniform(14, 22) if kind == 0 else rng.uniform(2, 3)
            x, y = rng.uniform(24, SIDE - 24, 2)
            pixels = rng.normal(90 + 40 * xx / SIDE, noise)
            pixels += contrast * np.clip(1 - ((xx - x) ** 2 + (yy - y) ** 2) / radius**2, 0, None) ** 0.5
            name = f'{split}{number:03d}.png'
            cv2.imwrite(str(root / 'images' / name), pixels.clip(0, 255).astype(np.uint8))
            images.append(dict(id=number + 1, file_name=name, width=SIDE, height=SIDE, part=name))
            annotations.append(
                dict(
                    id=number + 1,
                    image_id=number + 1,
                    category_id=kind + 1,
                    bbox=[x - radius, y - radius, 2 * radius, 2 * radius],
                    area=float(np.pi * radius**2),
                    iscrowd=0,
                )
            )
        categories = [dict(id=1, name='blowhole'), dict(id=2, name='pinhole')]
        coco = dict(images=images, annotations=annotations, categories=categories)
        (root / f'{split}.json').write_text(json.dumps(coco))
    return root


def probe(data, work, weights=None):
    """Train the small probe at 64 px, 80 updates, and test it; returns its metrics and its predictions."""
    cfg = running.read_config(str(PROBE))
    if weights:
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights), prefix='backbone.')
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=16, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(data)
        next(step for step in loader.dataset.pipeline if step.type == 'XrayResize').scale = (64, 64)
    cfg.train_cfg.val_interval = cfg.train_cfg.max_epochs
    cfg.work_dir, cfg.seed = str(work), 0
    running.prepare(cfg, 'none')
    runner = running.build_runner(cfg)
    runner.train()
    metrics = runner.test()
    (metric,) = runner.test_evaluator.metrics
    return metrics, metric.predictions['images']


@pytest.mark.slow
def test_the_probe_of_a_random_backbone_tells_large_flaws_from_small_ones(repo, tmp_path):
    """Two thirds of the images are minor: a head that hardly moves calls every image minor."""
    data = draw_large_and_small_flaws(tmp_path / 'data', dict(train=(20, 44), val=(8, 8), test=(16, 16)))
    metrics, images = probe(data, tmp_path / 'run')
    called = {int(np.argmax(image['scores'])) for image in images}
    assert called == {0, 1}
    assert metrics['xray/balanced_accuracy'] > 0.7  # 0.75 and more; 0.50 for one class alone
    assert metrics['xray/mAP'] > 0.7


def test_balanced_repeats_the_rarer_class(repo, tmp_path):
    data = draw_large_and_small_flaws(tmp_path / 'data', dict(train=(3, 8)))
    common = dict(data_root=str(data), ann_file='train.json', pipeline=[])
    severity = dict(blowhole='critical', pinhole='minor')
    counts = []
    for balanced in (False, True):
        items = XraySeverity(severity=severity, balanced=balanced, **common)
        counts.append(
            [sum(items.get_data_info(k)['gt_label'] == c for k in range(len(items))) for c in (0, 1)]
        )
        names = [items.get_data_info(k)['img_path'] for k in range(len(items))]
    assert counts == [[3, 8], [8, 8]]
    assert sorted(names.count(name) for name in set(names)) == [1] * 8 + [2, 3, 3]


def test_a_batch_of_one_image_is_standardised_by_the_running_statistics():
    neck = StandardisedPooling(4)
    maps = torch.randn(16, 4, 3, 3, generator=torch.manual_seed(0)) * 0.1 + 5
    (first,) = neck((maps,))
    assert first.mean(0).abs().max() < 1e-3
    assert (first.std(0) - 1).abs().max() < 0.1
    before = neck.bn.running_mean.clone()
    (one,) = neck((maps[:1],))
    assert torch.equal(neck.bn.running_mean, before)
    assert neck.bn.training
    expected = (maps[:1].mean((2, 3)) - before) / (neck.bn.running_var + neck.bn.eps).sqrt()
    assert torch.allclose(one, expected)


def features(backbone, images):
    """Pooled features of a frozen backbone."""
    backbone.eval()
    with torch.no_grad():
        return torch.cat([backbone(batch)[-1].mean((2, 3)) for batch in images.split(32)])


def balanced_accuracy(backbone, train, test):
    """Train a head on standardised features, as the recipe does, and test it."""
    torch.manual_seed(0)
    neck, head = StandardisedPooling(1280), torch.nn.Linear(1280, 2)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1 * 16 / 256, momentum=0.9)
    seen, labels = features(backbone, train[0])[..., None, None], train[1]
    for _ in range(20):
        for chosen in torch.randperm(len(labels)).split(16):
            loss = torch.nn.functional.cross_entropy(head(neck((seen[chosen],))[0]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    neck.eval()
    with torch.no_grad():
        called = head(neck((features(backbone, test[0])[..., None, None],))[0]).argmax(1)
    return float(np.mean([(called[test[1] == label] == label).float().mean() for label in (0, 1)]))


def faint_flaws(critical, minor, seed):
    """Draw noisy plates with one large or one small faint flaw; images (N, 3, H, W) and labels (N)."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    images = []
    for number in range(critical + minor):
        radius = rng.uniform(12, 20) if number < critical else rng.uniform(4, 6)
        x, y = rng.uniform(20, SIDE - 20, 2)
        slopes = rng.uniform(-40, 40, 2)
        pixels = rng.normal(90 + slopes[0] * xx / SIDE + slopes[1] * yy / SIDE, 12)
        pixels += 25 * np.clip(1 - ((xx - x) ** 2 + (yy - y) ** 2) / radius**2, 0, None) ** 0.5
        images.append(pixels.clip(0, 255).round())
    inputs = torch.tensor(np.stack(images)).float()[:, None].repeat(1, 3, 1, 1)
    return (inputs - 114.5) / 57.6, torch.tensor([0] * critical + [1] * minor)


def test_a_trained_frozen_backbone_beats_a_random_one():
    """Large critical flaws, faint in noise: ImageNet's features show them, those of random weights hardly."""
    train, test = faint_flaws(30, 66, 0), faint_flaws(48, 48, 1)
    reached = {}
    for name, init in (('random', None), ('in1k', IN1K)):
        torch.manual_seed(0)
        backbone = EfficientNetLite0(out_indices=(6,), init_cfg=init)
        backbone.init_weights()
        reached[name] = balanced_accuracy(backbone, train, test)
    assert reached['in1k'] > 0.9
    assert reached['in1k'] > reached['random'] + 0.15


def learn_to_see_flaws(path):
    """Train the probe's backbone to tell plates with a faint flaw of any size from sound ones."""
    cfg = running.read_config(str(PROBE))
    running.prepare(cfg, 'none')
    torch.manual_seed(1)
    backbone = MODELS.build(cfg.model.backbone | dict(frozen_stages=-1))
    head = torch.nn.Linear(256, 2)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-3)
    rng = np.random.default_rng(7)
    backbone.train()
    for _ in range(60):
        plates, labels = [], torch.arange(24) % 2
        for flawed in labels.tolist():
            side = np.mgrid[:64, :64]
            x, y = rng.uniform(12, 52, 2)
            radius = rng.uniform(2, 15)
            pixels = rng.normal(90 + rng.uniform(-30, 30) * side[1] / 64, 8)
            bump = np.clip(1 - ((side[1] - x) ** 2 + (side[0] - y) ** 2) / radius**2, 0, None) ** 0.5
            plates.append(pixels + flawed * 25 * bump)
        inputs = (torch.tensor(np.stack(plates)).float()[:, None].repeat(1, 3, 1, 1) - 114.5) / 57.6
        loss = torch.nn.functional.cross_entropy(head(backbone(inputs)[-1].mean((2, 3))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in backbone.state_dict().items()}), path)
    return path


@pytest.mark.slow
def test_a_backbone_that_learnt_flaws_beats_a_random_one_through_the_whole_recipe(repo, tmp_path):
    """Faint flaws in noise: what a backbone learnt elsewhere, frozen and handed over, shows in the probe."""
    counts = dict(train=(20, 44), val=(4, 4), test=(30, 30))
    data = draw_large_and_small_flaws(tmp_path / 'data', counts, contrast=25, noise=12)
    weights = learn_to_see_flaws(tmp_path / 'backbone.pth')
    reached = {}
    for name, start in (('random', None), ('trained', weights)):
        metrics, images = probe(data, tmp_path / name, start)
        reached[name] = metrics['xray/balanced_accuracy']
        if start:
            assert {int(np.argmax(image['scores'])) for image in images} == {0, 1}
    assert reached['trained'] > 0.85
    assert reached['trained'] > reached['random'] + 0.15
