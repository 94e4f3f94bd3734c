import copy
import json
import math
import os
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from projects.measures.images import MeasureError
from projects.radiograph.rle import encode_rle
from projects.xray.classes import CLASSES
from projects.xray.datasets import DatasetError
from projects.xray.metrics import XrayDefectMetric, XraySeverityMetric, average_precision

SEVERITY = {'crack': 'critical', 'pore': 'minor'}
META = dict(classes=CLASSES)


def draw_truth(tmp_path, n=12, per_image=4, types=('crack', 'pore'), seed=0, largest=60):
    """Write a COCO file of random boxes in images of 200 x 200 px, half of them of series C0055."""
    rng = np.random.default_rng(seed)
    images = [
        dict(id=10 + i, file_name=f'{i}.png', width=200, height=200, series='C0055' if i % 2 else 'C0001')
        for i in range(n)
    ]
    annotations = []
    for image in images:
        for _ in range(per_image):
            w, h = rng.uniform(10, largest, 2)
            x, y = rng.uniform(0, 200 - w), rng.uniform(0, 200 - h)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=int(rng.integers(len(types))) + 1,
                    bbox=[float(v) for v in (x, y, w, h)],
                    area=float(w * h),
                    iscrowd=0,
                )
            )
    coco = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(types)],
    )
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(coco))
    return path, coco


def detect(coco, noise=6.0, false=3, drop=0.2, seed=1):
    """Detections of a mediocre detector: shifted boxes, some wrong classes, some missed, some false."""
    rng = np.random.default_rng(seed)
    samples = []
    for image in coco['images']:
        boxes, labels = [], []
        for ann in coco['annotations']:
            if ann['image_id'] == image['id'] and rng.random() > drop:
                x, y, w, h = np.array(ann['bbox']) + rng.normal(0, noise, 4) * (1, 1, 0.5, 0.5)
                boxes.append([x, y, x + max(w, 2), y + max(h, 2)])
                labels.append(ann['category_id'] - 1 if rng.random() > 0.2 else int(rng.integers(2)))
        for _ in range(false):
            x, y = rng.uniform(0, 150, 2)
            boxes.append([x, y, x + 30, y + 30])
            labels.append(int(rng.integers(2)))
        samples.append(sample(image['id'], boxes, rng.random(len(boxes)), labels))
    return samples


def sample(img_id, boxes, scores, labels):
    found = InstanceData(
        bboxes=torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(np.array(scores), dtype=torch.float32),
        labels=torch.tensor(np.array(labels), dtype=torch.long),
    )
    return DetDataSample(metainfo=dict(img_id=img_id), pred_instances=found)


def evaluate(metric, samples, meta=META, batch=4):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = meta
    for start in range(0, len(samples), batch):
        evaluator.process(samples[start : start + batch])
    return evaluator.evaluate(len(samples))


def with_pycocotools(path, samples, img_ids=None):
    """AP and AP50, mean and per category id, and AP by size, from the reference implementation."""
    rows = [
        dict(
            image_id=s.img_id,
            category_id=int(label) + 1,
            bbox=[float(v) for v in (x1, y1, x2 - x1, y2 - y1)],
            score=float(score),
        )
        for s in samples
        for (x1, y1, x2, y2), score, label in zip(
            s.pred_instances.bboxes.numpy(), s.pred_instances.scores, s.pred_instances.labels
        )
    ]
    return reference(path, rows, 'bbox', img_ids)


def reference(path, rows, shape, img_ids=None):
    """What the reference implementation says of COCO results, by the IoU of boxes or masks."""
    truth = COCO(str(path))
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), shape)
    if img_ids:
        evaluation.params.imgIds = img_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval['precision'][..., 0, -1]
    return (
        evaluation.stats[0],
        evaluation.stats[1],
        [precision[:, :, k].mean() for k in range(2)],
        [precision[0, :, k].mean() for k in range(2)],
        evaluation.stats[3:6],
    )


# -------------------------------------------------------------------------------------- XrayDefectMetric


