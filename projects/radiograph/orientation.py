"""Orientation tags: an image that is to be turned before it is shown is refused, in every format alike.

EXIF (JPEG, PNG), XMP (JPEG, PNG, TIFF) and TIFF's tag 274 can say so; DICOM has nothing of the kind. Programs
disagree on them: Pillow, browsers and thus LabelMe, CVAT and Label Studio show the turned image; tifffile,
ImageJ, Qt's QImage and thus roLabelImg show the stored one, OpenCV either, depending on a flag. Which of the
two a box was drawn on cannot be known: for half a turn, mirrors and square images no size tells them apart.
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
"""What is to be done before it is shown; 1 is upright, other values are reserved and turn nothing."""
_XMP = re.compile(rb'tiff:Orientation\s*(?:=\s*["\']|>)\s*([0-9])')


def check_upright(orientation: object, where: str, name: str) -> None:
    """Refuse an image that its file wants to be turned.

    Args:
        orientation: the tag's value; None without a tag.
        where: the kind of tag, for the message.
        name: what errors call the file.

    Raises:
        ImagingError: it is one of 2 to 8.
    """
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn:
        raise ImagingError(
            f'{name}: expected an upright image, found {where} orientation {orientation} (to be {turn}), '
            'which some programs obey and some ignore; store it turned and without the tag, and check its '
            'boxes on that file'
        )


def check_exif(exif: bytes | None, xmp: bytes | None, name: str) -> None:
    """Refuse an image whose EXIF, or without a word of it there whose XMP, wants it turned, as Pillow does.

    Args:
        exif: TIFF structure of an EXIF block, with or without 'Exif' before it; None without one.
        xmp: XMP packet; None without one.
        name: what errors call the file.

    Raises:
        ImagingError: see `check_upright`.
    """
    orientation = None
    if exif:
        block = Image.Exif()
        with contextlib.suppress(Exception):  # what damaged blocks raise is open-ended; no program turns then
            block.load(exif)
            orientation = block.get(TAG)
    if orientation is not None:
        check_upright(orientation, 'EXIF', name)
    elif xmp and (found := _XMP.search(xmp)):
        check_upright(int(found[1]), 'XMP', name)
