"""Data sets of unlabelled radiographs, image-level severities, and defect boxes with a severity map."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
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
from .label_table import SUFFIX, open_defects
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
    """The items of a packed store, created on access, so that memory does not grow with the store.

    Args:
        store: Packed store.
        indices: Indices of its images.
    """

    def __init__(self, store: Store, indices: range | np.ndarray):
        self.store = store
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int | slice):
        if isinstance(index, slice):
            return _PackedImages(self.store, self.indices[index])
        return dict(img_path=join(str(self.store.folder), self.store.name(int(self.indices[index]))))

    def block_starts(self) -> np.ndarray:
        """See `Store.block_starts`."""
        return self.store.block_starts(self.indices)


class _Rows(Sequence):
    """The items of a Parquet file's rows, created on access, so that memory does not grow with the file.

    Args:
        rows: (n,) row numbers, in this order.
        make: Creates the item of a row.
        boxes: (rows of the file,) number of boxes to learn in each row.
    """

    def __init__(self, rows: np.ndarray, make: Callable[[int], dict], boxes: np.ndarray):
        self.rows, self.make, self.learnt = rows, make, boxes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice):
        if isinstance(index, slice):
            return self.take(index)
        return self.make(int(self.rows[index]))

    def __deepcopy__(self, memo: dict) -> '_Rows':
        return self

    def take(self, which: slice | Sequence[int] | np.ndarray) -> '_Rows':
        """Return some of the items."""
        return _Rows(self.rows[which], self.make, self.learnt)

    def boxes(self) -> int:
        """Return the number of boxes to learn in these items."""
        return int(self.learnt[self.rows].sum())


@PRETRAIN_DATASETS.register_module()
class XrayImages(BaseDataset):
    """Unlabelled radiographs of a folder (recursive, sorted) or of a list.

    Args:
        ann_file: Text file with one path per line, relative to the image folder. Empty for the whole folder.
        data_prefix: `img_path` is the image folder or a packed store (`pack.py`), or the URL of either.
        **kwargs: Those of `mmpretrain.datasets.BaseDataset`.

    Items hold `img_path` and `sample_idx`.

    Raises:
        DatasetError: The folder, the list or a listed file is missing, or there is no radiograph.
    """

    def __init__(self, ann_file: str = '', data_prefix: str | dict = 'unlabeled', **kwargs):
        super().__init__(ann_file=ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> Sequence[dict]:
        """Return one dict(img_path) per radiograph."""
        packed = find_store(self.img_prefix)
        if packed:
            store, folder = packed
            if self.ann_file:
                paths = (f'{folder}/{name}' if folder else name for name in self._listed())
                images = _PackedImages(store, np.fromiter(map(store.position, paths), np.int64))
            else:
                images = _PackedImages(store, store.below(folder))
            if not images:
                raise DatasetError(
                    f'{self.img_prefix}: no image below this folder of a packed store; correct `data_prefix`'
                )
            print_log(f'{self.img_prefix}: {len(images)} packed radiographs', logger='current')
            self.serialize_data = False  # a store has nothing to serialise
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
                f'{self.img_prefix}: {len(names)} unlabelled radiographs by its {inventory.NAME}; newer '
                'files are not among them until tools/list_images.py has run again',
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
    """Image-level severity: the label of an image is the label of its most severe box.

    Images without boxes have no label in the paper's linear evaluation; they are left out and counted.

    Args:
        ann_file: COCO annotation file, or its Parquet form.
        data_prefix: `img_path` is the image folder.
        severity: See `read_severity`.
        balanced: Repeat the images of the rarer classes until all classes have the same number; for training
            only.
        **kwargs: Arguments of `mmpretrain.datasets.BaseDataset`; `metainfo.classes` is ordered from the most
            to the least severe class.

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
        """Return one dict(img_path, gt_label) per image with boxes, and repeats if `balanced`."""
        if self.ann_file.endswith(SUFFIX):
            return self._load_table()
        classes = self.metainfo['classes']
        coco = load_defects(self.ann_file, classes, self.severity)
        labels = {}
        for ann in coco['annotations']:
            if not ann['iscrowd']:
                label = ann['category_id'] - 1
                labels[ann['image_id']] = min(label, labels.get(ann['image_id'], label))
        images = [image for image in coco['images'] if image['id'] in labels]
        check_files([image['file_name'] for image in images], self.img_prefix, self.ann_file)
        self._tell(describe(coco, self.ann_file), list(labels.values()), len(coco['images']) - len(images))
        prefix = self.img_prefix.rstrip('/')
        items = [
            dict(img_path=join(prefix, image['file_name']), gt_label=labels[image['id']]) for image in images
        ]
        return items + [dict(items[k]) for k in self._repeats([item['gt_label'] for item in items])]

    def _load_table(self) -> Sequence[dict]:
        """Return the items of a Parquet file."""
        self.serialize_data = False  # nothing is held that serialising could save
        table = open_defects(self.ann_file, self.metainfo['classes'], self.severity)
        label, of = table.labels()
        lowest = np.full(len(table), 127, np.int8)
        np.minimum.at(lowest, of, label.astype(np.int8))
        rows = np.flatnonzero(lowest < 127)
        names = (name for name, own in zip(table.names(), lowest.tolist()) if own < 127)
        check_files(names, self.img_prefix, self.ann_file)
        self._tell(table.describe(), lowest[rows].tolist(), len(table) - len(rows))
        self._of_table = table, lowest
        rows = np.concatenate([rows, rows[np.array(self._repeats(lowest[rows].tolist()), int)]])
        return _Rows(rows, self._row, np.bincount(of, minlength=len(table)))

    def _row(self, row: int) -> dict:
        table, labels = self._of_table
        return dict(img_path=join(self.img_prefix.rstrip('/'), table.name(row)), gt_label=int(labels[row]))

    def _tell(self, described: str, labels: Sequence[int], left_out: int) -> None:
        counts = Counter(labels)
        print_log(
            f'{described}\nimage labels: '
            + ', '.join(f'{counts[i]} {name}' for i, name in enumerate(self.metainfo['classes']))
            + f'; {left_out} images without boxes left out',
            logger='current',
        )

    def _repeats(self, labels: Sequence[int]) -> list[int]:
        """Return the items to repeat so that all labels are equally frequent; [] unless `balanced`."""
        if not self.balanced:
            return []
        of_label: dict[int, list[int]] = {}
        for position, label in enumerate(labels):
            of_label.setdefault(label, []).append(position)
        most = max(map(len, of_label.values()), default=0)
        repeats = [
            position
            for mine in of_label.values()
            for position in itertools.islice(itertools.cycle(mine), most - len(mine))
        ]
        print_log(f'balanced: {len(labels) + len(repeats)} images, {len(repeats)} of them repeats', 'current')
        return repeats


