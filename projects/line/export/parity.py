"""Parity of an exported graph with mmdet: boxes, scores and AP50 compared on radiographs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose

from projects.line.runtime import Exported, Inspection, Inspector
from projects.measures import comparison
from projects.measures.bounds import StatisticsError
from projects.measures.images import read_images
from projects.measures.matching import box_iou
from projects.measures.ranking import average_precision_at
from projects.radiograph.parts import recorded_unit

from .detector import ExportError, Radiographs, _progress, padded_size

MIN_SAME_IOU = 0.99
MIN_MATCHED = 0.995  # share of mmdet's boxes that an fp32 graph finds again
MAX_MORE = 0.005  # additional boxes, as a share of mmdet's boxes
MAX_SCORE_ERROR = 1e-3
# By precision: mean over the boxes that are found again at IoU >= .5.
MIN_MASK_IOU = dict(fp32=0.99, int8=0.9)

ROUNDING = 1e-5  # noise of the RPN's logits; the scores of engines and of PyTorch differ by up to as much
ALTERNATIVES = 4  # runs of mmdet with such noise


# ------------------------------------------------------------------------------------------------- parity


class Found(tuple):
    """Boxes (N, 4) x1 y1 x2 y2 in px of the image as stored, scores (N) and labels (N) of one image.

    Attributes:
        masks: (N, H, W) bool of the image as stored, packed bits along W; None for a detector of boxes alone.
    """

    masks: np.ndarray | None = None

    @classmethod
    def of(cls, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, masks=None) -> 'Found':
        """Return the detections of one image, with `masks` (N, H, W) bool if there are any."""
        found = cls((boxes, scores, labels))
        if masks is not None:
            found.masks = np.packbits(masks, axis=-1)
        return found


@dataclass
class Reference:
    """mmdet's detections on validation images.

    A graph has one input size. mmdet pads a single image to the next multiple of 32, and a batch to the size
    of its largest image; the padding changes boxes near the border. Therefore boxes are compared with mmdet
    at the padding of the graph, and AP50 is compared with mmdet as it is tested, image by image.

    Attributes:
        images: The images.
        alike: Result of `mmdet_predictions` for each image, with the padding of the graph.
        alone: The same with mmdet's own padding.
        padded: Number of images for which the two paddings differ.
        rounded: Takes a seed and some of the images; runs mmdet as for `alike`, with noise of the size of
            rounding added to the RPN's logits.
    """

    images: Radiographs
    alike: list[tuple]
    alone: list[tuple]
    padded: int
    rounded: Callable[[int, Radiographs], list[tuple]]
    _drawn: dict[int, dict[int, tuple]] = field(default_factory=dict)

    def draw(self, seed: int, positions: Sequence[int]) -> list[tuple]:
        """Return mmdet's detections with noise of a seed on its logits; each image runs once per seed."""
        known = self._drawn.setdefault(seed, {})
        new = [k for k in positions if k not in known]
        if new:
            known.update(zip(new, self.rounded(seed, self.images.at(new)), strict=True))
        return [known[k] for k in positions]

    def ties(self, positions: Sequence[int]) -> list[int]:
        """Return those of some images on which rounding decides what mmdet finds.

        Where all features of the RPN are zero, as after a ReLU that learnt little, its anchors share the
        score of its bias. If such anchors rank among the proposals, the last bit decides which of them are
        kept, and so decides the boxes. mmdet then finds other boxes after noise of `ROUNDING` on its logits.
        """
        draws = [self.draw(seed, positions) for seed in range(2)]
        return [
            k
            for k, *others in zip(positions, *draws, strict=True)
            if not all(_all_found([self.alike[k]], [other]) for other in others)
        ]

    def alternatives(self, tied: Sequence[int]) -> list[list[tuple]]:
        """Return equally valid runs of mmdet: `alone`, with a draw of `ALTERNATIVES` on images with ties."""
        runs = []
        for seed in range(ALTERNATIVES):
            run = list(self.alone)
            for k, found in zip(tied, self.draw(seed, tied), strict=True):
                run[k] = found
            runs.append(run)
        return runs


