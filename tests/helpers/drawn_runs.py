"""Work dirs of tested runs, drawn: radiographs, predictions of models of a given skill, logs, configs."""

import hashlib
import json

import cv2
import numpy as np

from projects.measures.calibration import calibration
from projects.measures.images import read_images
from projects.measures.ranking import average_precision, average_precision_at

STEM = 'faster-rcnn_r18-narrow-{arm}_fpn_1xb4-8e_synthetic'
PROBE = 'resnet18-narrow-{arm}_1xb64-linear-coslr-20e_synthetic-128px'
PRETRAINING = 'simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px'
CLASSES = ('critical', 'minor')
SIDE = 96


def arm_token(init):
    return init if init == 'scratch' else f'{init}-pre'


def draw_truth(root, parts=20, seed=0, free=2, name='p'):
    """Draw two views of each part, the last `free` parts without a defect; returns the COCO dict."""
    rng = np.random.default_rng(seed)
    (root / 'images').mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for part in range(parts):
        for view in range(2):
            file_name = f'{name}{part:03d}_v{view}.png'
            pixels = rng.normal(120, 6, (SIDE, SIDE))
            images.append(
                dict(
                    id=len(images) + 1,
                    file_name=file_name,
                    width=SIDE,
                    height=SIDE,
                    part=f'{name}{part:03d}',
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
            cv2.imwrite(str(root / 'images' / file_name), pixels.clip(0, 255).astype(np.uint8))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def detect(truth, skill, seed, false=2.0, misnamed=0.1):
    """COCO results of a detector that finds a box with probability `skill`, more often a large one."""
    rng = np.random.default_rng(seed)
    found = []
    for ann in truth['annotations']:
        if rng.random() < skill * min(1.3, np.sqrt(ann['area']) / 16):
            x, y, w, h = np.array(ann['bbox']) + rng.normal(0, 0.8, 4)
            label = ann['category_id'] if rng.random() < 1 - misnamed else 3 - ann['category_id']
            found.append((ann['image_id'], label, [x, y, max(w, 3), max(h, 3)], rng.uniform(0.2, 1)))
    for image in truth['images']:
        for _ in range(rng.poisson(false)):
            x, y = rng.uniform(0, SIDE - 12, 2)
            found.append((image['id'], int(rng.integers(1, 3)), [x, y, 10, 10], rng.uniform(0, 0.7)))
    return [
        dict(image_id=i, category_id=c, bbox=[float(v) for v in box], score=float(score))
        for i, c, box, score in found
    ]


def find_all(truth, *_):
    """Return what a detector finds that finds every box at 0.9 and raises no false alarm."""
    return [
        dict(image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], score=0.9)
        for a in truth['annotations']
    ]


def as_found(truth, detections):
    """Return detections as an exported folder's inspector does: corners, scores, labels of each image."""
    boxes = {image['id']: [] for image in truth['images']}
    for one in detections:
        x, y, w, h = one['bbox']
        boxes[one['image_id']].append(([x, y, x + w, y + h], one['score'], one['category_id'] - 1))
    return [
        tuple(map(np.array, zip(*boxes[image['id']], strict=True))) if boxes[image['id']] else ([], [], [])
        for image in truth['images']
    ]


def draw_val(root, parts=20):
    """Draw the val set: other parts than those of the test set."""
    return draw_truth(root, parts, seed=1, name='v')


def predictions(root, of, split='test', **record):
    return dict(
        classes=list(CLASSES),
        **record,
        ann_file=str(root / f'{split}.json'),
        sha256=hashlib.sha256(json.dumps(of).encode()).hexdigest(),
        folder=str(root / 'images'),
        window=dict(type='full'),
        checkpoint='epoch_8.pth',
    )


def measured(record):
    """The AP50 of `test.json` that follow from predictions."""
    images = read_images(record['truth'], record['detections'])
    values = [average_precision_at(images, label)(np.arange(len(images))) for label in (0, 1)]
    names = [f'xray/AP50_{name}' for name in CLASSES]
    there = [value for value in values if value is not None]
    mean = float(np.mean(there)) if there else None
    return {'xray/AP50': mean, 'xray/AP': mean and 0.5 * mean} | dict(zip(names, values))


def draw_run(
    root,
    folder,
    truth,
    init='scratch',
    skill=0.6,
    seed=0,
    val=None,
    epochs=4,
    stem=STEM,
    false=2.0,
    misnamed=0.1,
    pretraining='elsewhere',
):
    """Write one run of a detector, whose weights come from the folder `pretraining`; returns its folder."""
    val = val or draw_val(root)
    trained = root / 'train.json'
    if not trained.exists():  # what a proof takes: parts of training are known
        trained.write_text(json.dumps(dict(images=[dict(file_name='t.png', part='t')])))
    inspection, on_val = (
        predictions(
            root,
            of,
            split,
            task='detection',
            truth=of,
            detections=detect(of, skill, start + seed, false, misnamed),
        )
        for of, split, start in ((truth, 'test', 100), (val, 'val', 500))
    )
    stem = stem.format(arm=arm_token(init))
    _write(folder, stem, seed, inspection, on_val, measured(inspection))
    checkpoint = f'{pretraining}/epoch_20.pth'
    pretrained = '' if init == 'scratch' else f", init_cfg=dict(type='Pretrained', checkpoint='{checkpoint}')"
    (folder / f'{stem}.py').write_text(
        f"model = dict(backbone=dict(type='ResNet', depth=18{pretrained}))\n"
        f"train_dataloader = dict(dataset=dict(data_root='{root}', ann_file='train.json', "
        "data_prefix=dict(img='images')))\n"
    )
    _write_log(folder, 'AP50', skill, epochs)
    return folder


def classify(truth, skill, seed):
    """Scores of a probe that tells the images with a critical box, `skill` of the way from chance."""
    rng = np.random.default_rng(seed)
    critical = {ann['image_id'] for ann in truth['annotations'] if ann['category_id'] == 1}
    images = []
    for image in truth['images']:
        label = int(image['id'] not in critical)
        right = float(np.clip(rng.normal(0.5 + skill / 2, 0.3), 0.01, 0.99))
        scores = [right, 1 - right] if label == 0 else [1 - right, right]
        images.append(dict(file_name=image['file_name'], part=image['part'], label=label, scores=scores))
    return images


def classified(images):
    """The measures of `test.json` that follow from scores."""
    scores = np.array([image['scores'] for image in images])
    truth = np.array([image['label'] for image in images])
    right = scores.argmax(1) == truth
    recalls = [float(right[truth == label].mean()) for label in (0, 1)]
    values = [average_precision(scores[:, label], truth == label) for label in (0, 1)]
    result = {f'xray/AP_{name}': value for name, value in zip(CLASSES, values)}
    result |= {f'xray/recall_{name}': value for name, value in zip(CLASSES, recalls)}
    return result | {
        'xray/mAP': float(np.mean(values)),
        'xray/accuracy': float(right.mean()),
        'xray/balanced_accuracy': float(np.mean(recalls)),
        'xray/ece': calibration(scores.max(1), right).error,
    }


def draw_probe(root, folder, truth, init='scratch', skill=0.6, seed=0, epochs=4):
    """Write one run of an image classifier; returns its folder."""
    val = draw_val(root)
    result, on_val = (
        predictions(root, of, split, task='severity', images=classify(of, skill, start + seed))
        for of, split, start in ((truth, 'test', 100), (val, 'val', 500))
    )
    _write(folder, PROBE.format(arm=arm_token(init)), seed, result, on_val, classified(result['images']))
    _write_log(folder, 'mAP', skill, epochs)
    return folder


def _write(folder, stem, seed, record, on_val, metrics):
    folder.mkdir(parents=True)
    (folder / 'predictions.json').write_text(json.dumps(record))
    (folder / 'predictions_val.json').write_text(json.dumps(on_val))
    result = dict(
        config=f'configs/small/{stem}.py',
        checkpoint='epoch_8.pth',
        metrics=metrics,
        commit='0123456789abcdef',
        dirty=False,
        seed=seed,
        hardware='2 x CPU',
        versions=dict(torch='2.10.0'),
        command='python tools/test.py',
        date='2026-01-02T03:04:05+00:00',
    )
    (folder / 'test.json').write_text(json.dumps(result))


def draw_pretraining(root, seed=0, levels=(0.1, 0.2, 0.7), stem=PRETRAINING):
    """Write a run of SimSiam that logged these collapse levels, one an epoch; returns its folder."""
    folder = root / 'runs' / stem / f'seed{seed}-frac100'
    lines = []
    for epoch, level in enumerate(levels, 1):
        lines.append(dict(loss=-level, collapse_level=level, epoch=epoch, iter=4 * epoch, step=4 * epoch))
        lines.append({'probe/knn_accuracy': 0.5 + level / 10, 'step': epoch})
    _write_lines(folder, lines)
    return folder


def _write_log(folder, measure, reached, epochs):
    lines = []
    for epoch in range(1, epochs + 1):
        lines += [
            dict(loss=2 / epoch + k / 50, epoch=epoch, iter=10 * epoch + k, step=10 * epoch + k)
            for k in (1, 2)
        ]
        lines.append({f'xray/{measure}': reached * epoch / epochs, 'step': epoch})
    _write_lines(folder, lines)


def _write_lines(folder, lines):
    logs = folder / '20260102_030405' / 'vis_data'
    logs.mkdir(parents=True)
    (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')


def draw_study(root, skills, seeds=(0, 1), fractions=(100,), parts=20):
    """Write a study's runs; `skills` gives each init its skill. Returns the folders."""
    truth, val = draw_truth(root, parts), draw_val(root)
    folders = []
    for init, skill in skills.items():
        for fraction in fractions:
            for seed in seeds:
                place = root / 'runs' / STEM.format(arm=arm_token(init)) / f'seed{seed}-frac{fraction}'
                share = skill * (0.4 + 0.6 * fraction / 100)
                folders.append(draw_run(root, place, truth, init, share, seed, val))
    return folders
