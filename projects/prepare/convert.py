"""Conversion of the annotations of a labelling tool to COCO files, with an account of every image and box."""

import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from projects.prepare.labels.images import MAX_OBJECTS, Entry, Images, Source
from projects.prepare.labels.readers import READERS
from projects.radiograph.image import ImagingError
from projects.radiograph.parts import PartError, of_several_folders, part_of
from projects.radiograph.safe_parse import FormatError, printable
from projects.xray.classes import CLASSES
from projects.xray.errors import DatasetError
from projects.xray.severity import read_severity_file

from .decode import measure
from .ledger import ConvertError, Counts, Ledger, UsageError
from .split import SHARES, guess_views, one_spelling, split_groups
from .tile import MIN_TILE, cut
from .write import clip_box, place, write_coco

SPLITS = ('train', 'val', 'test')
CROWD = 'crowd boxes, neither learnt nor counted'
COUNTED = ('images', 'boxes', CROWD, 'annotation files', 'frames beyond the first', 'other files')
"""Names of the counts, in the order of the printed ledger."""

Sizes = dict[str, tuple[int, int, int] | ImagingError]


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

    Annotated images go to `out/images`, images without an annotation to `out/unlabeled`. An image counts as
    defect-free only if an annotation file without objects names it. `out/quarantine.txt` names every file
    that is damaged or not understood, with the reason. If these are the majority, nothing is written. Images
    keep their format. A folder `images` at the top of `src` is left out of their names.

    Args:
        kind: 'voc', 'yolo', 'labelme' or 'coco'; see `labels`.
        src: folder with images and annotations.
        out: folder to write; its `images` and `unlabeled` must be empty.
        severity: YAML file `type: critical` or `type: minor`. A missing type stops the conversion. The file
            is copied to `out/severity.yaml`; the annotations keep their types.
        group: regular expression, searched in the image's path relative to `src`. The match, or its first
            group if it has one, names the part. Images carry it as `part`, and a part stays in one split.
            Without it parts are unknown: images are divided one by one, and carry no `part`.
        tile: cut annotated images into squares of this many px.
        overlap: px that neighbouring tiles share; the largest flaw should fit into it.

    Returns:
        The ledger.

    Raises:
        UsageError: a wrong argument.
        ConvertError: types without severity, or data that cannot be divided into three splits.
    """
    _check_arguments(src, out, group, tile, overlap)
    levels = _read_severity(severity)
    images, found = _read_labels(kind, src)
    ledger = Ledger(f'{kind} annotations', {name: Counts(name) for name in COUNTED}, notes=found.notes)
    sizes = measure(images.paths)
    labelled = _load(found, images, sizes, ledger)
    types = _check_types(labelled, levels, severity)
    parts, respelt = _parts(images, group)
    splits = _split(labelled, parts, levels, found)

    names = _short_names(images.paths)
    written: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for name, image in labelled.items():
        image['file_name'] = names[name]
        if group is not None:
            image['part'] = parts[name]
        if tile:
            pieces = cut(image, images.paths[name], out / 'images', tile, overlap, ledger)
        else:
            place(images.paths[name].resolve(), out / 'images' / names[name])
            pieces = [image]
        written[splits[parts[name]]] += pieces
    _count_written(written, ledger)
    unlabelled = _choose_unlabelled(images, found, labelled, sizes, parts, splits, ledger)
    for name in unlabelled:
        place(images.paths[name].resolve(), out / 'unlabeled' / names[name])
    _count_frames([*labelled, *unlabelled], sizes, ledger['frames beyond the first'])
    _count_others(images, found, ledger['other files'])
    ledger.check()
    info = dict(
        description=f'Converted from {kind}',
        converter=f'tools/convert_dataset.py {kind}',
        group=group,
        tile=tile,
        overlap=overlap,
        ledger=ledger.as_dict(),
    )
    for split, rows in written.items():
        ledger.notes += write_coco(out / f'{split}.json', rows, levels if severity else sorted(types), info)
    if severity:
        shutil.copyfile(severity, out / 'severity.yaml')
    _write_quarantine(out / 'quarantine.txt', found)
    shared = group and of_several_folders({names.get(name, name): part for name, part in parts.items()})
    ledger.notes += filter(None, [_say_no_group(images.paths) if group is None else shared, respelt])
    return ledger


def _write_quarantine(path: Path, found: Source) -> None:
    """Write the quarantined files, one line each with the reason."""
    lines = [printable(f'{name}: {reason}') for name, reason in sorted(found.quarantine.items())]
    path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')


# ---------------------------------------------------------------------------------------------- arguments


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


def _read_severity(path: Path | None) -> dict[str, str]:
    try:
        return read_severity_file(path, CLASSES) if path else {}
    except DatasetError as error:
        raise UsageError(str(error)) from None


def _read_labels(kind: str, src: Path) -> tuple[Images, Source]:
    """Read a folder with the reader of a format."""
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
    return images, found


# ------------------------------------------------------------------------------------------------ objects


def _load(found: Source, images: Images, sizes: Sizes, ledger: Ledger) -> dict[str, dict]:
    """Check the objects of every annotated image; return COCO fields by image name."""
    boxes = ledger['boxes']
    ledger.repairs['image found by name alone'] = found.by_name
    labelled = {}
    for name, entry in found.entries.items():
        boxes.came += entry.count
        further = found.further.get(name, [])
        try:
            objects = _objects(entry, name, sizes[name])
            for other in further:
                if _comparable(_objects(other, name, sizes[name])) != _comparable(objects):
                    raise FormatError(
                        f'one annotation per image, found different ones in {entry.source} and '
                        f'{other.source}; keep the right one, or merge them'
                    )
        except FormatError as error:
            found.quarantine[name] = f'expected {error}'
            found.aside.update(e.source for e in (entry, *further))
            found.blocked.add(name)
            boxes.came += sum(other.count for other in further)
            boxes.left['image or annotation in quarantine'] += sum(e.count for e in (entry, *further))
            continue
        for other in further:
            reason = f'one annotation per image, found a second one, equal to that in {entry.source}'
            found.put_aside(other.source, reason, name, other.count)
            found.repeated += 1
        height, width, _ = sizes[name]
        kept = [box for item in objects if (box := _box(item, height, width, ledger))]
        labelled[name] = dict(width=width, height=height, boxes=kept)
    boxes.came += found.lost
    boxes.left['annotation in quarantine'] = found.lost
    _check_share(found, images, labelled)
    used = {found.entries[name].source for name in labelled}
    files = ledger['annotation files']
    files.came, files.went['used'] = len(found.files), len(used)
    files.left['in quarantine'] = len(found.aside - used)
    return labelled


def _objects(entry: Entry, name: str, size: tuple[int, int, int] | ImagingError) -> list[dict]:
    """Return the objects of one annotation of an image.

    Raises:
        FormatError: the image is damaged, is not the annotated image, or the objects are not valid.
    """
    if isinstance(size, ImagingError):
        raise FormatError(f'a readable image ({size})')
    height, width, _ = size
    if entry.size not in (None, (width, height)):
        # Boxes drawn on a scaled copy would be in the wrong place.
        raise FormatError(
            f'an image of {entry.size[0]} x {entry.size[1]} px as annotated, found {width} x {height}'
        )
    if entry.count > MAX_OBJECTS:
        raise FormatError(f'at most {MAX_OBJECTS} objects, found {entry.count}')
    return entry.objects(name, height, width)


def _comparable(objects: list[dict]) -> list[tuple]:
    """Return objects in a form that is equal for equal annotations."""
    rows = [
        (o['type'], tuple(round(v, 2) for v in o['corners']), bool(o.get('iscrowd')), bool(o.get('ignore')))
        for o in objects
    ]
    return sorted(rows)


def _check_share(found: Source, images: Images, labelled: dict[str, dict]) -> None:
    """Raise ConvertError unless most annotations are usable and hold objects to learn."""
    refused = len(found.quarantine) - found.repeated
    if not labelled:
        first = next(iter(f'{k}: {v}' for k, v in found.quarantine.items()), 'nothing was found')
        raise ConvertError(
            f'{images.src}: expected annotated images, all are in quarantine; the first is {printable(first)}'
        )
    if refused > len(labelled):
        name, reason, count = _most_frequent(found.quarantine)
        raise ConvertError(
            f'{images.src}: expected annotations of which most can be used, {refused} of '
            f'{refused + len(labelled)} cannot, so that nothing is written; the most frequent reason '
            f'({count} times) is that of {printable(f"{name}: {reason}")}'
        )
    boxes = [box for image in labelled.values() for box in image['boxes']]
    if boxes and all(box.get('iscrowd') for box in boxes):
        raise ConvertError(
            f'{images.src}: expected objects to learn, all {len(boxes)} are crowd or marked difficult, which '
            'is neither learnt nor counted; set iscrowd to 0 where it is one object'
        )


def _most_frequent(quarantine: dict[str, str]) -> tuple[str, str, int]:
    """Return name and reason of the first case of the most frequent kind of reason, and its count."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name, reason in quarantine.items():
        kinds[re.sub(r"'[^']*'|\d+|\S*/\S*", '', reason)].append(name)
    names = max(kinds.values(), key=len)
    return names[0], quarantine[names[0]], len(names)


