"""The population of a test set, from its annotations and files, and digests of its images."""

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

SAMPLED = 32  # files read for their depth
# Alternative keys of an image record.
DATES, MACHINES = ('date_captured', 'date'), ('machine', 'station', 'system')
NOT_RECORDED = 'not recorded'
UNCOVERED = (
    'other series, dates, machines, exposures, depths, part types or kinds of flaws, and parts that were '
    'drawn in another way'
)


def describe_population(coco: Mapping, depths: Iterable[str]) -> dict:
    """Describe the images and parts of an annotated set, and the rule by which the parts were drawn.

    Args:
        coco: COCO dict with its `info`; images may carry `series`, `date_captured` and `machine`.
        depths: Bit depths of its files, such as '12-bit'.

    Returns:
        dict: the counts `images` and `parts` (None if an image has no known part); the lists `series`,
            `dates`, `machines` and `depths`, empty if not recorded; `drawn`, the origin of the set in words;
            `part_rule`, the regular expression that finds the parts in file names, or None.
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
    """Describe in one sentence the sampled population, and in another the limits of a proof on it."""
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
    """Return `digest_content` of each image, by name.

    Images of a remote or packed set have no digest: they are identified by names and annotations.
    """
    if is_url(folder):
        return {}
    with ThreadPoolExecutor() as pool:  # decoders release the GIL
        names = list(names)
        digests = pool.map(lambda name: digest_content(Path(folder, name)), names)
        return {name: digits for name, digits in zip(names, digests, strict=True) if digits is not None}


def digest_content(path: Path) -> str | None:
    """Return a digest of a radiograph's content, 16 hexadecimal digits; None if there is no file.

    A copy has the digest of its original. This also holds if the copy was saved in another lossless format,
    rotated by 90° steps, mirrored, or its gray levels were multiplied or shifted: the sums of rows and
    columns, minus the lowest value and divided by their greatest common divisor, are then the same in some
    order. Two noisy radiographs never share all these sums. A lossy copy, a crop or another view has another
    digest. For a file without integer pixels the digest is that of its bytes.
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
    """Read up to 32 files, evenly spaced in the list, and return their depths, such as '12-bit'."""
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
