"""Export of the labels of a converted data set to labelling tools, as one COCO file."""

from collections import Counter
from pathlib import Path

from projects.radiograph.files import write_json
from projects.radiograph.rle import decode_rle, outline
from projects.radiograph.safe_parse import FormatError
from projects.xray.parquet import SUFFIX

from .labels.coco import read_coco_file, tables_of
from .ledger import UsageError

SPLITS = ('train', 'val', 'test')
_KEPT = ('bbox', 'area', 'iscrowd', 'ignore', 'segmentation')
"""Annotation fields that labelling tools know; the converter's own notes are left out."""


def export_labels(data: Path, out: Path, polygons_only: bool = False) -> Counter:
    """Write the labels of `data/{train,val,test}.json` as one COCO file with the original types.

    Image names are relative to `data/images`. Ignored boxes have the attribute `difficult`, which CVAT keeps
    and the converter reads.

    Args:
        data: a converted data set.
        out: file to write, such as `instances_default.json`, the name that CVAT expects.
        polygons_only: write masks as polygons with filled holes, and omit the box of an object with a
            polygon. This is for Label Studio, which reads no run lengths and makes two objects of a box and
            its polygon.

    Returns:
        Number of images, boxes, boxes with a polygon or mask, and crowd boxes.

    Raises:
        UsageError: no such data set, or damaged files.
    """
    found = [path for s in SPLITS for end in ('.json', SUFFIX) if (path := data / f'{s}{end}').is_file()]
    if not found:
        raise UsageError(
            f'{data}: expected train.json, val.json or test.json of a converted data set; check DATA'
        )
    names: dict[str, int] = {}
    images, annotations = [], []
    counts: Counter = Counter(images=0, boxes=0, outlined=0, crowd=0)
    for path in found:
        try:
            tables = tables_of(read_coco_file(path))
            types = {row['id']: row['name'] for row in tables['categories']}
            ids = {row['id']: len(images) + k for k, row in enumerate(tables['images'], 1)}
            images += [
                dict(id=ids[row['id']], **{key: row[key] for key in ('file_name', 'width', 'height')})
                for row in tables['images']
            ]
            for row in tables['annotations']:
                name = types[row['category_id']]
                annotation = dict(
                    id=len(annotations) + 1,
                    image_id=ids[row['image_id']],
                    category_id=names.setdefault(name, len(names) + 1),
                    **dict(segmentation=[]) | {key: row[key] for key in _KEPT if key in row},
                )
                if row.get('ignore'):
                    annotation['attributes'] = dict(difficult=True)
                if polygons_only and row.get('segmentation'):
                    if isinstance(row['segmentation'], dict):
                        annotation['segmentation'] = outline(decode_rle(row['segmentation']))
                    del annotation['bbox']
                annotations.append(annotation)
                counts['outlined'] += bool(row.get('segmentation'))
                counts['crowd'] += bool(row.get('iscrowd'))
        except FormatError as error:
            raise UsageError(f'{path}: expected {error}; convert the data set again') from None
        except (KeyError, TypeError) as error:
            raise UsageError(
                f'{path}: expected a file of tools/convert_dataset.py, found a record without {error}; '
                'convert the data set again'
            ) from None
    categories = [dict(id=k, name=name) for name, k in names.items()]
    write_json(out, dict(images=images, categories=categories, annotations=annotations), indent=None)
    return counts | Counter(images=len(images), boxes=len(annotations))
