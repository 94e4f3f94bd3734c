"""Datasets: unlabelled radiographs, image-level severity, defect boxes with a severity map."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS as DET_DATASETS
from mmengine.logging import MMLogger, print_log
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS as PRETRAIN_DATASETS

from projects.errors import one_line
from projects.radiograph import inventory
from projects.radiograph.listing import SUFFIXES, list_radiographs
from projects.radiograph.remote import is_url, join, read_text
from projects.radiograph.remote import list_radiographs as list_remote_radiographs
from projects.radiograph.store import Store, find_store

from . import file_backends, samplers  # noqa: F401  (a data_root may be a URL; registers its sampler)
from .classes import CASTINGS, CLASSES, PALETTE
from .coco import describe, load_defects, read_coco
from .errors import DatasetError
from .image_files import check_files
from .masks import with_masks
from .severity import flaw_labels, named, read_severity

__all__ = [
    'DatasetError',
    'XrayBackgrounds',
    'XrayDefects',
    'XrayImages',
    'XraySeverity',
    'check_files',
    'describe',
    'flaw_labels',
    'load_defects',
    'named',
    'quiet',
    'read_coco',
    'read_severity',
]


class _PackedImages(Sequence):
    """The items of a packed store, made when asked for: the list does not grow with the store.

    Args:
        store: Packed store.
        indices: Which of its images.
    """

    def __init__(self, store: Store, indices: range):
        self.store = store
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int | slice):
        if isinstance(index, slice):
            return _PackedImages(self.store, self.indices[index])
        return dict(img_path=join(str(self.store.folder), self.store.name(self.indices[index])))

    def block_starts(self) -> np.ndarray:
        """See `Store.block_starts`."""
        return self.store.block_starts(self.indices)


@PRETRAIN_DATASETS.register_module()
class XrayImages(BaseDataset):
    """Unlabelled radiographs of a folder, recursive and sorted, or of a list.

    Args:
        ann_file: Text file, one path relative to the image folder a line. Empty: the whole folder.
        data_prefix: `img_path` is the image folder, or a packed store (`pack.py`) in its place, or the URL of
            either.
        **kwargs: Those of `mmpretrain.datasets.BaseDataset`.

    Items hold `img_path` and `sample_idx`.

    Raises:
        DatasetError: No folder, no list, no radiograph, or a listed file is missing.
    """

    def __init__(self, ann_file: str = '', data_prefix: str | dict = 'unlabeled', **kwargs):
        super().__init__(ann_file=ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> Sequence[dict]:
        """Return one dict(img_path) per radiograph."""
        packed = find_store(self.img_prefix)
        if packed and not self.ann_file:
            store, folder = packed
            images = _PackedImages(store, store.below(folder))
            if not images:
                raise DatasetError(
                    f'{self.img_prefix}: no image below this folder of a packed store; correct `data_prefix`'
                )
            print_log(f'{self.img_prefix}: {len(images)} packed radiographs', logger='current')
            self.serialize_data = False  # what serialising saves, a store never takes
            return images
        names = self._listed() if self.ann_file else self._found()
        prefix = self.img_prefix.rstrip('/')
        return [dict(img_path=join(prefix, name)) for name in names]

    def _listed(self) -> list[str]:
        try:
            lines = read_text(self.ann_file).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f'{self.ann_file}: not readable as a list of images ({one_line(error)}); correct `ann_file`'
            ) from error
        names = [line.strip() for line in lines if line.strip()]
        if not names:
            raise DatasetError(
                f'{self.ann_file}: an empty list, expected one image path a line; write it again'
            )
        check_files(names, self.img_prefix, self.ann_file)
        print_log(f'{self.ann_file}: {len(names)} unlabelled radiographs', logger='current')
        return names

    def _found(self) -> list[str]:
        known = inventory.load(self.img_prefix)
        if known is not None and (names := inventory.radiographs(known)):
            print_log(
                f'{self.img_prefix}: {len(names)} unlabelled radiographs by its {inventory.NAME}; what has '
                'come since then is not among them until tools/list_images.py has run again',
                logger='current',
            )
            return names
        find = list_remote_radiographs if is_url(self.img_prefix) else list_radiographs
        names, others = find(self.img_prefix)
        if not names:
            found = 'no radiograph in this folder' if others else 'no such folder, or an empty one'
            raise DatasetError(
                f'{self.img_prefix}: {found}; expected files with one of the suffixes {", ".join(SUFFIXES)}: '
                'put them there or correct `data_root` and `data_prefix`'
            )
        left_out = f'; left out: {others}' if others else ''
        print_log(f'{self.img_prefix}: {len(names)} unlabelled radiographs{left_out}', logger='current')
        return names


@PRETRAIN_DATASETS.register_module()
class XraySeverity(BaseDataset):
    """Image-level severity: the label of an image is that of its most severe box.

    Images without boxes carry no label in the paper's linear evaluation; they are left out and counted.

    Args:
        ann_file: COCO annotation file.
        data_prefix: `img_path` is the image folder.
        severity: See `read_severity`.
        balanced: Repeat the images of the rarer classes until each class has as many as the most frequent
            one; for training alone.
        **kwargs: Those of `mmpretrain.datasets.BaseDataset`; `metainfo.classes` runs from the most severe
            class to the least.

    Items hold `img_path`, `gt_label` (0 critical, 1 minor) and `sample_idx`.

    Raises:
        DatasetError: See `load_defects`; or an image file is missing.
    """

    METAINFO = dict(classes=CLASSES)

    def __init__(
        self,
        ann_file: str,
        data_prefix: str | dict = 'images',
        severity: str | dict | None = 'castings',
        balanced: bool = False,
        **kwargs,
    ):
        self.severity = severity
        self.balanced = balanced
        super().__init__(ann_file=ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one dict(img_path, gt_label) per image with boxes; several where it is to be balanced."""
        classes = self.metainfo['classes']
        coco = load_defects(self.ann_file, classes, self.severity)
        labels = {}
        for ann in coco['annotations']:
            if not ann['iscrowd']:
                label = ann['category_id'] - 1
                labels[ann['image_id']] = min(label, labels.get(ann['image_id'], label))
        images = [image for image in coco['images'] if image['id'] in labels]
        check_files([image['file_name'] for image in images], self.img_prefix, self.ann_file)
        counts = Counter(labels.values())
        print_log(
            f'{describe(coco, self.ann_file)}\nimage labels: '
            + ', '.join(f'{counts[i]} {name}' for i, name in enumerate(classes))
            + f'; {len(coco["images"]) - len(images)} images without boxes left out',
            logger='current',
        )
        prefix = self.img_prefix.rstrip('/')
        items = [
            dict(img_path=join(prefix, image['file_name']), gt_label=labels[image['id']]) for image in images
        ]
        if self.balanced:
            items += _repeats(items)
            print_log(f'balanced: {len(items)} images, {len(items) - len(images)} of them repeats', 'current')
        return items


