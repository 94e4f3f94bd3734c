"""Turning other annotation formats into COCO JSON, with a ledger that accounts for every image and box."""

import json
import os
import random
import re
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import tifffile

from projects.prepare.labels.images import MAX_OBJECTS, Images, Source
from projects.prepare.labels.readers import READERS
from projects.prepare.labels.rle import decode_rle, encode_rle
from projects.radiograph.read import MAX_FRAME_BYTES, ImagingError, Radiograph, read
from projects.radiograph.safe_parse import FormatError, check_json_size, is_printable, parse_yaml, printable
from projects.xray.classes import CLASSES

SHARES = {'train': 0.7, 'test': 0.2, 'val': 0.1}
"""Share of each split; protocol B of GDXray has about the same."""
MIN_TILE = 32
"""Smallest tile in px; a mistyped one would write millions of files."""
THREADS = 8
"""That decode images; together they take no more memory than the largest image alone."""
LARGE_FILE = 16 * 2**20
"""Files from this size on are decoded one at a time, since some formats are read whole."""


class ConvertError(ValueError):
    """Data that cannot be converted: one line with the file, what was expected, and the remedy."""


class UsageError(ConvertError):
    """A wrong argument of the converter, in the same form."""


@dataclass
class Account:
    """What came in of one kind, and where each of it went: came + added = went + left.

    Attributes:
        name: of what, such as 'boxes'.
        came: number found in the source.
        added: number made by the conversion (such as a box cut by a tile's edge), by reason.
        went: number written, by destination.
        left: number left out, by reason.
    """

    name: str
    came: int = 0
    added: Counter = field(default_factory=Counter)
    went: Counter = field(default_factory=Counter)
    left: Counter = field(default_factory=Counter)

    def check(self) -> None:
        """Raise RuntimeError unless the account balances, which is a defect of the converter."""
        if self.came + self.added.total() != self.went.total() + self.left.total():
            raise RuntimeError(f'the ledger of {self.name} does not balance: {self}')

    def __str__(self) -> str:
        """One line such as `boxes: 10 in = 7 train + 2 test + 1 left out (zero area: 1)`."""
        text = f'{self.name}: {self.came} in'
        for reason, count in sorted(self.added.items()):
            text += f' + {count} {reason}'
        parts = [f'{count} {where}' for where, count in self.went.items()]
        if self.left.total():
            reasons = ', '.join(f'{reason}: {count}' for reason, count in sorted(self.left.items()) if count)
            parts.append(f'{self.left.total()} left out ({reasons})')
        return f'{text} = {" + ".join(parts) or 0}'

    def as_dict(self) -> dict:
        """The account as JSON values."""
        return {
            key: dict(v) if isinstance(v, Counter) else v for key, v in vars(self).items() if key != 'name'
        }


@dataclass
class Ledger:
    """The accounts of one conversion, and what was repaired on the way.

    Attributes:
        title: what was converted.
        accounts: by name.
        repairs: number of values corrected but kept, by reason.
    """

    title: str
    accounts: dict[str, Account] = field(default_factory=dict)
    repairs: Counter = field(default_factory=Counter)

    def __getitem__(self, name: str) -> Account:
        """The account of that name, opened on first use."""
        return self.accounts.setdefault(name, Account(name))

    def check(self) -> None:
        """Check every account (`Account.check`)."""
        for account in self.accounts.values():
            account.check()

    def __str__(self) -> str:
        """Title, then one line per account and repair that there is something to say of."""
        lines = [self.title, *(f'  {a}' for a in self.accounts.values() if a.came or a.added)]
        lines += [f'  repaired: {reason}: {n}' for reason, n in sorted(self.repairs.items()) if n]
        return '\n'.join(lines)

    def as_dict(self) -> dict:
        """The ledger as JSON values."""
        return {**{k: a.as_dict() for k, a in self.accounts.items()}, 'repaired': dict(self.repairs)}


