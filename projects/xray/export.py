"""From a config and a checkpoint to a folder for the line: graphs, INT8, threshold, proof that they agree.

Everything is written beside the folder and renamed when it has been proven: a failure leaves nothing.
"""

import datetime
import importlib.metadata
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
from .deploy.inspector import depth_of, read_one
from .hooks import HandoverError
from .measures import (
    MeasureError,
    average_precision_at,
    gather_parts,
    match_all,
    measure_parts,
    operating_point,
    read_images,
)
from .quantise import quantise
from .whole import WholeDetector

OPSET = 17  # RoiAlign with half-pixel coordinates, which mmcv calls aligned, came with 16
GRAPHS = {'openvino': 'model.xml', 'onnxruntime': 'model.onnx'}
SAME_BOX = 0.99  # IoU
LEAST_MATCHED = 0.995  # share of mmdet's boxes that an fp32 graph finds again; NMS decides ties by rounding
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


def read_split(cfg: Config, split: str, most: int | None) -> Radiographs:
    """Choose up to `most` images of a split, evenly over its list.

    Raises:
        DatasetError: No annotation file, or an image that is not there.
    """
    data = cfg[f'{split}_dataloader'].dataset
    data = data.get('dataset', data)
    ann_file = str(Path(data.data_root) / data.ann_file)
    truth = load_defects(ann_file, data.metainfo.classes, data.get('severity'))
    images = truth['images']
    if most and most < len(images):
        images = [images[round(k)] for k in np.linspace(0, len(images) - 1, most)]
    root = Path(data.data_root) / data.data_prefix.img
    paths = [str(root / image['file_name']) for image in images]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing or not paths:
        raise DatasetError(
            f'{missing[0] if missing else ann_file}: {len(missing) or "no"} images '
            f'{"missing" if missing else "found"}, expected those of the {split} set; put them there'
        )
    return Radiographs(paths, truth | dict(images=images))


