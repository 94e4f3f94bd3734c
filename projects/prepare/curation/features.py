"""Features of radiographs for a diverse sample: from a file, or by a frozen backbone."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from projects.radiograph.remote import join

from ..ledger import UsageError

_BATCH = 32


def read_features(source: str | dict, archive: str, names: Sequence[str], progress: Callable) -> np.ndarray:
    """Return the features of images, (n, d).

    Args:
        source: An `.npz` file of `names` and `features`, or `config` and `checkpoint` of a classifier or
            probe, whose last pooled features count.
        archive: Where the images are.
        names: Of the images.
        progress: Called with the number of images done since the last call.

    Raises:
        UsageError: The file lacks an image or is none.
    """
    if isinstance(source, dict):
        return _by_backbone(source, archive, names, progress)
    path = Path(source)
    try:
        with np.load(path, allow_pickle=False) as held:
            known, features = held['names'].tolist(), np.asarray(held['features'], np.float32)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(
            f'{path}: expected an .npz file with `names` and `features` ({error}); write it'
        ) from None
    if features.ndim != 2 or len(known) != len(features) or not np.isfinite(features).all():
        raise UsageError(
            f'{path}: expected finite features (n, d) of {len(known)} names, found {features.shape}; '
            'correct it'
        )
    places = {name: k for k, name in enumerate(known)}
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

    from projects.xray import running

    if not Path(source['checkpoint']).is_file():
        raise UsageError(f'{source["checkpoint"]}: no such checkpoint; correct sample.features.checkpoint')
    running.read_config(source['config'])  # registers what it names; errors are one line
    model = get_model(source['config'], pretrained=source['checkpoint'])
    extractor, rows = FeatureExtractor(model), []
    for start in range(0, len(names), _BATCH):
        paths = [join(archive.rstrip('/'), name) for name in names[start : start + _BATCH]]
        for found in extractor(paths, batch_size=_BATCH):
            last = found[-1] if isinstance(found, tuple | list) else found
            rows.append(last.flatten(1).mean(1).cpu().numpy() if last.ndim == 3 else last.cpu().numpy())
        progress(len(paths))
    return np.stack(rows).astype(np.float32)
