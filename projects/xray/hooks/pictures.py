"""Pictures of predictions beside the truth, on the windowed radiograph that the model saw."""

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image, ImageDraw, ImageFont

from projects.xray.masks import pixels_of

# Long side of a panel, px: two panels side by side stay readable on a screen.
PANEL = 768


MARGIN = 12


HEADER = 36


BACKGROUND = (24, 24, 24)


FOREGROUND = (235, 235, 235)


IGNORED = (150, 150, 150)


@HOOKS.register_module()
class XrayVisualizationHook(Hook):
    """Draws predictions beside the truth on the windowed radiograph that the model saw.

    No file is read again: the pixels are `data_batch['inputs']`, for every file format and depth. The truth
    comes from the data set in px of the file, independent of the pipeline.

    Args:
        interval: Draw at every `interval`-th validation.
        num_images: Number of images, spread evenly over the data set and the same each time; None for all.
        score_thr: Predictions below this score are left out.
        draw: False turns the hook off.
        out_dir: Folder for PNG files, `<image stem>_<image id>.png`, instead of the visualizer.
    """

    def __init__(
        self,
        interval: int = 1,
        num_images: int | None = 8,
        score_thr: float = 0.3,
        draw: bool = True,
        out_dir: str | None = None,
    ):
        self.interval = interval
        self.num_images = num_images
        self.score_thr = score_thr
        self.draw = draw
        self.out_dir = out_dir
        self.validations = 0

    def before_val_epoch(self, runner) -> None:
        """Choose the images of this validation."""
        drawn = self.draw and self.validations % self.interval == 0
        self.wanted = self._choose(runner.val_dataloader.dataset) if drawn else {}
        self.validations += 1

    def before_test_epoch(self, runner) -> None:
        """Choose the images of the test."""
        self.wanted = self._choose(runner.test_dataloader.dataset) if self.draw else {}

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw the chosen images of a validation batch."""
        self._draw(runner, data_batch, outputs, runner.val_dataloader.dataset, 'val', runner.epoch)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw the chosen images of a test batch."""
        self._draw(runner, data_batch, outputs, runner.test_dataloader.dataset, 'test', 0)

    def _choose(self, dataset) -> dict:
        """Map image ids to dataset indices."""
        count = len(dataset)
        picked = count if self.num_images is None else min(self.num_images, count)
        indices = np.linspace(0, count - 1, picked).round().astype(int).tolist()
        return {dataset.get_data_info(i)['img_id']: i for i in indices}

    def _draw(self, runner, data_batch, outputs, dataset, mode, step) -> None:
        for pixels, shown, sample in zip(*_unflipped(data_batch), outputs):
            index = self.wanted.get(sample.img_id)
            if index is None:
                continue
            classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
            scale = np.tile(shown.get('scale_factor', (1.0, 1.0)), 2)
            instances = dataset.get_data_info(index)['instances']
            truth = [
                (np.array(i['bbox']) * scale, -1 if i['ignore_flag'] else i['bbox_label'], None)
                for i in instances
            ]
            found = sample.pred_instances.cpu().numpy()
            found = found[found.scores >= self.score_thr]
            order = np.argsort(-found.scores)
            predicted = [(found.bboxes[i] * scale, found.labels[i], found.scores[i]) for i in order]
            outlines = [], []
            if 'masks' in found:
                size = found.masks.shape[1:]
                real = [(i['mask'], label) for i, (_, label, _) in zip(instances, truth) if i.get('mask')]
                outlines = (
                    [
                        (line * scale[:2], label)
                        for mask, label in real
                        for line in _lines(pixels_of(mask, *size))
                    ],
                    [(line * scale[:2], found.labels[i]) for i in order for line in _lines(found.masks[i])],
                )
            path = Path(sample.img_path)
            note = f'score from {self.score_thr:.2f}'
            picture = draw_comparison(
                _to_gray(pixels), truth, predicted, classes, palette, path.name, note, outlines
            )
            if self.out_dir is None:
                runner.visualizer.add_image(f'{mode}_{path.stem}', picture, step)
            else:
                file = Path(self.out_dir) / f'{path.stem}_{sample.img_id}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(file, compress_level=3)  # takes half the time of the default 6


def _unflipped(data_batch: dict) -> tuple[list, list]:
    """Return pixels and samples of a batch; in test-time augmentation those of the first unflipped view.

    mmcv's TestTimeAug gives a list of views, each with a list of images; merged boxes fit an unflipped view.
    """
    inputs, samples = data_batch['inputs'], data_batch['data_samples']
    if not isinstance(samples[0], list | tuple):
        return inputs, samples
    view = next((i for i, (first, *_) in enumerate(samples) if not first.get('flip')), None)
    return ([], []) if view is None else (inputs[view], samples[view])


def _to_gray(pixels: torch.Tensor) -> np.ndarray:
    """Convert a (1, H, W) input of any depth to (H, W) uint8; floats already are 8-bit gray levels."""
    array = pixels[0].cpu().numpy()
    if array.dtype == np.uint16:
        array = array / 257
    return array.round().clip(0, 255).astype(np.uint8)


