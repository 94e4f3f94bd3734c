"""A second opinion without labels: the distance of a radiograph's patches from patches of sound parts.

The method is PatchCore (Roth et al., CVPR 2022). The patches are features of the middle stages of the
exported backbone; the memory holds patches of sound radiographs. The score is the largest distance of a patch
to its nearest neighbour in the memory. The second opinion flags defects that nobody has labelled. It changes
no verdict.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from projects.radiograph.files import sha256

from . import engines
from .folder import Exported, FolderError

Features = Callable[[np.ndarray], tuple[np.ndarray]]
"""image (1, 1, H, W) float32 -> one array (1, C, h, w) float32."""


def patches(features: Features, image: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Return the features (N, C) of the patches whose centre lies in a radiograph.

    Args:
        features: The graph.
        image: (1, 1, H, W) float32, the detector's input.
        extent: (2) float32, height and width in px of the radiograph within `image`.
    """
    found = features(image)[0][0]
    inside = [
        (np.arange(count) + 0.5) * side / count < border
        for count, side, border in zip(found.shape[1:], image.shape[2:], extent.tolist(), strict=True)
    ]
    kept: np.ndarray = found[:, inside[0]][:, :, inside[1]]
    return kept.reshape(len(found), -1).T


def distances(found: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Return the distance of each patch (N, C) to the nearest patch of a memory (M, C)."""
    squares = (found**2).sum(1)[:, None] - 2 * found @ memory.T + (memory**2).sum(1)
    nearest: np.ndarray = np.sqrt(np.maximum(squares.min(1), 0))
    return nearest


class SecondOpinion:
    """The second opinion of an exported folder.

    Args:
        folder: The folder.
        exported: Its metadata, which have an `opinion`.
        engine: Engine that runs the graph.
        threads: Total number of CPU threads; default, as many cores as this process may use.

    Attributes:
        threshold: Score above which a radiograph is flagged.

    Raises:
        FolderError: The memory is damaged.
        EngineError: The engine cannot load the graph.
    """

    def __init__(self, folder: Path, exported: Exported, engine: str, threads: int | None = None):
        opinion = exported.opinion
        self.threshold = float(opinion['threshold'])
        self._features: Any = engines.load(engine, folder / opinion['graph'], threads)
        path = folder / opinion['memory']
        try:
            self._memory = np.load(path, allow_pickle=False)
            fits = self._memory.ndim == 2 and self._memory.dtype == np.float32
        except (OSError, ValueError, EOFError):
            fits = False
        if not fits or sha256(path) != exported.files[path.name]:
            raise FolderError(f'{path}: expected the memory of the second opinion; copy the folder again')

    def score(self, image: np.ndarray, extent: np.ndarray) -> float:
        """Return the largest distance of a patch; arguments as of `patches`."""
        return float(distances(patches(self._features, image, extent), self._memory).max(initial=0.0))
