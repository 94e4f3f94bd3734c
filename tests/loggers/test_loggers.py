"""MLflow, W&B and ClearML by one override: scalars, pictures and config of a real run, without a server.

They are not in the lock (docs/training.md says why): `make test-loggers` installs them for these tests alone.
"""

import json
import os
import subprocess
import sys
import zipfile

import cv2
import pytest
from helpers.config_grammar import find
from helpers.one_epoch import one_epoch


@pytest.fixture
def trained(tiny_coco, tmp_path, repo):
    """Factory: a detector's epoch with an option for the logger; what the run said, its folder, ClearML's."""

    def run(*options):
        root = tiny_coco(n=4)
        config = find('faster-rcnn_lite0-scratch_fpn_1xb4-4e_synthetic')
        offline = dict(
            WANDB_MODE='offline', CLEARML_OFFLINE_MODE='1', CLEARML_CACHE_DIR=str(tmp_path / 'cache')
        )
        done = subprocess.run(
            [sys.executable, repo / 'tools/train.py', config, '--cfg-options', *one_epoch(root), *options],
            cwd=tmp_path,
            env=os.environ | offline | dict(OMP_NUM_THREADS='1', HOME=str(tmp_path)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr, tmp_path / 'work_dirs' / config.stem, tmp_path / 'cache'

    return run


def test_mlflow_has_scalars_pictures_and_config(trained):
    result, folder, _ = trained(
        'visualizer.vis_backends.1.type=MLflowVisBackend',
        'visualizer.vis_backends.1.exp_name=castings',
    )
    assert 'Could not log' not in result
    (run,) = (path.parent for path in folder.rglob('mlruns/*/*/metrics') if path.is_dir())
    assert (run / 'metrics/loss').read_text() and (run / 'metrics/xray/AP50').read_text()
    assert 'LoadXray' in (run / 'artifacts/config.py').read_text()
    assert (run / 'params/train_cfg.max_epochs').read_text() == '1'
    pictures = [cv2.imread(str(path)) for path in (run / 'artifacts').rglob('val_*/1.png')]
    assert len(pictures) == 4 and all(picture is not None for picture in pictures)


def test_wandb_has_scalars_pictures_and_config(trained):
    _, folder, _ = trained('visualizer.vis_backends.1.type=WandbVisBackend')
    (log,) = folder.rglob('offline-run-*/run-*.wandb')
    content = log.read_bytes()  # protocol buffers; text stands in them as it is
    assert b'xray/AP50' in content and b'loss_rpn_cls' in content and b'LoadXray' in content
    assert len(list((log.parent / 'files/media/images').glob('val_*.png'))) == 4


def test_clearml_has_scalars_pictures_and_config(trained):
    _, _, cache = trained('visualizer.vis_backends.1.type=ClearMLVisBackend')
    (session,) = (cache / 'offline').glob('*.zip')
    with zipfile.ZipFile(session) as files:
        assert 'LoadXray' in json.dumps(json.loads(files.read('task.json'))['configuration'])
        metrics = files.read('metrics.jsonl').decode()
        names = files.namelist()
    assert 'xray/AP50' in metrics
    assert '"metric": "loss"' in metrics and 'training_debug_image' in metrics
    assert sum('/metrics/val_' in name for name in names) == 4
