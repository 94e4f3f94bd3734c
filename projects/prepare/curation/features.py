"""Features of radiographs for a diverse sample, from a file or a frozen backbone."""

import pickle
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from projects.errors import one_line
from projects.radiograph.remote import join

from ..ledger import UsageError

_BATCH = 32
# TypeError and AttributeError: a file with one array, or with other objects.
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_features(source: str | dict, archive: str, names: Sequence[str], progress: Callable) -> np.ndarray:
    """Return the features of images, (n, d).

    Args:
        source: An `.npz` file with `names` and `features`, or `config` and `checkpoint` of a classifier or
            probe, whose last pooled features are used.
        archive: Folder, packed store or URL of the images.
        names: Names of the images.
        progress: Called with the number of images done since the last call.

    Raises:
        UsageError: The file lacks an image, or is no such file.
    """
    if isinstance(source, dict):
        return _by_backbone(source, archive, names, progress)
    path = Path(source)
    try:
        with np.load(path, allow_pickle=False) as held:
            known, features = held['names'].tolist(), np.asarray(held['features'], np.float32)
            places = {name: k for k, name in enumerate(known)}
    except _DAMAGED as error:
        raise UsageError(
            f'{path}: expected an .npz file with `names` and `features` ({one_line(error)}); write it'
        ) from None
    if features.ndim != 2 or len(known) != len(features) or not np.isfinite(features).all():
        raise UsageError(
            f'{path}: expected finite features (n, d) of {len(known)} names, found {features.shape}; '
            'correct it'
        )
    if len(places) < len(known):
        raise UsageError(
            f'{path}: expected each name once, found {len(known) - len(places)} twice; correct it'
        )
    missing = [name for name in names if name not in places]
    if missing:
        raise UsageError(
            f'{path}: {len(missing)} of {len(names)} images have no features, such as {missing[0]}; add them'
        )
    progress(len(names))
    return features[[places[name] for name in names]]


def _by_backbone(source: dict, archive: str, names: Sequence[str], progress: Callable) -> np.ndarray:
    # The libraries take seconds to import.
    from mmpretrain import FeatureExtractor, get_model

    from projects.runs import running

    if not Path(source['checkpoint']).is_file():
        raise UsageError(f'{source["checkpoint"]}: no such checkpoint; correct sample.features.checkpoint')
    cfg = running.read_config(source['config'])  # also registers its modules; errors have one line
    if cfg.get('default_scope') != 'mmpretrain':
        raise UsageError(
            f'{source["config"]}: expected a classifier or probe; correct sample.features.config'
        )
    tensors = _backbone_in(source['checkpoint'])
    model = get_model(source['config'], pretrained=source['checkpoint'])
    _check_arrived(model.backbone, tensors, source)
    extractor, rows = FeatureExtractor(model), []
    for start in range(0, len(names), _BATCH):
        paths = [join(archive.rstrip('/'), name) for name in names[start : start + _BATCH]]
        for found in extractor(paths, batch_size=_BATCH):
            last = found[-1] if isinstance(found, tuple | list) else found
            rows.append(last.flatten(1).mean(1).cpu().numpy() if last.ndim == 3 else last.cpu().numpy())
        progress(len(paths))
    return np.stack(rows).astype(np.float32)


def _backbone_in(checkpoint: str) -> dict[str, Any]:
    """Return the tensors of the backbone in a checkpoint."""
    import torch

    try:
        held = torch.load(checkpoint, map_location='cpu', weights_only=True)
        state = held.get('state_dict', held)
        found = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    except (*_DAMAGED, RuntimeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f'{checkpoint}: expected a PyTorch checkpoint ({type(error).__name__}); correct '
            'sample.features.checkpoint'
        ) from None
    return found


def _check_arrived(backbone: Any, tensors: dict[str, Any], source: dict) -> None:
    """Refuse a backbone without its weights, since features of random weights would not be noticed.

    Raises:
        UsageError: Tensors are missing in the checkpoint, or have another shape.
    """
    from projects.xray.handover import ALLOWED_MISSING, compare

    found = compare(backbone, tensors)
    lacking = [key for key in found.missing if not ALLOWED_MISSING.fullmatch(key)]
    lacking += [*found.mismatched, *found.different]
    if lacking:
        raise UsageError(
            f'{source["checkpoint"]}: {len(lacking)} tensors of the backbone of {source["config"]} are not '
            f'in it, such as {lacking[0]}; name the config of its training'
        )
