"""The export of a detector, all or nothing: from a config and a checkpoint to a folder for the line.

A draft beside the folder takes all files and is renamed once it has been proven: a failure leaves nothing.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from projects.errors import MMXrayError
from projects.line.runtime import Exported, Inspector, folder
from projects.radiograph.gray_levels import band_of
from projects.runs import running

from .detector import (
    GRAPHS,
    ExportError,
    _progress,
    describe,
    describe_data,
    evenly,
    load_detector,
    read_split,
    survey,
    untrained_detector,
)
from .graphs import torch_engine, write_onnx, write_openvino
from .int8 import quantise
from .opinion import add_opinion
from .parity import (
    MIN_MASK_IOU,
    ap50_measures,
    ask_mmdet,
    check,
    compare,
    compare_boxes,
    inspector_predictions,
)
from .reference import reference_of
from .threshold import choose_threshold
from .traceable import TraceableDetector

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
    max_false_reject: float = folder.MAX_FALSE_REJECT,
    second_opinion: bool = False,
) -> Exported:
    """Export a detector, compare it with mmdet on validation images, choose its threshold on all of them.

    Args:
        cfg: Detector config.
        checkpoint: File of its weights.
        out: Folder to write; must not exist.
        calibration: Number of training radiographs for INT8; 0 exports float32.
        images: Largest number of validation radiographs to compare with mmdet.
        most_loss: Largest loss of AP50 through the export, as a fraction.
        most_critical_loss: Largest loss of AP50 of the critical class.
        max_escape: Highest escape rate of critical validation parts at the threshold.
        max_false_reject: Share of sound parts above which export and inference warn.
        second_opinion: Add a second opinion, learnt from the sound radiographs of train, see `opinion`.

    Returns:
        The folder's metadata.

    Raises:
        ExportError: The export differs from mmdet, or cannot be written; nothing is left behind.
    """
    detector = load_detector(cfg, checkpoint)
    val = read_split(cfg, 'val')
    train = read_split(cfg, 'train', calibration) if calibration else None
    exported = describe(cfg, checkpoint, detector, val.sizes())
    exported.origin |= describe_data(cfg, checkpoint, val.truth)
    exported.max_false_reject = max_false_reject
    exported.depths, levels = survey(val.paths, exported)
    exported.gray_levels = band_of(levels)
    if train:
        exported.depths = sorted({*exported.depths, *survey(train.paths, exported)[0]})
    traceable = TraceableDetector(detector, exported.input).eval()
    reference = ask_mmdet(cfg, detector, val.at(evenly(len(val.paths), images)), exported)
    limits = most_loss, most_critical_loss
    with draft_folder(out) as draft:
        write_onnx(traceable, draft / GRAPHS['onnxruntime'])
        write_openvino(draft / GRAPHS['onnxruntime'], draft / GRAPHS['openvino'])
        exported.engines = dict(GRAPHS)
        # Before INT8 too: if float32 agrees with mmdet, the losses of INT8 come from quantisation alone.
        _prove(exported, draft, 'openvino', reference, limits)
        if not train:
            _prove_or_leave_out(exported, draft, 'onnxruntime', reference, limits)
        if train:
            exported.calibration = _to_int8(exported, draft, traceable, train, reference, limits)
            _prove(exported, draft, 'openvino', reference, limits)
        found = inspector_predictions(Inspector(draft, cache=False), val.paths, 'threshold')
        choose_threshold(exported, val.truth, found, max_escape)
        exported.reference = reference_of(exported, val.truth, levels, found)
        exported.origin['val_ap50'] = ap50_measures(val.truth, found)['AP50'](np.arange(len(found)))
        if second_opinion:
            prepare = Inspector.of(exported, torch_engine(traceable))
            add_opinion(exported, draft, traceable, prepare, read_split(cfg, 'train'), val)
        folder.write(draft, exported)
    return exported


def _prove(exported, draft, engine, reference, limits) -> None:
    """Compare a graph in `draft` with mmdet, and keep the row of the comparison."""
    folder.write(draft, exported)
    found = inspector_predictions(Inspector(draft, engine, cache=False), reference.images.paths, engine)
    exported.parity.append(compare(reference, found, engine, exported.precision))
    check(exported.parity[-1], *limits)


def _prove_or_leave_out(exported, draft, engine, reference, limits) -> None:
    """Prove a second engine; leave it out if it loses too much where rounding decides what mmdet finds."""
    try:
        _prove(exported, draft, engine, reference, limits)
    except ExportError as error:
        if not exported.parity[-1].get('tied'):
            raise
        exported.parity.pop()
        (draft / exported.engines.pop(engine)).unlink()
        reason = str(error).partition(': nothing is kept')[0]
        print(f'warning: {reason}: {engine} is left out of the folder', file=sys.stderr)


def export_untrained(cfg: Config, out: Path, side: int, images: Sequence[Path] = ()) -> None:
    """Write a folder with random weights, to measure time only; in INT8 where calibration images are given.

    Args:
        cfg: Detector config.
        out: Folder to write; must not exist.
        side: Side of the square radiographs in px.
        images: Calibration radiographs; a few are enough.
    """
    detector = untrained_detector(cfg)
    exported = describe(cfg, None, detector, [(side, side)])
    traceable = TraceableDetector(detector, exported.input).eval()
    with draft_folder(out) as draft:
        traced, graph = draft / GRAPHS['onnxruntime'], draft / GRAPHS['openvino']
        write_onnx(traceable, traced)
        write_openvino(traced, graph)
        exported.engines = dict(GRAPHS)
        if images:
            prepare = Inspector.of(exported, torch_engine(traceable))
            inputs = [prepare.input_of(path) for path in images]
            quantise(graph, inputs, lambda engine: 1.0, 1.0, 1.0, is_transformer(traceable))
            traced.unlink()
            exported.engines, exported.precision = dict(openvino=GRAPHS['openvino']), 'int8'
        folder.write(draft, exported)


def _to_int8(exported, draft, traceable, train, reference, limits) -> dict:
    """Quantise the OpenVINO graph in `draft`; remove ONNX Runtime's: a folder has one result per image."""
    prepare = Inspector.of(exported, torch_engine(traceable))
    inputs = [prepare.input_of(path) for path in _progress(train.paths, 'calibration')]
    truth, everything = reference.images.truth, np.arange(len(reference.images.paths))
    before = {name: ap(everything) for name, ap in ap50_measures(truth, reference.alone).items()}
    masks = any(found.masks is not None for found in reference.alike)
    if None in before.values():
        raise ExportError(
            f'INT8: {" and ".join(name for name, value in before.items() if value is None)} cannot be '
            f'measured on {len(everything)} validation images, expected annotated defects: nothing is kept; '
            'prove it on more --images, or export float32'
        )

    def left(engine):
        """Return the unused share of the allowed losses: 1 without a loss, negative beyond a limit."""
        found = inspector_predictions(Inspector.of(exported, engine), reference.images.paths, 'INT8')
        after = ap50_measures(truth, found)
        losses = [before[name] - ap(everything) for name, ap in after.items()]
        shares = [loss / limit for loss, limit in zip(losses, limits, strict=True)]
        if masks:
            overlap = compare_boxes(reference.alike, found)['mask_iou'] or 0.0
            shares.append((1 - overlap) / (1 - MIN_MASK_IOU['int8']))
        return 1 - max(shares)

    calibration = quantise(draft / GRAPHS['openvino'], inputs, left, 1.0, 1.0, is_transformer(traceable))
    (draft / GRAPHS['onnxruntime']).unlink()
    exported.engines = dict(openvino=GRAPHS['openvino'])
    exported.precision = 'int8'
    return calibration


def is_transformer(traceable: TraceableDetector) -> bool:
    """Whether the backbone is a transformer: NNCF then has to find the attention."""
    return any(isinstance(module, torch.nn.LayerNorm) for module in traceable.backbone.modules())


@contextmanager
def draft_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out`: renamed to `out` at the end, deleted with all its content on an error."""
    if out.exists():
        raise running.UsageError(f'{out}: exists, expected a new folder; delete it or choose another name')
    draft = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
        yield draft
        draft.chmod(0o755)  # mkdtemp's mode lets its owner alone read
        draft.rename(out)
    except BaseException as error:
        full = shutil.disk_usage(out.parent).free < 2**20 if out.parent.exists() else False
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, MMXrayError) or not isinstance(error, Exception):
            raise  # its reason is its own, also where the disk is nearly full
        of_files = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
        if not full and not of_files:
            raise
        reason = 'the disk is full' if full else str(error) or repr(error)
        raise ExportError(
            f'{out}: not written ({reason}), nothing is left; make room or choose another place'
        ) from None
