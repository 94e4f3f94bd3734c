"""GPUs and cores of this machine."""

import os
from pathlib import Path


def devices() -> list[str | None]:
    """Return the GPUs of this machine by number; without a GPU, a None for each core."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = visible.split(',') if visible else []
    if visible is None:
        gpus = sorted(path.name.removeprefix('nvidia') for path in Path('/dev').glob('nvidia[0-9]*'))
    return gpus or [None] * len(os.sched_getaffinity(0))


def gpus_here() -> list[str]:
    """Return the GPUs of this machine by number."""
    return [device for device in devices() if device is not None]