def _repeats(items: Sequence[dict]) -> list[dict]:
    """Copies of items, in their order, that give each `gt_label` as many as the most frequent one has."""
    of_label: dict[int, list[dict]] = {}
    for item in items:
        of_label.setdefault(item['gt_label'], []).append(item)
    most = max(map(len, of_label.values()), default=0)
    return [
        dict(item)
        for mine in of_label.values()
        for item in itertools.islice(itertools.cycle(mine), most - len(mine))
    ]


@DET_DATASETS.register_module()
class XrayDefects(CocoDataset):
    """Defect boxes with a severity map from source types to classes.

    Defect-free images are kept unless `filter_cfg` says otherwise. Where the pipeline loads masks, each flaw
    must have one; see `masks.with_masks`.

    Args:
        *args: Those of `mmdet.datasets.CocoDataset`.
        severity: See `read_severity`; None where the types of the file are `metainfo.classes`.
        **kwargs: Those of `mmdet.datasets.CocoDataset`.

    Raises:
        DatasetError: See `load_defects` and `masks.with_masks`; or an image file is missing; or `filter_cfg`
            or `indices` leave no image or no box.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, *args, severity: str | dict | None = None, **kwargs):
        self.severity = severity
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the images of `load_defects` in mmdet's form."""
        coco = load_defects(self.ann_file, self.metainfo['classes'], self.severity)
        check_files([image['file_name'] for image in coco['images']], self.data_prefix['img'], self.ann_file)
        print_log(describe(coco, self.ann_file), logger='current')
        if any(getattr(step, 'with_mask', False) for step in self.pipeline.transforms):
            coco = with_masks(coco, self.ann_file)
        self.flaw_labels = flaw_labels(self.metainfo['classes'], self.severity)
        # What CocoDataset.filter_data and parse_data_info read.
        self.cat_ids = [category['id'] for category in coco['categories']]
        self.cat2label = {cat_id: i for i, cat_id in enumerate(self.cat_ids)}
        self.cat_img_map = {cat_id: [] for cat_id in self.cat_ids}
        by_image = defaultdict(list)
        for ann in coco['annotations']:
            self.cat_img_map[ann['category_id']].append(ann['image_id'])
            by_image[ann['image_id']].append(ann)
        return [self._info(image, by_image[image['id']]) for image in coco['images']]

    def get_data_info(self, idx: int) -> dict:
        """Return an item, with the labels of the types that `DrawFlaws` may add."""
        return super().get_data_info(idx) | dict(flaw_labels=self.flaw_labels)

    def _info(self, image: dict, annotations: list[dict]) -> dict:
        info = self.parse_data_info(
            dict(raw_img_info=dict(image, img_id=image['id']), raw_ann_info=annotations)
        )
        prefix = self.data_prefix['img']
        if is_url(prefix):
            info['img_path'] = join(prefix.rstrip('/'), image['file_name'])
        return info

    def filter_data(self) -> list[dict]:
        """Apply `filter_cfg`, saying what it leaves out."""
        kept = super().filter_data()
        self._require_boxes(kept, f'filter_cfg={self.filter_cfg}')
        if len(kept) < len(self.data_list):
            print_log(
                f'{self.ann_file}: filter_cfg={self.filter_cfg} left out '
                f'{len(self.data_list) - len(kept)} of {len(self.data_list)} images',
                logger='current',
            )
        return kept

    def _get_unserialized_subset(self, indices) -> list[dict]:
        kept = super()._get_unserialized_subset(indices)
        self._require_boxes(kept, f'indices={indices}')
        return kept

    def _require_boxes(self, data_list: list[dict], cause: str) -> None:
        boxes = sum(not item['ignore_flag'] for info in data_list for item in info['instances'])
        if not boxes:
            raise DatasetError(
                f'{self.ann_file}: {cause} leaves {len(data_list)} of {len(self.data_list)} images and 0 '
                'boxes, expected at least one; loosen it'
            )


