"""From a config and a checkpoint to a folder for the line: graphs, INT8, threshold, proof that they agree.

Everything is written beside the folder and renamed when it has been proven: a failure leaves nothing.
"""

import datetime
import hashlib
import importlib.metadata
import io
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.utils import import_modules_from_strings
from tqdm import tqdm

from . import running, statistics
from .datasets import DatasetError, load_defects
from .deploy import Exported, Inspector, engines, folder
from .deploy.inspector import depth_of, read_one, windowed
from .hooks import HandoverError
from .imaging import ImagingError
from .measures import (
    CRITICAL,
    MeasureError,
    average_precision_at,
    gather_parts,
    match_all,
    measure_parts,
    operating_point,
    read_images,
)
from .quantise import quantise, save
from .report.config_diff import leaves
from .whole import WholeDetector

OPSET = 17  # RoiAlign with half-pixel coordinates, which mmcv calls aligned, came with 16
GRAPHS = {'openvino': 'model.xml', 'onnxruntime': 'model.onnx'}
SAME_BOX = 0.99  # IoU
LEAST_MATCHED = 0.995  # share of mmdet's boxes that an fp32 graph finds again; NMS decides ties by rounding
MOST_MORE = 0.005  # boxes that mmdet does not have, as a share of its own
MOST_SCORE_ERROR = 1e-3
PACKAGES = ('openvino', 'onnxruntime', 'onnx', 'nncf', 'torch', 'torchvision', 'onedl-mmdetection', 'numpy')


class ExportError(ValueError):
    """A detector cannot be exported, or its export differs too much from it; one line with the remedy."""


@dataclass
class Radiographs:
    """Images of one split.

    Attributes:
        paths: Files.
        truth: COCO dict whose categories are the classes; its images are these, in this order.
    """

    paths: list[str]
    truth: dict

    def at(self, positions: Sequence[int]) -> 'Radiographs':
        """Return some of them."""
        images = [self.truth['images'][k] for k in positions]
        return Radiographs([self.paths[k] for k in positions], self.truth | dict(images=images))

    def sizes(self) -> list[tuple[int, int]]:
        """Return their (height, width) in px."""
        return [(image['height'], image['width']) for image in self.truth['images']]


def read_split(cfg: Config, split: str, most: int | None = None) -> Radiographs:
    """Choose up to `most` images of a split, evenly over its list.

    Raises:
        DatasetError: No annotation file, an image that is not there, or several data sets but in train.
    """
    data, *others = leaves(cfg[f'{split}_dataloader'].dataset)
    if others and split != 'train':  # calibration looks at the detector's own radiographs, the first ones
        raise DatasetError(
            f'{split}_dataloader: {1 + len(others)} data sets, expected one; join their annotation files'
        )
    ann_file = str(Path(data.data_root) / data.ann_file)
    truth = load_defects(ann_file, data.metainfo.classes, data.get('severity'))
    images = [truth['images'][k] for k in evenly(len(truth['images']), most)]
    root = Path(data.data_root) / data.data_prefix.img
    paths = [str(root / image['file_name']) for image in images]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing or not paths:
        raise DatasetError(
            f'{missing[0] if missing else ann_file}: {len(missing) or "no"} images '
            f'{"missing" if missing else "found"}, expected those of the {split} set; put them there'
        )
    return Radiographs(paths, truth | dict(images=images))


def evenly(count: int, most: int | None) -> list[int]:
    """Choose up to `most` positions of `count`, evenly spaced and the first among them."""
    if not most or most >= count:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def depths_of(paths: Sequence[str], exported: Exported) -> list[str]:
    """Read files and list their depths.

    Raises:
        ImagingError: A file that the runtime would refuse.
    """
    depths = set()
    for path in _progress(paths, 'depths'):
        radiograph = read_one(path)
        try:
            windowed(radiograph, exported)
        except ImagingError as error:
            raise ImagingError(f'{error}; or leave it out of the data set') from None
        depths.add(depth_of(radiograph))
    return sorted(depths)


