"""The image sets of a config and of its related configs, read unchanged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from projects import REPO
from projects.radiograph import listing, remote
from projects.radiograph.image import ImagingError
from projects.radiograph.safe_parse import is_printable
from projects.runs import running
from projects.runs.digests import UNLABELLED, data_sets
from projects.xray import datasets

from .findings import ERROR, NOTE, Finding, ImageSet

LABELLED = ('train', 'val', 'test')
_ANNOTATED = ('XrayDefects', 'XraySeverity')
_UNLABELLED = ('XrayImages', UNLABELLED)  # a training may draw flaws into the second


def read_sets(
    cfg: Config, config_path: str, options: Sequence[str] = ()
) -> tuple[list[ImageSet], list[Finding]]:
    """Return the image sets of a config and of its related configs, and the findings on their lists.

    The first set is the training set of the config: 'train', or 'pretraining' without labels.

    Args:
        cfg: the config.
        config_path: its file.
        options: `--cfg-options` for the related configs.
    """
    sets, findings = [], []
    for split in LABELLED:
        for data in data_sets(cfg, f'{split}_dataloader'):
            name = 'pretraining' if data['type'] in _UNLABELLED else split
            add_set(sets, findings, name, data, cfg, missing=ERROR)
    if not any(s.side == 'train' for s in sets):
        related, splits = configs_from(Path(config_path).stem), ('test',)
    else:
        related, splits = pretraining_configs(cfg), ('train',)
    others = []  # sets that a pretraining is not checked against; their images still count as listed
    for path in related:
        other = read_quietly(path, options)
        for split in LABELLED:
            for data in data_sets(other, f'{split}_dataloader'):
                # If they are missing, such as labels before annotation, it is no fault of this config.
                name = 'pretraining' if split == 'train' else split
                into, noted = (sets, findings) if split in splits else (others, [])
                add_set(into, noted, name, data, other, missing=NOTE)
    listed = {path for s in [*sets, *others] for path in s.paths}
    for folder in dict.fromkeys(s.folder for s in sets if s.classes):
        names = [name for name in radiographs_below(folder) if remote.join(folder, name) not in listed]
        if names:
            window = next(s.window for s in sets if s.folder == folder)
            before = sum(s.side == 'unlisted' for s in sets)
            name = f'unlisted {before + 1}' if before else 'unlisted'
            sets.append(ImageSet(name, folder, folder, names, window=window))
            findings.append(Finding(NOTE, 'files', f'{folder}: {len(names)} images that no list names'))
    return sets, findings


def add_set(
    sets: list[ImageSet], findings: list[Finding], name: str, data: dict, cfg: Config, missing: str
) -> None:
    """Read one dataset config and append it to `sets`, unless it is in the list already.

    Args:
        sets: list to append to.
        findings: list to which findings on the annotation file or the image list are appended.
        name: name of the set.
        data: dataset config.
        cfg: the config that holds it.
        missing: level of the finding if the set or its boxes cannot be read.
    """
    kind = data['type']
    if kind not in (*_ANNOTATED, *_UNLABELLED):
        raise datasets.DatasetError(
            f'{name}: dataset type {kind}, expected {", ".join(_ANNOTATED)} or {" or ".join(_UNLABELLED)}; '
            'convert the data with tools/convert_dataset.py'
        )
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        dataset = DATASETS.build({**data, 'lazy_init': True, 'pipeline': []})
    pipeline = [dict(step) for step in data.get('pipeline') or []]
    window = next((s.get('window') for s in pipeline if s['type'] == 'LoadXray'), None)
    common = dict(window=dict(window or dict(type='full')), pipeline=pipeline)
    prefix = dataset.data_prefix
    folder = str(prefix.get('img_path') or prefix.get('img') or '').rstrip('/')
    source = str(dataset.ann_file or folder)
    if any(s.source == source for s in sets):
        return
    before = sum(s.side == name for s in sets)
    name = f'{name} {before + 1}' if before else name
    try:
        if kind in _UNLABELLED:
            with datasets.quiet():
                rows = dataset.load_data_list()
            names = [remote.name_in(folder, row['img_path']) for row in rows]
            sets.append(ImageSet(name, source, folder, names, **common))
            return
        raw = datasets.read_coco(source)
        classes = tuple(dataset.metainfo['classes'])
        coco = None
        try:
            coco = datasets.load_defects(source, classes, dataset.severity)
        except datasets.DatasetError as error:
            findings.append(Finding(missing, 'boxes', *split_remedy(str(error))))
        records = [r for r in raw['images'] if _usable(r)]
        sets.append(
            ImageSet(
                name,
                source,
                folder,
                [record['file_name'] for record in records],
                records,
                [a for a in raw['annotations'] if isinstance(a.get('image_id'), int)],
                classes,
                raw['info'] if isinstance(raw.get('info'), dict) else {},
                coco,
                **common,
            )
        )
    except (datasets.DatasetError, ImagingError) as error:
        found, remedy = split_remedy(str(error))
        findings.append(Finding(missing, 'files', f'{name} is left out: {found}', remedy))


def _usable(record: dict) -> bool:
    """Whether an image record has an id, and a file name inside the image folder."""

    name = record.get('file_name')
    return (
        isinstance(record.get('id'), int)
        and isinstance(name, str)
        and is_printable(name)
        and not Path(name).is_absolute()
        and '..' not in Path(name).parts
    )


def split_remedy(message: str) -> tuple[str, str]:
    """Split a one-line error into fault and remedy."""
    found, _, remedy = message.rpartition('; ')
    return (found, remedy) if found else (remedy, '')


def radiographs_below(folder: str) -> list[str]:
    """Return the radiographs below a folder or URL, relative to it; empty if it cannot be listed."""

    find = remote.list_radiographs if remote.is_url(folder) else listing.list_radiographs
    try:
        return find(folder)[0]
    except ImagingError:
        return []


def pretraining_configs(cfg: Config) -> list[Path]:
    """Return the configs of this repository from whose checkpoints the model starts."""
    names = [init['checkpoint'] for init in found_in(cfg.model, 'init_cfg') if 'checkpoint' in (init or ())]
    names += [cfg.get('load_from') or '']
    stems = {part for name in names for part in Path(str(name)).parts}
    return [path for path in sorted(REPO.glob('configs/**/*.py')) if path.stem in stems]


def configs_from(stem: str) -> list[Path]:
    """Return the configs of this repository that start from a checkpoint of the config with this stem."""
    return [
        path
        for path in sorted(REPO.glob('configs/**/*.py'))
        if f'/{stem}/' in path.read_text(encoding='utf-8')
    ]


def read_quietly(path: Path, options: Sequence[str]) -> Config:
    """Read a config of the repository."""

    with datasets.quiet():
        return running.read_config(str(path), options)


def found_in(node: object, key: str) -> Iterator:
    """Yield the value of every `key` below a config node."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from found_in(value, key)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from found_in(value, key)