def clip_box(box: Iterable[float], width: int, height: int) -> tuple[list[float], bool]:
    """Clip a box [x, y, w, h] in px to its image.

    Returns:
        The clipped box (its width or height may be 0) and whether it reached outside.
    """
    x, y, w, h = box
    x1, y1 = min(max(x, 0), width), min(max(y, 0), height)
    x2, y2 = min(max(x + w, 0), width), min(max(y + h, 0), height)
    clipped = [x1, y1, x2 - x1, y2 - y1]
    return clipped, clipped != [x, y, w, h]


def place(source: Path, target: Path) -> None:
    """Put a file at `target`: a hard link where the file system allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if target.samefile(source):
            return
        target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


# ------------------------------------------------------------------------------------------- decoding


class Room:
    """Bytes that threads share; whoever asks for more than there is at all gets it when all are back."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until so many bytes are free."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= min(size, self._size))
            self._free -= size

    def give(self, size: int) -> None:
        """Give them back."""
        with self._changed:
            self._free += size
            self._changed.notify_all()


def measure(paths: dict[str, Path]) -> dict[str, tuple[int, int, int] | ImagingError]:
    """Decode images once, so that a damaged one is found now and not in the first epoch.

    Args:
        paths: by name.

    Returns:
        Height and width in px and number of frames of each image, or what is wrong with it.
    """
    room = Room(MAX_FRAME_BYTES)

    def look(name: str) -> tuple[int, int, int] | ImagingError:
        taken = 0

        def admit(size: int) -> None:
            nonlocal taken
            room.take(size)
            taken = size

        if not is_printable(name):
            return ImagingError('expected a file name of one line in UTF-8; rename it')
        try:
            radiograph = read(paths[name], frame=0, admit=admit)
        except ImagingError as error:
            return error
        finally:
            room.give(taken)
        return *radiograph.pixels.shape, radiograph.meta['frames']

    large = [name for name, path in paths.items() if path.stat().st_size >= LARGE_FILE]
    small = [name for name in paths if name not in set(large)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(small, pool.map(look, small)))
    return found | {name: look(name) for name in large}


# ------------------------------------------------------------------------------------ labelling tools


