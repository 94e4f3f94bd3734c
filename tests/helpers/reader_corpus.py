"""Compare our readers with pydicom, pylibjpeg, tifffile and Pillow on folders of foreign files.

Usage, from the checkout: .venv/bin/python tests/helpers/reader_corpus.py FOLDER...

Each file that one of the others reads as gray is 'equal' (the same pixels, up to the rounding of a lossy
decoder), 'refused' by us, or 'wrong'; 'alone' is what only we read, 'foreign' what nobody does. The reasons
of refusals are counted, files that are wrong or read by us alone are named. Exits with 1 where one is wrong.

pylibjpeg-libjpeg, the independent decoder of JPEG in DICOM, is GPL: a tool of the tests, and nothing else.
"""

import argparse
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pydicom
import tifffile
from PIL import Image, ImageOps
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.uid import RLELossless

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from projects.radiograph.image import ImagingError
from projects.radiograph.read import read

# Gray levels by which decoders of the same lossy data may differ: the standard leaves the inverse cosine
# transform room (T.81, A.3.3), JPEG 2000 the rounding of the wavelets.
LOSSY = 2


def main(arguments: list[str] | None = None) -> int:
    """Compare folders; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('folders', nargs='+', type=Path)
    found = compare(parser.parse_args(arguments).folders)
    for kind in ('equal', 'refused', 'wrong', 'alone', 'foreign'):
        print(f'{len(found[kind])} {kind}')
    for reason, count in Counter(map(generic, found['refused'].values())).most_common():
        print(f'  refused {count}: {reason}')
    for kind in ('wrong', 'alone'):
        for path, note in found[kind].items():
            print(f'  {kind} {path}: {note}')
    return 1 if found['wrong'] else 0


def compare(folders: Iterable[Path]) -> dict[str, dict[Path, str]]:
    """Return the files of each kind, with a note each."""
    kinds = defaultdict(dict)
    for path in sorted(path for folder in folders for path in folder.rglob('*') if path.is_file()):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            kind, note = judge(path)
        kinds[kind][path] = note
    return kinds


def judge(path: Path) -> tuple[str, str]:
    """Compare one file: its kind and a note."""
    try:
        theirs, tolerance = reference(path)
    except Exception as error:  # whatever their decoders raise
        theirs, reason = None, f'{type(error).__name__}: {error}'[:150]
    try:
        ours = read(path, frame=0).pixels
    except ImagingError as error:
        return ('foreign' if theirs is None else 'refused'), str(error).removeprefix(f'{path}: ')
    if theirs is None:
        return 'alone', ' '.join(reason.split())
    if theirs.shape != ours.shape:
        return 'wrong', f'shape {ours.shape}, others read {theirs.shape}'
    off = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    scale = max(float(np.abs(theirs.astype(np.float64)).max()), 1)
    limit = max(tolerance, 1e-6 * scale if ours.dtype.kind == 'f' else 0)
    return ('equal' if off <= limit else 'wrong'), f'off by up to {off:g}'


def reference(path: Path) -> tuple[np.ndarray, float]:
    """Read the first frame with other libraries: gray (H, W), and by how much a decoder may differ.

    Raises:
        Exception: whatever they raise, or ValueError where the image is in colour.
    """
    with path.open('rb') as stream:
        head = stream.read(132)
    if head[128:] == b'DICM':
        return _dicom(path)
    if head[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        return _tiff(path)
    return _pillow(path)


def _dicom(path: Path) -> tuple[np.ndarray, float]:
    ds = pydicom.dcmread(path)
    syntax = ds.file_meta.TransferSyntaxUID
    plugin = 'pydicom' if syntax == RLELossless else 'pylibjpeg' if syntax.is_encapsulated else ''
    stored = pixel_array(ds, index=0, decoding_plugin=plugin)
    gray = _gray(stored)
    lossy = syntax.name.startswith('JPEG') and 'Lossless' not in syntax.name
    slope = abs(float(ds.get('RescaleSlope', 1) or 1))
    return apply_modality_lut(gray, ds), (LOSSY * slope if lossy else 0)


def _tiff(path: Path) -> tuple[np.ndarray, float]:
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        image = np.squeeze(page.asarray())
        if page.photometric == 3 and page.samplesperpixel == 1:
            return _gray(np.moveaxis(page.colormap, 0, -1)[image]), 0
        if page.photometric not in (0, 1):
            return _pillow(path)
        if page.tags.valueof(274, 1) in range(2, 9):
            return _pillow(path)  # which turns it, as most programs do
        if image.ndim == 3 and page.planarconfig == 2:
            image = np.moveaxis(image, 0, -1)
    return _gray(image), 0


def _pillow(path: Path) -> tuple[np.ndarray, float]:
    with Image.open(path) as image:
        if ';16' in str(image.tile) and image.mode in ('RGB', 'RGBA', 'LA'):
            raise ValueError('Pillow keeps 8 of its 16 bits')
        lossy = image.format in ('JPEG', 'MPO') or image.info.get('compression') == 'jpeg'
        image = ImageOps.exif_transpose(image)
        if image.mode in ('P', 'PA'):
            image = image.convert('RGBA' if 'transparency' in image.info else 'RGB')
        pixels = np.asarray(image)
    return _gray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels), LOSSY if lossy else 0


def _gray(image: np.ndarray) -> np.ndarray:
    """(H, W) of an image whose channels are alike; an opaque last one is left out."""
    if image.ndim == 2:
        return image
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4):
        raise ValueError(f'shape {image.shape}')
    colours = image[..., : 1 if image.shape[2] < 3 else 3]
    opaque = np.iinfo(image.dtype).max if image.dtype.kind in 'iu' else 1
    if image.shape[2] in (2, 4) and (image[..., -1] != opaque).any():
        raise ValueError('transparent')
    if (colours != colours[..., :1]).any():
        raise ValueError('colour')
    return colours[..., 0]


def generic(reason: str) -> str:
    """A reason without numbers, so that alike ones are counted together."""
    return re.sub(r'-?\d+(\.\d+)?', 'N', reason)[:140]


if __name__ == '__main__':
    sys.exit(main())
