"""GDXray castings: reading its annotations, and the two protocols that split it.

The set (Mery et al., J. Nondestruct. Eval. 34(4), 2015) has 67 series of 2,727 8-bit radiographs of wheels
and steering knuckles; 33 series hold the 856 annotated images with 2,869 boxes. It is for research and
education only and may not be redistributed.

Protocol A is a published list (Ferguson et al., 2018). It is random by frame, so nearly every test frame has
a neighbour 5 degrees away in train. It is for comparison with the literature.

Protocol B holds out whole regions of parts. Series were grouped by eye and by correlation of all pairs of
frames. A group shows one region of one part, taken at several speeds, distances or angles, and often the same
flaws. Groups are never divided. They are region groups (`region` of an image, named after its first series),
not physical parts. Physical parts were not recorded, so images carry no `part`.

    split  part     region                                         series
    test   wheel    spokes with square pockets                     C0011-C0015, C0031-C0033
           wheel    stud, seen from the side                       C0030
           wheel    bolt hole, seen from the side                  C0043
           knuckle  end of the arm                                 C0062, C0065-C0067 (C0066 copies C0065)
    val    wheel    rim edge                                       C0007, C0019, C0020, C0026
           wheel    rim barrel                                     C0016, C0017, C0022, C0024, C0029, C0036
           knuckle  inside                                         C0060
    train  wheel    whole (C0001), crops of it (C0002), close-ups  C0001, C0002, C0044-C0051
           wheel    a spoke                                        C0003-C0006, C0041, C0042
           wheel    bolt holes between thin spokes                 C0008, C0009, C0037-C0040
           wheel    hub                                            C0010, C0034, C0035
           wheel    thin spokes                                    C0021
           knuckle  arm                                            C0054, C0057
           knuckle  block with drilled holes                       C0055, C0056
           all other series, without annotations

    train 571 images, 2,397 boxes; val 119 images, 156 boxes; test 166 images, 316 boxes

C0055 holds 1,213 boxes, 42 % of all, in 28 frames: drilled holes in a regular pattern, unlike any flaw.
It is in train, so that it affects neither the choice of the best epoch nor the test result.
"""

import random
from collections import defaultdict
from pathlib import Path

from projects.radiograph.image import ImagingError
from projects.xray.classes import GDXRAY_CLASSES

from .decode import measure
from .ledger import ConvertError, Ledger, UsageError
from .write import clip_box, place, write_coco


def _series(text: str) -> tuple[str, ...]:
    """('C0011', 'C0012', 'C0030') of '11-12 30'."""
    numbers: list[int] = []
    for part in text.split():
        first, _, last = part.partition('-')
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(f'C{n:04d}' for n in numbers)


GROUPS = tuple(
    _series(text)
    for text in (
        '11-15 31-33',
        '30',
        '43',
        '62 65-67',
        '7 19 20 26',
        '16 17 22 24 29 36',
        '60',
        '1 2 44-51',
        '3-6 41 42',
        '8 9 37-40',
        '10 34 35',
        '21',
        '54 57',
        '55 56',
    )
)
"""Series that show the same region of the same part. Every other series is its own group."""
TEST_GROUPS, VAL_GROUPS = GROUPS[:4], GROUPS[4:7]
COPIES = {'C0002': 'C0001', 'C0066': 'C0065'}
"""Series whose images are crops or pixel copies of another series."""
VAL_SHARE = 0.1  # share of protocol A's train list


def find_castings(src: Path) -> Path:
    """Return the folder with C0001 …: `src` itself or its `Castings`.

    Raises:
        UsageError: neither folder holds a series.
    """
    for folder in (src, src / 'Castings'):
        if folder.is_dir() and any(_is_series(p) for p in folder.iterdir()):
            return folder
    raise UsageError(
        f'{src}: expected the folder of GDXray castings (C0001, C0002, …) or the one above it; '
        'unpack Castings.zip and name that folder'
    )


def _is_series(path: Path) -> bool:
    return path.is_dir() and len(path.name) == 5 and path.name[0] == 'C' and path.name[1:].isdigit()


