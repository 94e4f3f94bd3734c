"""Pascal VOC: one XML file an image."""

import posixpath
import re
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from PIL import Image

from projects.radiograph.safe_parse import FormatError, _show

from .images import Entry, Images, Source, _collect, _find_images, _label, _numbers, _size, _stem, _text
from .rle import encode_rle

MAX_TAGS = 1_000_000


"""Most tags of an XML file."""


# ------------------------------------------------------------------------------------------------ VOC


def read_voc(src: Path) -> tuple[Images, Source]:
    """Pascal VOC: one XML file per image, anywhere below `src`, beside or apart from the images.

    Corners are taken as pixel edges counted from 0, as LabelImg and CVAT write them; the PASCAL challenge
    itself counted pixels from 1, one pixel less. Objects marked difficult are to be ignored. Instance masks
    in the `SegmentationObject/<stem>.png` above the image, whose value k marks the k-th object, are kept.
    """
    images = Images(src, skip=('SegmentationObject', 'SegmentationClass'))
    found, entries = Source(), []

    def read_one(name: str) -> list[Entry]:
        file, size, items = _voc_objects(images.others[name])

        def objects(image: str, height: int, width: int) -> list[dict]:
            mask = _voc_mask(image, images)
            if mask is None:
                return items
            found.used.add(mask)
            return _with_masks(items, images.others[mask], height, width)

        return [Entry(file or PurePosixPath(name).stem, name, len(items), objects, size)]

    for name in images.files('.xml'):
        entries += _collect(found, images, name, lambda name=name: read_one(name))
    _find_images(found, images, entries)
    return images, found


def _voc_mask(image: str, images: Images) -> str | None:
    """The instance image of a radiograph: in the `SegmentationObject` nearest above it."""
    stem = posixpath.basename(_stem(image))
    for folder in PurePosixPath(image).parents:
        name = (folder / 'SegmentationObject' / f'{stem}.png').as_posix()
        if name in images.others:
            return name
    return None


def _refuse_doctype(*args) -> None:
    raise FormatError('VOC XML without a document type')


def _voc_objects(path: Path) -> tuple[str, tuple[int, int] | None, list[dict]]:
    """File name, width and height, and objects of one VOC file."""
    data = _text(path)
    if data.count(b'<') > MAX_TAGS:
        raise FormatError(f'at most {MAX_TAGS} tags of XML')
    # Entities are declared in a document type, which a VOC file does not need. Only a parser finds one in any
    # encoding.
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
        root = ElementTree.fromstring(data)
    except FormatError:
        raise
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FormatError(f'XML ({_show(str(error))})') from None
    if root.tag != 'annotation':
        raise FormatError(f'a VOC annotation, found <{root.tag[:40]}>')
    objects = []
    for item in root.findall('object'):
        box = item.find('bndbox')
        values = [None if box is None else box.findtext(key) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
        found = dict(type=_label(item.findtext('name')), corners=_numbers(values, 'bndbox'))
        if (item.findtext('difficult') or '').strip() == '1':
            found['ignore'] = True
        objects.append(found)
    sides = [(root.findtext(f'size/{key}') or '').strip() for key in ('width', 'height')]
    size = _size(*(int(v) if re.fullmatch('[0-9]{1,9}', v) else 0 for v in sides))
    return (root.findtext('filename') or '').strip(), size, objects


def _with_masks(objects: list[dict], mask: Path, height: int, width: int) -> list[dict]:
    """Objects with the masks of a VOC instance image."""
    try:
        # A palette image: its indices are wanted, not its colours.
        with Image.open(mask) as image:
            if image.size != (width, height):
                raise FormatError(f'masks of {width} x {height} px in {mask.name}, found {image.size}')
            values = np.asarray(image if image.mode in ('P', 'L') else image.convert('L'))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatError(f'an instance mask in {mask.name} ({_show(str(error))})') from None
    return [
        dict(item, segmentation=encode_rle(values == k)) if (values == k).any() else item
        for k, item in enumerate(objects, 1)
    ]
