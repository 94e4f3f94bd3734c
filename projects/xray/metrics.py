"""Metrics with the severity in mind: average precision per class, at box and at image level.

All values are fractions in [0, 1]. A class without ground truth has the AP nan and is left out of the mean.
"""

# ruff: noqa: D107 (arguments are documented on the class)

import math
from collections.abc import Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from .datasets import DatasetError, load_defects

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = 100  # per image, as COCO


@METRICS.register_module()
class XrayDefectMetric(BaseMetric):
    """COCO average precision of defect boxes, per class, at IoU .50:.95 and at IoU .50.

    Returns `AP`, `AP50`, `AP_<class>`, `AP50_<class>`; with `drop_series` also `AP_without_<series>` and
    `AP50_without_<series>`, and the same per class. Without any detection they are 0. A class without
    ground truth has nan, so do not give it to `save_best`; `AP50` and `AP` always are numbers.

    The images that the model saw are evaluated; when the file has more, a line says so.

    Args:
        ann_file: COCO annotation file, that of the dataset.
        severity: See `datasets.read_severity`; that of the dataset.
        drop_series: Values of the images' `series` to leave out together in a second evaluation.
        prefix: Put before the names, with a slash.
        collect_device: 'cpu' or 'gpu', for several ranks.

    Raises:
        DatasetError: See `datasets.load_defects`; or the model saw images that are not in `ann_file`; or
            `drop_series` is given and no image has a `series`.
    """

    default_prefix = 'xray'

    def __init__(
        self,
        ann_file: str,
        severity: str | dict | None = None,
        drop_series: Sequence[str] = (),
        prefix: str | None = None,
        collect_device: str = 'cpu',
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.severity = severity
        self.drop_series = tuple(drop_series)

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        """Take the classes from the dataset and load the ground truth, before training starts."""
        self._dataset_meta = dataset_meta
        self.truth = load_defects(self.ann_file, dataset_meta['classes'], self.severity)
        counted = {ann['category_id'] for ann in self.truth['annotations'] if not ann['iscrowd']}
        absent = [c['name'] for c in self.truth['categories'] if c['id'] not in counted]
        if absent:
            print_log(f'{self.ann_file}: no boxes of {absent}; their AP is nan', logger='current')
        if self.drop_series:
            series = {image.get('series') for image in self.truth['images']}
            if series == {None}:
                raise DatasetError(
                    f'{self.ann_file}: drop_series={self.drop_series}, but no image has a `series`; convert '
                    'the data set again or remove `drop_series`'
                )
            unknown = sorted(set(self.drop_series) - series)
            if unknown:
                print_log(f'{self.ann_file}: no image of series {unknown}, nothing to drop', logger='current')

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch, in px of the image as stored.

        Args:
            data_batch: Unused.
            data_samples: Dicts of `img_id` and `pred_instances` (bboxes xyxy (N, 4), scores (N), labels (N)).
        """
        for sample in data_samples:
            found = sample['pred_instances']
            self.results.append(
                (sample['img_id'], *(found[k].cpu().numpy() for k in ('bboxes', 'scores', 'labels')))
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the detections of all ranks."""
        images = {image['id']: image for image in self.truth['images']}
        seen = {result[0] for result in results}
        unknown = seen - set(images)
        if unknown:
            raise DatasetError(
                f'{self.ann_file}: no image with the ids {sorted(unknown)[:5]}, which the model saw; give '
                'metric and dataset the same `ann_file`'
            )
        if len(seen) < len(images):
            print_log(
                f'{self.ann_file}: evaluated on the {len(seen)} of {len(images)} images that the model saw',
                logger='current',
            )
        detections = [
            dict(
                image_id=img_id,
                category_id=int(label) + 1,
                bbox=[float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                score=float(score),
            )
            for img_id, boxes, scores, labels in results
            for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True)
        ]
        metrics = self._average_precision(detections, seen)
        if self.drop_series:
            kept = {i for i in seen if images[i].get('series') not in self.drop_series}
            without = self._average_precision(detections, kept)
            name = '-'.join(self.drop_series)
            metrics |= {f'{key}_without_{name}': value for key, value in without.items()}
        return metrics

    def _average_precision(self, detections: list[dict], img_ids: set[int]) -> dict[str, float]:
        """Return AP and AP50, mean and per class, over some images."""
        truth = {k: self.truth[k] for k in ('images', 'annotations', 'categories')}
        coco = COCO(truth, use_deepcopy=True)
        evaluation = COCOeval_faster(coco, coco.loadRes(detections), 'bbox')
        evaluation.params.imgIds = sorted(img_ids)
        evaluation.params.iouThrs = IOU_THRESHOLDS
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        # (IoU thresholds, recalls, classes, area ranges, max detections); -1 where a class has no box.
        precision = evaluation.eval['precision'][:, :, :, 0, -1]
        names = [category['name'] for category in truth['categories']]
        metrics = {}
        for key, table in (('AP', precision), ('AP50', precision[:1])):
            per_class = [_mean(column[column > -1]) for column in table.reshape(-1, len(names)).T]
            metrics[key] = _mean([ap for ap in per_class if not math.isnan(ap)])
            metrics |= {f'{key}_{name}': ap for name, ap in zip(names, per_class, strict=True)}
        return metrics


@METRICS.register_module()
class XraySeverityMetric(BaseMetric):
    """Image-level severity: `AP_<class>`, their mean `mAP`, `accuracy` and `balanced_accuracy`.

    AP ranks the images by the score of the class, ties sharing one threshold. Plain accuracy flatters a
    classifier that always names the frequent class; balanced accuracy, the mean recall of the classes,
    gives that one 1/2.

    Args:
        prefix: Put before the names, with a slash.
        collect_device: 'cpu' or 'gpu', for several ranks.
    """

    default_prefix = 'xray'

    def __init__(self, prefix: str | None = None, collect_device: str = 'cpu'):
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep scores and labels of a batch.

        Args:
            data_batch: Unused.
            data_samples: Dicts of `pred_score` (classes), `pred_label` (1) and `gt_label` (1).
        """
        for sample in data_samples:
            self.results.append(
                (sample['pred_score'].cpu().numpy(), int(sample['pred_label']), int(sample['gt_label']))
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the images of all ranks."""
        scores, predicted, truth = (np.asarray(column) for column in zip(*results, strict=True))
        precisions, recalls, metrics = [], [], {}
        for label, name in enumerate(self.dataset_meta['classes']):
            mine = truth == label
            metrics[f'AP_{name}'] = average_precision(scores[:, label], mine)
            if mine.any():
                precisions.append(metrics[f'AP_{name}'])
                recalls.append(float((predicted[mine] == label).mean()))
        return metrics | dict(
            mAP=_mean(precisions),
            accuracy=float((predicted == truth).mean()),
            balanced_accuracy=_mean(recalls),
        )


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall curve, Σ (R_k − R_{k−1}) P_k over the distinct thresholds k.

    Args:
        scores: (N) floats.
        positive: (N) bool.

    Returns:
        Average precision in [0, 1]; nan without a positive.
    """
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind='stable')
    scores, positive = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each run of equal scores
    hits = np.cumsum(positive)[last]
    recall_steps = np.diff(hits, prepend=0) / hits[-1]
    return float((recall_steps * hits / (last + 1)).sum())


def _mean(values: Sequence[float]) -> float:
    """Mean, or nan of nothing."""
    return float(np.mean(values)) if len(values) else math.nan
