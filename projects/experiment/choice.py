"""Choice of network, input, anchors, batch and epochs for a data set and a machine, with reasons."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from mmdet.models.task_modules.prior_generators import AnchorGenerator

from projects.measures.bounds import parts_needed
from projects.prepare.anchors import Boxes, best_anchor_iou, check_anchors

from .facts import ExperimentError, Facts

SCALES = ('cpu', 'one-gpu', 'four-gpu')
STRIDES = (4, 8, 16, 32, 64)  # of the FPN's levels
SMALLEST = 8  # px: two cells of stride 4; below it few flaws are found
COMFORTABLE = 12  # px: if the smallest flaws are larger, the input may shrink
CROP = 256
ENOUGH = 1000  # unlabelled radiographs; with fewer, pretraining is unlikely to pay
FEWEST = 16  # least number of radiographs for a pretraining
DRAWN = 6000  # crops with drawn flaws of a pretraining: on castings, longer ones found more (docs/results.md)


@dataclass
class Pretraining:
    """The plan of a backbone's pretraining on a data set's own radiographs.

    Attributes:
        folder: Image folder below the data root.
        listed: File below the data root that lists its images; '' for the whole folder.
        images: Radiographs.
        batch: Images per GPU or process.
        epochs: Epochs.
        px: Side of a view.
    """

    folder: str
    listed: str
    images: int
    batch: int
    epochs: int
    px: int


@dataclass
class Choice:
    """The chosen recipe; every attribute is written into a config.

    Attributes:
        scale: One of SCALES.
        crops: Whether training uses crops of CROP px instead of whole radiographs.
        factor: Scale factor of whole radiographs in tests, if training uses crops.
        size: Largest width and height of the input in px, if training uses whole radiographs.
        anchors: Scales of the anchors.
        gpus, batch, epochs: GPUs, images per GPU, epochs of the detector.
        pretraining: None if there are too few radiographs.
        drawn_epochs: Epochs of the pretraining on drawn flaws; 0 without one.
        reasons: A sentence by subject.
        warnings: One line each, with a remedy.
    """

    scale: str
    crops: bool
    factor: float
    size: tuple[int, int]
    anchors: list[int]
    gpus: int
    batch: int
    epochs: int
    pretraining: Pretraining | None
    drawn_epochs: int
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def amp(self) -> bool:
        """Whether the detector trains in half precision."""
        return self.scale == 'one-gpu'

    @property
    def iterations(self) -> Callable[[int], int]:
        """Iterations per epoch, as a function of the number of training radiographs."""
        return lambda images: math.ceil(images / (self.gpus * self.batch))


def choose(facts: Facts, scale: str, memory: float | None = None) -> Choice:
    """Choose a recipe for a data set and a machine.

    Args:
        facts: Facts about the data set.
        scale: One of SCALES.
        memory: Memory of a GPU in bytes; None without a GPU.

    Raises:
        ExperimentError: Training has fewer radiographs than a batch.
    """
    reasons = dict(window=_window(facts))
    warnings: list[str] = []
    small = float(np.percentile(facts.sides, 5))
    crops, factor, size = _input(facts, scale, small, reasons)
    at_input = small * (factor if crops else _fit(facts.size, size))
    if at_input < SMALLEST:
        tile = max(128, round(facts.size[0] * at_input / SMALLEST / 32) * 32)
        warnings.append(
            f'one flaw in twenty is smaller than {at_input:.1f} px (square root of the area) at the input, '
            f'below {SMALLEST} px few flaws are found: cut the radiographs into tiles during conversion '
            f'(--tile {tile}), or take them at a higher magnification'
        )
    scaled = factor if crops else _fit(facts.size, size)
    boxes = Boxes(facts.boxes.native, facts.boxes.native * scaled, facts.boxes.sizes * scaled)
    anchors = _anchors(boxes, reasons)
    gpus, batch = _batch(facts, scale, memory, reasons)
    if facts.images['train'] < batch * gpus:
        raise ExperimentError(
            f'{facts.root}/train.json: {facts.images["train"]} radiographs, expected at least a batch of '
            f'{batch * gpus}; label more, or take a smaller --scale'
        )
    choice = Choice(
        scale, crops, factor, size, anchors, gpus, batch, 0, None, 0, reasons=reasons, warnings=warnings
    )
    choice.epochs = _epochs(facts, choice)
    choice.pretraining = _pretraining(facts, choice)
    if crops and facts.unlabeled >= FEWEST and facts.drawable:
        choice.drawn_epochs = _bounded(DRAWN / facts.unlabeled, 2, 60)
        reasons['drawn flaws'] = (
            f'{len(facts.drawable)} of the 19 types that can be drawn have a severity: drawn flaws make '
            f'the {facts.unlabeled} unlabelled radiographs a training set. Their real flaws count as sound '
            f'in it. {choice.drawn_epochs * facts.unlabeled:,} crops; on castings three times as many '
            'found more'
        )
    warnings += _few(facts)
    return choice


def _window(facts: Facts) -> str:
    """The gray levels shown as black and white, and the reason."""
    if facts.window['type'] == 'full':
        return f'the range stated in the files; {facts.gray}'
    return f'{facts.window["low"]:g} to {facts.window["high"]:g}; {facts.gray}'


def _bounded(value: float, low: int, high: int) -> int:
    return int(min(max(round(value), low), high))


def _fit(native: tuple[int, int], bound: tuple[int, int]) -> float:
    """Scale factor of a resize that keeps the aspect ratio, as in mmcv."""
    return min(max(bound) / max(native), min(bound) / min(native))


def _input(facts: Facts, scale: str, small: float, reasons: dict) -> tuple[bool, float, tuple[int, int]]:
    """Whether to use crops, the scale factor in tests, and the input size."""
    native, longest = facts.size, max(facts.size)
    flaws = (
        f'radiographs of {native[0]} x {native[1]} px, flaws of {small:.0f} to '
        f'{np.percentile(facts.sides, 95):.0f} px (square root of the area, 5 to 95 %)'
    )
    if scale == 'cpu':
        # Larger radiographs shrink until the smallest flaws have COMFORTABLE px, which shortens every test.
        factor = min(1.0, max(COMFORTABLE / small, 256 / longest))
        if factor > 0.8:
            factor = 1.0
        if longest * factor > 1.25 * CROP:
            factor = round(factor, 2)
            shrunk = '' if factor == 1 else f' shrunk to {factor:g} of their size'
            reasons['input'] = (
                f'{flaws}: training uses crops of {CROP} px, three of four around a flaw, so that the cost '
                f'of an image does not depend on its size; tests use whole radiographs{shrunk}'
            )
            return True, factor, native
        wanted = longest * factor
    else:
        wanted = min(max(1024 if longest >= 768 else longest, longest * SMALLEST / small), 1536)
    factor = wanted / longest
    size = tuple(max(64, math.ceil(v * factor / 32) * 32) for v in native)
    reasons['input'] = (
        f'{flaws}: whole radiographs within {size[0]} x {size[1]} px, where the small ones have '
        + (f'{small * _fit(native, size):.0f} px')
    )
    return False, 1.0, size


def _anchors(boxes: Boxes, reasons: dict) -> list[int]:
    def fit(scales: Sequence[float]) -> np.ndarray:
        built = AnchorGenerator(strides=STRIDES, ratios=[0.5, 1.0, 2.0], scales=list(scales))
        return best_anchor_iou(boxes, [level.numpy() for level in built.base_anchors], built.strides)

    found, _ = check_anchors([8], fit)
    reasons['anchors'] = (
        f'scales {found["better_scales"]} cover {found["better_50"]:.0%} of the flaws with IoU >= 0.5 and '
        f"{found['better_70']:.0%} with >= 0.7 at this input; mmdet's [8] {found['share_50']:.0%} and "
        f'{found["share_70"]:.0%}'
    )
    return found['better_scales']


def _batch(facts: Facts, scale: str, memory: float | None, reasons: dict) -> tuple[int, int]:
    if scale == 'four-gpu':
        reasons['batch'] = '4 on each of 4 GPUs, as the full recipes'
        return 4, 4
    if scale == 'cpu':
        reasons['batch'] = '8 crops or small radiographs: about 2 GB'
        return 1, 8
    # Faster R-CNN R50 at 1024 px in half precision takes about 1 GB per image.
    batch = 8 if memory is None else next((b for b in (16, 8, 4) if memory >= 1.6e9 * b), 2)
    there = 'this machine has no GPU' if memory is None else f'the GPU has {memory / 1e9:.0f} GB'
    reasons['batch'] = f'{batch}: {there}; an image of 1024 px takes about 1 GB in half precision'
    return 1, batch


def _epochs(facts: Facts, choice: Choice) -> int:
    images = facts.images['train']
    if choice.scale == 'four-gpu':
        epochs = 24 if images >= 2000 else 72
        choice.reasons['epochs'] = (
            f'{epochs}: the full recipes take 24 with thousands of images, 72 with hundreds'
        )
        return epochs
    wanted, low, high = (400, 6, 200) if choice.scale == 'cpu' else (3000, 12, 100)
    epochs = _bounded(wanted * choice.batch / images, low, high)
    choice.reasons['epochs'] = (
        f'{epochs} of {choice.iterations(images)} iterations, {epochs * choice.iterations(images)} in all: '
        + ('about half an hour on two cores' if choice.scale == 'cpu' else 'few images need many epochs')
    )
    return epochs


def _pretraining(facts: Facts, choice: Choice) -> Pretraining | None:
    """Plan a pretraining on the archive, or without one on the training radiographs without their labels."""
    archive = facts.unlabeled >= FEWEST
    images = facts.unlabeled if archive else facts.images['train']
    where = ('unlabeled', '') if archive else ('images', 'train.txt')
    if images < FEWEST:
        choice.warnings.append(
            f'{facts.unlabeled} unlabelled radiographs and {facts.images["train"]} labelled ones are too few '
            f'for a pretraining, which needs {FEWEST}: the arms are ImageNet weights and random weights'
        )
        return None
    source = f'{images} unlabelled radiographs'
    if not archive:
        few = f'{facts.unlabeled} unlabelled ones are too few' if facts.unlabeled else 'there is no archive'
        source = f'the {images} training radiographs without their labels, since {few}'
    if images < ENOUGH:
        choice.warnings.append(
            f'pretraining on {images} radiographs is unlikely to pay, {ENOUGH:,} are the least that may; '
            'more useful are ImageNet weights (the baseline arm), more labels, above all of critical flaws, '
            f'and unlabelled radiographs of the same parts in {facts.root}/unlabeled'
        )
    choice.reasons['pretraining'] = source
    whole = 2 ** int(math.log2(images))  # the largest power of two, so that few images are dropped
    if choice.scale == 'cpu':
        batch = min(32, whole)
        return Pretraining(*where, images, batch, _bounded(4500 / images, 5, 100), 128)
    if choice.scale == 'one-gpu':
        return Pretraining(*where, images, min(256, whole), 100, 224)
    return Pretraining(*where, images, min(64, max(4, whole // 4)), 100, 224)


def _few(facts: Facts) -> list[str]:
    """Warnings about claims that the test set is too small to prove, with the numbers needed."""
    warnings = []
    if not facts.sound['test']:
        more = '' if facts.sound['train'] else ', and the detector never trains on a sound part'
        splits = 'test' if facts.sound['train'] else 'train and of test'
        warnings.append(
            f'every radiograph of {splits} shows a flaw: false alarms on sound parts cannot be '
            f'measured{more}; add radiographs without a flaw, each with an empty annotation'
        )
    needed = parts_needed(0.05)
    if not facts.parts_known:
        warnings.append(
            'the parts of the radiographs are not known, so that no escape rate can be proven: convert again '
            "with --group, such as --group 'P[0-9]+'"
        )
    if facts.critical_parts < needed:
        unit = 'parts' if facts.parts_known else 'radiographs'
        warnings.append(
            f'{facts.critical_parts} {unit} of test have a critical flaw: too few to prove an escape rate, '
            f'{needed} without a miss prove at most 5 %, {parts_needed(0.01)} at most 1 %'
        )
    return warnings
