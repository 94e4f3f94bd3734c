"""Loading a detector for timing: an exported folder, or mmdet's or torchvision's detector in PyTorch."""

import os
import time
from collections.abc import Callable

import numpy as np

from .variants import STAGES, Variant, read_recipe


def load_detector(variant: Variant, threads: int, side: int, cache: bool = False):
    """Return a function that inspects a file, and a function that measures a stream or None.

    The first returns the seconds by stage and the number of boxes. Without `cache` the graph is compiled
    again, since a kept graph may be from an earlier run.
    """
    os.environ['OMP_NUM_THREADS'] = str(threads)
    import cv2

    cv2.setNumThreads(threads)
    if variant.engine == 'mmdet':
        return _mmdet(variant, threads, side), None
    if variant.engine == 'torchvision':
        return _torchvision(variant, threads, side), None
    return _exported(variant, threads, cache)


def _exported(variant: Variant, threads: int, cache: bool):
    """Load an exported folder into the runtime, in a process that does not import PyTorch."""

    def load(streams):
        from projects.line.runtime import Inspector

        inspector = Inspector(variant.source, variant.engine, threads=threads, streams=streams, cache=cache)
        inspector.exported.depths, inspector.exported.gray_levels = (
            [],
            {},
        )  # accept any radiograph
        return inspector

    inspector = load(1)

    def inspect(name):
        inspection = inspector(name)
        return inspection.seconds, len(inspection.boxes)

    def stream(names):
        streaming = load(threads)
        for _ in streaming.stream(names[: 3 * threads]):  # warm-up of each stream
            pass
        start = time.perf_counter()
        for _ in streaming.stream(names):
            pass
        return len(names) / (time.perf_counter() - start)

    return inspect, stream


class _Timed:
    """Replaces a method of an object and times its calls.

    Attributes:
        last: The last return value.
    """

    def __init__(self, owner, name: str):
        self.last, self._seconds, self._call = None, 0.0, getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *args, **kwargs):
        start = time.perf_counter()
        self.last = self._call(*args, **kwargs)
        self._seconds += time.perf_counter() - start
        return self.last

    def take(self) -> float:
        """Return the seconds of all calls since the last `take`."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _mmdet(variant: Variant, threads: int, side: int):
    """Load mmdet's detector with its own pipeline, which reads files."""
    import torch

    from projects.line.export import detector as export_detector
    from projects.line.export import parity

    torch.set_num_threads(threads)
    cfg = read_recipe(variant.config, side)
    detector = export_detector.load_detector(cfg, variant.source)
    normalise = _Timed(detector.data_preprocessor, 'forward')
    propose = _Timed(detector.rpn_head, 'predict_by_feat')
    detect = _Timed(detector.roi_head.bbox_head, 'predict_by_feat')
    run = parity.mmdet_runner(cfg, detector)

    def inspect(name):
        seconds = dict.fromkeys(STAGES, 0.0) | run(name)
        _move(seconds, 'window', normalise)
        _move(seconds, 'NMS', propose, detect)
        return seconds, len(detect.last[0].bboxes)

    return inspect


def _torchvision(variant: Variant, threads: int, side: int):
    """Load torchvision's Faster R-CNN ResNet-50 with the checkpoint's backbone; our reader decodes files."""
    import torch
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    from projects.radiograph.read import read
    from projects.radiograph.recipe import prepare

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=side, max_size=side
    ).eval()
    weights = torch.load(variant.source, weights_only=True)['state_dict']
    prefix = 'backbone.'  # both libraries use the same names for a ResNet's layers
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    model.backbone.body.load_state_dict(own)
    normalise, merge = _Timed(model.transform, 'forward'), _Timed(model.transform, 'postprocess')
    propose = _Timed(model.rpn.box_coder, 'decode'), _Timed(model.rpn, 'filter_proposals')
    detect = _Timed(model.roi_heads, 'postprocess_detections')

    def inspect(name):
        clocks = [time.perf_counter()]
        radiograph = read(name)
        clocks.append(time.perf_counter())
        pixels = prepare(radiograph, dict(type='full'), 'float32')
        image = torch.from_numpy(pixels)[None].expand(3, -1, -1) / 255
        clocks.append(time.perf_counter())
        with torch.no_grad():
            (found,) = model([image])
        clocks.append(time.perf_counter())
        seconds = dict.fromkeys(STAGES, 0.0) | dict(zip(STAGES, np.diff(clocks).tolist(), strict=False))
        _move(seconds, 'window', normalise)
        _move(seconds, 'NMS', *propose, detect)
        _move(seconds, 'merge', merge)
        return seconds, len(found['boxes'])

    return inspect


def _move(seconds: dict[str, float], stage: str, *timed: _Timed) -> None:
    """Move the seconds of timed methods from the network's stage to another stage."""
    taken = sum(one.take() for one in timed)
    seconds['network'] -= taken
    seconds[stage] += taken


def count_in_torch(inspect: Callable, image: str) -> int:
    """Count multiply-accumulates of convolutions and fully connected layers."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        inspect(image)
    return counter.get_total_flops() // 2
