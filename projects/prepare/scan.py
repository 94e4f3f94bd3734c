"""Parallel decoding of every image of a data set, once, with a scan of a few kilobytes of each.

Memory does not depend on the size of the images. It grows by some 3 kB per image, for hashes and a small
copy; thumbnails, histograms and samples are kept on disk.
"""

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from projects.radiograph.files import sha256
from projects.radiograph.gray_levels import Levels, measure
from projects.radiograph.image import ImagingError, Radiograph
from projects.radiograph.quantiles import sample_pixels
from projects.radiograph.read import read
from projects.radiograph.remote import is_url, read_bytes
from projects.radiograph.store import Store, locate
from projects.radiograph.window import apply_window, count_codes

PLAIN = dict(type='percentile', low=0.5, high=99.5)
COARSE = 16
"""Reduction per side of the copy in which crops of other images are searched."""
MOST_SAMPLED = 65_536
"""Maximum number of pixel values kept of an image: with many images some 4 million in all, 64 of each."""


@dataclass
class Scan:
    """The scan of one image.

    Attributes:
        error: reason why the image cannot be read or windowed; then nothing else is set.
        format: 'PNG', 'TIFF', …, or 'store'.
        frames: number of frames in the file.
        bits: bits that the file states.
        dtype: type of its pixels.
        height: in px.
        width: in px.
        low: smallest pixel value.
        high: largest pixel value.
        dark: 0.5th percentile of the pixel values; of all pixels for unsigned integers, else of a sample.
        bright: 99.5th percentile.
        at_low: share of the pixels with the smallest value.
        at_high: share of the pixels with the largest value.
        file_hash: SHA-256 of the file.
        pixel_hash: SHA-256 of type, shape and pixels.
        histogram: (256,) int64, gray levels after windowing.
        levels: statistics of the gray levels, see `radiograph.gray_levels`.
        sample: (n,) float32, values of pixels all over the image, in the file's units.
        dhash: 64-bit difference hash of the plain image: the image under its own percentile window, so that
            resemblance does not depend on the window of a config.
        small: (32, 32) uint8 copy of the plain image.
        coarse: (H/16, W/16) uint8 copy of the plain image.
        thumbnail: JPEG of the plain image, at most 256 px.
    """

    error: str = ''
    format: str = ''
    frames: int = 1
    bits: int = 0
    dtype: str = ''
    height: int = 0
    width: int = 0
    low: float = 0
    high: float = 0
    dark: float = 0
    bright: float = 0
    at_low: float = 0
    at_high: float = 0
    file_hash: bytes = b''
    pixel_hash: bytes = b''
    histogram: np.ndarray | None = None
    levels: Levels = field(default_factory=dict)
    sample: np.ndarray | None = None
    dhash: int = 0
    small: np.ndarray | None = None
    coarse: np.ndarray | None = None
    thumbnail: bytes = b''


def load(path: str) -> tuple[Radiograph, bytes]:
    """Read a radiograph from a path, a URL or a packed store; of several frames, read the first.

    Returns:
        The radiograph and the SHA-256 of its file. A radiograph from a store is windowed already, and its
        format is 'store'.

    Raises:
        ImagingError: The radiograph cannot be read.
    """
    packed = locate(path)
    if packed:
        return _load_packed(*packed)
    if is_url(path):
        data = read_bytes(path)
        return read(data, frame=0, name=path), hashlib.sha256(data).digest()
    try:
        digest = bytes.fromhex(sha256(Path(path)))
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = getattr(error, 'strerror', None) or error
        raise ImagingError(f'{path}: expected a readable file ({reason}); restore it') from None
    return read(path, frame=0), digest


def _load_packed(store: Store, name: str) -> tuple[Radiograph, bytes]:
    index = store.position(name)
    bits = store.recipe.bits
    meta = dict(file=name, format='store', frames=1)
    radiograph = Radiograph(store.read(index), bits, 0, 2**bits - 1, meta=meta)
    return radiograph, store[index].source_sha256


