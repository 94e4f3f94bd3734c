"""GDXray welds: ten annotated films with their masks, further films as an archive, folds by film.

The films (BAM Berlin; Mery et al., J. Nondestruct. Eval. 34(4), 2015) are scans of weld radiographs, 40.3 µm
a pixel, up to 4,992 px wide. They are for research and education only and may not be redistributed.

W0001 holds ten strips with 641 boxes in `ground_truth.txt`; W0001_0000 is a pixel copy of W0001_0001. W0002
holds the masks of the strips: each box is exactly the bounding box of one region of the mask. W0003 holds the
68 whole films. The ten strips were cut from ten of these films, which pretraining must not use.

A film is a group: its tiles share a weld, a scanner setting and an annotator. A film is no physical part: the
weld of each film was not recorded, so two films may show the same weld. Images therefore carry `region` and
no `part`. One film holds 193 of the boxes and another only eleven, so folds are balanced by boxes and results
are pooled over all folds.
"""

from pathlib import Path

import cv2
import numpy as np

from projects.radiograph.image import ImagingError
from projects.radiograph.read import read
from projects.radiograph.rle import encode_rle
from projects.xray.classes import GDXRAY_CLASSES

from .decode import measure
from .gdxray import read_ground_truth
from .ledger import ConvertError, Ledger, UsageError
from .tile import MIN_TILE, cut
from .write import clip_box, write_coco

SOURCES = {1: 68, 2: 11, 3: 30, 4: 36, 5: 41, 6: 42, 7: 12, 8: 39, 9: 6, 10: 7}
"""Whole film in W0003 from which each strip of W0001 was cut, by its readme; correlation 0.997 or more."""
TILE = 1024
FOLDS = 3
MIN_FILMS = 3


def find_welds(src: Path) -> Path:
    """Return the folder with W0001 …: `src` itself or its `Welding`.

    Raises:
        UsageError: neither folder holds them.
    """
    for folder in (src, src / 'Welding'):
        if (folder / 'W0001' / 'ground_truth.txt').is_file():
            return folder
    raise UsageError(
        f'{src}: expected the folder of GDXray welds (W0001 with ground_truth.txt, W0002, …) or the one '
        'above it; unpack Welding.zip and name that folder'
    )


def read_boxes(path: Path) -> dict[int, list[list[float]]]:
    """Return the boxes [x, y, w, h] in px, from 0, of every film of W0001's `ground_truth.txt`.

    Rows are `k x1 x2 y1 y2` as in the castings, but the values are pixel edges in MATLAB's coordinates, where
    the first pixel reaches from 0.5 to 1.5: x = x1 - 0.5 and w = x2 - x1.

    Raises:
        ConvertError: a damaged row, or a row of whole pixels.
    """
    boxes: dict[int, list[list[float]]] = {}
    for film, (x, y, w, h) in read_ground_truth(path):
        box = [x + 0.5, y + 0.5, w - 1, h - 1]
        if not all(v.is_integer() for v in box) or min(box[2:]) <= 0:
            raise ConvertError(
                f'{path}: expected pixel edges such as 8.5 with x1 < x2 and y1 < y2, film {film} has '
                f'{[x + 1, x + w, y + 1, y + h]}; restore the file'
            )
        boxes.setdefault(film, []).append(box)
    return boxes


def with_masks(boxes: list[list[float]], mask: np.ndarray | None) -> list[dict]:
    """Return a film's boxes in COCO's form, each with its region of the mask.

    Args:
        boxes: [x, y, w, h] in px.
        mask: bool (H, W) of all flaws of the film; None without a mask. A box without a matching region stays
            a plain box.
    """
    found = {}
    if mask is not None:
        _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        found = {tuple(row[:4]): label for label, row in enumerate(stats.tolist()) if label}
    result = []
    for box in boxes:
        entry = dict(category=GDXRAY_CLASSES[0], bbox=box)
        label = found.get(tuple(map(int, box)))
        if label is not None:
            entry['segmentation'] = encode_rle(regions == label)
        result.append(entry)
    return result


