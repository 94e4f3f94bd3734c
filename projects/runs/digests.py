"""What the loaders of a config read: annotation files, image lists, severity maps, and their SHA-256."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from projects.config.configs import leaves
from projects.radiograph.files import sha256

UNLABELLED = 'XrayBackgrounds'
"""The data set of an archive into whose radiographs a training draws flaws."""


def digest(path: Path) -> str | None:
    """SHA-256 of a file; None when it is not there."""
    if not path.is_file():
        return None
    stat = path.stat()
    return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.cache  # hundreds of runs share an annotation file
def _digest(path, size, changed):
    return sha256(path)


def data_sets(config: Mapping, *loaders: str) -> list[Mapping]:
    """Return what the loaders of a config read, without the wrappers around it."""
    return [d for loader in loaders if config.get(loader) for d in leaves(config[loader]['dataset'])]


def key_of_data(config: Mapping) -> str:
    """Return the dotted key of the data set a config trains on, the first one inside its wrappers."""
    key, dataset = 'train_dataloader.dataset', config['train_dataloader']['dataset']
    while inner := dataset.get('dataset') or dataset.get('datasets'):
        single = isinstance(inner, Mapping)
        key, dataset = f'{key}.{"dataset" if single else "datasets.0"}', inner if single else inner[0]
    return key


def annotation_file(dataset: Mapping) -> Path:
    """Return where a data set's annotations or its list of images are; its folder when it names none."""
    return Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')


def digest_labels(config: Mapping, *loaders: str) -> dict[str, str]:
    """Return the SHA-256 of the annotation files and image lists that the loaders of a config read.

    Files of severity maps are among them, those of the loaders and of the evaluators that go with them.
    """
    readers = data_sets(config, *loaders)
    files = [annotation_file(dataset) for dataset in readers]
    for loader in loaders:
        evaluators = config.get(loader.replace('dataloader', 'evaluator')) or []
        readers += [evaluators] if isinstance(evaluators, Mapping) else evaluators
    maps = [reader.get('severity') for reader in readers]
    files += [Path(severity) for severity in maps if isinstance(severity, str)]  # a name of a map is no file
    return {str(file): digest(file) for file in files if file.is_file()}


def image_folders(config: Mapping, *loaders: str) -> dict[str, str]:
    """Return where the images of each annotation file are that the loaders of a config read."""
    folders = {}
    for dataset in data_sets(config, *loaders):
        prefix = dataset.get('data_prefix') or {}
        prefix = prefix if isinstance(prefix, str) else prefix.get('img') or prefix.get('img_path') or ''
        folders[str(annotation_file(dataset))] = str(Path(dataset.get('data_root') or '', prefix))
    return folders


def trained_on(config: Mapping, folder: Path) -> dict[str, str | None]:
    """Return the annotation files that a config names for training, with the SHA-256 that was recorded.

    The file of today may be another. The SHA-256 is None where none was recorded.

    Args:
        config: Of the run.
        folder: Its work dir, with what a study (`run.json`) or tools/train.py (`starts.json`) noted.
    """
    facts = read_json(folder / 'run.json')
    data = [d for d in data_sets(config, 'train_dataloader') if d.get('ann_file')]
    labels = noted_labels(folder, facts) or {}
    found = {str(annotation_file(d)): labels.get(str(annotation_file(d))) for d in data}
    if facts.get('subset_sha256'):  # a share of the labels, not of the archive that is mixed in
        found |= {
            str(annotation_file(d)): facts['subset_sha256'] for d in data if d.get('type') != UNLABELLED
        }
    return found


def noted_labels(folder: Path, facts: Mapping) -> dict[str, str] | None:
    """Return the SHA-256 of the annotations of training that a study or its starts noted, if anything is."""
    if facts:
        return facts.get('labels_sha256', {})
    starts = [start.get('labels_sha256', {}) for start in read_starts(folder)]
    if not any(starts):
        return None
    # What was resumed on another file, or begun before this was noted, learnt from who knows what.
    return {file: sha256 for file, sha256 in starts[0].items() if all(s.get(file) == sha256 for s in starts)}


def read_json(path: Path) -> dict:
    """Read a JSON file; {} when it is not there or cut short."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def read_starts(folder: Path) -> list[dict]:
    """Return what tools/train.py noted of each start of a run; [] of one that is older than these notes."""
    return read_json(folder / 'starts.json').get('starts', [])
