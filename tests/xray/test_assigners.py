"""What a detector learns of crowd and of objects marked difficult: nothing, not even background."""

import json

import pytest
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from projects.xray.assigners import XrayMaxIoUAssigner
from projects.xray.datasets import XrayDefects
from projects.xray.transforms import LoadXray  # noqa: F401  (registers itself)

RPN = dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True)
# An object, a box in the crowd region, one beside it, one that lies in it by less than half.
PRIORS = [[0, 0, 10, 10], [52, 52, 60, 60], [30, 30, 38, 38], [45, 45, 55, 55]]
CROWD = [[50, 50, 80, 80]]


@pytest.fixture(autouse=True)
def scope():
    """A detector is built in its own scope, whatever a test before left."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def assign(assigner, objects, crowd, priors=PRIORS):
    boxes = torch.tensor(objects, dtype=torch.float).reshape(-1, 4)
    truth = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    ignored = InstanceData(bboxes=torch.tensor(crowd, dtype=torch.float).reshape(-1, 4))
    anchors = InstanceData(priors=torch.tensor(priors, dtype=torch.float))
    return assigner.assign(anchors, truth, ignored).gt_inds


def test_crowd_is_ignored_and_no_background():
    found = assign(XrayMaxIoUAssigner(**RPN), [[0, 0, 10, 10]], CROWD)
    assert found.tolist() == [1, -1, 0, 0]
    # mmdet's default: background.
    assert assign(MaxIoUAssigner(**RPN), [[0, 0, 10, 10]], CROWD).tolist() == [1, 0, 0, 0]


def test_crowd_is_ignored_in_an_image_without_objects():
    assert assign(XrayMaxIoUAssigner(**RPN), [], CROWD).tolist() == [0, -1, 0, 0]
    # mmdet's own threshold does nothing there.
    assert assign(MaxIoUAssigner(**RPN, ignore_iof_thr=0.5), [], CROWD).tolist() == [0, 0, 0, 0]


def test_an_object_in_a_crowd_region_is_learnt():
    objects = [[52, 52, 60, 60]]
    assert assign(XrayMaxIoUAssigner(**RPN), objects, CROWD).tolist()[1] == 1
    # mmdet's own threshold takes its anchors away.
    assert assign(MaxIoUAssigner(**RPN, ignore_iof_thr=0.5), objects, CROWD).tolist()[1] == -1


def test_without_crowd_nothing_changes():
    objects = [[0, 0, 10, 10], [50, 50, 58, 60]]
    own, mmdets = (assign(kind(**RPN), objects, []) for kind in (XrayMaxIoUAssigner, MaxIoUAssigner))
    assert own.tolist() == mmdets.tolist()


def test_crowd_of_a_file_is_ignored_in_training(tiny_coco):
    root = tiny_coco(n=2)
    coco = json.loads((root / 'train.json').read_text())
    first = coco['annotations'][0]
    first['iscrowd'] = 1
    (root / 'train.json').write_text(json.dumps(coco))
    pipeline = [
        dict(type='LoadXray'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id',)),
    ]
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = XrayDefects(
            ann_file='train.json',
            data_root=str(root),
            data_prefix=dict(img='images'),
            severity='castings',
            pipeline=pipeline,
        )
        sample = next(s for i in range(2) if (s := dataset[i]['data_samples']).img_id == first['image_id'])
    crowd, objects = (found.bboxes.tensor for found in (sample.ignored_instances, sample.gt_instances))
    x, y, w, h = first['bbox']
    torch.testing.assert_close(crowd, torch.tensor([[x, y, x + w, y + h]]))
    within = [[x + 1, y + 1, x + w / 2, y + h / 2]]
    found = assign(XrayMaxIoUAssigner(**RPN), objects.tolist(), crowd.tolist(), within)
    assert found.tolist() == [-1]
    assert assign(MaxIoUAssigner(**RPN), objects.tolist(), crowd.tolist(), within).tolist() == [0]