def _box(item: dict, height: int, width: int, ledger: Ledger) -> dict | None:
    """Return an object for `write_coco`; None, with a count, if the object lies outside the image."""
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
    ledger.repairs.update(item.get('repairs', ()))
    box = dict(category=item['type'], bbox=[round(v, 3) for v in (x, y, w, h)])
    if was:
        box['clipped_from'] = [x1, y1, x2 - x1, y2 - y1]
    if item.get('ignore'):
        ledger.repairs['object marked difficult or to be ignored kept as iscrowd'] += 1
        # `ignore` is kept too, so that a later conversion of this file does not take the mask for CVAT's.
        box |= dict(iscrowd=1, ignore=1)
    return box | {key: item[key] for key in ('segmentation', 'iscrowd') if key in item}


def _check_types(labelled: dict[str, dict], levels: dict[str, str], severity: Path | None) -> set[str]:
    """Return the types of all objects; raise ConvertError if the severity map lacks one."""
    types = {box['category'] for image in labelled.values() for box in image['boxes']}
    missing = sorted(types - set(levels)) if severity else []
    if missing:
        without = printable(', '.join(missing))
        raise ConvertError(
            f'{severity}: expected a severity for every type, found none for {without}; add a line such as '
            f'`{printable(missing[0])}: critical` for each'
        )
    return types