def group_films(counts: dict[str, int], folds: int) -> list[list[str]]:
    """Divide films into groups with about equal numbers of boxes: the largest film to the smallest group.

    Args:
        counts: number of boxes of each film.
        folds: number of groups.
    """
    groups: list[list[str]] = [[] for _ in range(folds)]
    for film in sorted(counts, key=lambda film: (-counts[film], film)):
        min(groups, key=lambda group: sum(counts[f] for f in group)).append(film)
    return [sorted(group) for group in groups]


def convert(src: Path, out: Path, tile: int = TILE, overlap: int = 0, folds: int = FOLDS) -> list[Ledger]:
    """Write GDXray welds: tiles in `out/images`, `out/<fold>/{train,val,test}.json`, `out/unlabeled.txt`.

    Each group of films is the test set of one fold. val is the film of the next group with the median number
    of boxes; train is the rest. With as many folds as films, each film is tested alone.

    Args:
        src: the folder with W0001 …, or its parent.
        out: folder to write.
        tile: side of a tile, px.
        overlap: px that neighbouring tiles share.
        folds: number of groups of films.

    Returns:
        A ledger of the films, and one per fold.

    Raises:
        UsageError: no welds in `src`, or an argument out of its range.
        ConvertError: a damaged annotation, mask or image.
    """
    welds = find_welds(src)
    if out.resolve().is_relative_to(welds.resolve()):
        raise UsageError(f'{out}: expected a folder outside of the source {welds}; choose another OUT')
    if tile < MIN_TILE or not 0 <= overlap < tile:
        raise UsageError(
            f'--tile {tile} --overlap {overlap}: expected a tile of {MIN_TILE} px or more and an overlap '
            'below it'
        )
    # Pooled with the new ones, the folds of an earlier conversion would test a film twice.
    stale = sorted(f for f in out.glob('[0-9]*') if f.name.isdigit() and int(f.name) >= folds)
    if stale:
        raise UsageError(f'{stale[0]}: is of a conversion with more than {folds} folds; remove {out} first')
    ledger = Ledger('GDXray welds')
    films = _annotated(welds, ledger)
    counts = {film: len(image['boxes']) for film, (image, _) in films.items()}
    if len(films) < MIN_FILMS:
        truth = welds / 'W0001' / 'ground_truth.txt'
        raise ConvertError(
            f'{truth}: boxes of {len(films)} films, expected {MIN_FILMS} at least; restore the file'
        )
    if not 2 <= folds <= len(films):
        raise UsageError(f'--folds {folds}: expected 2 to {len(films)}, the number of annotated films')
    wheres = _folds(counts, folds)
    pieces = {
        film: cut(image, path, out / 'images', tile, overlap, ledger) for film, (image, path) in films.items()
    }
    ledger['images'].went['tiles'] = sum(map(len, pieces.values()))
    ledger['boxes'].went['tiles'] = sum(len(piece['boxes']) for tiles in pieces.values() for piece in tiles)
    archive = _archive(welds, out, tile, overlap, ledger)
    ledger.check()
    (out / 'unlabeled.txt').write_text(''.join(f'{name}\n' for name in archive))

    ledgers = [ledger]
    for fold, where in enumerate(wheres):
        ledgers.append(_write_fold(out / str(fold), f'fold {fold} of {folds}', where, pieces, ledger))
    return ledgers