@DET_DATASETS.register_module()
class XrayBackgrounds(XrayImages):
    """Unlabelled radiographs for a detector, as images without boxes: `DrawFlaws` puts flaws into them.

    Args:
        *args: Those of `XrayImages`.
        severity: See `read_severity`; None where the types drawn are the classes, or there is one class.
        **kwargs: Those of `XrayImages`; `metainfo.classes` are the 19 types unless given.

    Items hold `img_path`, `img_id`, `instances` (empty), `flaw_labels` and `sample_idx`.

    Raises:
        DatasetError: See `XrayImages` and `flaw_labels`.
    """

    METAINFO = dict(classes=tuple(CASTINGS))

    def __init__(self, *args, severity: str | dict | None = None, **kwargs):
        self.severity = severity
        super().__init__(*args, **kwargs)
        self.flaw_labels = flaw_labels(self.metainfo['classes'], severity)

    def get_data_info(self, idx: int) -> dict:
        """Return an item; `img_id` is its place in the list."""
        info = super().get_data_info(idx)
        return info | dict(img_id=info['sample_idx'], instances=[], flaw_labels=self.flaw_labels)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep mmengine's log lines, such as those of datasets, out of a report or table."""
    # Not logging.disable: MMLogger would remember what is disabled.
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        yield
    finally:
        logger.setLevel(level)
