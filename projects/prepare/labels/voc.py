"""Pascal VOC: one XML file per image."""

import math
import posixpath
import re
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from PIL import Image

from projects.radiograph.rle import encode_rle
from projects.radiograph.safe_parse import FormatError, _show, flag_of

from .fields import label_of, numbers_of, read_bytes, size_of, turn, turned_object
from .images import Entry, Images, Source, collect, find_images, stem_of_radiograph

MAX_TAGS = 1_000_000
"""Maximum number of tags in an XML file."""


def read_voc(src: Path) -> tuple[Images, Source]:
    """Read Pascal VOC: one XML file per image, anywhere below `src`, beside the images or elsewhere.

    Corners are pixel edges counted from 0, as in LabelImg and CVAT. The PASCAL challenge itself counted
    pixels from 1, a shift of one pixel. Objects marked difficult become ignored objects. Turned boxes (CVAT's
    attribute `rotation`, roLabelImg's `robndbox`) become the upright boxes around them. Masks are read from
    the instance image `SegmentationObject/<stem>.png` above the radiograph, whose value k marks the k-th
    object.
    """
    images = Images(src, skip=('SegmentationObject', 'SegmentationClass'))
    found, entries = Source(), []

    def read_one(name: str) -> list[Entry]:
        file, size, items = _objects(images.others[name])

        def objects(image: str, height: int, width: int) -> list[dict]:
            mask = _mask(image, images)
            if mask is None:
                return items
            found.used.add(mask)
            return _with_masks(items, images.others[mask], height, width)

        return [Entry(file or PurePosixPath(name).stem, name, len(items), objects, size)]

    for name in images.files('.xml'):
        entries += collect(found, images, name, lambda name=name: read_one(name))
    find_images(found, images, entries)
    return images, found


def _mask(image: str, images: Images) -> str | None:
    """Return the instance image of a radiograph, from the nearest `SegmentationObject` above it."""
    stem = posixpath.basename(stem_of_radiograph(image))
    for folder in PurePosixPath(image).parents:
        name = (folder / 'SegmentationObject' / f'{stem}.png').as_posix()
        if name in images.others:
            return name
    return None


def _refuse_doctype(*args) -> None:
    raise FormatError('VOC XML without a document type')


def _objects(path: Path) -> tuple[str, tuple[int, int] | None, list[dict]]:
    """Return file name, size (width, height) and objects of one VOC file."""
    data = read_bytes(path)
    if data.count(b'<') > MAX_TAGS:
        raise FormatError(f'at most {MAX_TAGS} tags of XML')
    # A document type declares entities, and a VOC file needs none. Only a parser finds it in any encoding.
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
    objects = [_object(item) for item in root.findall('object')]
    sides = [(root.findtext(f'size/{key}') or '').strip() for key in ('width', 'height')]
    size = size_of(*(int(v) if re.fullmatch('[0-9]{1,9}', v) else 0 for v in sides))
    return (root.findtext('filename') or '').strip(), size, objects


def _object(item: ElementTree.Element) -> dict:
    """Return one object of a VOC file."""
    label = label_of(item.findtext('name'))
    attributes = {
        (row.findtext('name') or '').strip(): row.findtext('value')
        for row in item.findall('attributes/attribute')
    }
    turned = item.find('robndbox')
    if turned is not None:
        found = turned_object(label, _turned_corners(turned))
    else:
        box = item.find('bndbox')
        values = [None if box is None else box.findtext(key) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
        x1, y1, x2, y2 = corners = numbers_of(values, 'bndbox')
        found = dict(type=label, corners=corners)
        (degrees,) = numbers_of([attributes.get('rotation') or 0], 'the attribute rotation')
        if degrees % 180:
            found = turned_object(label, turn(x1, y1, x2 - x1, y2 - y1, degrees))
    for value in (item.findtext('difficult'), attributes.get('difficult')):
        if flag_of(value, 'difficult'):
            found['ignore'] = True
    return found


def _turned_corners(box: ElementTree.Element) -> list[float]:
    """Return corners x1 y1 … x4 y4 of a `robndbox`: centre, size and angle in radians, or four corners."""
    keys = [f'{axis}_{place}' for place in _CORNERS for axis in 'xy']
    if box.find('cx') is None and box.find(keys[0]) is not None:
        return numbers_of([box.findtext(key) for key in keys], 'robndbox')
    values = [box.findtext(key) for key in ('cx', 'cy', 'w', 'h', 'angle')]
    x, y, width, height, angle = numbers_of(values, 'robndbox')
    return turn(x - width / 2, y - height / 2, width, height, math.degrees(angle))


_CORNERS = ('left_top', 'right_top', 'right_bottom', 'left_bottom')


def _with_masks(objects: list[dict], mask: Path, height: int, width: int) -> list[dict]:
    """Return objects with the masks of a VOC instance image."""
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
