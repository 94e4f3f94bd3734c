"""Cutting large radiographs, with their boxes and masks, into square tiles."""

from pathlib import Path

import cv2
import numpy as np
import tifffile

from projects.radiograph.image import Radiograph
from projects.radiograph.read import read
from projects.radiograph.rle import decode_rle, encode_rle

from .ledger import Ledger
from .write import clip_box

MIN_TILE = 32
"""Smallest tile in px; a mistyped size would write millions of files."""


def tile_origins(length: int, tile: int, overlap: int) -> list[int]:
    """Return the origins of tiles along a side, in px: every `tile - overlap`; the last tile ends with it."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def cut(image: dict, path: Path, folder: Path, tile: int, overlap: int, ledger: Ledger) -> list[dict]:
    """Cut one annotated image into tiles, write them, and return their COCO fields.

    Args:
        image: COCO fields of the image, with its `boxes`.
        path: the image.
        folder: destination of the tiles, named by image and position.
        tile: side of a tile, px.
        overlap: px that neighbouring tiles share.
        ledger: ledger that counts the further tiles and boxes.
    """
    radiograph = read(path, frame=0)
    height, width = image['height'], image['width']
    origins = [
        (x, y) for y in tile_origins(height, tile, overlap) for x in tile_origins(width, tile, overlap)
    ]
    pieces: dict[tuple[int, int], list[dict]] = {origin: [] for origin in origins}
    for box in image['boxes']:
        kept = _cut_box(box, origins, tile, height, width, ledger)
        for origin, piece in kept.items():
            pieces[origin].append(piece)
        ledger['boxes'].added['in further tiles'] += len(kept) - 1
    ledger['images'].added['further tiles'] += len(origins) - 1
    container = 8 * radiograph.pixels.dtype.itemsize
    if radiograph.pixels.dtype.kind in 'iu' and radiograph.bits < container:
        ledger.repairs[f'{radiograph.bits}-bit image whose tiles need an absolute window'] += 1
    result = []
    for (x, y), boxes in pieces.items():
        pixels = radiograph.pixels[y : y + tile, x : x + tile]
        # The whole name, so that a.tif and a.png in one folder stay apart.
        file_name = write_tile(folder, f'{image["file_name"]}_x{x:05d}_y{y:05d}', pixels, radiograph)
        size = dict(width=pixels.shape[1], height=pixels.shape[0])
        result.append(dict(image, file_name=file_name, **size, boxes=boxes))
    return result


def _cut_box(
    box: dict, origins: list[tuple[int, int]], tile: int, height: int, width: int, ledger: Ledger
) -> dict[tuple[int, int], dict]:
    """Return the pieces of a box, by the origin of each tile that holds some of it.

    A tile keeps its piece of a box if the piece is at least half as large as the largest piece. So a flaw
    that is whole in one tile is not also learnt from a sliver in the next, and a flaw longer than a tile is
    kept. Slivers become ignored regions (iscrowd); otherwise the tile would teach that nothing is there.
    """
    bx, by, bw, bh = box['bbox']
    clipped = [clip_box([bx - x, by - y, bw, bh], tile, tile) for x, y in origins]
    areas = [b[2] * b[3] for b, _ in clipped]
    mask = _mask(box['segmentation'], height, width) if 'segmentation' in box else None
    kept = {}
    for origin, area, (bbox, was) in zip(origins, areas, clipped):
        if area <= 0:
            continue
        piece = dict(box, bbox=[round(v, 3) for v in bbox])
        piece.pop('clipped_from', None)  # in px of the whole image
        if area < max(areas) / 2:
            piece |= dict(iscrowd=1, ignore=1)
            ledger.repairs['sliver of a box in a tile kept as iscrowd'] += 1
        else:
            ledger.repairs["box cut by a tile's border"] += was
        if mask is not None:
            x, y = origin
            part = mask[y : y + tile, x : x + tile]
            del piece['segmentation']
            if part.any():
                piece['segmentation'] = encode_rle(part)
        kept[origin] = piece
    return kept


def _mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Return the boolean mask (H, W) of polygons or uncompressed RLE."""
    if isinstance(segmentation, dict):
        return decode_rle(segmentation)
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        mask |= fill_polygon(np.reshape(polygon, (-1, 2)), height, width)
    return mask


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the mask (H, W) of the pixels with their centres in a polygon (N, 2) of x, y (even-odd rule).

    OpenCV and Pillow also paint the outline, which enlarges a flaw of 16 px by a fifth.
    """
    mask = np.zeros((height, width), bool)
    (x1, y1), (x2, y2) = points.T, np.roll(points, -1, axis=0).T
    for row in range(max(0, int(y1.min())), min(height, int(y1.max()) + 1)):
        middle = row + 0.5
        edges = (y1 <= middle) != (y2 <= middle)
        at = x1[edges] + (middle - y1[edges]) / (y2[edges] - y1[edges]) * (x2[edges] - x1[edges])
        columns = np.clip(np.ceil(np.sort(at) - 0.5), 0, width).astype(int)
        for start, end in zip(columns[::2], columns[1::2]):
            mask[row, start:end] = True
    return mask


def write_tile(folder: Path, stem: str, pixels: np.ndarray, radiograph: Radiograph) -> str:
    """Write one tile without loss, as PNG if possible, else as TIFF; return its file name."""
    png = pixels.dtype in (np.uint8, np.uint16) and not radiograph.invert
    target = folder / f'{stem}.{"png" if png else "tif"}'
    target.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.ascontiguousarray(pixels)
    if png:
        target.write_bytes(cv2.imencode('.png', pixels)[1].tobytes())
    else:
        photometric = 'miniswhite' if radiograph.invert else 'minisblack'
        tifffile.imwrite(target, pixels, photometric=photometric, compression='zlib', metadata=None)
    return target.relative_to(folder).as_posix()
