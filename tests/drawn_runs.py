"""Work dirs of tested runs, drawn: radiographs, predictions of a detector of a given skill, logs, configs."""

import hashlib
import json

import cv2
import numpy as np

from projects.xray.measures import average_precision_at, read_images

STEM = 'faster-rcnn_r18-narrow-{arm}_fpn_1xb4-8e_synthetic'
CLASSES = ('critical', 'minor')
SIDE = 96


def arm_token(init):
    return init if init == 'scratch' else f'{init}-pre'


def draw_truth(root, parts=20, seed=0, free=2):
    """Draw two views of each part, the last `free` parts without a defect; returns the COCO dict."""
    rng = np.random.default_rng(seed)
    (root / 'images').mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for part in range(parts):
        for view in range(2):
            name = f'p{part:03d}_v{view}.png'
            pixels = rng.normal(120, 6, (SIDE, SIDE))
            images.append(
                dict(
                    id=len(images) + 1,
                    file_name=name,
                    width=SIDE,
                    height=SIDE,
                    part=f'p{part:03d}',
                    view=view,
                )
            )
            for flaw in range(0 if part >= parts - free else 2):
                x, y = rng.uniform(2, SIDE - 30, 2)
                w, h = rng.uniform(8, 26, 2)
                pixels[int(y) : int(y + h), int(x) : int(x + w)] += 60
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=images[-1]['id'],
                        category_id=1 + (flaw + part) % 2,
                        type=('crack', 'gas_pore')[(flaw + part) % 2],
                        bbox=[float(v) for v in (x, y, w, h)],
                        area=float(w * h),
                        contrast=float(rng.uniform(0.1, 0.6)),
                        iscrowd=0,
                    )
                )
            cv2.imwrite(str(root / 'images' / name), pixels.clip(0, 255).astype(np.uint8))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def detect(truth, skill, seed, false=2.0):
    """COCO results of a detector that finds a box with probability `skill`, more often a large one."""
    rng = np.random.default_rng(seed)
    found = []
    for ann in truth['annotations']:
        if rng.random() < skill * min(1.3, np.sqrt(ann['area']) / 16):
            x, y, w, h = np.array(ann['bbox']) + rng.normal(0, 0.8, 4)
            label = ann['category_id'] if rng.random() < 0.9 else 3 - ann['category_id']
            found.append((ann['image_id'], label, [x, y, max(w, 3), max(h, 3)], rng.uniform(0.2, 1)))
    for image in truth['images']:
        for _ in range(rng.poisson(false)):
            x, y = rng.uniform(0, SIDE - 12, 2)
            found.append((image['id'], int(rng.integers(1, 3)), [x, y, 10, 10], rng.uniform(0, 0.7)))
    return [
        dict(image_id=i, category_id=c, bbox=[float(v) for v in box], score=float(score))
        for i, c, box, score in found
    ]


def predictions(root, truth, detections):
    return dict(
        task='detection',
        classes=list(CLASSES),
        truth=truth,
        detections=detections,
        ann_file=str(root / 'test.json'),
        sha256=hashlib.sha256(json.dumps(truth).encode()).hexdigest(),
        folder=str(root / 'images'),
        window=dict(type='full'),
        checkpoint='epoch_8.pth',
    )


def measured(said):
    """The AP50 of `test.json` that follow from predictions."""
    images = read_images(said['truth'], said['detections'])
    values = [average_precision_at(images, label)(np.arange(len(images))) for label in (0, 1)]
    names = [f'xray/AP50_{name}' for name in CLASSES]
    return {'xray/AP50': float(np.mean(values)), 'xray/AP': 0.5 * float(np.mean(values))} | dict(
        zip(names, values)
    )


def draw_run(root, folder, truth, init='scratch', skill=0.6, seed=0, val=True, epochs=4):
    """Write one run; returns its folder."""
    stem = STEM.format(arm=arm_token(init))
    folder.mkdir(parents=True)
    said = predictions(root, truth, detect(truth, skill, 100 + seed))
    (folder / 'predictions.json').write_text(json.dumps(said))
    if val:
        on_val = predictions(root, truth, detect(truth, skill, 500 + seed))
        (folder / 'predictions_val.json').write_text(json.dumps(on_val))
    result = dict(
        config=f'configs/small/{stem}.py',
        checkpoint='epoch_8.pth',
        metrics=measured(said),
        commit='0123456789abcdef',
        dirty=False,
        seed=seed,
        hardware='2 x CPU',
        versions=dict(torch='2.10.0'),
        command='python tools/test.py',
        date='2026-01-02T03:04:05+00:00',
    )
    (folder / 'test.json').write_text(json.dumps(result))
    pretrained = '' if init == 'scratch' else ", init_cfg=dict(type='Pretrained', checkpoint='x.pth')"
    (folder / f'{stem}.py').write_text(f"model = dict(backbone=dict(type='ResNet', depth=18{pretrained}))\n")
    logs = folder / '20260102_030405' / 'vis_data'
    logs.mkdir(parents=True)
    lines = []
    for epoch in range(1, epochs + 1):
        lines += [
            dict(loss=2 / epoch + k / 50, epoch=epoch, iter=10 * epoch + k, step=10 * epoch + k)
            for k in (1, 2)
        ]
        lines.append({'xray/AP50': skill * epoch / epochs, 'step': epoch})
    (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    return folder


def draw_study(root, skills, seeds=(0, 1), fractions=(100,), parts=20):
    """Write a study's runs; `skills` gives each init its skill. Returns the folders."""
    truth = draw_truth(root, parts)
    folders = []
    for init, skill in skills.items():
        for fraction in fractions:
            for seed in seeds:
                place = root / 'runs' / STEM.format(arm=arm_token(init)) / f'seed{seed}-frac{fraction}'
                share = skill * (0.4 + 0.6 * fraction / 100)
                folders.append(draw_run(root, place, truth, init, share, seed))
    return folders
