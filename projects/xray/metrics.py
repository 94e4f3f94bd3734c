"""Metrics by severity: average precision and recall at few false alarms, for boxes and for images.

All values are fractions in [0, 1], except false alarms per image. The AP of a class without ground truth is
nan and is left out of the mean. After an evaluation `predictions` holds the model's predictions on every
image, for `report.predictions`.
"""

import math
from collections.abc import Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from pycocotools import mask as coco_mask

from projects.measures.calibration import calibration
from projects.measures.detection import SIZES
from projects.measures.flaws import size_ratios
from projects.measures.images import CRITICAL, read_images
from projects.measures.matching import match_all
from projects.measures.ranking import average_precision, froc

from .coco import load_defects
from .errors import DatasetError
from .label_table import SUFFIX, open_defects
from .masks import encode, with_masks

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = 100  # per image, as in COCO


@METRICS.register_module()
class XrayDefectMetric(BaseMetric):
    """COCO average precision of defect boxes, and recall of critical boxes at few false alarms.

    Returns `AP`, `AP50`, `AP_<class>`, `AP50_<class>` (IoU .50:.95 and .50), and `AP_small`, `AP_medium`,
    `AP_large` by COCO's areas (below 32² px², below 96² px², above). With `drop_series` it also returns
    `AP_without_<series>`, `AP50_without_<series>` and the same per class and size. All are 0 without
    detections. The AP of a class or size without ground truth is nan and must not be given to `save_best`;
    `AP50` and `AP` are always numbers. For the first class, the critical one, it returns
    `recall_<class>_at_<n>` at n false alarms per image, and `false_alarms_at_<recall>` per image, nan if that
    recall is not reached. `measures.matching` defines a hit.

    With `masks` it also returns `segm_AP` and so on, by the IoU of masks, and `size_ratio`: the median over
    the found flaws of predicted / annotated equivalent diameter (of the circle with the mask's area), nan if
    none is found. The predictions then contain the mask and area of each detection.

    Only images that the model saw are evaluated; a log line reports if the file has more.

    Args:
        ann_file: COCO annotation file of the data set. From its Parquet form only the images that the model
            saw are loaded.
        severity: Severity map of the data set, see `datasets.read_severity`.
        drop_series: Values of the images' `series` that a second evaluation leaves out.
        masks: Whether to evaluate predicted masks.
        prefix: Prefix of the names, followed by a slash.
        collect_device: 'cpu' or 'gpu', for several ranks.

    Raises:
        DatasetError: See `coco.load_defects`, and with `masks` also `masks.with_masks`; or the model saw
            images that are not in `ann_file`; or `drop_series` is given and no image has a `series`.
        MeasureError: A score or a box is not finite.
    """

    default_prefix = 'xray'

    def __init__(
        self,
        ann_file: str,
        severity: str | dict | None = None,
        drop_series: Sequence[str] = (),
        masks: bool = False,
        prefix: str | None = None,
        collect_device: str = 'cpu',
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.severity = severity
        self.drop_series = tuple(drop_series)
        self.masks = masks

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        """Set the classes and load the ground truth, before the training starts."""
        self._dataset_meta = dataset_meta
        classes = dataset_meta['classes']
        if self.ann_file.endswith(SUFFIX):
            self.table = open_defects(self.ann_file, classes, self.severity)
            if self.masks:
                self.table.check_once('masks', lambda coco: with_masks(coco, self.ann_file))
            counted = set((self.table.labels()[0] + 1).tolist())
        else:
            self.table, self.truth = None, load_defects(self.ann_file, classes, self.severity)
            if self.masks:
                self.truth = with_masks(self.truth, self.ann_file)
            counted = {ann['category_id'] for ann in self.truth['annotations'] if not ann['iscrowd']}
        absent = [name for k, name in enumerate(classes, 1) if k not in counted]
        if absent:
            print_log(f'{self.ann_file}: no boxes of {absent}; their AP is nan', logger='current')
        if self.drop_series:
            series = self.table.series() if self.table else {i.get('series') for i in self.truth['images']}
            if series == {None}:
                raise DatasetError(
                    f'{self.ann_file}: drop_series={self.drop_series}, but no image has a `series`; convert '
                    'the data set again or remove `drop_series`'
                )
            unknown = sorted(set(self.drop_series) - series)
            if unknown:
                print_log(f'{self.ann_file}: no image of series {unknown}, nothing to drop', logger='current')

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the detections of a batch, in px of the image file.

        Args:
            data_batch: Unused.
            data_samples: Dicts of `img_id` and `pred_instances` (bboxes xyxy (N, 4), scores (N), labels (N);
                with `masks` also masks (N, H, W) bool in the size of the image file).
        """
        for sample in data_samples:
            found = sample['pred_instances']
            boxes, scores, labels = (found[k].cpu().numpy() for k in ('bboxes', 'scores', 'labels'))
            masks = (
                [encode(mask) for mask in found['masks'].cpu().numpy()] if self.masks else [None] * len(boxes)
            )
            self.results.append((sample['img_id'], boxes, scores, labels, masks))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the detections of all ranks."""
        seen = {result[0] for result in results}
        self._take_truth(seen)
        images = {image['id']: image for image in self.truth['images']}
        detections = [
            dict(
                image_id=img_id,
                category_id=int(label) + 1,
                bbox=[float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                score=float(score),
                **({} if mask is None else dict(segmentation=mask, area=int(coco_mask.area(mask)))),
            )
            for img_id, boxes, scores, labels, masks in results
            for (x1, y1, x2, y2), score, label, mask in zip(boxes, scores, labels, masks, strict=True)
        ]
        measures = self._measures_of_flaws(detections, seen)
        metrics = self._average_precisions(detections, seen)
        if self.drop_series:
            kept = {i for i in seen if images[i].get('series') not in self.drop_series}
            without = self._average_precisions(detections, kept)
            name = '-'.join(self.drop_series)
            metrics |= {f'{key}_without_{name}': value for key, value in without.items()}
        self.predictions = dict(
            task='detection',
            classes=list(self.dataset_meta['classes']),
            truth=dict(
                images=[image for image in self.truth['images'] if image['id'] in seen],
                annotations=[
                    {key: value for key, value in ann.items() if key != 'segmentation'}
                    for ann in self.truth['annotations']
                    if ann['image_id'] in seen
                ],
                categories=self.truth['categories'],
            ),
            detections=detections,
        )
        return metrics | measures

    def _take_truth(self, seen: set[int]) -> None:
        """Load the ground truth of the images that the model saw, if it was not loaded before.

        Raises:
            DatasetError: Some of these images are not in `ann_file`.
        """
        if self.table:
            rows, unknown = self.table.rows_of(seen)
            total, self.truth = len(self.table), self.table.coco(rows)
            if self.masks:
                self.truth = with_masks(self.truth, self.ann_file)
        else:
            total = len(self.truth['images'])
            unknown = sorted(seen - {image['id'] for image in self.truth['images']})
        if unknown:
            raise DatasetError(
                f'{self.ann_file}: no image with the ids {unknown[:5]}, which the model saw; give '
                'metric and dataset the same `ann_file`'
            )
        if len(seen) < total:
            print_log(
                f'{self.ann_file}: evaluated on the {len(seen)} of {total} images that the model saw',
                logger='current',
            )

    def _measures_of_flaws(self, detections: list[dict], img_ids: set[int]) -> dict[str, float]:
        """Return recall of the critical class at false alarm rates, false alarms at recalls, and sizes."""
        matched = match_all(read_images(self.truth, detections, img_ids))
        curve = froc(matched)
        name = self.dataset_meta['classes'][CRITICAL]
        values = {f'recall_{name}_at_{limit:g}': recall for limit, recall in curve.recall_at.items()}
        values |= {f'false_alarms_at_{recall:g}': alarms for recall, alarms in curve.false_alarms_at.items()}
        if self.masks:
            ratios = size_ratios(matched, -math.inf)
            values['size_ratio'] = float(np.median(ratios)) if ratios.size else None
        return {key: math.nan if value is None else value for key, value in values.items()}

    def _average_precisions(self, detections: list[dict], img_ids: set[int]) -> dict[str, float]:
        """Return `_average_precision` of boxes, and with `masks` also of masks."""
        metrics = self._average_precision(detections, img_ids)
        if self.masks:
            # If a detection has a box, the library uses the box instead of the mask.
            masks = [
                {key: value for key, value in d.items() if key not in ('bbox', 'area')} for d in detections
            ]
            of_masks = self._average_precision(masks, img_ids, 'segm')
            metrics |= {f'segm_{key}': value for key, value in of_masks.items()}
        return metrics

    def _average_precision(
        self, detections: list[dict], img_ids: set[int], shape: str = 'bbox'
    ) -> dict[str, float]:
        """Return AP and AP50, mean and per class, and AP per size, over some images."""
        truth = {k: self.truth[k] for k in ('images', 'annotations', 'categories')}
        coco = COCO(truth, use_deepcopy=True)
        evaluation = COCOeval_faster(coco, coco.loadRes(detections), shape)
        evaluation.params.imgIds = sorted(img_ids)
        evaluation.params.iouThrs = IOU_THRESHOLDS
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        # (IoU thresholds, recalls, classes, area ranges [all, *SIZES], max detections); -1 without a box.
        precision = evaluation.eval['precision'][..., -1]
        sized = {size: precision[..., area] for area, size in enumerate(SIZES, 1)}
        precision = precision[..., 0]
        names = [category['name'] for category in truth['categories']]
        metrics = {}
        for key, table in (('AP', precision), ('AP50', precision[:1])):
            per_class = [_mean(column[column > -1]) for column in table.reshape(-1, len(names)).T]
            metrics[key] = _mean([ap for ap in per_class if not math.isnan(ap)])
            metrics |= {f'{key}_{name}': ap for name, ap in zip(names, per_class, strict=True)}
        return metrics | {f'AP_{size}': _mean(table[table > -1]) for size, table in sized.items()}


@METRICS.register_module()
class XraySeverityMetric(BaseMetric):
    """Image-level severity: `AP_<class>`, `mAP`, `recall_<class>`, `accuracy`, `balanced_accuracy`, `ece`.

    AP ranks the images by the score of the class; ties share one threshold. Plain accuracy is high for a
    classifier that always predicts the frequent class; its balanced accuracy, the mean recall of the classes,
    is 1/2. `ece` is the expected calibration error of the predicted class's score.

    Args:
        prefix: Prefix of the names, followed by a slash.
        collect_device: 'cpu' or 'gpu', for several ranks.
    """

    default_prefix = 'xray'

    def __init__(self, prefix: str | None = None, collect_device: str = 'cpu'):
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the scores and labels of a batch.

        Args:
            data_batch: Unused.
            data_samples: Dicts of `pred_score` (classes), `pred_label` (1), `gt_label` (1) and, for the
                predictions, `img_path`.
        """
        for sample in data_samples:
            self.results.append(
                (
                    sample['pred_score'].cpu().numpy(),
                    int(sample['pred_label']),
                    int(sample['gt_label']),
                    sample.get('img_path'),
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the images of all ranks."""
        *columns, paths = zip(*results, strict=True)
        scores, predicted, truth = (np.asarray(column) for column in columns)
        precisions, recalls, metrics = [], [], {}
        for label, name in enumerate(self.dataset_meta['classes']):
            mine = truth == label
            metrics[f'AP_{name}'] = average_precision(scores[:, label], mine)
            recall = float((predicted[mine] == label).mean()) if mine.any() else math.nan
            metrics[f'recall_{name}'] = recall
            if mine.any():
                precisions.append(metrics[f'AP_{name}'])
                recalls.append(recall)
        self.predictions = dict(
            task='severity',
            classes=list(self.dataset_meta['classes']),
            images=[
                dict(path=path, label=int(label), scores=[float(s) for s in row])
                for path, label, row in zip(paths, truth, scores, strict=True)
            ],
        )
        # a float32 softmax can exceed 1 by a rounding error
        named = np.clip(scores[np.arange(len(scores)), predicted], 0, 1)
        return metrics | dict(
            ece=calibration(named, predicted == truth).error,
            mAP=_mean(precisions),
            accuracy=float((predicted == truth).mean()),
            balanced_accuracy=_mean(recalls),
        )


def _mean(values: Sequence[float]) -> float:
    """Mean; nan for an empty sequence."""
    return float(np.mean(values)) if len(values) else math.nan
