"""The variants that the detector benchmark compares; untrained checkpoints and exports for them.

If no folders are given, detectors with random weights of the right shapes are exported first.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from projects import REPO
from projects.errors import one_line

from .errors import BenchmarkError

STOCK = 'mmdet, PyTorch'
TORCHVISION = 'torchvision, PyTorch'
BASELINE = 'configs/faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
STUDENT = 'configs/distill/faster-rcnn_r18-in1k-pre_fpn64_4xb4-2x_industrial.py'
CALIBRATION = 4
PATIENCE = 3600  # seconds for one answer of a variant
STAGES = ('decode', 'window', 'network', 'NMS', 'merge')
IN_PYTORCH = ('mmdet', 'torchvision')


@dataclass
class Variant:
    """One detector on one engine.

    Attributes:
        name: Its name in the table.
        source: Exported folder; for the two variants in PyTorch, a checkpoint of `config`.
        engine: 'openvino', 'onnxruntime', 'mmdet' or 'torchvision'.
        precision: 'fp32' or 'int8'.
        config: The config of the checkpoint.
        goal: The required speed as a multiple of STOCK's.
        macs: Multiply-accumulates of its convolutions and fully connected layers; None if not known.
        decoding: Share of the network's stage that is box decoding and NMS; None if the turns list it
            themselves, or if it is not known.
        load: Seconds until it can inspect: imports, checksum and compilation.
        load_kept: The same with the compiled graph of an earlier start; None if the engine keeps no graph.
        first: Seconds for the first radiograph.
        turns: For each turn and radiograph, the seconds by stage, see STAGES.
        boxes: Number of boxes on each radiograph.
        memory: Peak of the process in bytes, with one radiograph at a time.
        rate: Radiographs a second with as many streams as threads.
    """

    name: str
    source: str
    engine: str
    precision: str = 'fp32'
    config: str = ''
    goal: float | None = None
    macs: int | None = None
    decoding: float | None = None
    load: float = 0.0
    load_kept: float | None = None
    first: float = 0.0
    turns: list[list[dict[str, float]]] = field(default_factory=list)
    boxes: list[int] = field(default_factory=list)
    memory: int = 0
    rate: float = 0.0

    def totals(self) -> list[list[float]]:
        """Return the seconds of each radiograph of each turn."""
        return [[sum(seconds.values()) for seconds in turn] for turn in self.turns]

    def milliseconds(self, percent: float) -> float:
        """Return a percentile of the time of a radiograph."""
        return 1e3 * float(np.percentile(np.concatenate(self.totals()), percent))

    def stage(self, name: str) -> float | None:
        """Return the median seconds of a stage; None if it was not measured separately."""
        seconds = [seconds.get(name) for turn in self.turns for seconds in turn]
        return None if None in seconds else float(np.median(seconds))

    def outside(self) -> float | None:
        """Return the share of the time that is not backbone, FPN, RoIAlign and heads; None if not known."""
        if self.stage('NMS') is None:
            return None
        network = sum(seconds['network'] for turn in self.turns for seconds in turn)
        return 1 - network / float(np.sum(self.totals()))

    def against(self, stock: 'Variant') -> float:
        """Return the speed relative to another variant: the median over turns of the medians' ratio."""
        pairs = zip(stock.totals(), self.totals(), strict=True)
        return float(np.median([np.median(theirs) / np.median(own) for theirs, own in pairs]))


def variants_of(folders: Sequence[str], checkpoint: str, goals: dict | None = None) -> list[Variant]:
    """List the two variants in PyTorch, then one for each graph of each exported folder.

    Args:
        folders: Folders written by `tools/export.py` or `export_untrained`.
        checkpoint: File written by `write_untrained`.
        goals: Goal by name of the folder, see `GOALS`; not every folder has one.
    """
    from projects.line.runtime import folder as exported

    found = [
        Variant(STOCK, checkpoint, 'mmdet', config=BASELINE),
        Variant(TORCHVISION, checkpoint, 'torchvision'),
    ]
    for path in folders:
        facts, name = exported.read(path), Path(path).name
        found += [
            Variant(
                f'{name}, {engine} {facts.precision}',
                str(path),
                engine,
                facts.precision,
                goal=(goals or {}).get(name),
            )
            for engine in facts.engines
        ]
    return found


def write_untrained(path: Path, side: int) -> str:
    """Write a checkpoint of the untrained baseline, for the variants in PyTorch; return its path."""
    run_in_subprocess(path.name, _write, BASELINE, path, side)
    return str(path)


def export_untrained(root: Path, side: int, images: Sequence[Path]) -> list[str]:
    """Export the baseline and the student with random weights, in float32 and INT8; return the folders.

    Each export runs in a separate process, so that its memory and logging end with it.
    """
    folders = []
    for name, config in (('r50', BASELINE), ('student', STUDENT)):
        for precision in ('fp32', 'int8'):
            out = root / f'{name}-{precision}'
            calibration = images[:CALIBRATION] if precision == 'int8' else ()
            run_in_subprocess(out.name, _export, config, out, side, calibration)
            folders.append(str(out))
    return folders


def _write(config: str, path: Path, side: int) -> None:
    import torch

    from projects.line.export.detector import untrained_detector

    _silence()
    torch.save(dict(state_dict=untrained_detector(read_recipe(config, side)).state_dict()), path)


def _export(config: str, out: Path, side: int, calibration: Sequence[Path]) -> None:
    from projects.line.export.export import export_untrained

    _silence()
    export_untrained(read_recipe(config, side), out, side, calibration)


def _silence() -> None:
    """Mute the log lines about the initialisation of each tensor."""
    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().setLevel('WARNING')


def read_recipe(config: str, side: int):
    """Read a config of the repository for inputs of `side` px."""
    from projects.runs import running

    cfg = running.read_config(str(REPO / config))
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.update(scale=(side, side), scale_factor=None, keep_ratio=True)
    return cfg


def run_in_subprocess(name: str, function: Callable, *args):
    """Run a function in a separate process and return its result.

    Raises:
        BenchmarkError: The function raised, or its process ended.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        try:
            return pool.submit(function, *args).result()
        except Exception as error:  # any error: the message names the variant
            raise BenchmarkError(f'{name}: {type(error).__name__}: {one_line(error, 300)}') from None
