"""Shared by all tests: the repository on the path, one thread, tiny radiograph sets, a small classifier."""

import functools
import http.server
import json
import os
import re
import sys
import threading
from pathlib import Path

# Before torch, NumPy and OpenCV are imported: two cores are shared by everything a test starts.
for _name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
    os.environ[_name] = '1'
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from helpers.plates import draw_radiograph, outline_of  # noqa: E402

import projects  # noqa: E402, F401  (before mmdet: it brings mmcv's operators)

cv2.setNumThreads(1)


@pytest.fixture(autouse=True, scope='session')
def state_of_its_own(tmp_path_factory):
    """Nothing is kept in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_STATE_HOME', str(tmp_path_factory.mktemp('state')))
        patch.setenv('MMXRAY_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='session')
def repo() -> Path:
    """Root of the checkout."""
    return REPO


@pytest.fixture
def tiny_coco(tmp_path):
    """Factory of a labelled set in the layout that the converters write.

    `tiny_coco(n=4, bits=8, types=('crack', 'gas_pore'), empty=0, unlabeled=0, size=96, name='data', seed=0,
    masks=False)` draws `n` radiographs per split, the last `empty` of them free of defects, into
    `tmp_path/name` and returns that folder. The types take turns, so `n - empty >= len(types)` shows every
    type in every split. With `masks` each box comes with the polygon of its ellipse.
    """

    def make(
        n=4,
        bits=8,
        types=('crack', 'gas_pore'),
        empty=0,
        unlabeled=0,
        size=96,
        name='data',
        seed=0,
        masks=False,
    ):
        rng = np.random.default_rng(seed)
        root = tmp_path / name
        (root / 'images').mkdir(parents=True)
        top = 2**bits - 1
        dtype = np.uint8 if bits == 8 else np.uint16

        def write(path, image):
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), np.round(image * top).astype(dtype))

        for split in ('train', 'val', 'test'):
            images, annotations = [], []
            for i in range(n):
                image, boxes = draw_radiograph(rng, size, 0 if i >= n - empty else 1 + i % 2)
                file_name = f'{split}_{i:03d}.png'
                write(root / 'images' / file_name, image)
                images.append(
                    dict(
                        id=i + 1,
                        file_name=file_name,
                        width=size,
                        height=size,
                        part=f'{split}{i // 2}',
                        view=i % 2,
                    )
                )
                for k, box in enumerate(boxes):
                    annotations.append(
                        dict(
                            id=len(annotations) + 1,
                            image_id=i + 1,
                            category_id=(i + k) % len(types) + 1,
                            bbox=box,
                            area=round(box[2] * box[3], 2),
                            iscrowd=0,
                            **(dict(segmentation=[outline_of(box)]) if masks else {}),
                        )
                    )
            categories = [dict(id=k + 1, name=name) for k, name in enumerate(types)]
            coco = dict(
                info=dict(description='drawn by tests/conftest.py'),
                images=images,
                annotations=annotations,
                categories=categories,
            )
            (root / f'{split}.json').write_text(json.dumps(coco))
        for i in range(unlabeled):
            image, _ = draw_radiograph(rng, size, i % 2)
            write(root / 'unlabeled' / f'{i // 10:02d}' / f'{i:03d}.png', image)
        return root

    return make


CLASSIFIER = """
custom_imports = dict(
    imports=['projects.xray.' + name for name in ('compat', 'datasets', 'transforms', 'metrics', 'hooks')],
    allow_failed_imports=False,
)
default_scope = 'mmpretrain'
load = [dict(type='LoadXray'), dict(type='Resize', scale=32), dict(type='PackInputs')]
loader = dict(batch_size=4, num_workers=0, collate_fn=dict(type='default_collate'))
data = dict(
    type='XraySeverity',
    data_root='{root}',
    metainfo=dict(classes=('critical', 'minor')),
    severity=dict(crack='critical', gas_pore='minor'),
    pipeline=load,
)
train_dataloader = dict(
    dataset=dict(ann_file='train.json', **data), sampler=dict(type='DefaultSampler', shuffle=True), **loader
)
test_dataloader = dict(
    dataset=dict(ann_file='test.json', test_mode=True, **data),
    sampler=dict(type='DefaultSampler', shuffle=False),
    **loader,
)
test_evaluator = dict(type='XraySeverityMetric')
test_cfg = dict()
# No batch norm: one process with a batch of 8 is two ranks with 4 each.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[114.5], std=[57.6]),
    backbone=dict(type='LeNet5', num_classes=2),
    head=dict(type='ClsHead', loss=dict(type='CrossEntropyLoss')),
)
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2))
custom_hooks = [dict(type='VerifiedLoadHook'), dict(type='FiniteLossHook'), dict(type='PaceHook')]
"""


@pytest.fixture
def classifier(tiny_coco, tmp_path, monkeypatch, request):
    """Config of a small classifier that trains and tests in seconds; its name is the test's.

    The test runs in `tmp_path`, where the config, the data and whatever a tool writes lie.
    """
    monkeypatch.chdir(tmp_path)
    path = tmp_path / (re.sub(r'\W+', '_', request.node.name) + '.py')
    path.write_text(CLASSIFIER.replace('{root}', str(tiny_coco(n=16))))
    return path


@pytest.fixture
def two_iterations(tiny_coco):
    """Options of a pretraining recipe that leave of the run two iterations of four radiographs."""
    return [
        f'train_dataloader.dataset.data_root={tiny_coco(n=1, types=("crack",), unlabeled=8)}',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
    ]


@pytest.fixture
def url(tmp_path):
    """Where `tmp_path` is served over HTTP."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()
