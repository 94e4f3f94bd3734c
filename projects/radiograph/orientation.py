"""Orientation tags: an image whose tag asks for a turn or a mirror is refused, in every format.

EXIF (JPEG, PNG), XMP (JPEG, PNG, TIFF) and TIFF's tag 274 can ask for a turn; DICOM has no such tag. Programs
disagree: Pillow, browsers and thus LabelMe, CVAT and Label Studio show the turned image. tifffile, ImageJ,
Qt's QImage and thus roLabelImg show the stored image. OpenCV shows either, depending on a flag. Nothing tells
on which of the two images a box was drawn: after half a turn or a mirror, and for square images, both have
the same size.
"""

import contextlib
import re

from PIL import Image

from .image import ImagingError

TAG = 274
_TURNS = {
    2: 'mirrored left to right',
    3: 'turned by 180 degrees',
    4: 'mirrored top to bottom',
    5: 'mirrored along its main diagonal',
    6: 'turned by 90 degrees clockwise',
    7: 'mirrored along its other diagonal',
    8: 'turned by 90 degrees counterclockwise',
}
"""The change that each value asks for before display; 1 is upright, other values are reserved: no change."""
_XMP = re.compile(rb'tiff:Orientation\s*(?:=\s*["\']|>)\s*([0-9])')


def check_upright(orientation: object, where: str, name: str) -> None:
    """Refuse an image whose orientation tag asks for a turn or a mirror.

    Args:
        orientation: the tag's value; None without a tag.
        where: the kind of tag, for the message.
        name: name of the file in errors.

    Raises:
        ImagingError: the orientation is one of 2 to 8.
    """
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn:
        raise ImagingError(
            f'{name}: expected an upright image, found {where} orientation {orientation} (to be {turn}), '
            'which only some programs apply; store the turned image without the tag, and check its boxes on '
            'that file'
        )


def check_exif(exif: bytes | None, xmp: bytes | None, name: str) -> None:
    """Refuse an image whose EXIF asks for a turn; XMP counts where EXIF has no orientation, as in Pillow.

    Args:
        exif: TIFF structure of an EXIF block, with or without a leading 'Exif'; None without EXIF.
        xmp: XMP packet; None without XMP.
        name: name of the file in errors.

    Raises:
        ImagingError: see `check_upright`.
    """
    orientation = None
    if exif:
        block = Image.Exif()
        with contextlib.suppress(Exception):  # damaged blocks may raise any type; no program turns then
            block.load(exif)
            orientation = block.get(TAG)
    if orientation is not None:
        check_upright(orientation, 'EXIF', name)
    elif xmp and (found := _XMP.search(xmp)):
        check_upright(int(found[1]), 'XMP', name)