def ellipse(box):
    """Bool mask (200, 200) of the ellipse in a box x1 y1 x2 y2."""
    x1, y1, x2, y2 = box
    yy, xx = np.mgrid[:200, :200] + 0.5
    return ((2 * xx - x1 - x2) / (x2 - x1)) ** 2 + ((2 * yy - y1 - y2) / (y2 - y1)) ** 2 <= 1


def with_ellipses(path, coco, samples):
    """Give the flaws of a drawn file and the detections on it masks; crowd keeps its box alone."""
    for ann in coco['annotations']:
        x, y, w, h = ann['bbox']
        mask = ellipse((x, y, x + w, y + h))
        ann |= dict(segmentation=encode_rle(mask), area=int(mask.sum()))
    path.write_text(json.dumps(coco))
    for found in (s.pred_instances for s in samples):
        masks = [ellipse(box) for box in found.bboxes.numpy()]
        found.masks = torch.tensor(np.array(masks).reshape(-1, 200, 200), dtype=torch.bool)


def test_masks_agree_with_pycocotools(tmp_path):
    path, coco = draw_truth(tmp_path)
    samples = detect(coco, noise=4.0)
    with_ellipses(path, coco, samples)
    metric = XrayDefectMetric(str(path), severity=SEVERITY, masks=True, drop_series=['C0055'])
    got = evaluate(metric, samples)
    rows = [
        dict(
            image_id=s.img_id,
            category_id=int(label) + 1,
            segmentation=coco_mask.encode(np.asfortranarray(mask.numpy(), np.uint8)),
            score=float(score),
        )
        for s in samples
        for mask, score, label in zip(
            s.pred_instances.masks, s.pred_instances.scores, s.pred_instances.labels, strict=True
        )
    ]
    kept = [image['id'] for image in coco['images'] if image['series'] != 'C0055']
    for img_ids, ending in ((None, ''), (kept, '_without_C0055')):
        ap, ap50, per_class, per_class50, sizes = reference(path, rows, 'segm', img_ids)
        assert 0.05 < ap < ap50 < 0.95
        expected = {'AP': ap, 'AP50': ap50}
        for i, name in enumerate(CLASSES):
            expected |= {f'AP_{name}': per_class[i], f'AP50_{name}': per_class50[i]}
        expected |= {f'AP_{size}': sizes[i] for i, size in enumerate(('small', 'medium')) if sizes[i] > -1}
        found = {key: got[f'xray/segm_{key}{ending}'] for key in expected}
        assert found == pytest.approx(expected, abs=1e-9)
    # Boxes are measured as ever, and differ.
    boxes = evaluate(XrayDefectMetric(str(path), severity=SEVERITY, drop_series=['C0055']), samples)
    assert {key: got[key] for key in boxes} == pytest.approx(boxes, nan_ok=True)
    assert set(got) - set(boxes) == {
        'xray/size_ratio',
        *(k.replace('/', '/segm_') for k in got if '/AP' in k),
    }
    assert got['xray/segm_AP'] != pytest.approx(got['xray/AP'], abs=1e-4)
    assert 0.8 < got['xray/size_ratio'] < 1.2
    for row, wanted in zip(metric.predictions['detections'], rows, strict=True):
        assert row['area'] == coco_mask.area(wanted['segmentation'])
        assert row['segmentation'] == dict(size=[200, 200], counts=wanted['segmentation']['counts'].decode())
    json.dumps(metric.predictions)  # as the predictions are written


def test_masks_are_measured_where_all_flaws_have_one(tmp_path):
    path, coco = draw_truth(tmp_path)
    samples = detect(coco)
    with_ellipses(path, coco, samples)
    del coco['annotations'][3]['segmentation']
    path.write_text(json.dumps(coco))
    metric = XrayDefectMetric(str(path), severity=SEVERITY, masks=True)
    with pytest.raises(DatasetError, match='1 of 48 .*`segmentation`'):
        metric.dataset_meta = META
    coco['annotations'][3]['iscrowd'] = 1  # ignored by its box
    path.write_text(json.dumps(coco))
    assert evaluate(metric, samples)['xray/segm_AP'] > 0


