"""What a detector learns of crowd and of objects marked difficult: nothing, not even background."""

import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmengine.structures import InstanceData

from projects.xray.assigners import XrayMaxIoUAssigner

RPN = dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True)
# An object, a box in the crowd region, one beside it, one that lies in it by less than half.
PRIORS = [[0, 0, 10, 10], [52, 52, 60, 60], [30, 30, 38, 38], [45, 45, 55, 55]]
CROWD = [[50, 50, 80, 80]]


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
