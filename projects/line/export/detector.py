"""The detector to export: built from a config, with trained or random weights, and its description."""

import datetime
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.utils import import_modules_from_strings
from tqdm import tqdm

from projects import __version__
from projects.config.configs import leaves
from projects.errors import MMXrayError
from projects.line.runtime import Exported
from projects.line.runtime.folder import factor_of
from projects.line.runtime.inspector import depth_of, read_one, windowed
from projects.radiograph.files import sha256
from projects.radiograph.gray_levels import Levels, measure
from projects.radiograph.image import ImagingError
from projects.runs import provenance
from projects.runs.digests import annotation_file, digest, image_folders, trained_on
from projects.xray.datasets import DatasetError, load_defects
from projects.xray.handover import HandoverError, refuse_untrained

GRAPHS = {'openvino': 'model.xml', 'onnxruntime': 'model.onnx'}


PACKAGES = ('openvino', 'onnxruntime', 'onnx', 'nncf', 'torch', 'torchvision', 'onedl-mmdetection', 'numpy')


class ExportError(MMXrayError, ValueError):
    """A detector cannot be exported, or its export differs too much from mmdet; one line with the remedy."""


@dataclass
class Radiographs:
    """Images of one split.

    Attributes:
        paths: Files.
        truth: COCO dict. Its categories are the classes; its images are in the order of `paths`.
    """

    paths: list[str]
    truth: dict

    def at(self, positions: Sequence[int]) -> 'Radiographs':
        """Return the images at some positions."""
        images = [self.truth['images'][k] for k in positions]
        return Radiographs([self.paths[k] for k in positions], self.truth | dict(images=images))

    def sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) in px of each image."""
        return [(image['height'], image['width']) for image in self.truth['images']]


def read_split(cfg: Config, split: str, most: int | None = None) -> Radiographs:
    """Choose up to `most` images of a split, evenly over its list.

    Raises:
        DatasetError: The annotation file or an image is missing, or a split other than train has several
            data sets.
    """
    data, *others = leaves(cfg[f'{split}_dataloader'].dataset)
    if others and split != 'train':  # calibration uses the detector's own radiographs, the first data set
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
    """Choose up to `most` evenly spaced positions of `count`, beginning with the first."""
    if not most or most >= count:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def survey(paths: Sequence[str], exported: Exported) -> tuple[list[str], list[Levels]]:
    """Read files, list their depths and measure their gray levels.

    Raises:
        ImagingError: The runtime would refuse a file.
    """
    depths, levels = set(), []
    for path in _progress(paths, 'depths, gray levels'):
        radiograph = read_one(path)
        try:
            levels.append(measure(windowed(radiograph, exported)))
        except ImagingError as error:
            raise ImagingError(f'{error}; or leave it out of the data set') from None
        depths.add(depth_of(radiograph))
    return sorted(depths), levels


def load_detector(cfg: Config, checkpoint: str) -> torch.nn.Module:
    """Build a config's detector with all of a checkpoint's weights, ready to infer.

    Raises:
        HandoverError: The checkpoint lacks a tensor, has an unknown tensor or one of another shape, or was
            never updated.
    """
    detector = _build(cfg)
    try:
        content = load_checkpoint(detector, checkpoint, map_location='cpu', strict=True, logger='silent')
    except RuntimeError as error:
        if 'do not match' not in str(error):
            raise
        raise HandoverError(
            f'{checkpoint}: not the weights of {cfg.filename}, expected every tensor alike '
            f'({" ".join(str(error).split())[:300]}); give the checkpoint that this config trained'
        ) from None
    refuse_untrained(checkpoint, content.get('meta') or {})
    return detector.eval()


def padded_size(size: Sequence[int], scale: list[int] | float, divisor: int) -> list[int]:
    """Return [height, width] in px of an image of `size` after mmdet's resizing by `scale` and padding."""
    factor = factor_of(size, scale)
    return [-(-int(side * factor + 0.5) // divisor) * divisor for side in size]


# `gamma` in a block of mmpretrain's ConvNeXt, `gamma1.weight` and `gamma2.weight` in one of its ViT.
_LAYER_SCALE = re.compile(r'\.gamma(\d\.weight)?$')


def untrained_detector(cfg: Config, seed: int = 0) -> torch.nn.Module:
    """Build a config's detector with random weights, also where its training starts from pretrained ones.

    Every layer affects the output. OpenMMLab begins residual branches with a gamma of 0 or 1e-5, in a norm
    or in the layer scale of ConvNeXt and ViT, so a comparison would not see them: gamma is 1 here. Batch norm
    gets the statistics of some drawn radiographs; without them, the residual sums of a deep backbone would
    grow without bound.
    """
    cfg.model.backbone.init_cfg = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = _build(cfg)
        detector.init_weights()
        for name, parameter in detector.named_parameters():
            if _LAYER_SCALE.search(name):
                torch.nn.init.ones_(parameter)
        norms = [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        detector.eval()
        for norm in norms:
            torch.nn.init.ones_(norm.weight)
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
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
    """Read from a config the facts that the runtime needs.

    Args:
        cfg: The detector's config.
        checkpoint: File of its weights; None for random weights.
        detector: The detector that `load_detector` built.
        sizes: (height, width) in px of validation images. The input is as large as the largest of them after
            mmdet's resizing.

    Raises:
        ExportError: The pipeline has a step other than windowing and resizing.
    """
    pipeline = [step for step in cfg.test_dataloader.dataset.pipeline if step.type != 'LoadAnnotations']
    scale = _scale_of(cfg, pipeline)
    divisor = detector.data_preprocessor.pad_size_divisor
    size = np.max([padded_size(size, scale, divisor) for size in sizes], axis=0).tolist()
    # The runtime may shrink an image as far as the validation image that is shrunk the most.
    native = min(sizes, key=lambda size: (factor_of(size, scale), -size[0] * size[1]))
    classes = list(cfg.test_dataloader.dataset.metainfo.classes)
    facts = provenance.provenance(cfg.filename)
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
            sha256=checkpoint and sha256(Path(checkpoint)),
            model_sha256=hashlib.sha256(
                json.dumps(cfg.model.to_dict(), sort_keys=True, default=str).encode()
            ).hexdigest(),
            commit=facts['commit'],
            dirty=facts['dirty'],
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
            versions=dict(mmxray=__version__) | {name: importlib.metadata.version(name) for name in PACKAGES},
        ),
    )


def _scale_of(cfg: Config, pipeline: Sequence[Mapping]) -> list[int] | float:
    """Return the resizing rule of a test pipeline, see `Exported.scale`.

    Raises:
        ExportError: The pipeline has other steps than the runtime's windowing and resizing.
    """
    kinds = [step.type for step in pipeline]
    resize = dict(pipeline[1]) if kinds == ['LoadXray', 'Resize', 'PackDetInputs'] else {}
    other = dict(backend='cv2', interpolation='bilinear')
    plain = not pipeline[0].get('size') and all(
        resize.get(key, value) == value for key, value in other.items()
    )
    scale, factor, keep_ratio = (resize.get(key) for key in ('scale', 'scale_factor', 'keep_ratio'))
    if plain and scale and keep_ratio and factor is None:
        return [int(side) for side in (scale if isinstance(scale, Sequence) else [scale] * 2)]
    if plain and isinstance(factor, int | float) and factor > 0 and not keep_ratio and scale is None:
        return float(factor)
    raise ExportError(
        f'{cfg.filename}: its test pipeline is {kinds} with {resize}, expected LoadXray at native size, '
        'Resize with scale and keep_ratio or with one scale_factor alone, and PackDetInputs: the runtime has '
        'no other steps'
    )


def describe_data(cfg: Config, checkpoint: str, truth: dict) -> dict:
    """Return the data that the detector has seen, so that a proof can use other parts, and how to read them.

    Args:
        cfg: The detector's config.
        checkpoint: File of its weights; the records of its training lie beside it.
        truth: COCO dict of the val set, with its `info`.

    Returns:
        dict: `severity`, the map of the val set; `part_rule`, the rule that found its parts in the names;
        `data`, annotation files of train and val with their SHA-256; `images`, the folders of their images.
    """
    (val,) = leaves(cfg.val_dataloader.dataset)
    file, severity = annotation_file(val), val.get('severity')
    return dict(
        severity=dict(severity) if isinstance(severity, Mapping) else severity,
        part_rule=truth['info'].get('group') if isinstance(truth['info'], dict) else None,
        data=dict(train=trained_on(cfg, Path(checkpoint).parent), val={str(file): digest(file)}),
        images=image_folders(cfg, 'train_dataloader', 'val_dataloader'),
    )


def _progress(items, name: str):
    return tqdm(items, desc=name, unit='img', leave=False, disable=None)