def convert(
    kind: str,
    src: Path,
    out: Path,
    severity: Path | None = None,
    group: str | None = None,
    tile: int | None = None,
    overlap: int = 0,
) -> Ledger:
    """Write the annotations of a labelling tool as `out/{train,val,test}.json`, with their images.

    Annotated images go to `out/images`, images without an annotation to `out/unlabeled` (an image counts as
    free of defects only where an annotation file without objects says so). Every file that is damaged or not
    understood is named in `out/quarantine.txt`, with its reason. Images keep their own format.

    Args:
        kind: 'voc', 'yolo', 'labelme' or 'coco'; see `label_formats`.
        src: folder with images and annotations.
        out: folder to write; its `images` and `unlabeled` must be empty.
        severity: YAML file `type: critical` or `type: minor`. A type that it lacks stops the conversion.
            It is copied to `out/severity.yaml`; the annotations keep their types.
        group: regular expression, searched in the image's path relative to `src`. Images of one match (of
            its first group, if it has one) are one part, which they carry as `part`, and stay in one split.
            Without it no part is known: images are divided one by one, and carry no `part`.
        tile: cut annotated images into squares of this many px.
        overlap: px that neighbouring tiles share; the largest flaw should fit into it.

    Returns:
        The ledger.

    Raises:
        UsageError: a wrong argument.
        ConvertError: types without severity, or data that cannot be divided into three splits.
    """
    _check_arguments(src, out, group, tile, overlap)
    levels = read_severity(severity) if severity else {}
    try:
        images, found = READERS[kind](src)
    except FormatError as error:
        raise ConvertError(f'{src}: expected {error}') from None
    except ImagingError as error:
        raise ConvertError(str(error)) from None
    if not found.files:
        raise UsageError(
            f'{src}: expected {kind} annotations below it, found none; check the folder and format'
        )

    ledger = Ledger(f'{kind} annotations')
    for name in ('images', 'boxes', 'annotation files', 'frames beyond the first', 'other files'):
        ledger.accounts[name] = Account(name)
    sizes = measure(images.paths)
    labelled = _load(found, images, sizes, ledger)
    types = {box['category'] for image in labelled.values() for box in image['boxes']}
    missing = sorted(types - set(levels)) if severity else []
    if missing:
        raise ConvertError(
            f'{severity}: expected a severity for every type, {", ".join(missing)} have none; add them'
        )

    parts = {name: _part(name, group) for name in images.paths}
    features: dict[str, Counter] = defaultdict(Counter)
    for name, image in labelled.items():
        kinds = [levels.get(box['category'], box['category']) for box in image['boxes']]
        if group is not None:
            image['part'] = parts[name]
        features[parts[name]].update(['images', *(f'images with {k}' for k in set(kinds)), *kinds])
    splits = split_groups(features)

    written: dict[str, list[dict]] = {split: [] for split in ('train', 'val', 'test')}
    for account in (ledger['images'], ledger['boxes']):
        account.went.update(dict.fromkeys(written, 0))  # in this order
    for name, image in labelled.items():
        split = splits[parts[name]]
        if tile:
            pieces = _cut(name, image, images.paths[name], out / 'images', tile, overlap, ledger)
        else:
            place(images.paths[name].resolve(), out / 'images' / name)
            pieces = [image]
        written[split] += pieces
        ledger['images'].went[split] += len(pieces)
        ledger['boxes'].went[split] += sum(len(piece['boxes']) for piece in pieces)
    unlabelled = _place_unlabeled(images, found, labelled, sizes, parts, splits, out, ledger)
    _count_frames([*labelled, *unlabelled], sizes, ledger['frames beyond the first'])
    _count_others(images, found, ledger['other files'])
    ledger.check()

    categories = list(levels) if severity else sorted(types)
    info = dict(
        description=f'Converted from {kind}',
        converter=f'tools/convert_dataset.py {kind}',
        group=group,
        tile=tile,
        overlap=overlap,
        ledger=ledger.as_dict(),
    )
    for split, rows in written.items():
        write_coco(out / f'{split}.json', rows, categories, info)
    if severity:
        shutil.copyfile(severity, out / 'severity.yaml')
    put_aside = [printable(f'{name}: {reason}') for name, reason in sorted(found.quarantine.items())]
    (out / 'quarantine.txt').write_text(''.join(f'{line}\n' for line in put_aside), encoding='utf-8')
    return ledger


def _check_arguments(src: Path, out: Path, group: str | None, tile: int | None, overlap: int) -> None:
    if not src.is_dir():
        raise UsageError(f'{src}: expected a folder with images and annotations; check SRC')
    if out.resolve().is_relative_to(src.resolve()):
        raise UsageError(f'{out}: expected a folder outside of the source {src}; choose another OUT')
    for folder in (out / 'images', out / 'unlabeled'):
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f'{folder}: expected no images of an earlier conversion; delete it or choose another OUT'
            )
    try:
        re.compile(group or '')
    except re.error as error:
        raise UsageError(
            f'--group {group}: expected a regular expression ({error}); quote it for the shell'
        ) from None
    if tile is None and overlap:
        raise UsageError(f'--overlap {overlap}: expected --tile with it; add --tile N')
    if tile is not None and not (tile >= MIN_TILE and 0 <= overlap < tile):
        raise UsageError(
            f'--tile {tile} --overlap {overlap}: expected a tile of {MIN_TILE} px or more and an overlap '
            'from 0 to below it; choose other numbers'
        )


def read_severity(path: Path) -> dict[str, str]:
    """Severity of every type, from a YAML file with lines `type: critical` and `type: minor`.

    Raises:
        UsageError: another content, or no file.
    """
    try:
        value = parse_yaml(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f'{path}: expected a YAML file of severities ({error.strerror}); check --severity'
        ) from None
    except FormatError:
        value = None
    good = isinstance(value, dict) and value
    if not good or not all(
        isinstance(k, str) and isinstance(v, str) and v in CLASSES for k, v in value.items()
    ):
        raise UsageError(f'{path}: expected YAML lines `type: critical` or `type: minor`; correct it')
    return value


