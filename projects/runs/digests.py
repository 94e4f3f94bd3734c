"""The files that a config's loaders read (annotations, image lists, severity maps) and their SHA-256."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from projects.config.configs import leaves
from projects.radiograph.files import sha256

UNLABELLED = 'XrayBackgrounds'
"""The data set of an archive into whose radiographs a training draws flaws."""


def digest(path: Path) -> str | None:
    """SHA-256 of a file; None if it does not exist."""
    if not path.is_file():
        return None
    stat = path.stat()
    return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.cache  # hundreds of runs share an annotation file
def _digest(path, size, changed):
    return sha256(path)


def data_sets(config: Mapping, *loaders: str) -> list[Mapping]:
    """Return the data set configs of some loaders, without wrappers."""
    return [d for loader in loaders if config.get(loader) for d in leaves(config[loader]['dataset'])]


def key_of_data(config: Mapping) -> str:
    """Return the dotted key of the training data set, the first one inside its wrappers."""
    key, dataset = 'train_dataloader.dataset', config['train_dataloader']['dataset']
    while inner := dataset.get('dataset') or dataset.get('datasets'):
        single = isinstance(inner, Mapping)
        key, dataset = f'{key}.{"dataset" if single else "datasets.0"}', inner if single else inner[0]
    return key


def annotation_file(dataset: Mapping) -> Path:
    """Return the path of a data set's annotations or image list; its folder if it names neither."""
    return Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')


def digest_labels(config: Mapping, *loaders: str) -> dict[str, str]:
    """Return the SHA-256 of the annotation files and image lists that the loaders of a config read.

    Files of severity maps are included, those of the loaders and of their evaluators.
    """
    readers = data_sets(config, *loaders)
    files = [annotation_file(dataset) for dataset in readers]
    for loader in loaders:
        evaluators = config.get(loader.replace('dataloader', 'evaluator')) or []
        readers += [evaluators] if isinstance(evaluators, Mapping) else evaluators
    maps = [reader.get('severity') for reader in readers]
    files += [Path(severity) for severity in maps if isinstance(severity, str)]  # a built-in map is no file
    return {str(file): digest(file) for file in files if file.is_file()}


def image_folders(config: Mapping, *loaders: str) -> dict[str, str]:
    """Return the image folder of each annotation file that a config's loaders read."""
    folders = {}
    for dataset in data_sets(config, *loaders):
        prefix = dataset.get('data_prefix') or {}
        prefix = prefix if isinstance(prefix, str) else prefix.get('img') or prefix.get('img_path') or ''
        folders[str(annotation_file(dataset))] = str(Path(dataset.get('data_root') or '', prefix))
    return folders


def trained_on(config: Mapping, folder: Path) -> dict[str, str | None]:
    """Return a config's annotation files of training with their SHA-256 as recorded by the run.

    The present file may differ. The SHA-256 is None if none was recorded.

    Args:
        config: The run's config.
        folder: The run's work dir, with `run.json` of a study or `starts.json` of tools/train.py.
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
    """Return the recorded SHA-256 of the training annotations, from a study or the starts; None without."""
    if facts:
        return facts.get('labels_sha256', {})
    starts = [start.get('labels_sha256', {}) for start in read_starts(folder)]
    if not any(starts):
        return None
    # A file counts as known only if all starts recorded the same SHA-256.
    return {file: sha256 for file, sha256 in starts[0].items() if all(s.get(file) == sha256 for s in starts)}


def read_json(path: Path) -> dict:
    """Read a JSON file; {} if it is missing or truncated."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def read_starts(folder: Path) -> list[dict]:
    """Return the record that tools/train.py wrote at each start of a run; [] for a run without records."""
    return read_json(folder / 'starts.json').get('starts', [])
