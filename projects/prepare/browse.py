"""The images of a data set as the model sees them: after each transform of the pipeline, on one sheet."""

import random
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

TILE = 256
"""Largest side of an image on the sheet, px."""
GAP, MARGIN, UNDER = 16, 28, 34
BACKGROUND, PAPER, INK, SOFT, LINE = (
    (246, 247, 249),
    (255, 255, 255),
    (24, 28, 36),
    (104, 112, 124),
    (222,) * 3,
)
MASKED = (38, 70, 110)
# Okabe and Ito's colours, distinct for colour-blind people, for data sets without a palette.
COLOURS = [(213, 94, 0), (86, 180, 233), (0, 158, 115), (230, 159, 0), (204, 121, 167), (240, 228, 66)]


@dataclass
class Stage:
    """The result of one transform on one image.

    Attributes:
        image: (H, W) uint8, uint16 (white at 65535) or float (white at 255), or (H, W, 3) uint8.
        boxes: (N, 4) x1, y1, x2, y2 in px of `image`.
        labels: (N,) int, index of the class of each box.
        mask: (h, w) bool over the whole image, True where the model has to reconstruct. None without a mask.
        values: shape, type and range of the result, in words.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    mask: np.ndarray | None
    values: str


@dataclass
class Item:
    """One image on its way through the pipeline.

    Attributes:
        path: path of its file.
        label: class of the whole image; empty without a class.
        stages: result of each transform, by (view, column).
    """

    path: str = ''
    label: str = ''
    stages: dict[tuple[int, int], Stage] = field(default_factory=dict)


class Recorder:
    """Runs images through the unchanged transforms of a dataset, and keeps the result of each.

    Nested transforms (in `MultiView`, `RandomApply`) count one by one; a second view has its own row.

    Attributes:
        columns: name and arguments of each transform, in order.
    """

    def __init__(self, dataset, configs: Sequence[dict], preprocess: Callable | None = None):
        """Prepare to record the result of each transform of a dataset.

        Args:
            dataset: has `pipeline`, a Compose; `prepare_data`; and `metainfo`.
            configs: configs of the transforms of its pipeline.
            preprocess: function from a packed item to the model's input, the last column. It returns
                `inputs`, `data_samples`, and the `mean` and `std` of its normalisation.
        """
        self.dataset = dataset
        self.columns: list[tuple[str, str]] = []
        self._preprocess = preprocess
        self._watch(dataset.pipeline.transforms, configs)
        if preprocess:
            self._last = self._column('data_preprocessor', '')

    def _column(self, name: str, arguments: str) -> int:
        self.columns.append((name, arguments))
        return len(self.columns) - 1

    def _watch(self, transforms: list, configs: Sequence[dict]) -> None:
        for i, transform in enumerate(transforms):
            config = dict(configs[i]) if i < len(configs) else {}
            inner = getattr(transform, 'pipelines', None) or getattr(transform, 'transforms', None)
            if inner:
                lists = config.get('transforms') or []
                groups = inner if isinstance(inner, list) else [inner]
                lists = lists if lists and isinstance(lists[0], list | tuple) else [lists]
                for group, own in zip(groups, [*lists, *[[]] * len(groups)]):
                    self._watch(group.transforms, own)
                continue
            name = type(transform).__name__
            arguments = ', '.join(f'{key}={_short(value)}' for key, value in config.items() if key != 'type')
            transforms[i] = self._watched(transform, self._column(name, arguments))

    def _watched(self, transform: Callable, column: int) -> Callable:
        def call(results):
            results = transform(results)
            if results is not None:
                self._keep(results, column)
            return results

        return call

    def run(self, index: int, seed: int) -> Item | None:
        """Run one image; None where the pipeline drops it.

        Args:
            index: index of the image in the dataset.
            seed: seed of every random draw.
        """
        seed_all(seed)
        self._item = Item()
        self._placed_late = None  # whether boxes were loaded after the resize; None until they are loaded
        packed = self.dataset.prepare_data(index)
        if packed is None:
            return None
        if self._preprocess:
            self._keep(self._preprocess(packed), self._last)
        return self._item

    def _keep(self, results: dict, column: int) -> None:
        sample = results.get('data_samples')
        sample = sample[0] if isinstance(sample, list) else sample
        self._item.path = results.get('img_path') or self._item.path
        label = results.get('gt_label')
        if label is not None:
            self._item.label = str(self.dataset.metainfo['classes'][int(label)])
        images = results['inputs'] if 'inputs' in results else results.get('img')
        if images is None:
            return
        boxes, labels = _boxes_of(results, sample)
        if self._placed_late is None and len(boxes):
            # A test pipeline loads boxes after the resize, and keeps them in px of the file.
            self._placed_late = results.get('scale_factor')
            self._placed_late = False if self._placed_late is None else np.tile(self._placed_late, 2)
        if self._placed_late is not None and self._placed_late is not False:
            boxes = boxes * self._placed_late
        mask = results.get('mask') if sample is None else sample.get('mask', None)
        mask = None if mask is None else np.asarray(mask).squeeze().astype(bool)
        for view, image in enumerate(images if isinstance(images, list) else [images]):
            if not isinstance(images, list):
                view = sum(1 for _, c in self._item.stages if c == column)
            array, values = _shown(image)
            if 'mean' in results:
                array = array * results['std'] + results['mean']
            self._item.stages[view, column] = Stage(array, boxes, labels, mask, values)


def seed_all(seed: int) -> None:
    """Seed every random generator of the transforms."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _short(value) -> str:
    """Return a value of a config in few characters."""
    if isinstance(value, dict):
        return ' '.join(str(v) if k == 'type' else f'{k}={_short(v)}' for k, v in value.items())
    return str(value)