def _load(found: Source, images: Images, sizes: dict, ledger: Ledger) -> dict[str, dict]:
    """Check the objects of every annotated image; COCO fields by image name."""
    boxes = ledger['boxes']
    boxes.came = found.lost
    boxes.left['annotation in quarantine'] = found.lost
    ledger.repairs['image found by name alone'] = found.by_name
    labelled = {}
    for name, entry in found.entries.items():
        boxes.came += entry.count
        try:
            if isinstance(sizes[name], ImagingError):
                raise FormatError(f'a readable image ({sizes[name]})')
            height, width, _ = sizes[name]
            if entry.size not in (None, (width, height)):
                # Boxes of a scaled copy would land elsewhere.
                raise FormatError(
                    f'an image of {entry.size[0]} x {entry.size[1]} px as annotated, found {width} x {height}'
                )
            if entry.count > MAX_OBJECTS:
                raise FormatError(f'at most {MAX_OBJECTS} objects, found {entry.count}')
            objects = entry.objects(name, height, width)
        except FormatError as error:
            found.quarantine[name] = f'expected {error}'
            found.aside.add(entry.source)
            found.blocked.add(name)
            boxes.left['image or annotation in quarantine'] += entry.count
            continue
        kept = [box for item in objects if (box := _box(item, height, width, ledger))]
        labelled[name] = dict(file_name=name, width=width, height=height, boxes=kept)
    if not labelled:
        first = next(iter(f'{k}: {v}' for k, v in found.quarantine.items()), 'nothing was found')
        raise ConvertError(
            f'{images.src}: expected annotated images, all are in quarantine; the first is {printable(first)}'
        )
    used = {found.entries[name].source for name in labelled}
    files = ledger['annotation files']
    files.came, files.went['used'] = len(found.files), len(used)
    files.left['in quarantine'] = len(found.aside - used)
    return labelled


def _box(item: dict, height: int, width: int, ledger: Ledger) -> dict | None:
    """An object as `write_coco` takes it; None, and counted, if nothing of it lies in the image."""
    x1, y1, x2, y2 = item['corners']
    if x1 > x2 or y1 > y2:
        ledger.repairs['corners swapped'] += 1
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    if x1 == x2 or y1 == y2:
        ledger['boxes'].left['no area'] += 1
        return None
    (x, y, w, h), was = clip_box([x1, y1, x2 - x1, y2 - y1], width, height)
    if w <= 0 or h <= 0:
        ledger['boxes'].left['outside of the image'] += 1
        return None
    ledger.repairs['box clipped to its image'] += was
    box = dict(category=item['type'], bbox=[round(v, 3) for v in (x, y, w, h)])
    if was:
        box['clipped_from'] = [x1, y1, x2 - x1, y2 - y1]
    if item.get('ignore'):
        ledger.repairs['object marked difficult or to be ignored kept as iscrowd'] += 1
        box['iscrowd'] = 1
    return box | {key: item[key] for key in ('segmentation', 'iscrowd') if key in item}


def _part(name: str, group: str | None) -> str:
    """The physical part of an image."""
    if group is None:
        return name
    match = re.search(group, name)
    found = match and (match.group(1) if match.re.groups else match.group())
    if not found:
        raise ConvertError(f'{printable(name)}: expected a match of --group {group!r}; widen the expression')
    return found


