"""A detector's graph for OpenVINO and ONNX Runtime."""

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from mmengine.config import Config

from projects.line.runtime import Inspector, engines
from projects.radiograph.gray_levels import band_of

from .detector import describe, load_detector, read_split, survey
from .int8 import save
from .traceable import TraceableDetector

OPSET = 17  # RoiAlign with half-pixel coordinates, which mmcv calls aligned, came with 16


# ------------------------------------------------------------------------------------------------- graphs


def torch_engine(traceable: TraceableDetector) -> engines.Engine:
    """Return the detector in PyTorch as an engine for `Inspector.of`."""

    def run(image, extent):
        with torch.no_grad():
            found = traceable(torch.from_numpy(image), torch.from_numpy(extent))
        return tuple(tensor.numpy() for tensor in found)

    return run


def inspector_of(cfg: Config, checkpoint: str, threshold: float | None = None) -> Inspector:
    """Return an inspector around a config's detector in PyTorch, for radiographs of the val set's size."""
    detector = load_detector(cfg, checkpoint)
    val = read_split(cfg, 'val')
    exported = describe(cfg, checkpoint, detector, val.sizes())
    exported.depths, levels = survey(val.paths, exported)
    exported.gray_levels = band_of(levels)
    return Inspector.of(exported, torch_engine(TraceableDetector(detector, exported.input).eval()), threshold)


def write_onnx(traceable: TraceableDetector, path: Path) -> None:
    """Trace the detector into an ONNX file."""
    example = (
        torch.full((1, 1, *traceable.size), traceable.mean),
        torch.tensor(traceable.size, dtype=torch.float32),
    )
    traced = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing warns of every Python number in a shape; here the size is fixed on purpose.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            traceable,
            example,
            traced,
            opset_version=OPSET,
            dynamo=False,  # the new exporter asks for onnxscript and has no torchvision NMS
            input_names=['image', 'extent'],
            output_names=list(traceable.outputs),
            dynamic_axes={name: {0: 'found'} for name in traceable.outputs},
        )
    model = onnx.load_from_string(traced.getvalue())
    # torchvision's NMS returns all remaining boxes, and later steps drop those beyond the limit: stop there.
    nodes = [node for node in model.graph.node if node.op_type == 'NonMaxSuppression']
    for node, cfg in zip(nodes, (traceable.rpn_cfg, traceable.rcnn_cfg), strict=True):
        node.input[2] = f'{node.name}/most'
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([cfg.max_per_img], np.int64), node.input[2])
        )
    onnx.save(model, path)


def write_openvino(source: Path, path: Path) -> None:
    """Convert an ONNX file: both engines run the graph of one trace."""
    save(engines.core().read_model(source), path)
