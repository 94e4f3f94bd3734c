"""OpenVINO and ONNX Runtime behind one call: image and extent in, boxes, scores and labels out."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

ENGINES = ('openvino', 'onnxruntime')

Engine = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""image (1, 1, H, W) float32 and extent (2) float32 -> boxes (N, 4) and scores (N) float32, labels (N) int64.
May be called from several threads at once."""


class EngineError(ValueError):
    """A graph cannot be loaded or run; one line with the remedy."""


def silence_telemetry() -> None:
    """Keep OpenVINO's and NNCF's packages from reporting their use; call it before they are imported."""
    sys.modules.setdefault('openvino_telemetry', None)


def load(name: str, graph: Path, threads: int | None = None, streams: int = 1) -> Engine:
    """Load a graph onto the CPU.

    Computed in float32 (OpenVINO would round to bfloat16 where the CPU can, and boxes would differ).

    Args:
        name: 'openvino' or 'onnxruntime'.
        graph: Its file, `model.xml` or `model.onnx`.
        threads: CPU threads in all; default, as many cores as this process may use.
        streams: Images at a time, which share the threads.

    Raises:
        EngineError: An unknown engine, or a graph that it does not take.
    """
    threads = threads or len(os.sched_getaffinity(0))
    if name not in ENGINES:
        raise EngineError(f"engine '{name}': expected one of {', '.join(ENGINES)}")
    try:
        return (_openvino if name == 'openvino' else _onnxruntime)(graph, threads, streams)
    except Exception as error:  # both raise types of their own, whatever is wrong with the graph
        reason = ' '.join(str(error).split())[:200]
        raise EngineError(f'{graph}: {name} does not load it ({reason}); export again') from None


def _openvino(graph: Path, threads: int, streams: int) -> Engine:
    silence_telemetry()
    import openvino

    compiled = openvino.Core().compile_model(
        graph,
        'CPU',
        {
            'INFERENCE_PRECISION_HINT': 'f32',
            'INFERENCE_NUM_THREADS': threads,
            'NUM_STREAMS': min(streams, threads),
            # Several processes or a busy PC: a pinned thread waits for its core while another is idle.
            'ENABLE_CPU_PINNING': False,
        },
    )
    own = threading.local()  # a request serves one thread

    def run(image, extent):
        if not hasattr(own, 'request'):
            own.request = compiled.create_infer_request()
        found = own.request.infer([image, extent], share_inputs=True)
        return tuple(found[port].copy() for port in compiled.outputs)

    return run


def _onnxruntime(graph: Path, threads: int, streams: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(threads // streams, 1)
    session = onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])

    def run(image, extent):
        return tuple(session.run(None, {'image': image, 'extent': extent}))

    return run