def ask_mmdet(cfg: Config, detector, images: Radiographs, exported: Exported) -> Reference:
    """Run mmdet on images with the graph's padding and, where that differs, with mmdet's own."""
    alike = mmdet_predictions(cfg, detector, images.paths, exported.input)
    divisor = detector.data_preprocessor.pad_size_divisor
    others = [
        k
        for k, size in enumerate(images.sizes())
        if padded_size(size, exported.scale, divisor) != exported.input
    ]
    alone = list(alike)
    for k, own in zip(others, mmdet_predictions(cfg, detector, images.at(others).paths), strict=True):
        alone[k] = own

    def rounded(seed: int, some: Radiographs) -> list[tuple]:
        noise = torch.Generator().manual_seed(seed)
        hook = detector.rpn_head.rpn_cls.register_forward_hook(
            lambda module, arguments, logits: (
                logits + ROUNDING * torch.randn(logits.shape, generator=noise, dtype=logits.dtype)
            )
        )
        try:
            return mmdet_predictions(cfg, detector, some.paths, exported.input)
        finally:
            hook.remove()

    return Reference(images, alike, alone, len(others), rounded)


def mmdet_predictions(
    cfg: Config, detector, paths: Sequence[str], size: Sequence[int] | None = None
) -> list[tuple]:
    """Run mmdet itself, pipeline and preprocessor included.

    Args:
        cfg: The detector's config.
        detector: The detector that `load_detector` built.
        paths: Images.
        size: [height, width] in px to pad to, as in a batch with an image of that size; default, mmdet's
            padding of a single image.

    Returns:
        The detections of each image, see `Found`.
    """
    pipeline = _pipeline(cfg)
    found = []
    for path in _progress(paths, 'mmdet'):
        instances = _test_step(detector, pipeline(dict(img_path=path, img_id=0)), size).pred_instances
        arrays = (instances[key].numpy() for key in ('bboxes', 'scores', 'labels'))
        found.append(Found.of(*arrays, instances.masks.numpy() if 'masks' in instances else None))
    return found


def mmdet_runner(cfg: Config, detector) -> Callable[[str], dict[str, float]]:
    """Return a function that runs mmdet on a file and returns the seconds of its stages."""
    pipeline = _pipeline(cfg)
    load = pipeline.transforms[0]

    def run(path):
        clocks = [time.perf_counter()]
        results = load(dict(img_path=path, img_id=0))
        clocks.append(time.perf_counter())
        for transform in pipeline.transforms[1:]:
            results = transform(results)
        clocks.append(time.perf_counter())
        _test_step(detector, results)
        clocks.append(time.perf_counter())
        return dict(zip(('decode', 'window', 'network'), np.diff(clocks).tolist(), strict=True))

    return run


def _pipeline(cfg: Config) -> Compose:
    steps = [step for step in cfg.test_dataloader.dataset.pipeline if step.type != 'LoadAnnotations']
    return Compose([TRANSFORMS.build(step) for step in steps])


def _test_step(detector, item: dict, size: Sequence[int] | None = None):
    data = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
    with torch.no_grad():
        if size is None:
            return detector.test_step(data)[0]
        data = detector.data_preprocessor(data, False)
        height, width = data['inputs'].shape[-2:]
        # The preprocessor itself pads a normalised image with 0.
        data['inputs'] = torch.nn.functional.pad(data['inputs'], (0, size[1] - width, 0, size[0] - height))
        return detector(**data, mode='predict')[0]


def inspector_predictions(inspector: Inspector, paths: Sequence[str], name: str) -> list[tuple]:
    """Run the runtime on files; returns the same tuples as `mmdet_predictions`."""
    found = (inspector(path) for path in _progress(paths, name))
    return [Found.of(one.boxes, one.scores, one.labels, _whole_masks(one)) for one in found]