def split_groups(features: dict[str, Counter], seed: int = 0) -> dict[str, str]:
    """Divide groups into train, val and test so that every feature is shared out by `SHARES`.

    Largest groups first, each to the split that lacks most of what it holds; no split stays empty.

    Args:
        features: per group, how much it holds of each feature (images, boxes of a class, …).
        seed: of the order among equal groups.

    Returns:
        Split of each group.

    Raises:
        ConvertError: fewer than three groups.
    """
    if len(features) < len(SHARES):
        raise ConvertError(
            f'--group: expected at least {len(SHARES)} parts for {", ".join(SHARES)}, found {len(features)}; '
            'choose an expression that divides the images further'
        )
    total: Counter = sum(features.values(), Counter())
    order = sorted(features)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda g: -sum(n / total[f] for f, n in features[g].items()))
    lacks = {split: {f: share for f in total} for split, share in SHARES.items()}
    splits: dict[str, str] = {}
    for k, name in enumerate(order):
        empty = [split for split in SHARES if split not in splits.values()]
        choice = empty if len(empty) == len(order) - k else list(SHARES)
        held = {f: n / total[f] for f, n in features[name].items()}
        best = max(choice, key=lambda split: sum(n * lacks[split][f] for f, n in held.items()))
        splits[name] = best
        for f, n in held.items():
            lacks[best][f] -= n
    return splits


def _place_unlabeled(
    images: Images,
    found: Source,
    labelled: dict[str, dict],
    sizes: dict,
    parts: dict[str, str],
    splits: dict[str, str],
    out: Path,
    ledger: Ledger,
) -> list[str]:
    """Place the images without annotation, but for views of parts in val or test; return their names."""
    account, placed = ledger['images'], []
    account.came = len(images.paths)
    for name, path in images.paths.items():
        if name in labelled:
            continue
        if isinstance(sizes[name], ImagingError) and name not in found.quarantine:
            found.quarantine[name] = f'expected a readable image ({sizes[name]})'
        if name in found.blocked or name in found.quarantine:
            account.left['image or annotation in quarantine'] += 1
        elif name in found.doubtful:
            account.left[
                f'perhaps annotated in {printable(found.damaged[0])}, which is in quarantine: correct it, or '
                'move it away if it is no annotation'
            ] += 1
        elif splits.get(parts[name], 'train') != 'train':
            account.left['not annotated, its part is in val or test'] += 1
        else:
            place(path.resolve(), out / 'unlabeled' / name)
            account.went['unlabeled'] += 1
            placed.append(name)
    return placed


def _count_frames(names: list[str], sizes: dict, account: Account) -> None:
    """Frames of the images that were taken, but for the first of each."""
    for name in names:
        account.came += sizes[name][2] - 1
        account.left['not read'] += sizes[name][2] - 1


def _count_others(images: Images, found: Source, account: Account) -> None:
    """Files that are neither radiographs nor annotations nor read beside them, by suffix."""
    account.came = images.hidden + len(images.others) - len({*found.files, *found.used})
    account.left['hidden'] = images.hidden
    for name in images.others.keys() - {*found.files, *found.used}:
        account.left[printable(PurePosixPath(name).suffix.lower()) or 'no suffix'] += 1


# -------------------------------------------------------------------------------------------- tiling


def tile_origins(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along one side, in px: every `tile - overlap`, the last moved back to end with it."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def _cut(
    name: str, image: dict, path: Path, folder: Path, tile: int, overlap: int, ledger: Ledger
) -> list[dict]:
    """Cut one annotated image into tiles, write them, and return their COCO fields.

    A box is kept in each tile that holds at least half as much of it as the best tile does: so a flaw that
    is whole in one tile is not also learnt from a sliver next door, and one longer than a tile is kept.
    Slivers stay as regions to ignore (iscrowd), or the tile would teach that there is nothing.
    """
    radiograph = read(path, frame=0)
    height, width, boxes = image['height'], image['width'], image['boxes']
    origins = [
        (x, y) for y in tile_origins(height, tile, overlap) for x in tile_origins(width, tile, overlap)
    ]
    pieces: dict[tuple[int, int], list[dict]] = {origin: [] for origin in origins}
    for box in boxes:
        bx, by, bw, bh = box['bbox']
        clipped = [clip_box([bx - x, by - y, bw, bh], tile, tile) for x, y in origins]
        areas = [b[2] * b[3] for b, _ in clipped]
        keep = [k for k, area in enumerate(areas) if area > 0]
        mask = _mask(box['segmentation'], height, width) if 'segmentation' in box else None
        for k in keep:
            piece = dict(box, bbox=[round(v, 3) for v in clipped[k][0]])
            piece.pop('clipped_from', None)  # in px of the whole image
            if areas[k] < max(areas) / 2:
                piece['iscrowd'] = 1
                ledger.repairs['sliver of a box in a tile kept as iscrowd'] += 1
            else:
                ledger.repairs["box cut by a tile's border"] += clipped[k][1]
            if mask is not None:
                (x, y) = origins[k]
                part = mask[y : y + tile, x : x + tile]
                del piece['segmentation']
                if part.any():
                    piece['segmentation'] = encode_rle(part)
            pieces[origins[k]].append(piece)
        ledger['boxes'].added['in further tiles'] += len(keep) - 1
    ledger['images'].added['further tiles'] += len(origins) - 1
    container = 8 * radiograph.pixels.dtype.itemsize
    if radiograph.pixels.dtype.kind in 'iu' and radiograph.bits < container:
        ledger.repairs[f'{radiograph.bits}-bit image whose tiles need an absolute window'] += 1
    result = []
    for (x, y), kept in pieces.items():
        pixels = radiograph.pixels[y : y + tile, x : x + tile]
        # The whole name: a.tif and a.png beside each other stay apart.
        file_name = write_tile(folder, f'{name}_x{x:05d}_y{y:05d}', pixels, radiograph)
        size = dict(width=pixels.shape[1], height=pixels.shape[0])
        result.append(dict(image, file_name=file_name, **size, boxes=kept))
    return result