def _boxes_of(results: dict, sample) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 4) boxes and (N,) labels of a results dict, or of its packed data sample."""
    if sample is not None and 'gt_instances' in sample:
        boxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
    else:
        boxes, labels = results.get('gt_bboxes'), results.get('gt_bboxes_labels')
    if boxes is None or labels is None:
        return np.zeros((0, 4)), np.zeros(0, int)
    boxes = getattr(boxes, 'tensor', boxes)
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, int)


def _shown(image: np.ndarray | torch.Tensor) -> tuple[np.ndarray, str]:
    """Return an image as (H, W) or (H, W, 3), and its values in words."""
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
    values = (
        f'{" x ".join(map(str, array.shape))} {array.dtype}, {_number(array.min())} to {_number(array.max())}'
    )
    if isinstance(image, torch.Tensor):
        array = array.reshape(array.shape[-3:])  # a batch of one
        equal = len(array) == 1 or all((array[0] == channel).all() for channel in array[1:])
        array = array[0] if equal else np.moveaxis(array, 0, -1)
    return np.array(array), values


def _number(value) -> str:
    return f'{value:.2f}' if isinstance(value, np.floating) and value % 1 else f'{value:g}'


# ---------------------------------------------------------------------------------------------- drawing


def draw_sheet(recorder: Recorder, items: Sequence[Item], title: str) -> Image.Image:
    """Draw one row per image and view, one column per transform.

    Args:
        recorder: the recorder of the items.
        items: recorded images.
        title: title of the sheet.
    """
    meta = recorder.dataset.metainfo
    classes = [str(name) for name in meta.get('classes') or ()]
    palette = [tuple(colour) for colour in meta.get('palette') or ()] or COLOURS
    columns = recorder.columns
    rows = [_rows(item) for item in items]
    heads = [_wrapped(arguments) for _, arguments in columns]
    head = 44 + 15 * max(map(len, heads), default=0)
    cell = TILE + GAP
    width = 2 * MARGIN + len(columns) * cell - GAP
    height = MARGIN + 44 + head + sum(34 + sum(row) + GAP for row in rows) + MARGIN
    sheet = Image.new('RGB', (width, height), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, _font(24))
    top = MARGIN + 44
    for c, (name, _) in enumerate(columns):
        left = MARGIN + c * cell
        pen.text((left, top + 4), _cut(f'{c + 1}  {name}', 16, TILE), INK, _font(16))
        for i, text in enumerate(heads[c]):
            pen.text((left, top + 26 + 15 * i), text, SOFT, _font(12))
    top += head
    for item, row in zip(items, rows):
        pen.line((MARGIN, top, width - MARGIN, top), LINE, 2)
        _draw_caption(pen, (MARGIN, top + 9), item, classes, palette, width - 2 * MARGIN)
        top += 34
        for view, line in enumerate(row):
            before = None
            for c in range(len(columns)):
                stage = item.stages.get((view, c))
                place = MARGIN + c * cell, top, line - UNDER
                if stage:
                    _draw_stage(sheet, place, stage, before, palette)
                elif view == 0:
                    # A later view has no cell while all views are still one image.
                    pen.text((place[0], top + line - UNDER + 5), 'not applied', SOFT, _font(12))
                before = stage or before
            top += line
        top += GAP
    return sheet


def _rows(item: Item) -> list[int]:
    """Return the height of each view's row: its highest tile and the text below."""
    rows: dict[int, int] = {}
    for (view, _), stage in item.stages.items():
        rows[view] = max(rows.get(view, 0), _size(stage.image)[1] + UNDER)
    return [rows[view] for view in sorted(rows)]


