"""What can be wrong with a data set: its files, its boxes and classes, its window.

Each `check_*` judges what `probing` kept of the images, or the annotations as the file has them, and returns
what it found as `Finding`s. Leaks between splits are in `leaks`, box sizes and anchors in `anchors`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from projects.radiograph.listing import may_be_dicom
from projects.radiograph.parts import recorded_part
from projects.radiograph.remote import join

from .scan import Probes

ERROR, WARNING, NOTE = 'error', 'warning', 'note'
LEVELS = (ERROR, WARNING, NOTE)
TOPICS = ('leaks', 'parts', 'boxes', 'classes', 'files', 'window', 'anchors')

SUFFIXES_OF = {
    'PNG': {'.png'},
    'TIFF': {'.tif', '.tiff'},
    'DICOM': {'.dcm', '.dicom', '.dic'},
    'JPEG': {'.jpg', '.jpeg'},
    'BMP': {'.bmp'},
}


@dataclass
class Finding:
    """One fault.

    Attributes:
        level: 'error' (training on it is wrong), 'warning' (look at it) or 'note' (good to know).
        topic: one of `TOPICS`.
        text: what was found, with its count.
        remedy: what to do about it; may be empty.
        images: the images it concerns, by path, each with a few words of its own.
        pairs: pairs of paths that resemble each other, each with a few words.
    """

    level: str
    topic: str
    text: str
    remedy: str = ''
    images: dict[str, str] = field(default_factory=dict)
    pairs: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class ImageSet:
    """The images of one split, of the pretraining list, or of the image folder beyond them.

    Attributes:
        name: 'train', 'val', 'test', 'pretraining' or 'unlisted'; with a number if there are several.
        source: annotation file, list or folder, for messages.
        folder: image folder or URL.
        names: paths relative to `folder`.
        records: COCO image records in the order of `names`; empty for unlabelled sets.
        annotations: COCO annotations as the file has them; empty for unlabelled sets.
        classes: names of the classes after the severity map; empty for unlabelled sets.
        info: what the file says of its making; empty where it says nothing.
        coco: what `datasets.load_defects` made of the file; None for unlabelled sets or a file it refuses.
        window: argument of `LoadXray`.
        pipeline: transforms as the config has them.
    """

    name: str
    source: str
    folder: str
    names: list[str]
    records: list[dict] = field(default_factory=list)
    annotations: list[dict] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    info: dict = field(default_factory=dict)
    coco: dict | None = None
    window: dict = field(default_factory=lambda: dict(type='full'))
    pipeline: list = field(default_factory=list)

    @property
    def side(self) -> str:
        """The name without the number."""
        return self.name.split()[0]

    @property
    def paths(self) -> list[str]:
        """Full paths or URLs."""
        return [join(self.folder, name) for name in self.names]

    def groups(self, key: str) -> list[str | None]:
        """The part, region, series or folder of each image; None where the file does not say."""
        if key == 'folder':
            return [str(PurePosixPath(name).parent) for name in self.names]
        return [recorded_part(record, key) for record in self.records] or [None] * len(self.names)


# --------------------------------------------------------------------------------------------------- files


def check_files(sets: Sequence[ImageSet], probes: Probes) -> list[Finding]:
    """Judge each file by itself and against the others: readable, size, suffix, depth, exposure."""
    findings = []
    used = list(dict.fromkeys(path for s in sets for path in s.paths))
    good = [path for path in used if not probes[path].error]

    def add(level, topic, images, text, remedy):
        if images:
            findings.append(Finding(level, topic, f'{counted(images, "image")} {text}', remedy, images))

    add(
        ERROR,
        'files',
        {path: probes[path].error for path in used if probes[path].error},
        'cannot be read',
        'copy or export them again, or take them out of the annotation file',
    )
    sized = {}
    labelled = set()
    for s in sets:
        labelled.update(join(s.folder, r['file_name']) for r in _with_boxes(s))
        for record, path in zip(s.records, s.paths):
            p = probes[path]
            if not p.error and (p.width, p.height) != (record.get('width'), record.get('height')):
                sized[path] = (
                    f'{p.width} x {p.height} px, annotated as {record.get("width")} x {record.get("height")}'
                )
    add(
        ERROR,
        'files',
        sized,
        'of another size than the annotation file says',
        'convert the data set again from these very files',
    )
    add(
        WARNING,
        'files',
        {
            path: f'{probes[path].format} content'
            for path in good
            if probes[path].format in SUFFIXES_OF and not _fits(path, probes[path].format)
        },
        'with the suffix of another format',
        'rename them; the content decides how they are read',
    )
    # A packed store has one depth; what its files had is past.
    files = [path for path in good if probes[path].format != 'store']
    depths = Counter((probes[path].bits, probes[path].dtype) for path in files)
    if len(depths) > 1:
        common = depths.most_common(1)[0][0]
        other = ', '.join(f'{n} of {b} bit ({d})' for (b, d), n in depths.most_common())
        add(
            WARNING,
            'files',
            {
                path: f'{probes[path].bits} bit'
                for path in files
                if (probes[path].bits, probes[path].dtype) != common
            },
            f'of another bit depth than most: {other}',
            'state an absolute window per depth, or export all from the detector alike',
        )
    add(
        WARNING,
        'files',
        {path: f'{probes[path].frames} frames' for path in good if probes[path].frames > 1},
        'hold several frames, of which the first is read',
        'export one file per frame if the others count',
    )
    constant = {path: f'all {probes[path].low:g}' for path in good if probes[path].low == probes[path].high}
    # What is measured after training is what the runtime would take.
    measured = {path for s in sets if s.side in ('val', 'test') for path in s.paths} - labelled
    for level, chosen, why in (
        (ERROR, labelled, ', yet boxes are drawn on it'),
        (ERROR, measured, ', and the runtime refuses such an image'),
        (WARNING, set(used) - labelled - measured, ''),
    ):
        add(
            level,
            'files',
            {path: note for path, note in constant.items() if path in chosen},
            f'constant: every pixel has one value{why}',
            'export them again or leave them out',
        )
    saturated, cut = {}, {}
    for path in good:
        p = probes[path]
        if path in constant:
            continue
        share = p.histogram[[0, 255]] / p.histogram.sum()
        if max(p.at_low, p.at_high) > 0.5:
            value, own = (p.low, p.at_low) if p.at_low > p.at_high else (p.high, p.at_high)
            saturated[path] = f'{own:.0%} of the pixels are {value:g}'
        elif share.max() > 0.5:
            cut[path] = f'{share.max():.0%} {("black", "white")[share.argmax()]}'
    add(
        WARNING,
        'files',
        saturated,
        'saturated: over half of the pixels have the lowest or the highest value of the file',
        'expose anew, or mask the background',
    )
    add(
        WARNING,
        'files',
        cut,
        'saturated by the window: over half of the pixels are black or white after it',
        'see the suggested window',
    )
    area = np.array([probes[path].height * probes[path].width for path in good], float)
    if len(area):
        middle = np.median(area)
        odd = {
            path: f'{probes[path].width} x {probes[path].height} px'
            for path, a in zip(good, area)
            if not 0.25 <= a / middle <= 4
        }
        add(
            WARNING,
            'files',
            odd,
            f'over four times smaller or larger than the median of {middle / 1e6:.2f} megapixels',
            'check that they are whole radiographs at the same magnification',
        )
    return findings


def _fits(path: str, kind: str) -> bool:
    suffix = PurePosixPath(path).suffix.lower()
    return suffix in SUFFIXES_OF[kind] or kind == 'DICOM' and may_be_dicom(suffix)


def _with_boxes(s: ImageSet) -> list[dict]:
    ids = {annotation.get('image_id') for annotation in s.annotations}
    return [record for record in s.records if record.get('id') in ids]


# --------------------------------------------------------------------------------------------- annotations


def check_boxes(sets: Sequence[ImageSet]) -> list[Finding]:
    """Judge the boxes as the files have them: range, area, duplicates.

    Args:
        sets: the labelled sets.
    """
    findings, rows = [], []
    for s in sets:
        records = {record['id']: (record, path) for record, path in zip(s.records, s.paths)}
        rows += [(s.name, a, *records[a['image_id']]) for a in s.annotations if a['image_id'] in records]
    boxes, drawn = np.empty((2, len(rows), 4))
    size = np.empty((len(rows), 2))
    for i, (_, annotation, record, _) in enumerate(rows):
        boxes[i] = _numbers(annotation.get('bbox'), 4)
        drawn[i] = _numbers(annotation.get('clipped_from'), 4)
        size[i] = _numbers([record.get('width'), record.get('height')], 2)

    def add(level, which, text, remedy, key='bbox'):
        chosen = [rows[i] for i in np.flatnonzero(which)]
        if chosen:
            images = defaultdict(list)
            for _, annotation, _, path in chosen:
                images[path].append(str(annotation.get(key)))
            images = {path: ', '.join(found[:3]) for path, found in images.items()}
            place = ', '.join(f'{n} in {name}' for name, n in Counter(row[0] for row in chosen).items())
            findings.append(
                Finding(level, 'boxes', f'{counted(chosen, "box")} {text} ({place})', remedy, images)
            )

    flat = ~(boxes[:, 2:] > 0).all(1)
    add(ERROR, flat, 'without area or not of four numbers', 'draw them again or delete them')
    outside = ((boxes[:, :2] >= size) | (boxes[:, :2] + boxes[:, 2:] <= 0)).any(1) & ~flat
    add(ERROR, outside, 'wholly outside of their image', 'correct or delete them')
    beyond = _overshoot(boxes, size)
    out = (beyond > 0.01) & ~flat & ~outside
    add(
        WARNING,
        out,
        f'out of range by up to {beyond[out].max(initial=0):g} px, which loading clips',
        'correct them at the source, or convert again',
    )
    clipped = ~np.isnan(drawn[:, 0])
    add(
        WARNING,
        clipped,
        f'drawn out of range by up to {_overshoot(drawn, size)[clipped].max(initial=0):g} px, which the '
        'converter clipped',
        'correct them at the source if the clipped part matters',
        'clipped_from',
    )
    image = np.unique([row[3] for row in rows], return_inverse=True)[1]
    add(
        WARNING,
        _duplicates(image, boxes),
        'drawn twice: over 90 % (IoU) of another box of the same image',
        'delete one of each pair',
    )
    return findings


def _numbers(values, count: int) -> list[float]:
    """So many numbers; nan for each where the file holds anything else."""
    try:
        found = [float(v) for v in values if not isinstance(v, str)]
    except (TypeError, ValueError, OverflowError):
        found = []
    return found if len(found) == count else [math.nan] * count


def _overshoot(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(N,) by how many px boxes (N, 4) of x, y, w, h reach out of images of (N, 2) width and height."""
    return np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - size).max(1, initial=0)


