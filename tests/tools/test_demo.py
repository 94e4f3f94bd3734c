"""The demo's detector learns from its labels: with the labels of other images it finds nothing."""

import json
import random
import subprocess
import sys

import pytest

CONFIG = 'configs/small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py'
DATA = '--labeled 600 --unlabeled 0 --size 256 --bits 8 --depth 5 --extra 8'


def tool(repo, name, *args):
    """Run a tool; an hour is several times what the longest takes."""
    subprocess.run([sys.executable, f'tools/{name}.py', *args], cwd=repo, check=True, timeout=3600)


def ap50(repo, data, work_dir, annotations):
    loaders = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    options = [
        *loaders,
        f'train_dataloader.dataset.ann_file={annotations}',
        f'val_evaluator.ann_file={data}/val.json',
        f'test_evaluator.ann_file={data}/test.json',
    ]
    tool(repo, 'train', CONFIG, '--work-dir', str(work_dir), '--cfg-options', *options)
    last = (work_dir / 'last_checkpoint').read_text().strip()
    tool(repo, 'test', CONFIG, last, '--work-dir', str(work_dir), '--cfg-options', *options)
    return json.loads((work_dir / 'test.json').read_text())['metrics']['xray/AP50']


@pytest.mark.long
def test_labels_are_what_the_demo_learns_from(repo, tmp_path):
    data = tmp_path / 'data'
    tool(repo, 'make_synthetic', str(data), *DATA.split())
    coco = json.loads((data / 'train.json').read_text())
    groups = [a['image_id'] for a in coco['annotations']]
    random.Random(0).shuffle(groups)
    for annotation, image_id in zip(coco['annotations'], groups):
        annotation['image_id'] = image_id
    (data / 'shuffled.json').write_text(json.dumps(coco))
    assert ap50(repo, data, tmp_path / 'labels', 'train.json') >= 0.30
    assert ap50(repo, data, tmp_path / 'shuffled', 'shuffled.json') <= 0.02