# ----------------------------------------------------------------------------------------- parts and splits


def _part(name: str, group: str | None) -> str:
    """Return the part of an image; without known parts, the image itself."""
    try:
        return name if group is None else part_of(name, group)
    except PartError:
        raise ConvertError(
            f'{printable(name)}: expected a match of --group {group!r}; widen the expression'
        ) from None


def _parts(images: Images, group: str | None) -> tuple[dict[str, str], str | None]:
    """Return the part of each image, and a note on their spelling."""
    parts = {name: _part(name, group) for name in images.paths}
    return (parts, None) if group is None else one_spelling(parts)


def _split(
    labelled: dict[str, dict], parts: dict[str, str], levels: dict[str, str], found: Source
) -> dict[str, str]:
    """Return the split of each part with an annotated image."""
    features: dict[str, Counter] = defaultdict(Counter)
    for name, image in labelled.items():
        learnt = [box['category'] for box in image['boxes'] if not box.get('iscrowd')]
        kinds = [levels.get(category, category) for category in learnt]
        features[parts[name]].update(['images', *(f'images with {k}' for k in set(kinds)), *kinds])
    put_aside = len(found.quarantine) - found.repeated
    if len(features) < len(SHARES) and put_aside:
        name, reason, _ = _most_frequent(found.quarantine)
        raise ConvertError(
            f'{printable(f"{name}: {reason}")}; with {put_aside} in quarantine, {len(features)} of the '
            f'{len(SHARES)} parts that {", ".join(SHARES)} need are left'
        )
    return split_groups(features)