def _duplicates(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: an earlier box of the same image has an IoU above 0.9."""
    found = np.zeros(len(boxes), bool)
    order = np.argsort(image, kind='stable')
    for rows in np.split(order, np.flatnonzero(np.diff(image[order])) + 1):
        # In blocks: of ten thousand boxes of one image, all pairs at once take gigabytes.
        for start in range(1, len(rows), 256):
            own = np.arange(start, min(start + 256, len(rows)))
            x1, y1, w1, h1 = boxes[rows[own]].T[:, :, None]
            x2, y2, w2, h2 = boxes[rows[: own[-1]]].T
            wide = np.minimum(x1 + w1, x2 + w2) - np.maximum(x1, x2)
            high = np.minimum(y1 + h1, y2 + h2) - np.maximum(y1, y2)
            common = np.clip(wide, 0, None) * np.clip(high, 0, None)
            with np.errstate(invalid='ignore', divide='ignore'):
                same = common / (w1 * h1 + w2 * h2 - common) > 0.9
            earlier = np.arange(own[-1]) < own[:, None]
            found[rows[own]] = (same & earlier).any(1)
    return found


def check_dominance(sets: Sequence[ImageSet]) -> list[Finding]:
    """Warn of a part or series with over a quarter of all boxes and four times its share of the images.

    Args:
        sets: the labelled sets, taken together.
    """
    for key in ('series', 'part'):
        images, boxes, of = Counter(), Counter(), {}
        for s in sets:
            by_id = {record['id']: group for record, group in zip(s.records, s.groups(key))}
            images.update(by_id.values())
            boxes.update(by_id.get(annotation.get('image_id')) for annotation in s.annotations)
            of |= dict(zip(s.paths, by_id.values()))
        group, count = max(boxes.items(), key=lambda item: item[1], default=(None, 0))
        share, own = count / max(boxes.total(), 1), images[group] / max(images.total(), 1)
        if group is not None and len(images) > 2 and share > 0.25 and share > 4 * own:
            return [
                Finding(
                    WARNING,
                    'boxes',
                    f'{key} {group} has {share:.0%} of all boxes ({count} of {boxes.total()}) in {own:.0%} '
                    'of the labelled images',
                    'report results with and without it (drop_series of XrayDefectMetric)',
                    {path: f'{key} {group}' for path, other in of.items() if other == group},
                )
            ]
    return []


def check_parts(sets: Sequence[ImageSet]) -> list[Finding]:
    """Say of which sets no escape rate can be proven, as the physical parts on their images are not known."""
    findings = []
    for s in sets:
        unknown = [path for path, part in zip(s.paths, s.groups('part')) if part is None]
        if not unknown or s.side not in ('val', 'test'):
            continue
        regions = any(region is not None for region in s.groups('region'))
        findings.append(
            Finding(
                NOTE if regions else WARNING,
                'parts',
                f'no proof: parts not known on {len(unknown)} of {len(s.names)} images of {s.name}'
                + (', which carry region groups, not physical parts' if regions else ''),
                'escape and false-reject rates are counted per physical part: convert with --group REGEX, '
                'which finds the part in the path of an image, or give every image its `part`',
                {} if regions else dict.fromkeys(unknown, 'part not known'),
            )
        )
    return findings


def check_ledgers(sets: Sequence[ImageSet]) -> list[Finding]:
    """Pass on what the converter repaired, as the ledger in the annotation files says; splits share one."""
    ledgers = []
    for s in sets:
        ledger = s.info.get('ledger')
        if isinstance(ledger, dict) and ledger not in ledgers:
            ledgers.append(ledger)
    return [
        Finding(NOTE, 'boxes', f'repaired by the converter, all splits together: {reason}: {count}')
        for ledger in ledgers
        for reason, count in _dict(ledger.get('repaired')).items()
        if count
    ]


def _dict(value) -> dict:
    return value if isinstance(value, dict) else {}


def check_classes(sets: Sequence[ImageSet], heads: dict[str, int]) -> list[Finding]:
    """Compare classes, counts and heads.

    Args:
        sets: the labelled sets.
        heads: `num_classes` of each head of the model, by dotted key.
    """
    findings = []
    labelled = [s for s in sets if s.classes]
    for s in labelled[1:]:
        if s.classes != labelled[0].classes:
            findings.append(
                Finding(
                    ERROR,
                    'classes',
                    f'{s.name} has the classes {list(s.classes)}, {labelled[0].name} '
                    f'{list(labelled[0].classes)}',
                    'give every dataset the same metainfo.classes',
                )
            )
    for key, count in heads.items():
        if labelled and count != len(labelled[0].classes):
            findings.append(
                Finding(
                    ERROR,
                    'classes',
                    f'{key} is {count}, metainfo.classes has {len(labelled[0].classes)}',
                    f'set {key} = {len(labelled[0].classes)}',
                )
            )
    for s in labelled:
        if s.coco is None:
            continue
        counts = class_counts(s)
        missing = [name for name, (_, boxes) in counts.items() if boxes == 0]
        if missing:
            findings.append(
                Finding(
                    WARNING,
                    'classes',
                    f'{s.name}: no box of {", ".join(missing)}',
                    'split the parts so that every split shows every class',
                )
            )
        findings += _crowd(s)
        for what, count in s.coco['repairs'].items():
            if count:
                findings.append(Finding(NOTE, 'boxes', f'{s.name}: repaired while loading: {what}: {count}'))
    full = [s.name for s in labelled if len(_with_boxes(s)) == len(s.records)]
    if full:
        findings.append(
            Finding(
                NOTE,
                'classes',
                f'every image of {", ".join(full)} has a box: false alarms on good parts cannot be measured',
                'add defect-free radiographs',
            )
        )
    return findings


def _crowd(s: ImageSet) -> list[Finding]:
    """Count the crowd of a labelled set, which a detector neither learns nor is measured on."""
    names = {record['id']: path for record, path in zip(s.records, s.paths)}
    crowd = Counter(names[a['image_id']] for a in s.coco['annotations'] if a['iscrowd'])
    if not crowd:
        return []
    total = len(s.coco['annotations'])
    return [
        Finding(
            WARNING if 2 * crowd.total() > total else NOTE,
            'boxes',
            f'{s.name}: {crowd.total()} of {total} boxes are crowd (iscrowd), neither learnt nor counted',
            'set iscrowd to 0 where it is one object, and convert again',
            {path: f'{count} crowd' for path, count in crowd.items()},
        )
    ]


def class_counts(s: ImageSet) -> dict[str, tuple[int, int]]:
    """Images and boxes per class of a labelled set, without crowd, which is not learnt."""
    names = {category['id']: category['name'] for category in s.coco['categories']}
    counts = {}
    for category, name in names.items():
        rows = [
            a['image_id'] for a in s.coco['annotations'] if a['category_id'] == category and not a['iscrowd']
        ]
        counts[name] = len(set(rows)), len(rows)
    return counts


# -------------------------------------------------------------------------------------------- gray levels


@dataclass
class GrayLevels:
    """Gray levels of a set of images.

    Attributes:
        histogram: (256,) counts after windowing.
        mean: of the windowed gray levels.
        std: of the windowed gray levels.
        low: 0.5th percentile of a regular sample of the pixel values, in the file's units; nan where all
            images are in a packed store, windowed already.
        high: 99.5th percentile.
    """

    histogram: np.ndarray
    mean: float
    std: float
    low: float
    high: float


def gray_levels(paths: Iterable[str], probes: Probes) -> GrayLevels | None:
    """Sum up the gray levels of images; None when none of them is readable."""
    good = [probes[path] for path in paths if not probes[path].error]
    if not good:
        return None
    histogram = np.sum([p.histogram for p in good], axis=0)
    share, level = histogram / histogram.sum(), np.arange(256)
    mean = float((share * level).sum())
    samples = [p.sample for p in good if p.format != 'store']
    low, high = np.percentile(np.concatenate(samples), [0.5, 99.5]) if samples else (math.nan, math.nan)
    return GrayLevels(
        histogram, mean, math.sqrt(float((share * (level - mean) ** 2).sum())), float(low), float(high)
    )


def check_windows(sets: Sequence[ImageSet], levels: dict[str, GrayLevels | None]) -> list[Finding]:
    """Check that all sets are windowed alike, and that the window neither wastes nor cuts the gray scale.

    Args:
        sets: all sets.
        levels: see `gray_levels`, by set name.
    """
    findings = []
    if not sets:
        return findings
    for s in sets[1:]:
        if s.window != sets[0].window:
            findings.append(
                Finding(
                    ERROR,
                    'window',
                    f'{s.name} is loaded with {s.window}, {sets[0].name} with {sets[0].window}',
                    'give every LoadXray the same window: xray_load in configs/_base_/xray_runtime.py',
                )
            )
    first = levels.get(sets[0].name)
    if first is None:
        return findings
    share = np.cumsum(first.histogram) / first.histogram.sum()
    span = int(np.searchsorted(share, 0.995) - np.searchsorted(share, 0.005))
    cut = float(first.histogram[[0, 255]].sum() / first.histogram.sum())
    window = suggested_window(first)
    suggestion = (
        f'window={window} in xray_load' if window else 'pack the images again with a --window that fits them'
    )
    if span < 64:
        findings.append(
            Finding(
                WARNING,
                'window',
                f'{sets[0].name}: 99 % of the pixels fill {span + 1} of 256 gray levels',
                suggestion,
            )
        )
    elif cut > 0.05 and sets[0].window['type'] != 'full':
        findings.append(
            Finding(WARNING, 'window', f'{sets[0].name}: the window cuts {cut:.0%} of the pixels', suggestion)
        )
    return findings


def suggested_window(levels: GrayLevels) -> dict | None:
    """One absolute window for the whole set, as `window.dataset_window` chooses it: 0.5 to 99.5 %."""
    low, high = levels.low, levels.high
    if math.isnan(low):
        return None
    if high - low > 20:
        low, high = math.floor(low), math.ceil(high)
    return dict(type='absolute', low=low, high=high)


# --------------------------------------------------------------------------------------------------- words


def counted(items: Sequence, one: str, many: str = '') -> str:
    """`1 image`, `2 images`; `many` is the plural where it is not regular."""
    plural = many or (f'{one}es' if one.endswith('x') else one if one.endswith('s') else f'{one}s')
    return f'{len(items)} {one if len(items) == 1 else plural}'


def few(names: Sequence[str], limit: int = 6) -> str:
    """The first names."""
    return ', '.join(names[:limit]) + (', …' if len(names) > limit else '')