def _whole_masks(inspection: Inspection) -> np.ndarray | None:
    """Return masks (N, H, W) bool over the whole image; None for a detector of boxes alone."""
    if inspection.masks is None:
        return None
    whole = np.zeros((len(inspection.masks), *inspection.pixels.shape), bool)
    for layer, mask in zip(whole, inspection.masks, strict=True):
        height, width = mask.pixels.shape
        layer[mask.top : mask.top + height, mask.left : mask.left + width] = mask.pixels
    return whole


def compare_boxes(reference: Sequence[tuple], found: Sequence[tuple]) -> dict:
    """Match each box of a reference run with the box of its class that overlaps it most in another run.

    Returns:
        `boxes`, the number in the reference; `matched`, how many are found at IoU >= .99; `more`, the number
        of additional boxes; `score_max` and `score_mean`, the largest and mean score difference of matched
        boxes. If the reference has masks, `mask_iou` is the mean IoU of the masks over boxes found at
        IoU >= .5; None if there is no such box.
    """
    boxes, extra, differences, overlaps = 0, 0, [], []
    with_masks = any(getattr(one, 'masks', None) is not None for one in reference)
    for first, second in zip(reference, found, strict=True):
        (box, score, label), (other, other_score, other_label) = first, second
        boxes += len(box)
        extra += max(len(other) - len(box), 0)
        if not len(box) or not len(other):
            continue
        iou = box_iou(box, other)
        iou[label[:, None] != other_label] = 0
        best = iou.argmax(1)
        same = iou[np.arange(len(box)), best] >= MIN_SAME_IOU
        differences += np.abs(score - other_score[best])[same].tolist()
        masks, others = (getattr(one, 'masks', None) for one in (first, second))
        if masks is not None and others is not None:
            again = iou[np.arange(len(box)), best] >= 0.5
            overlaps += [_mask_iou(masks[k], others[best[k]]) for k in np.flatnonzero(again)]
    return dict(
        boxes=boxes,
        matched=len(differences),
        more=extra,
        score_max=float(np.max(differences, initial=0.0)),
        score_mean=float(np.mean(differences)) if differences else 0.0,
        **(dict(mask_iou=float(np.mean(overlaps)) if overlaps else None) if with_masks else {}),
    )