def test_a_model_that_finds_nothing_has_no_mask_to_measure(tmp_path):
    path, coco = draw_truth(tmp_path)
    samples = [sample(image['id'], [], [], []) for image in coco['images']]
    with_ellipses(path, coco, samples)
    got = evaluate(XrayDefectMetric(str(path), severity=SEVERITY, masks=True), samples)
    assert got['xray/segm_AP'] == got['xray/segm_AP50_critical'] == 0
    assert math.isnan(got['xray/size_ratio'])


def test_agrees_with_pycocotools(tmp_path):
    path, coco = draw_truth(tmp_path)
    samples = detect(coco)
    got = evaluate(XrayDefectMetric(str(path), severity=SEVERITY), samples)
    ap, ap50, per_class, per_class50, _ = with_pycocotools(path, samples)
    assert 0.05 < ap < ap50 < 0.95  # the detector is neither perfect nor useless
    expected = {'xray/AP': ap, 'xray/AP50': ap50}
    for i, name in enumerate(CLASSES):
        expected |= {f'xray/AP_{name}': per_class[i], f'xray/AP50_{name}': per_class50[i]}
    assert {key: got[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert got['xray/AP50_critical'] != pytest.approx(got['xray/AP50_minor'], abs=1e-3)


def test_sizes_agree_with_pycocotools(tmp_path):
    path, coco = draw_truth(tmp_path, n=30, largest=150)
    samples = detect(coco, noise=2.0)
    got = evaluate(XrayDefectMetric(str(path), severity=SEVERITY), samples)
    *_, by_size = with_pycocotools(path, samples)
    assert by_size.min() > 0 and len(set(by_size)) == 3
    assert [got[f'xray/AP_{size}'] for size in ('small', 'medium', 'large')] == pytest.approx(by_size)


def test_perfect_detections_score_one_in_image_pixels(tmp_path):
    path, coco = draw_truth(tmp_path, n=4)
    samples = [
        sample(
            image['id'],
            [[x, y, x + w, y + h] for x, y, w, h in (a['bbox'] for a in mine)],
            [0.9] * len(mine),
            [a['category_id'] - 1 for a in mine],
        )
        for image in coco['images']
        for mine in [[a for a in coco['annotations'] if a['image_id'] == image['id']]]
    ]
    got = evaluate(XrayDefectMetric(str(path), severity=SEVERITY), samples)
    assert got['xray/AP50'] == pytest.approx(1)
    assert got['xray/AP50_critical'] == pytest.approx(1)


def test_nothing_detected_gives_every_key_as_zero(tmp_path):
    path, coco = draw_truth(tmp_path, n=3)
    samples = [sample(image['id'], [], [], []) for image in coco['images']]
    got = evaluate(XrayDefectMetric(str(path), severity=SEVERITY), samples)
    zeros = [f'{key}{name}' for key in ('AP', 'AP50') for name in ('', '_critical', '_minor')]
    zeros += ['AP_small', 'AP_medium']
    zeros += [f'recall_critical_at_{limit}' for limit in ('0.1', '0.5', '1')]
    assert {key: value for key, value in got.items() if not math.isnan(value)} == {
        f'xray/{key}': 0.0 for key in zeros
    }
    # false alarms at a recall that is not reached, and large boxes, of which there are none
    assert sum(map(math.isnan, got.values())) == 3 + 1


def test_recall_of_critical_defects_at_false_alarms_per_image(tmp_path):
    path, coco = draw_truth(tmp_path, n=4, per_image=1, types=('crack',))
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (a['bbox'] for a in coco['annotations'])]
    far = [boxes[i][0] + 300 for i in range(4)]
    # Two defects found at .9, a false alarm in each image at .8, then the third defect; the fourth never.
    samples = [
        sample(
            image['id'],
            [[far[i], 0, far[i] + 9, 9], *([boxes[i]] if i < 3 else [])],
            [0.8, *([0.9] if i < 2 else [0.7] if i == 2 else [])],
            [0] * (2 if i < 3 else 1),
        )
        for i, image in enumerate(coco['images'])
    ]
    coco['categories'].append(dict(id=2, name='pore'))
    path.write_text(json.dumps(coco))
    got = evaluate(XrayDefectMetric(str(path), severity=SEVERITY), samples)
    assert got['xray/recall_critical_at_0.1'] == got['xray/recall_critical_at_0.5'] == 0.5
    assert got['xray/recall_critical_at_1'] == 0.75
    assert math.isnan(got['xray/false_alarms_at_0.8'])


def test_scores_that_are_not_finite_stop_the_evaluation(tmp_path):
    path, coco = draw_truth(tmp_path, n=2)
    samples = detect(coco)
    samples[1].pred_instances.scores[0] = float('nan')
    with pytest.raises(MeasureError, match='image 11: .*not finite'):
        evaluate(XrayDefectMetric(str(path), severity=SEVERITY), samples)


def test_a_class_without_truth_is_nan_and_left_out_of_the_mean(tmp_path, caplog):
    path, coco = draw_truth(tmp_path, types=('pore',))
    samples = detect(coco)
    metric = XrayDefectMetric(str(path), severity=SEVERITY)
    got = evaluate(metric, samples)
    assert math.isnan(got['xray/AP50_critical'])
    assert got['xray/AP50'] == got['xray/AP50_minor'] > 0
    assert got['xray/AP'] == got['xray/AP_minor'] > 0


def test_dropped_series_count_neither_as_truth_nor_as_false_detections(tmp_path):
    path, coco = draw_truth(tmp_path)
    samples = detect(coco)
    got = evaluate(XrayDefectMetric(str(path), severity=SEVERITY, drop_series=('C0055',)), samples)
    kept = [image['id'] for image in coco['images'] if image['series'] != 'C0055']
    ap, ap50, per_class, per_class50, by_size = with_pycocotools(path, samples, kept)
    assert got['xray/AP_without_C0055'] == pytest.approx(ap)
    assert got['xray/AP50_without_C0055'] == pytest.approx(ap50)
    assert got['xray/AP50_critical_without_C0055'] == pytest.approx(per_class50[0])
    assert got['xray/AP50'] != pytest.approx(ap50, abs=1e-3)
    assert [got[f'xray/AP_{size}_without_C0055'] for size in ('small', 'medium')] == pytest.approx(
        by_size[:2]
    )


def test_only_the_images_that_the_model_saw_are_evaluated(tmp_path):
    path, coco = draw_truth(tmp_path)
    samples = detect(coco)[:5]
    got = evaluate(XrayDefectMetric(str(path), severity=SEVERITY), samples)
    assert got['xray/AP'] == pytest.approx(with_pycocotools(path, samples, [s.img_id for s in samples])[0])


def test_one_class_without_a_map(tmp_path):
    path, coco = draw_truth(tmp_path, types=('defect',))
    samples = detect(coco)
    for one in samples:
        one.pred_instances.labels[:] = 0
    got = evaluate(XrayDefectMetric(str(path)), samples, meta=dict(classes=('defect',)))
    assert got['xray/AP50'] == got['xray/AP50_defect']


def test_the_metric_can_be_used_twice(tmp_path):
    path, coco = draw_truth(tmp_path)
    metric, samples = XrayDefectMetric(str(path), severity=SEVERITY, drop_series=('C0055',)), detect(coco)
    assert evaluate(metric, samples) == pytest.approx(evaluate(metric, samples), nan_ok=True)


def test_wrong_use_is_one_line_before_training(tmp_path):
    path, coco = draw_truth(tmp_path, n=2)
    with pytest.raises(DatasetError, match='val.json.*severity'):
        XrayDefectMetric(str(path)).dataset_meta = META
    with pytest.raises(DatasetError, match='gone.json'):
        XrayDefectMetric(str(tmp_path / 'gone.json'), severity=SEVERITY).dataset_meta = META
    with pytest.raises(DatasetError, match=r'val.json: no image with the ids \[99\]'):
        evaluate(XrayDefectMetric(str(path), severity=SEVERITY), [sample(99, [], [], [])])
    for image in coco['images']:
        del image['series']
    path.write_text(json.dumps(coco))
    with pytest.raises(DatasetError, match="drop_series=\\('C0055',\\), but no image has a `series`"):
        XrayDefectMetric(str(path), severity=SEVERITY, drop_series=['C0055']).dataset_meta = META


def _evaluate_half(rank, tmp_path, path, samples):
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank))
    torch.distributed.init_process_group(
        'gloo',
        init_method=f'file://{tmp_path}/meet',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    metric = XrayDefectMetric(str(path), severity=SEVERITY)
    metric.dataset_meta = META
    # As DefaultSampler: rank r sees r, r + 2, …; the last batch is filled up with the first image.
    mine = [*samples, samples[0]][rank::2]
    metric.process({}, [s.to_dict() for s in mine])
    result = metric.evaluate(len(samples))
    (tmp_path / f'{rank}.json').write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one(tmp_path):
    path, coco = draw_truth(tmp_path, n=7)
    samples = detect(coco)
    expected = evaluate(XrayDefectMetric(str(path), severity=SEVERITY), samples)
    arguments = tmp_path, path, samples
    ranks = mp.start_processes(_evaluate_half, arguments, nprocs=2, join=False, start_method='fork')
    try:
        end = time.monotonic() + 120
        while not ranks.join(timeout=10):  # raises what a rank raised
            assert time.monotonic() < end, 'the ranks wait for each other'
    finally:
        for rank in ranks.processes:
            rank.kill()
    for rank in range(2):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == pytest.approx(expected, nan_ok=True)


# ------------------------------------------------------------------------------------ XraySeverityMetric


def severity(scores, truth):
    samples = [
        DataSample().set_pred_score(torch.tensor([p, 1 - p])).set_pred_label(int(p < 0.5)).set_gt_label(label)
        for p, label in zip(scores, truth)
    ]
    return evaluate(XraySeverityMetric(), samples)


def test_severity_by_hand():
    # Score of critical, in rank order: .9 (critical) .8 (minor) .6 (critical) .3 (minor) .2 (critical)
    got = severity([0.8, 0.9, 0.2, 0.6, 0.3], [1, 0, 0, 0, 1])
    assert got == pytest.approx(
        {
            'xray/AP_critical': (1 / 1 + 2 / 3 + 3 / 5) / 3,
            'xray/AP_minor': (1 / 2 + 2 / 4) / 2,  # ranked the other way: .2 .3 .6 .8 .9
            'xray/mAP': ((1 + 2 / 3 + 3 / 5) / 3 + 1 / 2) / 2,
            'xray/accuracy': 3 / 5,  # right: .9, .6, .3
            'xray/recall_critical': 2 / 3,
            'xray/recall_minor': 1 / 2,
            'xray/balanced_accuracy': (2 / 3 + 1 / 2) / 2,
            # The named class has .8 (wrong), .9, .8 (right, of critical .2), .6 and .7, in five bins of 1/15
            # but the two at .8, which share one: |.9 - 1| + |1.6 - 0| ... see the sum.
            'xray/ece': (abs(0.9 - 1) + abs(1.6 - 0) + abs(0.6 - 1) + abs(0.7 - 1)) / 5,
        }
    )


def test_always_minor_looks_good_on_plain_accuracy_only():
    got = severity([0.0] * 10, [0] * 3 + [1] * 7)
    assert got['xray/accuracy'] == pytest.approx(0.7)
    assert got['xray/balanced_accuracy'] == 0.5
    # All scores tie: AP is the share of the class, whatever the order of the images.
    assert got['xray/AP_critical'] == pytest.approx(0.3)
    assert got['xray/AP_minor'] == pytest.approx(0.7)


def test_severity_without_critical_images():
    got = severity([0.1, 0.9], [1, 1])
    assert math.isnan(got['xray/AP_critical'])
    assert got['xray/mAP'] == got['xray/AP_minor'] == 1
    assert got['xray/balanced_accuracy'] == got['xray/accuracy'] == 0.5


def test_average_precision_of_ties_does_not_depend_on_order():
    scores, positive = np.array([0.5, 0.5, 0.5, 0.1]), np.array([True, False, False, True])
    expected = 0.5 * 1 / 3 + 0.5 * 2 / 4
    for order in ([0, 1, 2, 3], [2, 1, 0, 3], [3, 1, 0, 2]):
        assert average_precision(scores[order], positive[order]) == pytest.approx(expected)
