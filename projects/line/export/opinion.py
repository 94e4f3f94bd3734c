"""The second opinion of a folder: feature graph, memory of sound patches, and the threshold of its flag."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from projects.line.runtime import Exported, Inspector, engines, opinion
from projects.radiograph.parts import recorded_part

from .detector import ExportError, Radiographs, _progress
from .memory import coreset, flagging_score
from .traceable import TraceableDetector

GRAPH, MEMORY = 'features.onnx', 'memory.npy'
CHANNELS = 128  # of a patch, after a random projection, which keeps distances (Johnson & Lindenstrauss 1984)
PATCHES = 2_000  # in the memory
CANDIDATES = 40_000  # patches from which the memory is chosen
FEWEST = 10  # sound radiographs in train, and in val


class PatchFeatures(nn.Module):
    """Features of patches from two middle stages of a detector's backbone.

    Each feature map is averaged over 3 x 3 places. The deeper map is resized to the finer one, and both
    together are projected to `CHANNELS` (a random matrix of seed 0).

    Args:
        traceable: The detector with one input channel.
    """

    def __init__(self, traceable: TraceableDetector):
        super().__init__()
        self.backbone, self.mean, self.std = traceable.backbone, traceable.mean, traceable.std
        with torch.no_grad():
            maps = self.backbone(torch.zeros(1, 1, *traceable.size))
        self.stages = (1, 2) if len(maps) > 2 else (0, len(maps) - 1)
        count = sum(maps[k].shape[1] for k in self.stages)
        drawn = np.random.default_rng(0).normal(0, CHANNELS**-0.5, (CHANNELS, count, 1, 1))
        self.register_buffer('projection', torch.from_numpy(drawn.astype(np.float32)), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return (1, CHANNELS, h, w) of an image (1, 1, H, W), gray levels 0..255."""
        maps = self.backbone((image - self.mean) / self.std)
        fine, coarse = (functional.avg_pool2d(maps[k], 3, 1, 1) for k in self.stages)
        coarse = functional.interpolate(coarse, size=fine.shape[-2:], mode='bilinear', align_corners=False)
        return functional.conv2d(torch.cat([fine, coarse], 1), self.projection)


def write_features(traceable: TraceableDetector, path: Path) -> None:
    """Trace `PatchFeatures` into an ONNX file, which both engines read."""
    example = torch.full((1, 1, *traceable.size), traceable.mean)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # sizes are fixed on purpose
        torch.onnx.export(
            PatchFeatures(traceable).eval(),
            (example,),
            path,
            opset_version=17,
            dynamo=False,
            input_names=['image'],
            output_names=['features'],
        )


def sound_of(images: Radiographs) -> Radiographs:
    """Return the radiographs without any annotation."""
    annotated = {annotation['image_id'] for annotation in images.truth['annotations']}
    return images.at([k for k, image in enumerate(images.truth['images']) if image['id'] not in annotated])


def add_opinion(
    exported: Exported,
    draft: Path,
    traceable: TraceableDetector,
    inspector: Inspector,
    train: Radiographs,
    val: Radiographs,
) -> None:
    """Write graph and memory into a draft, and the threshold into the metadata.

    Args:
        exported: The folder's metadata.
        draft: The folder.
        traceable: The detector.
        inspector: Prepares radiographs as the runtime does.
        train: Radiographs; the memory is learnt from the sound ones.
        val: Radiographs; the threshold is chosen from the sound ones.

    Raises:
        ExportError: There are too few sound radiographs.
    """
    learnt, held = sound_of(train), sound_of(val)
    if min(len(learnt.paths), len(held.paths)) < FEWEST:
        raise ExportError(
            f'second opinion: {len(learnt.paths)} sound radiographs in train and {len(held.paths)} in val, '
            f'expected at least {FEWEST} of each; add some, or export without --second-opinion'
        )
    write_features(traceable, draft / GRAPH)
    features: Any = engines.load('onnxruntime', draft / GRAPH)
    memory = memory_of(features, inspector, learnt.paths)
    np.save(draft / MEMORY, memory)
    scores = [score_of(features, memory, inspector, path) for path in _progress(held.paths, 'sound parts')]
    exported.opinion = dict(graph=GRAPH, memory=MEMORY, patches=len(memory), radiographs=len(learnt.paths))
    exported.opinion |= flagging_score(scores, [recorded_part(image) for image in held.truth['images']])


def score_of(features: opinion.Features, memory: np.ndarray, inspector: Inspector, path: str) -> float:
    """Return the score of a radiograph, computed as in the runtime."""
    found = (opinion.patches(features, *place) for place in inspector.inputs_of(path))
    return max(float(opinion.distances(each, memory).max(initial=0.0)) for each in found)


def memory_of(features: opinion.Features, inspector: Inspector, paths: Sequence[str]) -> np.ndarray:
    """Return a coreset (at most `PATCHES`, CHANNELS) of the patches of sound radiographs."""
    rng, found = np.random.default_rng(0), []
    most = max(CANDIDATES // len(paths), 1)
    for path in _progress(paths, 'memory'):
        own = np.concatenate([opinion.patches(features, *place) for place in inspector.inputs_of(path)])
        found.append(own[rng.permutation(len(own))[:most]])
    return coreset(np.concatenate(found), PATCHES)