def _lines(mask: np.ndarray) -> list[np.ndarray]:
    """Return closed lines (N, 2) x, y in px around parts and holes of a mask (H, W)."""
    doubled = mask.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    lines = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
    return [(line.reshape(-1, 2) + 0.5) / 2 for line in lines]


def draw_comparison(
    image, truth, predicted, classes, palette, title='', note='', outlines=((), ())
) -> np.ndarray:
    """Draw the truth (left) and the prediction (right) on one radiograph.

    Args:
        image: (H, W) uint8.
        truth: Tuples of box [x1, y1, x2, y2] in px of `image`, label (-1: ignored region), None.
        predicted: The same with a score instead of None, best first.
        classes: Class names by label.
        palette: RGB colours by label.
        title: Shown above the truth, usually the file's name.
        note: Shown above the prediction, usually the score threshold.
        outlines: Outlines of the masks of truth and of predictions: tuples of a line (N, 2) in px of `image`
            and a label.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    height, width = image.shape
    scale = PANEL / max(height, width)
    size = round(width * scale), round(height * scale)
    panel = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    sheet = Image.new('RGB', (2 * size[0] + 3 * MARGIN, size[1] + HEADER + 2 * MARGIN), BACKGROUND)
    for left, what, boxes, lines in (
        (MARGIN, f'truth  {title}', truth, outlines[0]),
        (2 * MARGIN + size[0], f'prediction  {note}', predicted, outlines[1]),
    ):
        drawn = panel.convert('RGB')
        for line, label in lines:
            colour = IGNORED if label < 0 else tuple(palette[label])
            ImageDraw.Draw(drawn).polygon([*(line * scale).ravel()], outline=colour)
        _draw_boxes(drawn, [(np.asarray(box) * scale, *rest) for box, *rest in boxes], classes, palette)
        sheet.paste(drawn, (left, MARGIN + HEADER))
        _draw_header(sheet, left, size[0], what, boxes, classes, palette)
    return np.asarray(sheet)


def _draw_header(sheet, left, width, what, boxes, classes, palette) -> None:
    """Write a panel's title, and at its right end the number of boxes per class in the class's colour."""
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    right = left + width
    for label in reversed(range(len(classes))):
        count = sum(box[1] == label for box in boxes)
        text = f'{count} {classes[label]}'
        right -= pen.textlength(text, font)
        pen.text((right, MARGIN + HEADER / 2 - 4), text, tuple(palette[label]), font, anchor='lm')
        right -= 18
    while what and pen.textlength(what, font) > right - left:
        what = what[:-2].rstrip('…') + '…' if len(what) > 2 else ''
    pen.text((left, MARGIN + HEADER / 2 - 4), what, FOREGROUND, font, anchor='lm')


def _draw_boxes(panel, boxes, classes, palette) -> None:
    """Draw outlines, then labels that do not overlap each other nor, if possible, a box."""
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(15)
    outlines = []
    for box, label, _ in boxes:
        x1, y1, x2, y2 = (float(v) for v in box)
        colour = IGNORED if label < 0 else tuple(palette[label])
        pen.rectangle((x1 - 3, y1 - 3, x2 + 3, y2 + 3), outline=(0, 0, 0), width=1)
        pen.rectangle((x1 - 2, y1 - 2, x2 + 2, y2 + 2), outline=colour, width=2)
        outlines.append((x1 - 3, y1 - 3, x2 + 3, y2 + 3))
    tags = []
    for (_, label, score), outline in zip(boxes, outlines):
        # A single class needs no name.
        words = [classes[label]] if len(classes) > 1 and label >= 0 else []
        text = ' '.join(words + ([] if score is None else [f'{score:.2f}']))
        if not text:
            continue
        spot = _free_spot(outline, pen.textlength(text, font) + 8, 19, panel.size, tags, outlines)
        if spot is None:
            continue
        colour = tuple(palette[label])
        pen.rectangle(spot, fill=colour)
        light = np.dot(colour, (0.299, 0.587, 0.114)) > 140
        ink = (0, 0, 0) if light else (255, 255, 255)
        pen.text((spot[0] + 4, (spot[1] + spot[3]) / 2), text, ink, font, anchor='lm')
        tags.append(spot)


def _free_spot(outline, width, height, size, tags, outlines):
    """Find a place for a label at its box that overlaps no other label and, if possible, no other box."""
    x1, y1, x2, y2 = outline
    above, below = y1 - height, y2
    corners = [(x1, above), (x1, below), (x2 - width, above), (x2 - width, below), (x2, y1), (x1 - width, y1)]
    spots = [
        (x, y, x + width, y + height)
        for x, y in corners
        if x >= 0 and y >= 0 and x + width <= size[0] and y + height <= size[1]
    ]
    for obstacles in (tags + [o for o in outlines if o != outline], tags):
        for spot in spots:
            if not any(_overlap(spot, other) for other in obstacles):
                return spot
    return None


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
