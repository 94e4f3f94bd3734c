"""OpenVINO and ONNX Runtime behind one call: image and extent in, boxes, scores, labels and masks out."""

import contextlib
import functools
import hashlib
import hmac
import os
import secrets
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from projects.errors import MMXrayError
from projects.radiograph.files import write_whole

ENGINES = ('openvino', 'onnxruntime')

Engine = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]
"""image (1, 1, H, W) float32 and extent (2) float32 -> boxes (N, 4) and scores (N) float32, labels (N) int64;
a detector with masks also returns masks (N, r, r) float32, probabilities over each box. An engine may be
called from several threads at once."""


class EngineError(MMXrayError, ValueError):
    """A graph cannot be loaded or run; one line with the remedy."""


def silence_telemetry() -> None:
    """Keep OpenVINO's and NNCF's packages from reporting their use; call it before they are imported."""
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]  # None: not importable


@functools.cache
def core() -> Any:
    """Return OpenVINO's core, the only one of this process.

    Its CPU plugin (2026.4) gives the thread its own signal stack. On its destruction, the plugin restores the
    stack that it found at its start. If two plugins end in the order of their start, the second one restores
    a stack that the first one has freed; the next signal, such as SIGCHLD, then kills the process.
    """
    silence_telemetry()
    import openvino

    return openvino.Core()


def load(
    name: str, graph: Path, threads: int | None = None, streams: int = 1, cache: Path | None = None
) -> Engine:
    """Load a graph onto the CPU.

    The engine computes in float32. By default OpenVINO uses bfloat16 on some CPUs, and boxes would differ.

    Args:
        name: 'openvino' or 'onnxruntime'.
        graph: File of the graph, `model.xml` or `model.onnx`.
        threads: Total number of CPU threads; default, as many cores as this process may use.
        streams: Number of images at a time; they share the threads.
        cache: Path that keeps OpenVINO's compiled graph for the next start. Its name is unique to the graph,
            its folder holds such files alone; None keeps nothing.

    Raises:
        EngineError: The engine is unknown or cannot load the graph.
    """
    threads = threads or len(os.sched_getaffinity(0))
    if name not in ENGINES:
        raise EngineError(f"engine '{name}': expected one of {', '.join(ENGINES)}")
    try:
        if name == 'openvino':
            return _openvino(graph, threads, streams, cache)
        return _onnxruntime(graph, threads, streams)
    except Exception as error:  # each engine raises types of its own for a bad graph
        reason = ' '.join(str(error).split())[:200]
        raise EngineError(f'{graph}: {name} does not load it ({reason}); export again') from None


def _openvino(graph: Path, threads: int, streams: int, cache: Path | None) -> Engine:
    silence_telemetry()
    settings = {
        'INFERENCE_PRECISION_HINT': 'f32',
        'INFERENCE_NUM_THREADS': threads,
        'NUM_STREAMS': min(streams, threads),
        # With several processes or on a busy PC, a pinned thread waits for its core while others are idle.
        'ENABLE_CPU_PINNING': False,
    }
    compiled = _cached(graph, settings, cache) if cache else core().compile_model(graph, 'CPU', settings)
    own = threading.local()  # a request serves one thread

    def run(*inputs: np.ndarray) -> Any:
        if not hasattr(own, 'request'):
            own.request = compiled.create_infer_request()
        found = own.request.infer(list(inputs), share_inputs=True)
        return tuple(found[port].copy() for port in compiled.outputs)

    return run


def _cached(graph: Path, settings: dict[str, Any], cache: Path) -> Any:
    """Load the graph that an earlier start of this user compiled on this machine; else compile and keep it.

    OpenVINO's own CACHE_DIR is not used: it loads weights with a flipped bit without an error. A checksum is
    not enough: a user who can write to the folder could put another graph and its checksum there.
    """
    import openvino

    secret = _secret()
    if secret is None:
        return core().compile_model(graph, 'CPU', settings)

    facts = [openvino.__version__] + [
        str(core().get_property('CPU', key)) for key in ('FULL_DEVICE_NAME', 'OPTIMIZATION_CAPABILITIES')
    ]
    kept = cache.with_name(f'{cache.name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.blob')
    with contextlib.suppress(OSError, RuntimeError):  # not there, or not for this OpenVINO
        content = kept.read_bytes()
        code, content = content[:32], content[32:]
        if hmac.compare_digest(_code(secret, kept.name, content), code):
            return core().import_model(content, 'CPU', settings)
    compiled = core().compile_model(graph, 'CPU', settings)
    with contextlib.suppress(OSError, RuntimeError):  # no room or no right to write: compiled again next time
        kept.parent.mkdir(exist_ok=True)
        for other in kept.parent.iterdir():
            if not other.name.startswith(cache.name):
                other.unlink()  # of the graph that was here before
        content = compiled.export_model().getvalue()
        # Whole or not at all: other processes may be starting, too.
        write_whole(kept, _code(secret, kept.name, content) + content)
    return compiled


def _code(secret: bytes, name: str, content: bytes) -> bytes:
    """Return the code of content and name that only a user who knows the secret can compute."""
    return hmac.digest(secret, name.encode() + b'\0' + content, 'sha256')


def _secret() -> bytes | None:
    """Return this user's secret for kept graphs, created at the first start; None if it cannot be kept."""
    with contextlib.suppress(OSError, RuntimeError):  # no home
        place = Path(os.environ.get('XDG_STATE_HOME') or Path.home() / '.local' / 'state') / 'mmxray'
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = place / 'cache.key'
        with contextlib.suppress(FileExistsError):
            made = place / f'cache.key.{os.getpid()}-{threading.get_ident()}'
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, 'wb') as file:
                    file.write(secrets.token_bytes(32))
                os.link(made, path)  # atomic, and never over an existing secret
            finally:
                made.unlink()
        facts = path.stat()
        if facts.st_uid == os.getuid() and not facts.st_mode & 0o077:
            secret = path.read_bytes()
            return secret if len(secret) == 32 else None
    return None


def _onnxruntime(graph: Path, threads: int, streams: int) -> Engine:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(threads // streams, 1)
    options.log_severity_level = 3  # errors only: ONNX Runtime warns of each constant that it leaves out
    session = onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])

    names = [node.name for node in session.get_inputs()]

    def run(*inputs: np.ndarray) -> Any:
        return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

    return run
