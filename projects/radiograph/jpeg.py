"""8-bit JPEG files, baseline and progressive, through a decoder that refuses damaged ones."""

from typing import BinaryIO

from .codestream import CodestreamError, decode, parse
from .image import Admit, ImagingError, Radiograph, check_frame, check_size, of_container, read_all, to_gray
from .orientation import check_exif

_KINDS = {0xC3: 'lossless', 0xC7: 'lossless', 0xCB: 'lossless', 0xF7: 'JPEG-LS'}


def read_jpeg(stream: BinaryIO, frame: int, name: str, admit: Admit) -> Radiograph:
    """Read a JPEG of one image; damaged files are refused, since libjpeg fills missing data with gray.

    Raises:
        ImagingError: a damaged, incomplete or colour image, another depth or process, several images, or an
            orientation.
    """
    check_frame(frame, 1, name)
    data = read_all(stream, name)
    try:
        parsed = parse(data)
    except CodestreamError as error:
        raise ImagingError(f'{name}: expected a complete JPEG ({error}); copy or export it again') from None
    height, width, channels = parsed.shape
    check_size(height, width, height * width * channels, name, admit)
    if not parsed.is_strict:
        kind = f'{_KINDS.get(parsed.process, "JPEG")} of {parsed.bits} bits'
        raise ImagingError(
            f'{name}: expected 8-bit JPEG, baseline or progressive, found {kind}; save it as PNG'
        )
    if channels == 4:
        raise ImagingError(
            f'{name}: expected a gray radiograph, found a colour image for print; export it again'
        )
    if b'\xff\xd8\xff' in data[parsed.end :]:
        raise ImagingError(f'{name}: expected one image, found another behind it; export single images')
    check_exif(parsed.exif, parsed.xmp, name)
    try:
        image = decode(data, parsed)
    except (ValueError, RuntimeError) as error:
        raise ImagingError(
            f'{name}: expected an intact JPEG, found a damaged one ({error}); copy or export it again'
        ) from None
    return of_container(to_gray(image, name), name, 'JPEG')