def read_ground_truth(path: Path) -> list[tuple[int, list[float]]]:
    """Return frame number and box [x, y, w, h] in px of every row of a `ground_truth.txt`.

    Rows are `k x1 x2 y1 y2` in MATLAB's pixel indices, from 1 and inclusive (x1 = 1 and x2 = width occur
    where flaws touch the border). Here x = x1 - 1 and w = x2 - x1 + 1, from 0.

    Raises:
        ConvertError: a row that is not five numbers with k >= 1, x1 <= x2 and y1 <= y2.
    """
    rows = []
    for number, line in enumerate(path.read_text('utf-8-sig', errors='replace').splitlines(), 1):
        if not line.strip():
            continue
        try:
            k, x1, x2, y1, y2 = (float(v) for v in line.split())
            if not (
                k >= 1 and k.is_integer() and x1 <= x2 and y1 <= y2 and max(map(abs, (x1, x2, y1, y2))) < 1e6
            ):
                raise ValueError
        except ValueError:
            raise ConvertError(
                f'{path}, line {number}: expected `k x1 x2 y1 y2` with k >= 1, x1 <= x2, y1 <= y2, '
                f'found {line.strip()[:60]!r}; restore the file'
            ) from None
        rows.append((int(k), [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]))
    return rows


def read_list(path: Path, known: set[str]) -> list[str]:
    """Return the image names `C0001/C0001_0007.png` of a protocol A list, with or without `Castings/`.

    Raises:
        UsageError: no such list.
        ConvertError: an image without annotation, or an image named twice.
    """
    try:
        lines = path.read_text(errors='replace').splitlines()
    except OSError as error:
        raise UsageError(
            f'{path}: expected a list of images ({error.strerror}); check --train-list and --test-list'
        ) from None
    names: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = '/'.join(line.strip().replace('\\', '/').split('/')[-2:])
        if name not in known or name in seen:
            found = 'named twice' if name in seen else 'not an annotated image of this set'
            raise ConvertError(
                f'{path}, line {number}: expected one annotated image a line, {name!r} is {found}; '
                'correct the list'
            )
        seen.add(name)
        names.append(name)
    return names


def convert(
    src: Path,
    out: Path,
    train_list: Path | None = None,
    test_list: Path | None = None,
    drop_series: tuple[str, ...] = (),
) -> list[Ledger]:
    """Write GDXray castings as `out/images/Cxxxx/*.png`, `out/b/*` and, with both lists, `out/a/*`.

    Each protocol gets {train,val,test}.json and `unlabeled.txt`, the images for pretraining relative to
    `out/images`. These are all frames, annotated or not, of the series without held-out frames. For B these
    are the series outside the test and val groups. For A these are the series without test frames that are
    not copies of a series with test frames, without their val frames.

    Args:
        src: the folder with C0001 …, or its parent.
        out: folder to write.
        train_list: protocol A's train images; 10 % of them (random frames, seed 0) become val.
        test_list: protocol A's test images.
        drop_series: series to leave out.

    Returns:
        One ledger per protocol.

    Raises:
        UsageError: no castings in `src`, one list without the other, an unknown series.
        ConvertError: a damaged annotation, list or image.
    """
    castings = find_castings(src)
    if out.resolve().is_relative_to(castings.resolve()):
        raise UsageError(f'{out}: expected a folder outside of the source {castings}; choose another OUT')
    if (train_list is None) != (test_list is None):
        raise UsageError('--train-list and --test-list: expected both or none; protocol A needs the two')
    series = sorted(p.name for p in castings.iterdir() if _is_series(p))
    unknown = sorted(set(drop_series) - set(series))
    if unknown:
        raise UsageError(
            f'--drop-series: expected series of {castings}, {", ".join(unknown)} is not one; see its folders'
        )

    paths = {f'{s}/{p.name}': p for s in series for p in sorted((castings / s).glob('*.png'))}
    boxes = _boxes(castings, series, paths)
    lists = None
    if train_list and test_list:
        lists = read_list(train_list, set(boxes)), read_list(test_list, set(boxes))
        both = sorted(set(lists[0]) & set(lists[1]))
        if both:
            raise ConvertError(
                f'{test_list}: expected other images than {train_list}, {both[0]} is in both; correct it'
            )

    kept = [name for name in paths if name.split('/')[0] not in drop_series]
    sizes = measure({name: paths[name] for name in kept})
    images = {name: _image(name, sizes[name], boxes.get(name, [])) for name in kept}
    for name in kept:
        place(paths[name], out / 'images' / name)

    ledgers = [_write(out / 'b', 'B', images, paths, boxes, _protocol_b(images, boxes), drop_series)]
    if lists:
        ledgers.append(_write(out / 'a', 'A', images, paths, boxes, _protocol_a(images, *lists), drop_series))
    return ledgers


def _boxes(castings: Path, series: list[str], paths: dict[str, Path]) -> dict[str, list[list[float]]]:
    """Return the annotated boxes, by image name."""
    boxes: dict[str, list[list[float]]] = defaultdict(list)
    for s in series:
        truth = castings / s / 'ground_truth.txt'
        if not truth.exists():
            continue
        for k, box in read_ground_truth(truth):
            name = f'{s}/{s}_{k:04d}.png'
            if name not in paths:
                raise ConvertError(f'{truth}: expected frame {k} as {name}, it is missing; restore the image')
            boxes[name].append(box)
    if not boxes:
        raise UsageError(
            f'{castings}: expected ground_truth.txt in some series, found none; unpack the whole set'
        )
    return dict(boxes)