def _folds(counts: dict[str, int], folds: int) -> list[dict[str, str]]:
    """Return the split of each film, for each fold; see `convert`."""
    groups = group_films(counts, folds)
    result = []
    for fold, tested in enumerate(groups):
        following = sorted(groups[(fold + 1) % folds], key=lambda film: (counts[film], film))
        val = following[(len(following) - 1) // 2]
        where = {film: 'test' if film in tested else 'val' if film == val else 'train' for film in counts}
        if 'train' not in where.values():
            raise UsageError(f'--folds {folds}: leaves no film for train; choose more folds')
        result.append(where)
    return result


def _annotated(welds: Path, ledger: Ledger) -> dict[str, tuple[dict, Path]]:
    """Return, for each annotated film by name, its COCO image with boxes and masks, and its file."""
    truth = welds / 'W0001' / 'ground_truth.txt'
    boxes = read_boxes(truth)
    paths = {path.stem: path for path in sorted((welds / 'W0001').glob('*.png'))}
    films = {}
    ledger['images'].came = len(paths)
    ledger['boxes'].came = sum(map(len, boxes.values()))
    for k, found in sorted(boxes.items()):
        film = f'W0001_{k:04d}'
        if film not in paths:
            raise ConvertError(f'{truth}: expected film {k} as {film}.png, it is missing; restore the image')
        height, width, _ = _size(paths[film])
        outside = [box for box in found if clip_box(box, width, height)[1]]
        if outside:
            raise ConvertError(
                f'{truth}: expected boxes inside of {film}.png, {width} x {height} px, found {outside[0]}; '
                'restore the file'
            )
        masked = with_masks(found, _mask(welds / 'W0002' / f'W0002_{k:04d}.png', (height, width)))
        ledger.repairs['box without a region of the mask: the box alone'] += sum(
            'segmentation' not in box for box in masked
        )
        name = f'W0001/{film}.png'
        size = dict(width=width, height=height)
        films[film] = dict(file_name=name, **size, region=film, series=film, boxes=masked), paths[film]
    for film in sorted(set(paths) - set(films)):
        ledger['images'].left['copy of an annotated film' if film == 'W0001_0000' else 'not annotated'] += 1
    return films


def _size(path: Path) -> tuple[int, int, int]:
    (size,) = measure({path.name: path}).values()
    if isinstance(size, ImagingError):
        raise ConvertError(str(size))
    return size


def _mask(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Return the mask of a film; None without a mask."""
    if not path.is_file():
        return None
    try:
        pixels = read(path, frame=0).pixels
    except ImagingError as error:
        raise ConvertError(str(error)) from None
    if pixels.shape != shape:
        raise ConvertError(
            f'{path}: expected a mask of {shape[1]} x {shape[0]} px, as its film, found {pixels.shape[1]} x '
            f'{pixels.shape[0]}; restore the file'
        )
    return pixels > 127


def _archive(welds: Path, out: Path, tile: int, overlap: int, ledger: Ledger) -> list[str]:
    """Cut the films without an annotated strip; return the names of their tiles."""
    sources = {f'W0003_{number:04d}' for number in SOURCES.values()}
    films = ledger['further films']
    names = []
    for path in sorted((welds / 'W0003').glob('*.png')):
        films.came += 1
        if path.stem in sources:
            films.left['an annotated film was cut from it'] += 1
            continue
        height, width, _ = _size(path)
        image = dict(file_name=f'W0003/{path.name}', width=width, height=height, boxes=[])
        tiles = cut(image, path, out / 'images', tile, overlap, Ledger('not counted'))
        names += [piece['file_name'] for piece in tiles]
        films.went['unlabeled.txt'] += 1
    ledger.notes.append(f'unlabeled.txt: {len(names)} tiles')
    return names


def _write_fold(folder: Path, title: str, where: dict[str, str], pieces: dict, of_films: Ledger) -> Ledger:
    """Write the three files of a fold; return its ledger."""
    ledger = Ledger(f'GDXray welds, {title}: test {", ".join(f for f in where if where[f] == "test")}')
    splits: dict[str, list[dict]] = {split: [] for split in ('train', 'val', 'test')}
    for film, split in where.items():
        splits[split] += pieces[film]
    for split, images in splits.items():
        boxes = sum(len(image['boxes']) for image in images)
        ledger['images'].came += len(images)
        ledger['boxes'].came += boxes
        ledger['images'].went[split] = len(images)
        ledger['boxes'].went[split] = boxes
    ledger.check()
    info = dict(
        description=f'GDXray welds, {title}; research and education only, no redistribution',
        converter='tools/convert_dataset.py gdxray-welds',
        ledger=of_films.as_dict(),
    )
    for split, images in splits.items():
        ledger.notes += write_coco(folder / f'{split}.json', images, list(GDXRAY_CLASSES), info)
    return ledger
