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
OVERLAP = 0.25  # of a tile's side: a defect up to this size lies whole in one of two neighbouring tiles
SAME_DEFECT = 0.5  # intersection over the smaller area, of two boxes from neighbouring tiles
STAGES = ('decode', 'window', 'network', 'merge')
# Input of an inspector: a file, its content, pixels of a panel, or a result of `read.read`.
Image = str | Path | bytes | np.ndarray | Radiograph
AT_BORDER = 0.02  # of a tile's side: the tile's border may cut a box that ends so near


@dataclass
class Inspection:
    """The detector's result for one radiograph.

    Attributes:
        boxes: (N, 4) float32 x1 y1 x2 y2 in px of the image as stored, best first.
        scores: (N) float32.
        labels: (N) int64, positions in `classes`.
        severities: (N) class names.
        verdict: 'reject' when a rejecting class has a score at or above the threshold, else 'accept'.
        risk: Highest score of a rejecting class; 0 without a detection of such a class. The study's report
            first lets a box of any severity suppress the boxes that it overlaps. Here every box counts: a
            minor defect on top of a critical one must not make the critical one escape, at the price of
            some false rejects. A folder's threshold and curve use this rule.
        pixels: (height, width) pixels after the window, before resizing.
        bits: Bit depth of the image's file.
        levels: Gray levels after the window, see `gray_levels.measure`.
        folder: SHA-256 that identifies the detector's folder.
        unusual: Score of the second opinion; None without one.
        flagged: Whether `unusual` is above the threshold of the second opinion, so that an inspector should
            look at the radiograph. It does not change the verdict.
        seconds: Time of each stage: 'decode', 'window' (with resizing and tiles), 'network' (with NMS),
            'merge', and 'opinion' with a second opinion.
        masks: (N) pixels of each defect; None if the detector finds boxes alone.
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
        threshold: Threshold that replaces the folder's.
        threads: Total number of CPU threads; default, as many cores as this process may use.
        streams: Number of radiographs that `stream` works on at a time; they share the threads.
        cache: Keep OpenVINO's compiled graph for the next start, beside the folder in `.<name>.cache`.
        key: File with the public ed25519 key (PEM) that must have signed the folder; default, none.

    Attributes:
        digest: SHA-256 that identifies the folder, see `folder.digest_of`.
        source: The folder's path as it was given, which may be a link; None for an inspector made by `of`.

    Raises:
        FolderError: The folder is missing, damaged, lacks the engine's graph or is not signed by the key.
        EngineError: The engine cannot load the graph.
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
        """Return an inspector for an engine without a folder, such as the detector in PyTorch."""
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
            image: A file of any format of `read.read`, its content, a result of `read.read`, or (H, W)
                pixels from a detector panel, integers of 8 or 16 bits.

        Raises:
            ImagingError: The image cannot be read or windowed, holds several frames or no picture, or has a
                depth or gray levels that the detector was not validated on.
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
        # Double precision, as in the page and the tables; NumPy would round the threshold to float32.
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
        """Inspect one radiograph, or return the error of any kind: the next radiograph may be fine."""
        try:
            return self(image)
        except ImagingError as error:
            return error
        except Exception as error:  # decoders and engines raise types of their own
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
            name = image if isinstance(image, str | Path) else 'radiograph'
            return ImagingError(f'{name}: expected findings, the inspection failed ({reason}); try it alone')

    def input_of(self, image: Image) -> tuple[np.ndarray, np.ndarray]:
        """Return the network's input for a radiograph that needs no tiles: array and extent."""
        pixels = windowed(self._radiograph(image), self.exported)
        return self._fit(pixels, self._scale(*pixels.shape))[:2]

    def inputs_of(self, image: Image) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the network's input for each tile of a radiograph: array and extent."""
        pixels = windowed(self._radiograph(image), self.exported)
        return [self._fit(tile, resized)[:2] for _, _, tile, resized in self._tiles(pixels)]

    def stream(self, images: Iterable[Image]) -> Iterator[Inspection | ImagingError]:
        """Inspect many radiographs, `streams` at a time, in order; an unreadable one yields its error.

        At most `2 * streams` radiographs are in memory, however many `images` yields. The first result comes
        after as many have been taken from `images`. If a panel needs each verdict before its next frame, call
        the inspector with each frame instead.
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
        """Read an image, and refuse a depth on which the detector was not validated."""
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
        """Refuse a frame whose gray levels differ from the validation radiographs: no proof covers it."""
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
        """Return the factor of an image's resizing: that of training, or less so that it fits the input."""
        rule = folder.factor_of((height, width), self.exported.scale)
        rows, columns = self.exported.input
        if int(height * rule + 0.5) <= rows and int(width * rule + 0.5) <= columns:
            return rule
        return min((rows + 0.499) / height, (columns + 0.499) / width)

    def _tiles(self, pixels: np.ndarray) -> list[tuple[int, int, np.ndarray, float]]:
        """Cut an image that would be shrunk too much into overlapping tiles.

        Returns:
            Left, top, pixels and resizing factor of each tile. The factor is that of the validation set,
            which the rule for a whole image would not give for a square tile.
        """
        native, own = self._scale(*self.exported.native), self._scale(*pixels.shape)
        if own * MOST_SHRUNK >= native:
            return [(0, 0, pixels, own)]
        sides = [max(int(side / native), 1) for side in self.exported.input]
        rows, columns = (_starts(n, side) for n, side in zip(pixels.shape, sides, strict=True))
        return [(x, y, pixels[y : y + sides[0], x : x + sides[1]], native) for y in rows for x in columns]

    def _fit(self, pixels: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resize as mmcv does, and fill the input beyond the border with the mean, which becomes 0.

        Returns:
            Array (1, 1, H, W) float32, extent (height, width) of the image in the array, and scale (x, y).
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
    """Adds up the seconds of each stage, counted from the end of the stage before."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def depth_of(radiograph: Radiograph) -> str:
    """Name the range of a radiograph's values, such as '12-bit unsigned': the window depends on it."""
    kind = 'float' if np.isnan(radiograph.low) else 'signed' if radiograph.low < 0 else 'unsigned'
    return f'{radiograph.bits}-bit {kind}'


def windowed(radiograph: Radiograph, exported: folder.Exported) -> np.ndarray:
    """Apply a detector's window to a radiograph, and refuse an empty picture, in which every part would pass.

    Raises:
        ImagingError: The radiograph cannot be windowed, or all its pixels are equal after the window: the
            tube is off, the shutter closed or the panel saturated.
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
    """Read a file of one frame; a verdict on the first frame alone would let defects in others escape.

    Raises:
        ImagingError: The file cannot be read, or holds several frames.
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
    # A copy: `Inspection.pixels` may be this array, and the caller may write the next frame into it.
    return Radiograph(image.copy(), info.bits, float(info.min), float(info.max), meta=dict(file='array'))


def _starts(length: int, side: int) -> list[int]:
    """Return the starts of tiles of `side` px that cover `length` px and overlap by a quarter or more."""
    if length <= side:
        return [0]
    count = 1 + -(-(length - side) // max(int(side * (1 - OVERLAP)), 1))
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


def _cut(boxes: np.ndarray, left: int, top: int, tile: tuple[int, int], whole: tuple[int, int]) -> np.ndarray:
    """Return which boxes (N, 4), in px of the image, end at a border of their tile within the image."""
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

    A defect that a tile's border cuts becomes one box. In the order of falling score, a box absorbs boxes of
    its class from other tiles if one of the two lies at least half within the other and one of them ends at
    the border of its tile. As in SAHI's greedy merging, boxes are compared as they were found, in one pass: a
    box that grew absorbs no more. NMS then suppresses the remaining boxes, as the detector does in a tile.

    Args:
        found: Boxes (N, 4), scores, labels and whether a border cuts them, of each tile.
        iou: IoU threshold of NMS.

    Returns:
        Boxes, scores and labels, best first; and for each box, the positions in `found` of the boxes that it
        is made of.
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
    """Return the area of each box's (N, 4) intersection with `box` (4), and each box's own area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return sides.clip(0).prod(1), (boxes[:, 2:] - boxes[:, :2]).prod(1)
