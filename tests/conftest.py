"""Shared by all tests: the repository on the path, one thread, tiny radiograph sets, a small classifier."""

import functools
import gc
import http.server
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
import pytest  # noqa: E402
from helpers.classifier import write_classifier  # noqa: E402
from helpers.drawn_sets import draw_set  # noqa: E402

import projects  # noqa: E402, F401  (before mmdet: it brings mmcv's operators)

cv2.setNumThreads(1)


def pytest_collection_finish():
    """Thousands of tests and the libraries stay until the end: the garbage collector need not visit them."""
    gc.collect()
    gc.freeze()


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
    """Factory: a labelled set in `tmp_path/name` with the settings of `draw_set`; returns that folder."""
    return lambda name='data', **settings: draw_set(tmp_path / name, **settings)


@pytest.fixture
def classifier(tiny_coco, tmp_path, monkeypatch, request):
    """Config of a small classifier that trains and tests in seconds; its name is the test's.

    The test runs in `tmp_path`, where the config, the data and whatever a tool writes lie.
    """
    monkeypatch.chdir(tmp_path)
    return write_classifier(tmp_path / (re.sub(r'\W+', '_', request.node.name) + '.py'), tiny_coco(n=16))


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