def scan_image(path: str, window: dict, samples: int) -> Scan:
    """Decode one image and measure it.

    Args:
        path: file or URL.
        window: see `radiograph.window.apply_window`.
        samples: number of pixel values to keep.
    """
    cv2.setNumThreads(1)
    try:
        radiograph, file_hash = load(path)
        packed = radiograph.meta['format'] == 'store'
        image = apply_window(radiograph, dict(type='full') if packed else window, 'uint8')
    except ImagingError as error:
        return Scan(error=str(error).removeprefix(f'{path}: '))
    pixels = np.ascontiguousarray(radiograph.pixels)
    (height, width), low, high = pixels.shape, pixels.min(), pixels.max()
    dark, bright = _middle(pixels)
    # One pass over the large image; all smaller copies are made from the quarter.
    quarter = _plain(radiograph, _shrunk(pixels, width / 4, height / 4))
    small = cv2.resize(quarter, (32, 32), interpolation=cv2.INTER_AREA)
    base = quarter if min(quarter.shape) >= 128 else _plain(radiograph, pixels)
    zoom = min(256 / max(base.shape), 1)
    thumbnail = _shrunk(base, zoom * base.shape[1], zoom * base.shape[0])
    hashed = hashlib.sha256(f'{pixels.dtype.str}{pixels.shape}'.encode())
    hashed.update(pixels)
    return Scan(
        format=radiograph.meta['format'],
        frames=radiograph.meta['frames'],
        bits=radiograph.bits,
        dtype=str(pixels.dtype),
        height=height,
        width=width,
        low=float(low),
        high=float(high),
        dark=dark,
        bright=bright,
        at_low=np.count_nonzero(pixels == low) / pixels.size,
        at_high=np.count_nonzero(pixels == high) / pixels.size,
        file_hash=file_hash,
        pixel_hash=hashed.digest(),
        histogram=count_codes(image),
        levels=measure(image),
        sample=sample_pixels(pixels, samples).astype(np.float32),
        dhash=difference_hash(small),
        small=small,
        coarse=_shrunk(quarter, width / COARSE, height / COARSE),
        thumbnail=cv2.imencode('.jpg', thumbnail, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes(),
    )


def _middle(pixels: np.ndarray) -> tuple[float, float]:
    """Return the bounds of the middle 99 % of the pixels."""
    if pixels.dtype in (np.uint8, np.uint16):
        reached = np.cumsum(count_codes(pixels))
        wanted = np.array([0.005, 0.995]) * pixels.size
        return tuple(float(v) for v in np.searchsorted(reached, wanted))
    return tuple(float(v) for v in np.percentile(sample_pixels(pixels, MOST_SAMPLED), [0.5, 99.5]))


def _shrunk(image: np.ndarray, width: float, height: float) -> np.ndarray:
    """Return a copy of at least 1 x 1 px; types that OpenCV does not resize become float32."""
    if image.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
        image = image.astype(np.float32)
    return cv2.resize(image, (max(int(width), 1), max(int(height), 1)), interpolation=cv2.INTER_AREA)


def _plain(radiograph: Radiograph, pixels: np.ndarray) -> np.ndarray:
    """Return the pixels of a radiograph under their own percentile window, (H, W) uint8."""
    plain = replace(radiograph, pixels=pixels)
    try:
        return apply_window(plain, PLAIN, 'uint8')
    except ImagingError:  # a small part before a constant background
        return apply_window(plain, dict(type='percentile', low=0, high=100), 'uint8')


def difference_hash(image: np.ndarray) -> int:
    """Return a hash of 64 bits: whether a pixel of the 9 x 8 px copy is darker than its right neighbour.

    Args:
        image: (H, W) uint8.
    """
    tiny = cv2.resize(image, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(tiny[:, 1:] > tiny[:, :-1]).tobytes(), 'big')


def _scan_chunk(chunk: list[tuple]) -> list[Scan]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return [scan_image(*task) for task in chunk]


class Scans:
    """The scans of a data set, by path; large and rarely used parts are kept on disk."""

    def __init__(self, tasks: dict[str, dict], workers: int, progress: Callable[[int], None]):
        """Scan all images.

        Args:
            tasks: window of each path.
            workers: processes.
            progress: called with the number of images done since the last call.
        """
        self._spill = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the object)
        self._places: dict[str, list[tuple]] = {}
        self._scans: dict[str, Scan] = {}
        # 4 million values in all, for any number of images.
        samples = min(max(4_000_000 // max(len(tasks), 1), 64), MOST_SAMPLED)
        for path, found in _map([(path, window, samples) for path, window in tasks.items()], workers):
            self._keep(path, found)
            progress(1)

    def _keep(self, path: str, found: Scan) -> None:
        places = []
        for content in (found.thumbnail, found.coarse, found.histogram, found.sample):
            data = b'' if content is None else bytes(content)
            places.append((self._spill.tell(), len(data), getattr(content, 'shape', None)))
            self._spill.write(data)
        found.thumbnail, found.coarse, found.histogram, found.sample = b'', None, None, None
        self._places[path], self._scans[path] = places, found

    def __getitem__(self, path: str) -> Scan:
        """Return the scan of an image, without the parts that have their own methods."""
        return self._scans[path]

    def __iter__(self) -> Iterator[str]:
        """Return the paths."""
        return iter(self._scans)

    def _read(self, path: str, which: int) -> tuple[bytes, tuple]:
        offset, length, shape = self._places[path][which]
        end = self._spill.tell()
        self._spill.seek(offset)
        data = self._spill.read(length)
        self._spill.seek(end)
        return data, shape

    def thumbnail(self, path: str) -> bytes:
        """Return a JPEG of at most 256 px; empty for an unreadable image."""
        return self._read(path, 0)[0]

    def coarse(self, path: str) -> np.ndarray:
        """(H/16, W/16) uint8."""
        data, shape = self._read(path, 1)
        return np.frombuffer(data, np.uint8).reshape(shape)

    def histogram(self, path: str) -> np.ndarray:
        """(256,) int64."""
        return np.frombuffer(self._read(path, 2)[0], np.int64)

    def sample(self, path: str) -> np.ndarray:
        """(n,) float32."""
        return np.frombuffer(self._read(path, 3)[0], np.float32)


def _map(tasks: list[tuple], workers: int) -> Iterator[tuple[str, Scan]]:
    """Scan in parallel; only a few chunks are in flight, so that memory does not grow with the set.

    A file that kills its process (a fault in a decoder, or lack of memory) costs only itself: files in flight
    are scanned again, each in its own process.
    """
    context = get_context('fork')
    size = 8
    chunks = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    while chunks:
        pending = {}
        try:
            with ProcessPoolExecutor(workers, context) as pool:
                while chunks or pending:
                    while chunks and len(pending) < 3 * workers:
                        future = pool.submit(_scan_chunk, chunks[0])
                        pending[future] = chunks.pop(0)
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        found = future.result()
                        yield from zip([task[0] for task in pending.pop(future)], found)
        except BrokenProcessPool:
            for task in (task for chunk in pending.values() for task in chunk):
                with ProcessPoolExecutor(1, context) as single:
                    try:
                        yield task[0], single.submit(_scan_chunk, [task]).result()[0]
                    except BrokenProcessPool:
                        yield task[0], Scan(error='its decoder died; leave the file out')
