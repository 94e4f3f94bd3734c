"""Benchmark of the gray-level band of validation radiographs: refusal rates on test, spoilt, foreign frames.

Usage, from the checkout, on the output of tools/convert_dataset.py:
    .venv/bin/python -m projects.benchmark.refusals data/gdxray/a data/gdxray/images --foreign FOLDER...
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from projects.arguments import one_line_for_bad_input
from projects.radiograph.gray_levels import Band, band_of, measure, outside
from projects.radiograph.listing import list_radiographs
from projects.radiograph.read import read
from projects.radiograph.window import apply_window

from .splits import truth_of

WINDOW = dict(type='full')
DARK, DARK_NOISE = 2000, 60
"""Offset and noise of a 16-bit panel without radiation, in its codes."""


def spoilt(image: np.ndarray, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Make faulty frames, such as a frame without radiation, from a good one.

    Args:
        image: (H, W) uint8, windowed.
        seed: of the noise.

    Yields:
        The fault, and the frame, (H, W) uint8.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    dark = rng.normal(DARK, DARK_NOISE, image.shape).clip(0, 65535) / 257
    off = np.rint(dark).astype(np.uint8)
    yield '12 bits right-justified in 16', image >> 4
    yield 'tube off, noise', off
    yield 'tube off, ten times the noise', np.rint(10 * dark - 9 * DARK / 257).clip(0, 255).astype(np.uint8)
    yield 'tube off, one hot pixel', np.where((x == 5) & (y == 5), 233, 0).astype(np.uint8)
    yield 'saturated, 0.1 % just below', np.where(rng.random(image.shape) < 1e-3, 253, 255).astype(np.uint8)
    middle = image.shape[0] // 2, image.shape[1] // 2
    shut = dict(left=x < middle[1], right=x >= middle[1], top=y < middle[0], bottom=y >= middle[0])
    for side, closed in shut.items():
        yield f'shutter half closed, {side}', np.where(closed, off, image)
        yield f'shutter half closed without noise, {side}', np.where(closed, 8, image).astype(np.uint8)


def windowed(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """Read radiographs, (H, W) uint8 each."""
    return (apply_window(read(path, frame=0), WINDOW) for path in paths)


def listed(annotations: Path, images: Path) -> list[Path]:
    """Return the files of a COCO file's images."""
    return [images / image['file_name'] for image in truth_of(annotations)['images']]


def share(images: Iterable[np.ndarray], band: Band) -> tuple[int, int]:
    """Return the number of images outside of a band, and the number of all images."""
    refused = [bool(outside(measure(image), band)) for image in images]
    return sum(refused), len(refused)


@one_line_for_bad_input
def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('split', type=Path, help='folder with val.json and test.json')
    parser.add_argument('images', type=Path, help='folder of their images')
    parser.add_argument('--foreign', nargs='*', type=Path, default=[], help='folders of other radiographs')
    args = parser.parse_args(arguments)
    band = band_of([measure(image) for image in windowed(listed(args.split / 'val.json', args.images))])
    tests = listed(args.split / 'test.json', args.images)
    for key, (low, high) in band.items():
        print(f'{key:13s} {low:8.3g} to {high:.3g}')
    print('test: {} of {} refused'.format(*share(windowed(tests), band)))
    counts: dict[str, int] = {}
    for seed, image in enumerate(windowed(tests)):
        for what, frame in spoilt(image, seed):
            counts[what] = counts.get(what, 0) + bool(outside(measure(frame), band))
    for what, count in counts.items():
        print(f'{what}: {count} of {len(tests)} refused')
    for folder in args.foreign:
        names = list_radiographs(folder)[0]
        print('{}: {} of {} refused'.format(folder.name, *share(windowed(folder / n for n in names), band)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