def _short_names(paths: dict[str, Path]) -> dict[str, str]:
    """Return names without a leading folder `images`; unchanged if two names would become equal."""
    short = {name: name.removeprefix('images/') for name in paths}
    return short if len(set(short.values())) == len(short) else {name: name for name in paths}


def _say_no_group(names: dict[str, Path]) -> str:
    """Return a note on a conversion without --group, with a guess of a suitable expression."""
    text = (
        'no --group: parts not known, so no escape rate can be proven; views of one part may be in both '
        'train and test'
    )
    views = guess_views(names)
    if views is None:
        return text
    return (
        f'{text}. {views.images} of {len(names)} file names look like views of one part (such as '
        f'{printable(", ".join(views.example[:3]))}), {views.parts} parts in all: if they are, convert again '
        f"with --group '{views.group}'"
    )


# -------------------------------------------------------------------------------------------------- ledger


def _count_written(written: dict[str, list[dict]], ledger: Ledger) -> None:
    """Count images and boxes of each split; crowd is counted once more, by itself."""
    for counts in (ledger['images'], ledger['boxes'], ledger[CROWD]):
        counts.went.update(dict.fromkeys(written, 0))  # in this order
    for split, pieces in written.items():
        boxes = [box for piece in pieces for box in piece['boxes']]
        crowd = sum(bool(box.get('iscrowd')) for box in boxes)
        ledger['images'].went[split] += len(pieces)
        ledger['boxes'].went[split] += len(boxes)
        ledger[CROWD].went[split] += crowd
        ledger[CROWD].came += crowd


def _choose_unlabelled(
    images: Images,
    found: Source,
    labelled: dict[str, dict],
    sizes: Sizes,
    parts: dict[str, str],
    splits: dict[str, str],
    ledger: Ledger,
) -> list[str]:
    """Return the images without annotation for pretraining, except views of parts in val or test."""
    counts, placed = ledger['images'], []
    counts.came = len(images.paths)
    for name in images.paths:
        if name in labelled:
            continue
        if isinstance(sizes[name], ImagingError) and name not in found.quarantine:
            found.quarantine[name] = f'expected a readable image ({sizes[name]})'
        if name in found.blocked or name in found.quarantine:
            counts.left['image or annotation in quarantine'] += 1
        elif name in found.doubtful:
            counts.left[
                f'perhaps annotated in {printable(found.damaged[0])}, which is in quarantine: correct it, or '
                'move it away if it is no annotation'
            ] += 1
        elif splits.get(parts[name], 'train') != 'train':
            counts.left['not annotated, its part is in val or test'] += 1
        else:
            counts.went['unlabeled'] += 1
            placed.append(name)
    return placed


def _count_frames(names: list[str], sizes: Sizes, counts: Counts) -> None:
    """Count the frames of the converted images except the first."""
    for name in names:
        counts.came += sizes[name][2] - 1
        counts.left['not read'] += sizes[name][2] - 1


def _count_others(images: Images, found: Source, counts: Counts) -> None:
    """Count, by suffix, the files that are no radiographs, no annotations and not read with them."""
    counts.came = images.hidden + len(images.others) - len({*found.files, *found.used})
    counts.left['hidden'] = images.hidden
    for name in images.others.keys() - {*found.files, *found.used}:
        counts.left[printable(PurePosixPath(name).suffix.lower()) or 'no suffix'] += 1