def load_detector(cfg: Config, checkpoint: str) -> torch.nn.Module:
    """Build a config's detector with all of a checkpoint's weights, ready to infer.

    Raises:
        HandoverError: The checkpoint lacks a tensor, or has one too many or of another shape.
    """
    detector = _build(cfg)
    try:
        load_checkpoint(detector, checkpoint, map_location='cpu', strict=True, logger='silent')
    except RuntimeError as error:
        if 'do not match' not in str(error):
            raise
        raise HandoverError(
            f'{checkpoint}: not the weights of {cfg.filename}, expected every tensor alike '
            f'({" ".join(str(error).split())[:300]}); give the checkpoint that this config trained'
        ) from None
    return detector.eval()


def padded_size(size: Sequence[int], scale: Sequence[int], divisor: int) -> list[int]:
    """Return [height, width] in px of an image of `size` after mmdet's resizing into `scale` and padding."""
    factor = _factor(size, scale)
    return [-(-int(side * factor + 0.5) // divisor) * divisor for side in size]


def _factor(size: Sequence[int], scale: Sequence[int]) -> float:
    return min(max(scale) / max(size), min(scale) / min(size))


def untrained_detector(cfg: Config, seed: int = 0) -> torch.nn.Module:
    """Build a config's detector with random weights, whatever it starts from in training.

    Every layer counts: OpenMMLab begins residual branches with a gamma of 0, which would leave them out of
    what is compared, and batch norm has the statistics of some drawn radiographs, without which the residual
    sums of a deep backbone would run out of all bounds.
    """
    cfg.model.backbone.init_cfg = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = _build(cfg)
        detector.init_weights()
        norms = [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        detector.eval()
        for norm in norms:
            torch.nn.init.ones_(norm.weight)
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all that it sees
            norm.train()
        with torch.no_grad():
            for _ in range(4 if norms else 0):
                detector.neck(detector.backbone(_drawn(4, 128)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return detector.eval()


def _drawn(count: int, side: int) -> torch.Tensor:
    """Draw plates of uneven thickness with grain and round defects, normalised: (count, 3, side, side)."""
    fine = torch.linspace(-1, 1, side)
    image = torch.randn(count, 1, 1, 1) + torch.randn(count, 1, 1, 1) * fine
    for _ in range(6):
        x, y, radius = torch.rand(3, count, 1, 1, 1) * torch.tensor([2, 2, 0.2]).reshape(3, 1, 1, 1, 1)
        near = (fine + 1 - x) ** 2 + (fine[:, None] + 1 - y) ** 2
        image = image + torch.exp(-near / (radius + 0.02) ** 2)
    return (image + 0.1 * torch.randn(count, 1, side, side)).expand(-1, 3, -1, -1)


def _build(cfg: Config) -> torch.nn.Module:
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


def describe(
    cfg: Config, checkpoint: str | None, detector: torch.nn.Module, sizes: Sequence[tuple]
) -> Exported:
    """Read from a config what the runtime has to know.

    Args:
        cfg: The detector's.
        checkpoint: Its weights; None for random ones.
        detector: What `load_detector` built.
        sizes: (height, width) in px of validation images. All fit into the input as mmdet would resize them.

    Raises:
        ExportError: The pipeline does something else than windowing and resizing.
    """
    pipeline = [step for step in cfg.test_dataloader.dataset.pipeline if step.type != 'LoadAnnotations']
    kinds = [step.type for step in pipeline]
    resize = pipeline[1] if kinds == ['LoadXray', 'Resize', 'PackDetInputs'] else {}
    other = dict(backend='cv2', interpolation='bilinear', scale_factor=None)
    if (
        not resize.get('keep_ratio')
        or not resize.get('scale')
        or pipeline[0].get('size')
        or any(resize.get(key, value) != value for key, value in other.items())
    ):
        raise ExportError(
            f'{cfg.filename}: its test pipeline is {kinds} with {dict(resize)}, expected LoadXray at native '
            'size, Resize with scale and keep_ratio alone, PackDetInputs, which the runtime does too'
        )
    scale = resize.scale if isinstance(resize.scale, Sequence) else [resize.scale] * 2
    scale = [int(side) for side in scale]
    divisor = detector.data_preprocessor.pad_size_divisor
    size = np.max([padded_size(size, scale, divisor) for size in sizes], axis=0).tolist()
    # The one that is shrunk the most says how far an image may be shrunk.
    native = min(sizes, key=lambda size: (_factor(size, scale), -size[0] * size[1]))
    classes = list(cfg.test_dataloader.dataset.metainfo.classes)
    facts = running.provenance()
    return Exported(
        engines={},
        precision='fp32',
        input=size,
        scale=scale,
        native=list(native),
        window=dict(pipeline[0].get('window') or dict(type='full')),
        dtype=pipeline[0].get('dtype', 'uint8'),
        mean=float(cfg.model.data_preprocessor.mean[0]),
        std=float(cfg.model.data_preprocessor.std[0]),
        iou=float(detector.test_cfg.rcnn.nms.iou_threshold),
        classes=classes,
        rejecting=classes[:1],
        threshold=0.5,
        threshold_reason='not chosen',
        depths=[],
        origin=dict(
            config=Path(cfg.filename).stem,
            checkpoint=checkpoint and str(Path(*Path(checkpoint).parts[-2:])),
            sha256=checkpoint and folder.sha256(Path(checkpoint)),
            model_sha256=hashlib.sha256(
                json.dumps(cfg.model.to_dict(), sort_keys=True, default=str).encode()
            ).hexdigest(),
            commit=facts['commit'],
            dirty=facts['dirty'],
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
            versions={name: importlib.metadata.version(name) for name in PACKAGES},
        ),
    )


# ------------------------------------------------------------------------------------------------- graphs


def torch_engine(whole: WholeDetector) -> engines.Engine:
    """Return the detector in PyTorch as an engine for `Inspector.of`."""

    def run(image, extent):
        with torch.no_grad():
            found = whole(torch.from_numpy(image), torch.from_numpy(extent))
        return tuple(tensor.numpy() for tensor in found)

    return run


def inspector_of(cfg: Config, checkpoint: str, threshold: float | None = None) -> Inspector:
    """Return the runtime around a config's detector in PyTorch, for radiographs of its val set's size."""
    detector = load_detector(cfg, checkpoint)
    val = read_split(cfg, 'val')
    exported = describe(cfg, checkpoint, detector, val.sizes())
    exported.depths = depths_of(val.paths, exported)
    return Inspector.of(exported, torch_engine(WholeDetector(detector, exported.input).eval()), threshold)


def write_onnx(whole: WholeDetector, path: Path) -> None:
    """Trace the detector into an ONNX file."""
    example = torch.full((1, 1, *whole.size), whole.mean), torch.tensor(whole.size, dtype=torch.float32)
    traced = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing warns of every Python number in a shape, and the size is fixed on purpose.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            whole,
            example,
            traced,
            opset_version=OPSET,
            dynamo=False,  # the new exporter asks for onnxscript and has no torchvision NMS
            input_names=['image', 'extent'],
            output_names=['boxes', 'scores', 'labels'],
            dynamic_axes={name: {0: 'found'} for name in ('boxes', 'scores', 'labels')},
        )
    model = onnx.load_from_string(traced.getvalue())
    # torchvision's NMS asks for as many boxes as there are; what is cut off afterwards need not be found.
    nodes = [node for node in model.graph.node if node.op_type == 'NonMaxSuppression']
    for node, cfg in zip(nodes, (whole.rpn_cfg, whole.rcnn_cfg), strict=True):
        node.input[2] = f'{node.name}/most'
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([cfg.max_per_img], np.int64), node.input[2])
        )
    onnx.save(model, path)


def write_openvino(source: Path, path: Path) -> None:
    """Convert an ONNX file: one trace, so that both engines run the same graph."""
    save(engines.core().read_model(source), path)


# ------------------------------------------------------------------------------------------------- parity


@dataclass
class Reference:
    """What mmdet says of validation images.

    A graph has one input size. mmdet pads an image by itself to the next multiple of 32, in a batch to the
    size of the largest; what lies beyond the border reaches boxes near it. So boxes are compared with those
    of mmdet padding as in such a batch, and AP50 with that of mmdet as it is tested, image by image.

    Attributes:
        images: The images.
        alike: Of each, what `mmdet_predictions` returns with the padding of the graph.
        alone: The same with mmdet's own.
        padded: How many images the two paddings differ for.
    """

    images: Radiographs
    alike: list[tuple]
    alone: list[tuple]
    padded: int


def ask_mmdet(cfg: Config, detector, images: Radiographs, exported: Exported) -> Reference:
    """Run mmdet on images, with the graph's padding and where it differs with its own."""
    alike = mmdet_predictions(cfg, detector, images.paths, exported.input)
    divisor = detector.data_preprocessor.pad_size_divisor
    others = [
        k
        for k, size in enumerate(images.sizes())
        if padded_size(size, exported.scale, divisor) != exported.input
    ]
    alone = list(alike)
    for k, said in zip(others, mmdet_predictions(cfg, detector, images.at(others).paths), strict=True):
        alone[k] = said
    return Reference(images, alike, alone, len(others))


def mmdet_predictions(
    cfg: Config, detector, paths: Sequence[str], size: Sequence[int] | None = None
) -> list[tuple]:
    """Run mmdet itself, pipeline and preprocessor included.

    Args:
        cfg: The detector's.
        detector: What `load_detector` built.
        paths: Images.
        size: [height, width] in px to pad to, as in a batch with an image of that size; default, no more
            than mmdet pads an image by itself.

    Returns:
        Boxes (N, 4) x1 y1 x2 y2 in px of the image as stored, scores (N), labels (N) of each image.
    """
    pipeline = _pipeline(cfg)
    found = []
    for path in _progress(paths, 'mmdet'):
        said = _test_step(detector, pipeline(dict(img_path=path, img_id=0)), size).pred_instances
        found.append(tuple(said[key].numpy() for key in ('bboxes', 'scores', 'labels')))
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
        # 0 is what the preprocessor itself puts beyond a normalised image.
        data['inputs'] = torch.nn.functional.pad(data['inputs'], (0, size[1] - width, 0, size[0] - height))
        return detector(**data, mode='predict')[0]


def inspector_predictions(inspector: Inspector, paths: Sequence[str], name: str) -> list[tuple]:
    """Run the runtime on files; the same tuples as `mmdet_predictions`."""
    found = (inspector(path) for path in _progress(paths, name))
    return [(said.boxes, said.scores, said.labels) for said in found]


def compare_boxes(reference: Sequence[tuple], found: Sequence[tuple]) -> dict:
    """Match the boxes of two runs of one detector, each with the most alike of its class.

    Returns:
        `boxes` of the reference, `matched` of them at IoU >= .99, `more` boxes found than it has, and the
        largest and mean `score` difference of the matched.
    """
    boxes, extra, differences = 0, 0, []
    for (box, score, label), (other, other_score, other_label) in zip(reference, found, strict=True):
        boxes += len(box)
        extra += max(len(other) - len(box), 0)
        if not len(box) or not len(other):
            continue
        corner = np.minimum(box[:, None, 2:], other[None, :, 2:]) - np.maximum(
            box[:, None, :2], other[None, :, :2]
        )
        inner = corner.clip(0).prod(2)
        area, other_area = ((b[:, 2:] - b[:, :2]).prod(1) for b in (box, other))
        iou = inner / np.maximum(area[:, None] + other_area - inner, 1e-9)
        iou[label[:, None] != other_label] = 0
        best = iou.argmax(1)
        same = iou[np.arange(len(box)), best] >= SAME_BOX
        differences += np.abs(score - other_score[best])[same].tolist()
    return dict(
        boxes=boxes,
        matched=len(differences),
        more=extra,
        score_max=float(np.max(differences, initial=0.0)),
        score_mean=float(np.mean(differences)) if differences else 0.0,
    )


def inspected(truth: dict, found: Sequence[tuple]) -> list:
    """Bring predictions and ground truth together for `measures`."""
    detections = [
        dict(
            image_id=image['id'],
            category_id=int(label) + 1,
            bbox=[float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            score=float(score),
        )
        for image, said in zip(truth['images'], found, strict=True)
        for (x1, y1, x2, y2), score, label in zip(*said, strict=True)
    ]
    return read_images(truth, detections, {image['id'] for image in truth['images']})


def ap50_measures(truth: dict, found: Sequence[tuple]) -> dict[str, Callable[[np.ndarray], float | None]]:
    """Return AP50, the mean over the classes that have boxes and that of the critical class alone.

    Each is a function of the images drawn; None where these hold no box of the class.
    """
    images = inspected(truth, found)
    per_class = [average_precision_at(images, label) for label in range(len(truth['categories']))]

    def mean(positions):
        values = [value for value in (ap(positions) for ap in per_class) if value is not None]
        return float(np.mean(values)) if values else None

    return {'AP50': mean, f'AP50_{truth["categories"][0]["name"]}': per_class[0]}


def compare_ap50(truth: dict, reference: Sequence[tuple], found: Sequence[tuple]) -> dict:
    """Return AP50 of two runs on the same images, mean and critical, and the paired loss with interval.

    Where the interval cannot be had, such as without part ids, the loss is that of the point; where AP50
    itself cannot, there is a `reason` and no loss.
    """
    units = [image.get('part') for image in truth['images']]
    everything = np.arange(len(units))
    runs = [ap50_measures(truth, said) for said in (reference, found)]
    rows = {}
    for name in runs[0]:
        pair = [run[name] for run in runs]
        before, after = (measure(everything) for measure in pair)
        if before is None or after is None:
            rows[name] = dict(reason='these images hold no box of the class')
            continue
        rows[name] = dict(mmdet=before, export=after, loss=before - after, low=None, high=None)
        try:
            result = statistics.compare(
                units, lambda positions, pair=pair: tuple(measure(positions) for measure in pair)
            )
        except statistics.StatisticsError as error:
            rows[name] |= dict(parts=None, method=f'no interval: {error}')
            continue
        # Loss is baseline - candidate, so the ends of the interval change places.
        low, high = (None if v is None else -v for v in (result.high, result.low))
        rows[name] |= dict(low=low, high=high, parts=result.units, method=result.method)
    return rows


def compare(reference: Reference, found: Sequence[tuple], engine: str, precision: str) -> dict:
    """Return a row of the parity table: an engine's predictions beside mmdet's."""
    row = dict(engine=engine, precision=precision, images=len(found), padded=reference.padded)
    row |= compare_boxes(reference.alike, found)
    if precision != 'fp32' or reference.padded:
        row |= compare_ap50(reference.images.truth, reference.alone, found)
    return row


def check(row: dict, most_loss: float, most_critical_loss: float) -> None:
    """Refuse a row of the parity table that is beyond its limits, or that proves nothing.

    Raises:
        ExportError: It is.
    """
    name = f'{row["engine"]} {row["precision"]}'
    if row['precision'] == 'fp32':
        if not row['boxes']:
            raise ExportError(
                f'{name}: mmdet finds no box on {row["images"]} validation images, expected some to compare: '
                'nothing is kept; prove it on more --images, or train longer'
            )
        share, more = row['matched'] / row['boxes'], row['more'] / row['boxes']
        if share < LEAST_MATCHED or more > MOST_MORE or not row['score_max'] <= MOST_SCORE_ERROR:
            raise ExportError(
                f'{name}: {row["matched"]} of {row["boxes"]} boxes of mmdet found again, {row["more"]} more, '
                f'scores differ by up to {row["score_max"]:.2g}; expected {LEAST_MATCHED:.1%}, at most '
                f'{MOST_MORE:.1%} and {MOST_SCORE_ERROR:g}: nothing is kept'
            )
    losses = {key: value for key, value in row.items() if key.startswith('AP50')}
    if not losses and (row['precision'] != 'fp32' or row['padded']):
        losses = {'AP50': dict(reason='not compared')}
    for key, value in losses.items():
        limit = most_loss if key == 'AP50' else most_critical_loss
        if value.get('loss') is None:
            raise ExportError(
                f'{name}: {key} cannot be measured ({value["reason"]}), expected a loss up to {limit:g}: '
                'nothing is kept; prove it on more --images, with annotated defects of that class among them'
            )
        if not value['loss'] <= limit:
            option = '--max-loss' if key == 'AP50' else '--max-critical-loss'
            remedy = 'calibrate on more radiographs' if row['precision'] != 'fp32' else 'export for one shape'
            raise ExportError(
                f'{name}: {key} falls by {value["loss"]:.4f}, expected at most {limit:g}: nothing is kept; '
                f'{remedy}, or allow more by {option}'
            )


def choose_threshold(exported: Exported, truth: dict, found: Sequence[tuple], max_escape: float) -> None:
    """Set a folder's threshold and its curve from validation parts, by the rule of the runtime.

    A part is as bad as the highest score of its critical boxes. The study's report lets a box of any severity
    suppress those that it overlaps first; the runtime does not, see `Inspection.risk`.

    The highest threshold that these parts show the escape rate at, which is an estimate, as they also chose
    the model; where they are too few, the highest at which none of the critical parts that the detector can
    catch escapes.
    """
    try:
        parts = gather_parts(match_all(inspected(truth, found)))
    except MeasureError as error:
        exported.threshold_reason = f'0.5, not chosen: {error}'
        return
    risks = {part.part: [] for part in parts}
    for image, (_, scores, labels) in zip(truth['images'], found, strict=True):
        risks[str(image['part'])] += scores[labels == CRITICAL].tolist()
    for part in parts:
        part.score = max(risks[part.part], default=None)
    point = operating_point(parts, max_escape, of='validation')
    scores = [part.score for part in parts if part.truth == 'critical' and part.score is not None]
    if point.threshold is not None:
        exported.threshold, exported.threshold_reason = point.threshold, point.statement
    elif scores:
        exported.threshold = min(scores)
        exported.threshold_reason = f'{point.statement} Taken: the lowest score of a critical part.'
    else:
        exported.threshold_reason = f'0.5, not chosen: {point.statement}'
    # Down, so that rounding does not let the part escape whose score this is.
    exported.threshold = float(np.floor(exported.threshold * 1e4) / 1e4)
    for threshold in np.linspace(0.05, 1, 39).round(4).tolist():
        said = measure_parts(parts, threshold)
        exported.curve.append(
            dict(threshold=threshold, escape=said.escape.rate, false_reject=said.false_reject.rate)
        )


# ------------------------------------------------------------------------------------------------- export


def export(
    cfg: Config,
    checkpoint: str,
    out: Path,
    calibration: int = 0,
    images: int = 200,
    most_loss: float = 0.01,
    most_critical_loss: float = 0.005,
    max_escape: float = 0.05,
) -> Exported:
    """Export a detector, prove it on validation images, choose its threshold on all of them.

    Args:
        cfg: Detector config.
        checkpoint: Its weights.
        out: Folder to write; must not exist.
        calibration: Training radiographs for INT8; 0 exports float32.
        images: Validation radiographs to compare with mmdet, at most.
        most_loss: Largest AP50 that the export may cost, as a fraction.
        most_critical_loss: The same of the critical class.
        max_escape: Escape rate of critical parts that the threshold is to keep on the validation parts.

    Returns:
        What the folder's metadata says.

    Raises:
        ExportError: The export differs from mmdet, or cannot be written; nothing is left behind.
    """
    detector = load_detector(cfg, checkpoint)
    val = read_split(cfg, 'val')
    train = read_split(cfg, 'train', calibration) if calibration else None
    exported = describe(cfg, checkpoint, detector, val.sizes())
    exported.depths = depths_of([*val.paths, *(train.paths if train else ())], exported)
    whole = WholeDetector(detector, exported.input).eval()
    reference = ask_mmdet(cfg, detector, val.at(evenly(len(val.paths), images)), exported)
    limits = most_loss, most_critical_loss
    with draft_of(out) as draft:
        write_onnx(whole, draft / GRAPHS['onnxruntime'])
        write_openvino(draft / GRAPHS['onnxruntime'], draft / GRAPHS['openvino'])
        exported.engines = dict(GRAPHS)
        # Before INT8 too: its losses are the quantisation's alone if the graph says what mmdet says.
        for engine in ('openvino',) if train else GRAPHS:
            _prove(exported, draft, engine, reference, limits)
        if train:
            exported.calibration = _to_int8(exported, draft, whole, train, reference, limits)
            _prove(exported, draft, 'openvino', reference, limits)
        found = inspector_predictions(Inspector(draft, cache=False), val.paths, 'threshold')
        choose_threshold(exported, val.truth, found, max_escape)
        folder.write(draft, exported)
    return exported


def _prove(exported, draft, engine, reference, limits) -> None:
    """Compare a graph in `draft` with mmdet, and keep the row that says so."""
    folder.write(draft, exported)
    found = inspector_predictions(Inspector(draft, engine, cache=False), reference.images.paths, engine)
    exported.parity.append(compare(reference, found, engine, exported.precision))
    check(exported.parity[-1], *limits)


def export_untrained(cfg: Config, out: Path, side: int, images: Sequence[Path] = ()) -> None:
    """Write a folder with random weights, to measure time only; in INT8 where calibration images are given.

    Args:
        cfg: Detector config.
        out: Folder to write; must not exist.
        side: Of the radiographs, in px.
        images: Calibration radiographs; few will do.
    """
    detector = untrained_detector(cfg)
    exported = describe(cfg, None, detector, [(side, side)])
    whole = WholeDetector(detector, exported.input).eval()
    with draft_of(out) as draft:
        traced, graph = draft / GRAPHS['onnxruntime'], draft / GRAPHS['openvino']
        write_onnx(whole, traced)
        write_openvino(traced, graph)
        exported.engines = dict(GRAPHS)
        if images:
            prepare = Inspector.of(exported, torch_engine(whole))
            inputs = [prepare.input_of(path) for path in images]
            quantise(graph, inputs, lambda engine: 1.0, 1.0, 1.0, is_transformer(whole))
            traced.unlink()
            exported.engines, exported.precision = dict(openvino=GRAPHS['openvino']), 'int8'
        folder.write(draft, exported)


def _to_int8(exported, draft, whole, train, reference, limits) -> dict:
    """Quantise the OpenVINO graph in `draft`; ONNX Runtime's is left out, so that a folder has one answer."""
    prepare = Inspector.of(exported, torch_engine(whole))
    inputs = [prepare.input_of(path) for path in _progress(train.paths, 'calibration')]
    truth, everything = reference.images.truth, np.arange(len(reference.images.paths))
    before = {name: ap(everything) for name, ap in ap50_measures(truth, reference.alone).items()}
    if None in before.values():
        raise ExportError(
            f'INT8: {" and ".join(name for name, value in before.items() if value is None)} cannot be '
            f'measured on {len(everything)} validation images, expected annotated defects: nothing is kept; '
            'prove it on more --images, or export float32'
        )

    def left(engine):
        """Share of the allowed losses that an engine leaves: 1 without any, negative beyond a limit."""
        found = inspector_predictions(Inspector.of(exported, engine), reference.images.paths, 'INT8')
        after = ap50_measures(truth, found)
        losses = [before[name] - ap(everything) for name, ap in after.items()]
        return 1 - max(loss / limit for loss, limit in zip(losses, limits, strict=True))

    said = quantise(draft / GRAPHS['openvino'], inputs, left, 1.0, 1.0, is_transformer(whole))
    (draft / GRAPHS['onnxruntime']).unlink()
    exported.engines = dict(openvino=GRAPHS['openvino'])
    exported.precision = 'int8'
    return said


def is_transformer(whole: WholeDetector) -> bool:
    """Whether the backbone is one, in which NNCF has to find the attention."""
    return any(isinstance(module, torch.nn.LayerNorm) for module in whole.backbone.modules())


@contextmanager
def draft_of(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that becomes `out` at the end, or vanishes with all its content."""
    if out.exists():
        raise running.UsageError(f'{out}: exists, expected a new folder; delete it or choose another name')
    draft = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
        yield draft
        draft.chmod(0o755)  # mkdtemp's is for its maker alone
        draft.rename(out)
    except BaseException as error:
        full = shutil.disk_usage(out.parent).free < 2**20 if out.parent.exists() else False
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
        if full or isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            reason = 'the disk is full' if full else error.strerror or error
            raise ExportError(
                f'{out}: not written ({reason}), nothing is left; make room or choose another place'
            ) from None
        raise


def format_parity(rows: Sequence[dict]) -> str:
    """Return the parity table as Markdown."""
    lines = [
        '| engine | precision | images | padded more than by mmdet | boxes of mmdet '
        '| found again at IoU >= .99 | more boxes | score difference max / mean | AP50 loss '
        '| of the critical class |',
        '|---|---|---:|---:|---:|---:|---:|---:|---:|---:|',
    ]
    for row in rows:
        losses = [value for key, value in row.items() if key.startswith('AP50')]
        cells = [
            row['engine'],
            row['precision'],
            str(row['images']),
            str(row['padded']),
            str(row['boxes']),
            f'{row["matched"]} ({row["matched"] / max(row["boxes"], 1):.2%})',
            str(row['more']),
            f'{row["score_max"]:.2g} / {row["score_mean"]:.2g}',
            *(_loss(value) for value in losses or [None, None]),
        ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _loss(value: dict | None) -> str:
    if value is None:
        return '–'
    if 'reason' in value:
        return value['reason']
    interval = '' if value['low'] is None else f' [{value["low"]:.4f}, {value["high"]:.4f}]'
    return f'{value["loss"]:.4f}{interval}'


def _progress(items, name: str):
    return tqdm(items, desc=name, unit='img', leave=False, disable=None)