def _size(image: np.ndarray) -> tuple[int, int]:
    """Return width and height of an image on the sheet."""
    height, width = image.shape[:2]
    zoom = TILE / max(height, width)
    return max(round(width * zoom), 1), max(round(height * zoom), 1)


def _wrapped(arguments: str) -> list[str]:
    lines = textwrap.wrap(arguments, 40)
    return lines if len(lines) <= 4 else [*lines[:3], lines[3][:38] + ' …']


def _draw_caption(pen, at, item: Item, classes, palette, width) -> None:
    """Write the file name, the image's class, and the number of boxes of each class in its colour."""
    x, y = at
    words = [(item.label, SOFT)] if item.label else []
    labels = next((s.labels for s in reversed(item.stages.values()) if len(s.labels)), ())
    for label, count in sorted(Counter(labels).items()):
        known = 0 <= label < len(classes)
        colour = tuple(int(0.8 * v) for v in palette[label % len(palette)])
        words.append((f'{classes[label] if known else "ignored"}: {count}', colour if known else SOFT))
    room = width - sum(_font(15).getlength(text) + 18 for text, _ in words)
    name = _cut(item.path, 15, room, keep_end=True)
    pen.text((x, y), name, INK, _font(15))
    x += _font(15).getlength(name) + 18
    for text, colour in words:
        pen.text((x, y), text, colour, _font(15))
        x += _font(15).getlength(text) + 18


def _draw_stage(sheet, place, stage: Stage, before: Stage | None, palette) -> None:
    x, y, room = place
    pen = ImageDraw.Draw(sheet)
    tile = _tile(stage, palette)
    sheet.paste(tile, (x, y + room - tile.height))
    values = stage.values
    if before is not None and stage.values == before.values and np.array_equal(stage.image, before.image):
        same = np.array_equal(stage.boxes, before.boxes) and (stage.mask is None) == (before.mask is None)
        values = 'image unchanged' if not same else 'unchanged'
    pen.text((x, y + room + 5), _cut(values, 12, TILE), SOFT, _font(12))


def _tile(stage: Stage, palette) -> Image.Image:
    """Draw an image of at most `TILE` px with its mask and boxes."""
    image = stage.image
    if image.dtype == np.uint16:
        image = image / 257
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    size, zoom = _size(image), TILE / max(image.shape[:2])
    shrink = cv2.INTER_AREA if zoom < 1 else cv2.INTER_NEAREST
    tile = cv2.resize(image, size, interpolation=shrink)
    tile = cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB) if tile.ndim == 2 else tile
    if stage.mask is not None:
        hidden = cv2.resize(stage.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)[..., None]
        tile = np.where(hidden, (0.25 * tile + 0.75 * np.array(MASKED)).astype(np.uint8), tile)
    drawn = Image.fromarray(tile)
    pen = ImageDraw.Draw(drawn)
    for (x1, y1, x2, y2), label in zip(stage.boxes * zoom, stage.labels):
        colour = palette[label % len(palette)] if label >= 0 else SOFT
        pen.rectangle((x1 - 2, y1 - 2, x2 + 1, y2 + 1), outline=(0, 0, 0))
        pen.rectangle((x1 - 1, y1 - 1, x2, y2), outline=colour)
    return drawn


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _cut(text: str, size: int, room: float, keep_end: bool = False) -> str:
    """Shorten a text to a width in px."""
    font, cut = _font(size), text
    while cut and font.getlength(cut) > room:
        text = text[1:] if keep_end else text[:-1]
        cut = f'…{text}' if keep_end else f'{text}…'
    return cut