@DET_DATASETS.register_module()
class XrayDefects(CocoDataset):
    """Defect boxes with a severity map from source types to classes.

    Defect-free images are kept unless `filter_cfg` excludes them. If the pipeline loads masks, each flaw must
    have a mask; see `masks.with_masks`.

    Args:
        *args: Those of `mmdet.datasets.CocoDataset`.
        severity: See `read_severity`; None if the types of the file are `metainfo.classes`.
        **kwargs: Those of `mmdet.datasets.CocoDataset`.

    Raises:
        DatasetError: See `load_defects` and `masks.with_masks`; or an image file is missing; or `filter_cfg`
            or `indices` leave no image or no box.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, *args, severity: str | dict | None = None, **kwargs):
        self.severity = severity
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> Sequence[dict]:
        """Return the images of `load_defects` in mmdet's form."""
        if self.ann_file.endswith(SUFFIX):
            return self._load_table()
        coco = load_defects(self.ann_file, self.metainfo['classes'], self.severity)
        check_files([image['file_name'] for image in coco['images']], self.data_prefix['img'], self.ann_file)
        print_log(describe(coco, self.ann_file), logger='current')
        if self._loads_masks():
            coco = with_masks(coco, self.ann_file)
        self.flaw_labels = flaw_labels(self.metainfo['classes'], self.severity)
        # Attributes that CocoDataset.filter_data and parse_data_info read.
        self._number_classes()
        self.cat_img_map = {cat_id: [] for cat_id in self.cat_ids}
        by_image = defaultdict(list)
        for ann in coco['annotations']:
            self.cat_img_map[ann['category_id']].append(ann['image_id'])
            by_image[ann['image_id']].append(ann)
        return [self._info(image, by_image[image['id']]) for image in coco['images']]

    def _number_classes(self) -> None:
        self.cat_ids = list(range(1, len(self.metainfo['classes']) + 1))
        self.cat2label = {cat_id: i for i, cat_id in enumerate(self.cat_ids)}

    def _load_table(self) -> '_Rows':
        """Return the items of a Parquet file."""
        self.serialize_data = False  # nothing is held that serialising could save
        self.table = table = open_defects(self.ann_file, self.metainfo['classes'], self.severity)
        check_files(table.names(), self.data_prefix['img'], self.ann_file)
        print_log(table.describe(), logger='current')
        self.flaw_labels = flaw_labels(self.metainfo['classes'], self.severity)
        self._number_classes()
        learnt = np.bincount(table.labels()[1], minlength=len(table))
        make = self._masked_row if self._loads_masks() else self._row
        if self._loads_masks():  # faulty masks are reported before the training starts
            if lacking := table.rows_without_masks():
                with_masks(table.coco(lacking), self.ann_file)
            table.check_once('masks', lambda coco: with_masks(coco, self.ann_file))
        return _Rows(np.arange(len(table)), make, learnt)

    def _loads_masks(self) -> bool:
        return any(getattr(step, 'with_mask', False) for step in self.pipeline.transforms)

    def _row(self, row: int) -> dict:
        return self._info(*self.table.record(row))

    def _masked_row(self, row: int) -> dict:
        image, annotations = self.table.record(row)
        with quiet():  # a mask without a pixel would be reported in every epoch
            coco = with_masks(dict(images=[image], annotations=annotations), self.ann_file)
        return self._info(image, coco['annotations'])

    def get_data_info(self, idx: int) -> dict:
        """Return an item with `flaw_labels`, the labels of the types that `DrawFlaws` may add."""
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
        """Apply `filter_cfg` and log the number of images that it leaves out."""
        kept = self._filtered_rows() if isinstance(self.data_list, _Rows) else super().filter_data()
        self._require_boxes(kept, f'filter_cfg={self.filter_cfg}')
        if len(kept) < len(self.data_list):
            print_log(
                f'{self.ann_file}: filter_cfg={self.filter_cfg} left out '
                f'{len(self.data_list) - len(kept)} of {len(self.data_list)} images',
                logger='current',
            )
        return kept

    def _filtered_rows(self) -> '_Rows':
        """Filter by columns like CocoDataset.filter_data, where crowd boxes count for `filter_empty_gt`."""
        rule = {} if self.test_mode or self.filter_cfg is None else self.filter_cfg
        kept = np.minimum(*(self.table.column(key) for key in ('width', 'height'))) >= rule.get('min_size', 0)
        if rule.get('filter_empty_gt'):
            kept &= np.bincount(self.table.boxes()[2], minlength=len(self.table)) > 0
        return self.data_list.take(np.flatnonzero(kept))

    def _get_unserialized_subset(self, indices) -> list[dict]:
        if isinstance(self.data_list, _Rows) and not isinstance(indices, int):
            kept = self.data_list.take(np.asarray(indices, int))
        else:
            kept = super()._get_unserialized_subset(indices)
        self._require_boxes(kept, f'indices={indices}')
        return kept

    def _require_boxes(self, data_list: Sequence[dict], cause: str) -> None:
        if isinstance(data_list, _Rows):
            boxes = data_list.boxes()
        else:
            boxes = sum(not item['ignore_flag'] for info in data_list for item in info['instances'])
        if not boxes:
            raise DatasetError(
                f'{self.ann_file}: {cause} leaves {len(data_list)} of {len(self.data_list)} images and 0 '
                'boxes, expected at least one; loosen it'
            )


@DET_DATASETS.register_module()
class XrayBackgrounds(XrayImages):
    """Unlabelled radiographs for a detector, as images without boxes; `DrawFlaws` draws flaws into them.

    Args:
        *args: Those of `XrayImages`.
        severity: See `read_severity`; None if the drawn types are the classes, or if there is one class.
        **kwargs: Arguments of `XrayImages`; `metainfo.classes` defaults to the 19 types.

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
        """Return an item; `img_id` is its position in the list."""
        info = super().get_data_info(idx)
        return info | dict(img_id=info['sample_idx'], instances=[], flaw_labels=self.flaw_labels)


@contextmanager
def quiet() -> Iterator[None]:
    """Mute mmengine's log lines, such as those of data sets."""
    # logging.disable is not used, since MMLogger caches the disabled state.
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        yield
    finally:
        logger.setLevel(level)