def _image(name: str, size: tuple[int, int, int] | ImagingError, boxes: list[list[float]]) -> dict:
    """Return a COCO image with clipped boxes, and the numbers of clipped and empty boxes."""
    if isinstance(size, ImagingError):
        raise ConvertError(str(size))
    height, width, _ = size
    clipped = [clip_box(box, width, height) for box in boxes]
    s = name.split('/')[0]
    region = next((group[0] for group in GROUPS if s in group), s)
    return dict(
        file_name=name,
        width=width,
        height=height,
        region=region,
        series=s,
        boxes=[
            dict(category=GDXRAY_CLASSES[0], bbox=box) | (dict(clipped_from=source) if was else {})
            for source, (box, was) in zip(boxes, clipped)
            if box[2] > 0 and box[3] > 0
        ],
        clipped=sum(was for box, was in clipped if box[2] > 0 and box[3] > 0),
    )


def _protocol_b(images: dict[str, dict], boxes: dict) -> dict[str, list[str]]:
    """Return the image names of train, val, test and unlabeled under protocol B."""
    where = {s: 'test' for group in TEST_GROUPS for s in group} | {
        s: 'val' for group in VAL_GROUPS for s in group
    }
    splits: dict[str, list[str]] = {key: [] for key in ('train', 'val', 'test', 'unlabeled')}
    for name, image in images.items():
        split = where.get(image['series'], 'train')
        if name in boxes:
            splits[split].append(name)
        if split == 'train':
            splits['unlabeled'].append(name)
    return splits


def _protocol_a(images: dict[str, dict], train: list[str], test: list[str]) -> dict[str, list[str]]:
    """Return the image names of train, val, test and unlabeled under protocol A."""
    pool = sorted(train)
    val = set(random.Random(0).sample(pool, round(VAL_SHARE * len(pool))))
    held = {name.split('/')[0] for name in test}
    held |= {copy for copy, original in COPIES.items() if original in held}
    splits = dict(
        train=[name for name in pool if name not in val],
        val=sorted(val),
        test=sorted(test),
        unlabeled=[name for name, image in images.items() if image['series'] not in held and name not in val],
    )
    return {key: [name for name in names if name in images] for key, names in splits.items()}


def _write(
    folder: Path,
    protocol: str,
    images: dict[str, dict],
    paths: dict[str, Path],
    boxes: dict[str, list],
    splits: dict[str, list[str]],
    drop_series: tuple[str, ...],
) -> Ledger:
    """Write the four files of one protocol and return its ledger."""
    ledger = Ledger(f'GDXray castings, protocol {protocol}')
    labelled, rows, rest = (ledger[name] for name in ('annotated images', 'boxes', 'other images'))
    labelled.came, rest.came = len(boxes), len(paths) - len(boxes)
    rows.came = sum(map(len, boxes.values()))
    split_of = {name: split for split in ('train', 'val', 'test') for name in splits[split]}
    unlabeled = set(splits['unlabeled'])
    for name in paths:
        image = images.get(name)
        if name in boxes:
            if name in split_of:
                split, kept = split_of[name], len(image['boxes'])
                labelled.went[split] += 1
                rows.went[split] += kept
                rows.left['outside of the image'] += len(boxes[name]) - kept
                ledger.repairs['box clipped to its image'] += image['clipped']
            else:
                reason = 'in no list' if image else 'series dropped'
                labelled.left[reason] += 1
                rows.left[reason] += len(boxes[name])
        elif name in unlabeled:
            rest.went['unlabeled.txt'] += 1
        else:
            rest.left['series or its copy is in val or test' if image else 'series dropped'] += 1
    ledger.check()
    for split in ('train', 'val', 'test'):
        if not splits[split]:
            raise ConvertError(
                f'protocol {protocol}: expected annotated images for {split}, found none; '
                'unpack the whole set or drop fewer series'
            )
    info = dict(
        description=f'GDXray castings, protocol {protocol}; research and education only, no redistribution',
        converter='tools/convert_dataset.py gdxray',
        dropped_series=sorted(drop_series),
        ledger=ledger.as_dict(),
    )
    for split in ('train', 'val', 'test'):
        coco = [{k: v for k, v in images[name].items() if k != 'clipped'} for name in splits[split]]
        ledger.notes += write_coco(folder / f'{split}.json', coco, list(GDXRAY_CLASSES), info)
    (folder / 'unlabeled.txt').write_text(''.join(f'{name}\n' for name in splits['unlabeled']))
    return ledger