def depths_of(paths: Sequence[str]) -> list[str]:
    """Read files and list their depths.

    Raises:
        ImagingError: A file that the runtime would refuse.
    """
    return sorted({depth_of(read_one(path)) for path in _progress(paths, 'depths')})


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
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return [-(-int(side * factor + 0.5) // divisor) * divisor for side in size]


def untrained_detector(cfg: Config) -> torch.nn.Module:
    """Build a config's detector with random weights, whatever it starts from in training."""
    cfg.model.backbone.init_cfg = None
    detector = _build(cfg)
    detector.init_weights()
    return detector.eval()


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
        sizes: (height, width) in px of validation images; the most frequent one gives the input's size.

    Raises:
        ExportError: The pipeline does something else than windowing and resizing.
    """
    pipeline = [step for step in cfg.test_dataloader.dataset.pipeline if step.type != 'LoadAnnotations']
    kinds = [step.type for step in pipeline]
    resize = pipeline[1] if kinds == ['LoadXray', 'Resize', 'PackDetInputs'] else {}
    if not resize.get('keep_ratio') or not resize.get('scale') or pipeline[0].get('size'):
        raise ExportError(
            f'{cfg.filename}: its test pipeline is {kinds}, expected LoadXray at native size, Resize with '
            'scale and keep_ratio, PackDetInputs, which the runtime does too'
        )
    native = Counter(sizes).most_common(1)[0][0]
    scale = [int(side) for side in resize['scale']]
    size = padded_size(native, scale, detector.data_preprocessor.pad_size_divisor)
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
    val = read_split(cfg, 'val', None)
    sizes = [(image['height'], image['width']) for image in val.truth['images']]
    exported = describe(cfg, checkpoint, detector, sizes)
    exported.depths = depths_of(val.paths)
    return Inspector.of(exported, torch_engine(WholeDetector(detector, exported.input).eval()), threshold)


def write_onnx(whole: WholeDetector, path: Path) -> None:
    """Trace the detector into an ONNX file."""
    example = torch.full((1, 1, *whole.size), whole.mean), torch.tensor(whole.size, dtype=torch.float32)
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing warns of every Python number in a shape, and the size is fixed on purpose.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            whole,
            example,
            path,
            opset_version=OPSET,
            dynamo=False,  # the new exporter asks for onnxscript and has no torchvision NMS
            input_names=['image', 'extent'],
            output_names=['boxes', 'scores', 'labels'],
            dynamic_axes={name: {0: 'found'} for name in ('boxes', 'scores', 'labels')},
        )


def write_openvino(onnx: Path, path: Path) -> None:
    """Convert an ONNX file: one trace, so that both engines run the same graph."""
    engines.silence_telemetry()
    import openvino

    openvino.save_model(openvino.Core().read_model(onnx), path, compress_to_fp16=False)


# ------------------------------------------------------------------------------------------------- parity


def mmdet_predictions(cfg: Config, detector, paths: Sequence[str]) -> list[tuple]:
    """Run mmdet itself, pipeline and preprocessor included.

    Returns:
        Boxes (N, 4) x1 y1 x2 y2 in px of the image as stored, scores (N), labels (N) of each image.
    """
    pipeline = _pipeline(cfg)
    found = []
    for path in _progress(paths, 'mmdet'):
        said = _test_step(detector, pipeline(dict(img_path=path, img_id=0))).pred_instances
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


def _test_step(detector, item: dict):
    with torch.no_grad():
        return detector.test_step(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]))[0]


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
        score_max=float(max(differences, default=0.0)),
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


def mean_ap50(truth: dict, found: Sequence[tuple]) -> Callable[[np.ndarray], float | None]:
    """Return AP50, the mean over the classes that have boxes, as a function of the images drawn."""
    images = inspected(truth, found)
    per_class = [average_precision_at(images, label) for label in range(len(truth['categories']))]

    def measure(positions):
        values = [value for value in (ap(positions) for ap in per_class) if value is not None]
        return float(np.mean(values)) if values else None

    return measure


def compare_ap50(truth: dict, reference: Sequence[tuple], found: Sequence[tuple]) -> dict:
    """Return AP50 of two runs on the same images, mean and critical, and the paired loss with interval."""
    units = [image.get('part') for image in truth['images']]
    critical = [average_precision_at(inspected(truth, said), 0) for said in (reference, found)]
    measures = {
        'AP50': [mean_ap50(truth, reference), mean_ap50(truth, found)],
        f'AP50_{truth["categories"][0]["name"]}': critical,
    }
    rows = {}
    for name, pair in measures.items():
        try:
            result = statistics.compare(
                units, lambda positions, pair=pair: tuple(ap(positions) for ap in pair)
            )
        except statistics.StatisticsError as error:
            rows[name] = dict(reason=str(error))
            continue
        # Loss is baseline - candidate, so the ends of the interval change places.
        low, high = (None if v is None else -v for v in (result.high, result.low))
        rows[name] = dict(
            mmdet=result.baseline,
            export=result.candidate,
            loss=-result.difference,
            low=low,
            high=high,
            parts=result.units,
            method=result.method,
        )
    return rows


def choose_threshold(exported: Exported, truth: dict, found: Sequence[tuple], max_escape: float) -> None:
    """Set a folder's threshold and its curve from validation parts.

    The highest threshold that proves the escape rate; where the parts are too few for a proof, the highest at
    which none of the critical parts that the detector can catch escapes.
    """
    try:
        parts = gather_parts(match_all(inspected(truth, found)))
    except MeasureError as error:
        exported.threshold_reason = f'0.5, not chosen: {error}'
        return
    point = operating_point(parts, max_escape)
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
    max_escape: float = 0.05,
) -> Exported:
    """Export a detector, prove it on validation images, choose its threshold.

    Args:
        cfg: Detector config.
        checkpoint: Its weights.
        out: Folder to write; must not exist.
        calibration: Training radiographs for INT8; 0 exports float32.
        images: Validation radiographs to compare and to choose the threshold on, at most.
        most_loss: Largest AP50 that INT8 may cost, as a fraction.
        max_escape: Escape rate of critical parts that the threshold should prove.

    Returns:
        What the folder's metadata says.

    Raises:
        ExportError: The export differs from mmdet, or cannot be written; nothing is left behind.
    """
    detector = load_detector(cfg, checkpoint)
    val = read_split(cfg, 'val', images)
    train = read_split(cfg, 'train', calibration) if calibration else None
    sizes = [(image['height'], image['width']) for image in val.truth['images']]
    exported = describe(cfg, checkpoint, detector, sizes)
    exported.depths = depths_of([*val.paths, *(train.paths if train else ())])
    # mmdet pads each image by itself, and what lies beyond the border reaches boxes near it.
    divisor = detector.data_preprocessor.pad_size_divisor
    alike = [
        k for k, size in enumerate(sizes) if padded_size(size, exported.scale, divisor) == exported.input
    ]
    whole = WholeDetector(detector, exported.input).eval()
    reference = mmdet_predictions(cfg, detector, val.paths)
    with draft_of(out) as draft:
        write_onnx(whole, draft / GRAPHS['onnxruntime'])
        write_openvino(draft / GRAPHS['onnxruntime'], draft / GRAPHS['openvino'])
        exported.engines = dict(GRAPHS)
        if train:
            exported.calibration = _to_int8(exported, draft, whole, train, val, reference, most_loss)
        folder.write(draft, exported)
        found = {}
        for engine in exported.engines:
            found[engine] = inspector_predictions(Inspector(draft, engine), val.paths, engine)
            row = dict(engine=engine, precision=exported.precision, images=len(alike))
            row |= compare_boxes([reference[k] for k in alike], [found[engine][k] for k in alike])
            if train:
                row |= compare_ap50(val.truth, reference, found[engine])
            exported.parity.append(row)
        _check(exported, most_loss)
        choose_threshold(exported, val.truth, found['openvino'], max_escape)
        folder.write(draft, exported)
    return exported


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
        onnx, graph = draft / GRAPHS['onnxruntime'], draft / GRAPHS['openvino']
        write_onnx(whole, onnx)
        write_openvino(onnx, graph)
        exported.engines = dict(GRAPHS)
        if images:
            prepare = Inspector.of(exported, torch_engine(whole))
            quantise(graph, [prepare.input_of(path) for path in images], lambda engine: 0.0, 0.0, 1.0)
            onnx.unlink()
            exported.engines, exported.precision = dict(openvino=GRAPHS['openvino']), 'int8'
        folder.write(draft, exported)


def _to_int8(exported, draft, whole, train, val, reference, most_loss) -> dict:
    """Quantise the OpenVINO graph in `draft`; ONNX Runtime's is left out, so that a folder has one answer."""
    prepare = Inspector.of(exported, torch_engine(whole))
    inputs = [prepare.input_of(path) for path in _progress(train.paths, 'calibration')]
    everything = np.arange(len(val.paths))

    def measure(engine):
        said = inspector_predictions(Inspector.of(exported, engine), val.paths, 'INT8')
        return mean_ap50(val.truth, said)(everything) or 0.0

    before = mean_ap50(val.truth, reference)(everything) or 0.0
    said = quantise(draft / GRAPHS['openvino'], inputs, measure, before, most_loss)
    (draft / GRAPHS['onnxruntime']).unlink()
    exported.engines = dict(openvino=GRAPHS['openvino'])
    exported.precision = 'int8'
    return said


def _check(exported: Exported, most_loss: float) -> None:
    """Raise unless every engine is within its tolerance."""
    for row in exported.parity:
        if exported.precision == 'fp32':
            share = row['matched'] / max(row['boxes'], 1) if row['boxes'] else 1.0
            if share < LEAST_MATCHED or row['score_max'] > MOST_SCORE_ERROR:
                raise ExportError(
                    f'{row["engine"]}: {row["matched"]} of {row["boxes"]} boxes of mmdet found again, scores '
                    f'differ by up to {row["score_max"]:.2g}; expected {LEAST_MATCHED:.1%} and '
                    f'{MOST_SCORE_ERROR:g}: nothing is kept'
                )
        elif row['AP50'].get('loss', 0) > most_loss:
            raise ExportError(
                f'INT8 costs {row["AP50"]["loss"]:.4f} AP50, expected at most {most_loss:g}: nothing is '
                'kept; calibrate on more radiographs, allow more by --max-loss, or export float32'
            )


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
        '| engine | precision | images | boxes of mmdet | found again at IoU >= .99 | more boxes '
        '| score difference max / mean | AP50 loss | of the critical class |',
        '|---|---|---:|---:|---:|---:|---:|---:|---:|',
    ]
    for row in rows:
        losses = [value for key, value in row.items() if key.startswith('AP50')]
        cells = [
            row['engine'],
            row['precision'],
            str(row['images']),
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
