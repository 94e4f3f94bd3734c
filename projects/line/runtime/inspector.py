"""A radiograph in, a verdict out: window, resize, network, tiles of large images, accept or reject."""

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from projects.radiograph import gray_levels
from projects.radiograph.image import ImagingError, Radiograph
from projects.radiograph.read import read
from projects.radiograph.recipe import prepare

from . import engines, folder
from .masks import Mask, join, paste
from .opinion import SecondOpinion

# An image may be shrunk this much more than those of the validation set before it is cut into tiles.
MOST_SHRUNK = 1.25
OVERLAP = 0.25  # of a tile's side: a defect up to this size is whole in one of two neighbours
SAME_DEFECT = 0.5  # intersection over the smaller box, of boxes that neighbouring tiles report
STAGES = ('decode', 'window', 'network', 'merge')
# What an inspector takes: a file, its content, pixels of a panel, or what `read.read` returned.
Image = str | Path | bytes | np.ndarray | Radiograph
AT_BORDER = 0.02  # of a tile's side: a box that ends so near its border may be cut by it


@dataclass
class Inspection:
    """What the detector says of one radiograph.

    Attributes:
        boxes: (N, 4) float32 x1 y1 x2 y2 in px of the image as stored, best first.
        scores: (N) float32.
        labels: (N) int64, positions in `classes`.
        severities: (N) class names.
        verdict: 'reject' when a rejecting class has a score at or above the threshold, else 'accept'.
        risk: Highest score of a rejecting class; 0 without one. The study's report first lets a box of any
            severity suppress those that it overlaps. Here each counts: a minor defect found on top of a
            critical one must not let it escape, at the price of some false rejects. A folder's threshold
            and curve are of this rule.
        pixels: (height, width) what the window made of it, before it was resized.
        bits: Of the image's file.
        levels: Gray levels after the window, see `gray_levels.measure`.
        folder: SHA-256 that stands for the detector's folder.
        unusual: Score of the second opinion; None without one.
        flagged: Whether the second opinion says to look at it: it is above its threshold. The verdict is as
            it is.
        seconds: Time of each stage: 'decode', 'window' (with resizing and tiles), 'network' (with NMS),
            'merge', and 'opinion' of the second.
        masks: (N) pixels of each defect; None where the detector finds boxes alone.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    severities: list[str]
    verdict: str
    risk: float
    pixels: np.ndarray
    bits: int
    levels: gray_levels.Levels
    folder: str
    seconds: dict[str, float]
    unusual: float | None = None
    flagged: bool = False
    masks: list[Mask] | None = None


class Inspector:
    """An exported detector, ready to inspect.

        inspect = Inspector('exported/castings')
        inspect('part_0001.dcm').verdict

    Args:
        source: Exported folder; its files are checked against their checksums.
        engine: 'openvino' or 'onnxruntime'.
        threshold: Score that counts, instead of the folder's.
        threads: CPU threads in all; default, those that this process may use.
        streams: Radiographs that `stream` works on at a time; they share the threads.
        cache: Keep what OpenVINO compiled beside the folder, in `.<name>.cache`, for the next start.
        key: File with the public ed25519 key (PEM) that must have signed the folder; default, none.

    Attributes:
        digest: SHA-256 that stands for the folder, see `folder.digest_of`.
        source: The folder's path as it was given, which may be a link; None around an engine alone.

    Raises:
        FolderError: The folder is missing, damaged, lacks the engine's graph or is not signed by the key.
        EngineError: The engine does not take the graph.
    """

    def __init__(
        self,
        source: str | Path,
        engine: str = 'openvino',
        threshold: float | None = None,
        threads: int | None = None,
        streams: int = 1,
        cache: bool = True,
        key: str | Path | None = None,
    ):
        exported = folder.read(source, engine, key)
        self.source: Path | None = Path(source)
        path = Path(source).resolve()
        digest = hashlib.sha256(repr(exported.files_of(engine)).encode()).hexdigest()[:16]
        kept = path.with_name(f'.{path.name}.cache') / digest if cache else None
        graph = path / exported.engines[engine]
        run = engines.load(engine, graph, threads, streams, kept)
        opinion = SecondOpinion(path, exported, engine, threads) if exported.opinion else None
        self._start(exported, run, engine, threshold, streams, opinion)

    @classmethod
    def of(
        cls, exported: folder.Exported, engine: engines.Engine, threshold: float | None = None
    ) -> 'Inspector':
        """Return an inspector around an engine that is not in a folder, such as the detector in PyTorch."""
        inspector = cls.__new__(cls)
        inspector.source = None
        inspector._start(exported, engine, 'torch', threshold, 1)
        return inspector

    def _start(
        self,
        exported: folder.Exported,
        run: engines.Engine,
        engine: str,
        threshold: float | None,
        streams: int,
        opinion: SecondOpinion | None = None,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise folder.FolderError(f'threshold {threshold}: expected a score in [0, 1]')
        self.exported = exported
        self.digest = folder.digest_of(exported)
        self.opinion = opinion
        self.threshold = exported.threshold if threshold is None else threshold
        self.engine = engine
        self.streams = streams
        self._run = run
        self._rejecting = [exported.classes.index(name) for name in exported.rejecting]

    def __call__(self, image: Image) -> Inspection:
        """Inspect one radiograph.

        Args:
            image: A file of any format of `read.read`, its content, what `read.read` returned, or
                (H, W) pixels as they come from a detector panel, integers of 8 or 16 bits.

        Raises:
            ImagingError: It cannot be read or windowed, holds several frames or no picture, or has a depth
                or gray levels that the detector was not validated on.
        """
        clock = _Clock()
        radiograph = self._radiograph(image)
        clock.stop('decode')
        pixels = windowed(radiograph, self.exported)
        levels = self._check_gray_levels(pixels, radiograph)
        found, masks, unusual = [], [], 0.0
        for left, top, tile, resized in self._tiles(pixels):  # one at a time: a film has dozens
            array, extent, scale = self._fit(tile, resized)
            clock.stop('window')
            boxes, scores, labels, *rasters = self._run(array, extent)
            clock.stop('network')
            if self.opinion:
                unusual = max(unusual, self.opinion.score(array, extent))
                clock.stop('opinion')
            boxes = boxes / np.tile(scale, 2) + np.array([left, top] * 2, np.float32)
            found.append((boxes, scores, labels, _cut(boxes, left, top, tile.shape, pixels.shape)))
            if rasters:
                masks += [paste(r, box, pixels.shape) for r, box in zip(rasters[0], boxes, strict=True)]
        boxes, scores, labels = found[0][:3]
        if len(found) > 1:
            boxes, scores, labels, members = _merge(found, self.exported.iou)
            masks = [join([masks[k] for k in group]) for group in members] if rasters else []
        # In double precision, as the page and the tables compare: NumPy would round the threshold to float32.
        risk = float(max(scores[np.isin(labels, self._rejecting)], default=0.0))
        clock.stop('merge')
        return Inspection(
            boxes=boxes,
            scores=scores,
            labels=labels,
            severities=[self.exported.classes[label] for label in labels],
            verdict='reject' if risk >= self.threshold else 'accept',
            risk=risk,
            pixels=pixels,
            bits=radiograph.bits,
            levels=levels,
            folder=self.digest,
            seconds=clock.seconds,
            unusual=unusual if self.opinion else None,
            flagged=bool(self.opinion and unusual > self.opinion.threshold),
            masks=masks if rasters else None,
        )

    def attempt(self, image: Image) -> Inspection | ImagingError:
        """Inspect one radiograph, or say why not, whatever went wrong: the next one may be well."""
        try:
            return self(image)
        except ImagingError as error:
            return error
        except Exception as error:  # decoders and engines raise types of their own
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
            name = image if isinstance(image, str | Path) else 'radiograph'
            return ImagingError(f'{name}: expected findings, the inspection failed ({reason}); try it alone')

    def input_of(self, image: Image) -> tuple[np.ndarray, np.ndarray]:
        """Return what the network sees of a radiograph that needs no tiles: array and extent."""
        pixels = windowed(self._radiograph(image), self.exported)
        return self._fit(pixels, self._scale(*pixels.shape))[:2]

    def inputs_of(self, image: Image) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what the network sees of a radiograph, tile by tile: array and extent."""
        pixels = windowed(self._radiograph(image), self.exported)
        return [self._fit(tile, resized)[:2] for _, _, tile, resized in self._tiles(pixels)]

    def stream(self, images: Iterable[Image]) -> Iterator[Inspection | ImagingError]:
        """Inspect many radiographs, `streams` at a time, in order; a bad one gives its error and no stop.

        At most twice as many as there are streams are in memory, however many `images` yields. As many are
        asked of `images` before the first result is given: a panel whose verdict is due before its next
        frame calls the inspector with each frame.
        """
        # A panel may write its next frame into the same memory.
        images = (image.copy() if isinstance(image, np.ndarray) else image for image in images)
        with ThreadPoolExecutor(self.streams) as pool:
            waiting = deque(pool.submit(self.attempt, image) for image in islice(images, 2 * self.streams))
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(self.attempt, image) for image in islice(images, 1))
                yield done

    def _radiograph(self, image: Image) -> Radiograph:
        """Read an image, and refuse one of a depth that nobody has validated the detector on."""
        radiograph = _as_radiograph(image)
        depth, known = depth_of(radiograph), self.exported.depths
        if known and depth not in known:
            raise ImagingError(
                f'{radiograph.meta.get("file", "radiograph")}: expected {" or ".join(known)} pixels, as the '
                f'detector was validated on, found {depth}; give the image as the panel wrote it, or '
                'export the detector again with such images in its validation set'
            )
        return radiograph

    def _check_gray_levels(self, pixels: np.ndarray, radiograph: Radiograph) -> gray_levels.Levels:
        """Refuse a frame unlike those that the detector was proven on: what it finds there says nothing."""
        levels = gray_levels.measure(pixels)
        strange = gray_levels.outside(levels, self.exported.gray_levels)
        if strange:
            raise ImagingError(
                f'{radiograph.meta.get("file", "radiograph")}: not like what this detector was proven on: '
                f'{"; ".join(strange[:3])}; check tube, shutter, panel and bit depth, or export the detector '
                'again with such radiographs in its validation set'
            )
        return levels

    def _scale(self, height: int, width: int) -> float:
        """Factor by which an image is resized: as in training, and so that it fits into the input."""
        rule = folder.factor_of((height, width), self.exported.scale)
        rows, columns = self.exported.input
        if int(height * rule + 0.5) <= rows and int(width * rule + 0.5) <= columns:
            return rule
        return min((rows + 0.499) / height, (columns + 0.499) / width)

    def _tiles(self, pixels: np.ndarray) -> list[tuple[int, int, np.ndarray, float]]:
        """Cut an image that would be shrunk too much into overlapping tiles.

        Returns:
            Left, top, pixels and the factor by which they are resized, of each tile: that of the validation
            set, which is not what the rule for a whole image says of a square one.
        """
        native, own = self._scale(*self.exported.native), self._scale(*pixels.shape)
        if own * MOST_SHRUNK >= native:
            return [(0, 0, pixels, own)]
        sides = [max(int(side / native), 1) for side in self.exported.input]
        rows, columns = (_starts(n, side) for n, side in zip(pixels.shape, sides, strict=True))
        return [(x, y, pixels[y : y + sides[0], x : x + sides[1]], native) for y in rows for x in columns]

    def _fit(self, pixels: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resize as mmcv does, and put beyond the border what normalisation turns into 0.

        Returns:
            Array (1, 1, H, W) float32, extent (height, width) of the image in it, and its scale (x, y).
        """
        height, width = pixels.shape
        new = max(int(width * scale + 0.5), 1), max(int(height * scale + 0.5), 1)
        if new != (width, height):
            pixels = cv2.resize(pixels, new, interpolation=cv2.INTER_LINEAR)
        array = np.empty((1, 1, *self.exported.input), np.float32)
        inside = array[0, 0, : new[1], : new[0]]
        inside[:] = pixels
        if pixels.dtype == np.uint16:
            inside /= 257  # 65535 / 257 = 255
        array[0, 0, new[1] :] = array[0, 0, : new[1], new[0] :] = self.exported.mean
        extent = np.array([new[1], new[0]], np.float32)
        return array, extent, np.array([new[0] / width, new[1] / height], np.float32)


class _Clock:
    """Adds up the seconds of stages, each since the end of the one before."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def depth_of(radiograph: Radiograph) -> str:
    """Name what the values of a radiograph can be, such as '12-bit unsigned': what a window relies on."""
    kind = 'float' if np.isnan(radiograph.low) else 'signed' if radiograph.low < 0 else 'unsigned'
    return f'{radiograph.bits}-bit {kind}'


def windowed(radiograph: Radiograph, exported: folder.Exported) -> np.ndarray:
    """Window a radiograph as a detector wants it, unless nothing is left to see: every part would pass.

    Raises:
        ImagingError: It cannot be windowed, or all pixels are alike then, as when the tube is off, the
            shutter closed or the panel saturated.
    """
    pixels = prepare(radiograph, exported.window, exported.dtype)
    if pixels.min() == pixels.max():
        low, high = radiograph.pixels.min(), radiograph.pixels.max()
        alike = f'are {low}' if low == high else f'of {low} to {high} are one gray under {exported.window}'
        raise ImagingError(
            f'{radiograph.meta.get("file", "radiograph")}: holds no picture: all pixels {alike}; check tube, '
            f'shutter{", panel and window" if low != high else " and panel"}, and take it again'
        )
    return pixels


def read_one(source: str | Path | bytes, name: str | None = None) -> Radiograph:
    """Read a file of one frame; a verdict on the first of several would let the others escape.

    Raises:
        ImagingError: It cannot be read, or holds several frames.
    """
    radiograph = read(source, frame=0, name=name)
    if radiograph.meta['frames'] > 1:
        raise ImagingError(
            f'{radiograph.meta["file"]}: holds {radiograph.meta["frames"]} frames, expected one; save each '
            'as a file of its own'
        )
    return radiograph


def _as_radiograph(image: Image) -> Radiograph:
    if isinstance(image, Radiograph):
        return image
    if not isinstance(image, np.ndarray):
        return read_one(image)
    if image.ndim != 2 or not image.size:
        raise ImagingError(f'array of shape {image.shape}: expected (H, W) pixels of one channel, not empty')
    if image.dtype.kind not in 'iu' or image.dtype.itemsize > 2:
        raise ImagingError(
            f'array of {image.dtype}: expected integers of 8 or 16 bits, whose range is known; convert it'
        )
    info = np.iinfo(image.dtype)
    # A copy: `Inspection.pixels` may be these, and the caller may write the next frame into them.
    return Radiograph(image.copy(), info.bits, float(info.min), float(info.max), meta=dict(file='array'))


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` px start so that they cover `length` px and overlap by a quarter or more."""
    if length <= side:
        return [0]
    count = 1 + -(-(length - side) // max(int(side * (1 - OVERLAP)), 1))
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


def _cut(boxes: np.ndarray, left: int, top: int, tile: tuple[int, int], whole: tuple[int, int]) -> np.ndarray:
    """Tell which boxes (N, 4), in px of the image, end where their tile ends and the image goes on."""
    height, width = tile
    near = AT_BORDER * max(tile)
    return (
        ((boxes[:, 0] < left + near) & (left > 0))
        | ((boxes[:, 1] < top + near) & (top > 0))
        | ((boxes[:, 2] > left + width - near) & (left + width < whole[1]))
        | ((boxes[:, 3] > top + height - near) & (top + height < whole[0]))
    )


def _merge(
    found: list[tuple[Any, ...]], iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[int]]]:
    """Join the boxes of overlapping tiles.

    A defect that a tile's border cuts becomes one box: by falling score, a box takes in those of its class
    from other tiles that lie at least half within it, or it within them, where either ends at the border of
    its tile. As in SAHI's greedy merging each is compared as it was found, in one pass: a box that grew
    takes in no more. What is left is suppressed as the detector itself does within a tile.

    Args:
        found: Boxes (N, 4), scores, labels and whether they are cut, of each tile.
        iou: Of the suppression.

    Returns:
        Boxes, scores and labels, best first, and of each the positions of those that it is made of among all
        of `found`.
    """
    tiles = np.repeat(np.arange(len(found)), [len(tile[1]) for tile in found])
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    order = np.argsort(-columns[1], kind='stable')
    boxes, scores, labels, cut, tiles = (column[order] for column in (*columns, tiles))
    merged, free = boxes.copy(), np.ones(len(scores), bool)
    members: dict[int, list[int]] = {}
    for i in range(len(scores)):
        if free[i]:
            common, areas = _common(boxes[i], boxes)
            half = common >= SAME_DEFECT * np.maximum(np.minimum(areas, areas[i]), 1e-9)
            taken = free & half & (labels == labels[i]) & (tiles != tiles[i]) & (cut | cut[i])
            free &= ~taken
            taken[i] = True
            members[i] = order[taken].tolist()
            merged[i, :2] = boxes[taken, :2].min(0)
            merged[i, 2:] = boxes[taken, 2:].max(0)
    kept = np.zeros(len(scores), bool)
    for i in np.flatnonzero(free).tolist():
        common, areas = _common(merged[i], merged)
        better = kept & (labels == labels[i])
        kept[i] = not (common[better] > iou * (areas[better] + areas[i] - common[better])).any()
    return merged[kept], scores[kept], labels[kept], [members[i] for i in np.flatnonzero(kept).tolist()]


def _common(box: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area that each box (N, 4) has in common with `box` (4), and its own area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return sides.clip(0).prod(1), (boxes[:, 2:] - boxes[:, :2]).prod(1)