def _mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the IoU of two masks of packed bits; 1 for two empty masks."""
    common, union = (int(np.bitwise_count(f(first, second)).sum()) for f in (np.bitwise_and, np.bitwise_or))
    return common / union if union else 1.0


def as_detections(truth: dict, found: Sequence[tuple]) -> list[dict]:
    """Return predictions as COCO results."""
    return [
        dict(
            image_id=image['id'],
            category_id=int(label) + 1,
            bbox=[float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            score=float(score),
        )
        for image, predicted in zip(truth['images'], found, strict=True)
        for (x1, y1, x2, y2), score, label in zip(*predicted, strict=True)
    ]


def inspected(truth: dict, found: Sequence[tuple]) -> list:
    """Bring predictions and ground truth together for `measures`."""
    return read_images(truth, as_detections(truth, found), {image['id'] for image in truth['images']})


def ap50_measures(truth: dict, *runs: Sequence[tuple]) -> dict[str, Callable[[np.ndarray], float | None]]:
    """Return two measures: mean AP50 over the classes that have boxes, and AP50 of the critical class.

    Each is a function of positions among the images of all runs, one run after the other. It returns None
    where these images hold no box of the class.
    """
    images = [image for found in runs for image in inspected(truth, found)]
    per_class = [average_precision_at(images, label) for label in range(len(truth['categories']))]

    def mean(positions):
        values = [value for value in (ap(positions) for ap in per_class) if value is not None]
        return float(np.mean(values)) if values else None

    return {'AP50': mean, f'AP50_{truth["categories"][0]["name"]}': per_class[0]}


def compare_ap50(truth: dict, reference: Sequence[tuple], found: Sequence[tuple]) -> dict:
    """Return AP50 of two runs on the same images, mean and critical, and the paired loss with interval.

    If the interval cannot be computed, such as without part ids, the row has the point estimate of the loss.
    If AP50 cannot be computed, the row has a `reason` and no loss.
    """
    units = [recorded_unit(image) for image in truth['images']]
    everything = np.arange(len(units))
    rows = {}
    for name, measure in ap50_measures(truth, reference, found).items():
        before, after = measure(everything), measure(everything + len(units))
        if before is None or after is None:
            rows[name] = dict(reason='these images hold no box of the class')
            continue
        rows[name] = dict(mmdet=before, export=after, loss=before - after, low=None, high=None)
        try:
            result = comparison.compare(units, measure)
        except StatisticsError as error:
            rows[name] |= dict(parts=None, method=f'no interval: {error}')
            continue
        # Loss is baseline - candidate, so the ends of the interval change places.
        low, high = (None if v is None else -v for v in (result.high, result.low))
        rows[name] |= dict(low=low, high=high, parts=result.units, method=result.method)
    return rows


def compare(reference: Reference, found: Sequence[tuple], engine: str, precision: str) -> dict:
    """Return a row of the parity table: the comparison of an engine's predictions with mmdet's.

    If float32 does not find mmdet's boxes again, the images on which rounding decides what mmdet finds
    (`Reference.ties`) are set apart: they count as `tied` and are judged by AP50 alone.
    """
    row = dict(engine=engine, precision=precision, images=len(found), padded=reference.padded)
    row |= compare_boxes(reference.alike, found)
    tied = []
    if precision == 'fp32' and row['boxes'] and not _same_boxes(row):
        pairs = zip(reference.alike, found, strict=True)
        tied = reference.ties([k for k, pair in enumerate(pairs) if not _all_found(*([one] for one in pair))])
    if tied:
        decided = [k for k in range(len(found)) if k not in tied]
        row |= compare_boxes([reference.alike[k] for k in decided], [found[k] for k in decided])
        row['tied'] = len(tied)
    if _needs_ap50(row):
        row |= compare_ap50(reference.images.truth, reference.alone, found)
    if tied:
        for name, lowest in _lowest_ap50(reference, tied).items():
            if 'loss' in row[name]:
                row[name]['rounding'] = row[name]['mmdet'] - min(lowest, row[name]['mmdet'])
    return row


def _all_found(reference: Sequence[tuple], found: Sequence[tuple]) -> bool:
    """Whether every box is found again, and no additional box."""
    row = compare_boxes(reference, found)
    return row['matched'] == row['boxes'] and not row['more']


def _lowest_ap50(reference: Reference, tied: Sequence[int]) -> dict[str, float]:
    """Return the lowest AP50, mean and critical, over the equally valid runs of mmdet."""
    alternatives = reference.alternatives(tied)
    measures = ap50_measures(reference.images.truth, *alternatives)
    runs = np.arange(len(reference.alone) * len(alternatives)).reshape(len(alternatives), -1)
    values = {name: [measure(run) for run in runs] for name, measure in measures.items()}
    return {name: min(row) for name, row in values.items() if None not in row}


def _same_boxes(row: dict) -> bool:
    """Whether a row's boxes and scores equal mmdet's within the limits of float32."""
    share, more = row['matched'] / row['boxes'], row['more'] / row['boxes']
    return share >= MIN_MATCHED and more <= MAX_MORE and row['score_max'] <= MAX_SCORE_ERROR


def _needs_ap50(row: dict) -> bool:
    """Whether a row's boxes alone do not prove the engine."""
    return bool(row['precision'] != 'fp32' or row['padded'] or row.get('tied'))