def _mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Boolean mask (H, W) of polygons or uncompressed RLE."""
    if isinstance(segmentation, dict):
        return decode_rle(segmentation)
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        mask |= fill_polygon(np.reshape(polygon, (-1, 2)), height, width)
    return mask


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boolean mask (H, W) of the pixels whose centres lie in a polygon (N, 2) of x, y (even-odd rule).

    OpenCV and Pillow also paint the outline, which makes a flaw of 16 px a fifth larger.
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
    """Write one tile without loss: PNG where it can hold it, else TIFF. Returns its file name."""
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


# ------------------------------------------------------------------------------------------- writing


def write_coco(path: Path, images: list[dict], categories: list[str], info: dict) -> None:
    """Write one split as COCO JSON.

    Args:
        path: file to write.
        images: per image its COCO fields without id, and `boxes`: a list of dicts with `bbox` [x, y, w, h]
            in px, `category` (a name) and further annotation fields.
        categories: names; ids follow from 1.
        info: COCO `info`.

    A box that was clipped to its image keeps what was drawn as `clipped_from`, for tools/check_dataset.py.
    """
    ids = {name: k for k, name in enumerate(categories, 1)}
    coco: dict = dict(info=info, images=[], annotations=[])
    coco['categories'] = [dict(id=k, name=name) for name, k in ids.items()]
    for image_id, image in enumerate(images, 1):
        coco['images'].append(dict(id=image_id, **{k: v for k, v in image.items() if k != 'boxes'}))
        for box in image['boxes']:
            extra = {k: v for k, v in box.items() if k != 'category'}
            area = round(_area(box), 4)
            annotation = dict(
                id=len(coco['annotations']) + 1,
                image_id=image_id,
                category_id=ids[box['category']],
                **dict(area=area, iscrowd=0) | extra,
            )
            coco['annotations'].append(annotation)
    text = json.dumps(coco)
    try:
        check_json_size(text.encode())
    except FormatError as error:
        raise ConvertError(
            f'{path}: expected {error}, which is all that is read again; convert fewer images at once'
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _area(box: dict) -> float:
    """Area in px of an object: of its mask or polygons, as COCO has it, else of its box."""
    whole = box['bbox'][2] * box['bbox'][3]
    segmentation = box.get('segmentation')
    if isinstance(segmentation, dict):
        return sum(segmentation['counts'][1::2])
    if not segmentation:
        return whole
    area = 0.0
    for polygon in segmentation:
        x, y = np.reshape(polygon, (-1, 2)).T
        area += abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2  # Gauss's formula
    # Of a polygon that reaches out of its image no more than the box counts, which was clipped.
    return min(float(area), whole) or whole
