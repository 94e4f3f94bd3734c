"""What a test set is a sample of, and what its images hold, as its annotation file and its files say."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from projects.ids import as_text
from projects.radiograph.files import sha256
from projects.radiograph.image import ImagingError
from projects.radiograph.parts import recorded_part
from projects.radiograph.read import read
from projects.radiograph.remote import is_url

SAMPLED = 32  # files that are read for their depth
# Keys of an image record that say the same.
DATES, MACHINES = ('date_captured', 'date'), ('machine', 'station', 'system')
NOT_RECORDED = 'not recorded'
UNCOVERED = (
    'other series, dates, machines, exposures, depths, part types or kinds of flaws, and parts that were '
    'drawn in another way'
)


def describe_population(coco: Mapping, depths: Iterable[str]) -> dict:
    """Say which images and parts an annotated set holds, and how the parts came into it.

    Args:
        coco: COCO dict with its `info`; images may carry `series`, `date_captured` and `machine`.
        depths: Of its files, such as '12-bit'.

    Returns:
        dict: `images` and `parts` (None where a part is not known) as counts; `series`, `dates`, `machines`
        and `depths` as lists, empty where they are not recorded; `drawn` in words; `part_rule`, the regular
        expression that found the parts in the names, or None.
    """
    images, info = coco['images'], coco.get('info')
    info = info if isinstance(info, Mapping) else {}
    parts = [recorded_part(image) for image in images]

    def values(*keys: str) -> list[str]:
        return sorted({text for image in images for key in keys if (text := as_text(image.get(key)))})

    return dict(
        images=len(images),
        parts=None if None in parts else len(set(parts)),
        series=values('series'),
        dates=values(*DATES),
        machines=values(*MACHINES),
        depths=sorted(set(depths)),
        drawn=_drawn(info),
        part_rule=info.get('group'),
    )


def _drawn(info: Mapping) -> str:
    if info.get('drawn'):  # written by hand
        return str(info['drawn'])
    made = str(info.get('converter') or info.get('description') or '')
    rule = f'--group {info["group"]!r}' if info.get('group') else ''
    return ' '.join(word for word in (made, rule) if word) or NOT_RECORDED


def population_in_words(population: Mapping) -> str:
    """Say in one sentence what was sampled, and in another what a proof on it does not cover."""
    if not population:
        return (
            f'The population that these parts are of is {NOT_RECORDED}. The proof does not cover {UNCOVERED}.'
        )

    def listed(name: str, values: Sequence[str]) -> str:
        if not values:
            return f'{name} {NOT_RECORDED}'
        shown = ', '.join(values) if len(values) <= 4 else f'{values[0]} to {values[-1]} ({len(values)})'
        return f'{name} {shown}'

    parts = 'parts not known' if population['parts'] is None else f'{population["parts"]} parts'
    facts = [
        f'{parts} on {population["images"]} images',
        listed('series', population['series']),
        listed('dates', population['dates']),
        listed('machine', population['machines']),
        listed('depth', population['depths']),
        f'drawn by: {population["drawn"]}',
    ]
    if population.get('severity'):
        facts.append(f'severities by {population["severity"]}, which is not the map of the validation set')
    return f'Population: {"; ".join(facts)}. The proof does not cover {UNCOVERED}.'


def digest_images(folder: str, names: Iterable[str]) -> dict[str, str]:
    """Return 16 hexadecimal digits that stand for what images show, by name; see `digest_content`.

    Images of a remote or a packed set have none: they are known by their names and annotations.
    """
    if is_url(folder):
        return {}
    with ThreadPoolExecutor() as pool:  # decoders let other threads run
        names = list(names)
        digests = pool.map(lambda name: digest_content(Path(folder, name)), names)
        return {name: digits for name, digits in zip(names, digests, strict=True) if digits is not None}


def digest_content(path: Path) -> str | None:
    """Return 16 hexadecimal digits that stand for what a radiograph shows; None where there is no file.

    A copy has those of its original, also where it was saved in another lossless format, turned by quarters,
    mirrored, or its gray levels were multiplied or shifted: the sums of rows and columns, above the lowest
    value and over their greatest common divisor, are then the same in some order. Two radiographs with noise
    never have all these sums in common. A lossy copy, a crop or another view has other digits. Of a file
    that is no picture of integers they are those of its bytes.
    """
    try:
        pixels = read(path, frame=0).pixels
    except (ImagingError, OSError):
        pixels = np.zeros(1)
    if pixels.ndim != 2 or pixels.dtype.kind not in 'iu' or pixels.min() == pixels.max():
        try:
            return sha256(path)[:16]
        except OSError:
            return None
    least = int(pixels.min())
    sums = [pixels.sum(axis, np.int64) - least * pixels.shape[axis] for axis in (0, 1)]
    unit = np.gcd.reduce(np.concatenate(sums))
    sides = sorted(min(side.tolist(), side[::-1].tolist()) for side in (sums[0] // unit, sums[1] // unit))
    return hashlib.sha256(repr(sides).encode()).hexdigest()[:16]


def sample_depths(folder: str, names: Sequence[str]) -> list[str]:
    """Read up to 32 files, evenly over the list, and return their depths, such as '12-bit'."""
    if is_url(folder) or not names:
        return []
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), SAMPLED)).round().astype(int))
    depths = set()
    for position in chosen:
        try:
            depths.add(f'{read(Path(folder, names[position]), frame=0).bits}-bit')
        except (ImagingError, OSError):
            continue
    return sorted(depths)