def check(row: dict, most_loss: float, most_critical_loss: float) -> None:
    """Refuse a row of the parity table that exceeds a limit or proves nothing.

    Raises:
        ExportError: The row exceeds a limit or proves nothing.
    """
    name = f'{row["engine"]} {row["precision"]}'
    if row['precision'] == 'fp32':
        if not row['boxes']:
            tied = row.get('tied', 0)
            besides = f' ({tied} more are set apart: rounding decides what it finds there)' if tied else ''
            raise ExportError(
                f'{name}: mmdet finds no box on {row["images"] - tied} validation images{besides}, expected '
                'some to compare: nothing is kept; prove it on more --images, or train longer'
            )
        if not _same_boxes(row):
            raise ExportError(
                f'{name}: {row["matched"]} of {row["boxes"]} boxes of mmdet found again, {row["more"]} more, '
                f'scores differ by up to {row["score_max"]:.2g}; expected {MIN_MATCHED:.1%}, at most '
                f'{MAX_MORE:.1%} and {MAX_SCORE_ERROR:g}: nothing is kept'
            )
    least = MIN_MASK_IOU[row['precision']]
    if 'mask_iou' in row and not (row['mask_iou'] or 0.0) >= least:
        found = 'cannot be compared, no box of mmdet is found again'
        if row['mask_iou'] is not None:
            found = f'overlap those of mmdet by {row["mask_iou"]:.3f}'
        remedy = 'prove it on more --images, or export another checkpoint'
        if row['precision'] != 'fp32':
            remedy = 'calibrate on more radiographs (--calib), or export float32'
        raise ExportError(
            f'{name}: masks {found}, expected an IoU of at least {least:g}: nothing is kept; {remedy}'
        )
    losses = {key: value for key, value in row.items() if key.startswith('AP50')}
    if not losses and _needs_ap50(row):
        losses = {'AP50': dict(reason='not compared')}
    for key, value in losses.items():
        limit = most_loss if key == 'AP50' else most_critical_loss
        if value.get('loss') is None:
            raise ExportError(
                f'{name}: {key} cannot be measured ({value["reason"]}), expected a loss up to {limit:g}: '
                'nothing is kept; prove it on more --images, with annotated defects of that class among them'
            )
        rounding = value.get('rounding', 0.0)
        if not value['loss'] - rounding <= limit:
            option = '--max-loss' if key == 'AP50' else '--max-critical-loss'
            remedy = 'export for one shape' if row['padded'] else 'train longer'
            if row['precision'] != 'fp32':
                remedy = 'calibrate on more radiographs'
            besides = f', that of mmdet by {rounding:.4f} through rounding alone' if rounding else ''
            raise ExportError(
                f'{name}: {key} falls by {value["loss"]:.4f}{besides}, expected at most {limit:g}: '
                f'nothing is kept; {remedy}, or allow more by {option}'
            )


def format_parity(rows: Sequence[dict]) -> str:
    """Return the parity table as Markdown."""
    lines = [
        '| engine | precision | images | padded more than by mmdet | decided by rounding | boxes of mmdet '
        '| found again at IoU >= .99 | more boxes | score difference max / mean | AP50 loss '
        '| of the critical class | IoU of masks |',
        '|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|',
    ]
    for row in rows:
        losses = [value for key, value in row.items() if key.startswith('AP50')]
        cells = [
            row['engine'],
            row['precision'],
            str(row['images']),
            str(row['padded']),
            str(row.get('tied', 0)),
            str(row['boxes']),
            f'{row["matched"]} ({row["matched"] / max(row["boxes"], 1):.2%})',
            str(row['more']),
            f'{row["score_max"]:.2g} / {row["score_mean"]:.2g}',
            *(_loss(value) for value in losses or [None, None]),
            f'{row["mask_iou"]:.4f}' if row.get('mask_iou') is not None else '–',
        ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _loss(value: dict | None) -> str:
    if value is None:
        return '–'
    if 'reason' in value:
        return value['reason']
    interval = '' if value['low'] is None else f' [{value["low"]:.4f}, {value["high"]:.4f}]'
    rounding = f', of mmdet by rounding {value["rounding"]:.4f}' if value.get('rounding') else ''
    return f'{value["loss"]:.4f}{interval}{rounding}'
