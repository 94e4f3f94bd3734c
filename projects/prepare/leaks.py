"""Leaks: the same radiograph, or the same part, on both sides of a comparison.

The check compares train, val and test with each other, and the pretraining images with test.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import cv2
import numpy as np

from projects.radiograph.parts import part_by_rule

from .crop_index import CropIndex, Points, correlation_at, find_points
from .findings import ERROR, NOTE, WARNING, Finding, ImageSet, counted, few
from .resemblance import Looks, near_matches
from .scan import COARSE, Scan, Scans, load

SIDES = (('train', 'test'), ('pretraining', 'test'), ('train', 'val'), ('val', 'test'))
CROP_CORRELATION = 0.995
"""Smallest correlation of a crop at full size. GDXray's C0002, crops of C0001, reach 0.999."""
_FEW_CROPS = 64
"""Up to this many crops are compared with every larger image; more are searched by an index."""


def check_leaks(sets: Sequence[ImageSet], probes: Scans, workers: int) -> list[Finding]:
    """Compare the sides; search for copies within a set and among unlisted images, and for crops.

    Args:
        sets: all sets.
        probes: scans of all their images.
        workers: threads of the searches for near duplicates and crops.
    """
    findings = []
    for left, right in SIDES:
        for a in (s for s in sets if s.side == left):
            for b in (s for s in sets if s.side == right):
                findings += _leaks_between(a, b, probes, workers)
    for s in sets:
        findings += _copies_within(s, probes)
        if s.side == 'unlisted':
            findings += _unlisted_copies(s, [other for other in sets if other.classes], probes)
    return findings + find_crops(sets, probes, workers)


def _leaks_between(a: ImageSet, b: ImageSet, probes: Scans, workers: int) -> list[Finding]:
    findings = []
    cause = f'results on {b.name} would be on images that the model has seen'
    same = sorted(set(a.paths) & set(b.paths))
    if same:
        findings.append(
            Finding(
                ERROR,
                'leaks',
                f'{counted(same, "image")} listed in both {a.name} and {b.name}',
                f'take them out of {a.name}: {cause}',
                dict.fromkeys(same, f'in {a.name} and {b.name}'),
            )
        )
    known = set(same)
    left = [p for p in a.paths if not probes[p].error and p not in known]
    right = [p for p in b.paths if not probes[p].error and p not in known]
    for what, key in (('byte', 'file_hash'), ('pixel', 'pixel_hash')):
        # One image represents all its copies: n copies on each side give n pairs, not n².
        first = {getattr(probes[path], key): path for path in reversed(left)}
        equal = [
            (first[value], path, f'{what}-equal')
            for path in right
            if not _constant(probes[path]) and (value := getattr(probes[path], key)) in first
        ]
        found = {path for _, path, _ in equal}
        right = [path for path in right if path not in found]
        if equal:
            findings.append(
                Finding(
                    ERROR,
                    'leaks',
                    f'{counted(equal, "image")} of {b.name} {what}-equal to one of {a.name}: '
                    f'{_joins(equal, (a, b))}',
                    f'take them out of {a.name}: {cause}',
                    {pair[1]: f'{what}-equal to {PurePosixPath(pair[0]).name}' for pair in equal},
                    equal,
                )
            )
    near = near_duplicates(left, right, probes, workers)
    if near:
        findings.append(
            Finding(
                WARNING,
                'leaks',
                f'{len(near)} of {len(b.names)} images of {b.name} look like one of {a.name} '
                f'(near duplicates): {_joins(near, (a, b))}',
                'look at the pairs: copies and neighbouring frames of one part belong on one side; other '
                'parts of one design may look alike',
                pairs=near,
            )
        )
    # The epoch is chosen on val. A part shared by val and test biases this choice little, a shared image
    # much.
    return findings if (a.side, b.side) == ('val', 'test') else findings + _shared_groups(a, b)


def count_resembling(sets: Sequence[ImageSet], findings: Sequence[Finding]) -> dict[str, int]:
    """Return the number of images of each right side that were found again on the left, in any form.

    Args:
        sets: all sets.
        findings: findings of `check_leaks`.

    Returns:
        Number by 'left, right' of `SIDES`; missing sides are left out.
    """
    on: dict[str, set[str]] = defaultdict(set)
    for s in sets:
        on[s.side].update(s.paths)
    pairs = [pair[:2] for finding in findings if finding.topic == 'leaks' for pair in finding.pairs]
    counts = {}
    for left, right in SIDES:
        if left in on and right in on:
            found = on[left] & on[right]
            for a, b in pairs:
                found |= {b} if a in on[left] and b in on[right] else set()
                found |= {a} if b in on[left] and a in on[right] else set()
            counts[f'{left}, {right}'] = len(found)
    return counts


def _constant(found: Scan) -> bool:
    return found.low == found.high


def near_duplicates(
    left: Sequence[str], right: Sequence[str], probes: Scans, workers: int = 1
) -> list[tuple[str, str, str]]:
    """Find for each image of `right` a near duplicate in `left`; see `resemblance.near_matches`.

    Returns:
        (left path, right path, correlation in words), by falling correlation.
    """
    left = [path for path in left if not _constant(probes[path])]
    right = [path for path in right if not _constant(probes[path])]
    if not left or not right:
        return []
    looks = [
        Looks([probes[p].small for p in paths], [probes[p].dhash for p in paths]) for paths in (left, right)
    ]
    found = near_matches(*looks, workers)
    order = sorted(np.flatnonzero(found.index >= 0), key=lambda k: -found.correlation[k])
    return [(left[found.index[k]], right[k], f'correlation {found.correlation[k]:.4f}') for k in order]


def _shared_groups(a: ImageSet, b: ImageSet) -> list[Finding]:
    """Report parts and series on both sides, and neighbouring frames."""
    findings, words, images = [], [], {}
    for key, many in (('part', 'parts'), ('region', 'region groups'), ('series', 'series')):
        mine, held = _groups(a, b, key), _groups(b, a, key)
        found = set().union(*mine)
        if not found and a.side == 'pretraining':
            # An unlabelled list has no ids: its folders may be series, as in GDXray, or parts.
            found = set(a.groups('folder')) - {'.'}
        shared = sorted(found & set().union(*held))
        if shared:
            words.append(f'{counted(shared, key, many)} ({few(shared)})')
            images |= {
                path: f'{key} {sorted(own & found)[0]}' for path, own in zip(b.paths, held) if own & found
            }
    if images:
        findings.append(
            Finding(
                WARNING,
                'leaks',
                f'{len(images)} of {len(b.names)} images of {b.name} share a part or series with {a.name}: '
                + ' and '.join(words),
                'split by part (--group of tools/convert_dataset.py); as it is, results are optimistic',
                images,
            )
        )
    return findings + _adjacent_frames(a, b)


def _adjacent_frames(a: ImageSet, b: ImageSet) -> list[Finding]:
    """Report neighbouring numbers in file names: frames of one sequence, unless the numbers count parts.

    The numbers of P10_a.png and P11_a.png count parts: if the parts of both images are known and differ, the
    images are no frames of one sequence. But the rule for parts may have taken the number of the frame for
    the part. It has not if one part has several images with this numbering (P10_a.png, P10_b.png). Without
    such a part, the finding is a note.
    """
    mine, held = _groups(a, b, 'part'), _groups(b, a, 'part')
    frames: dict[tuple[str, int, str], set[str]] = {}
    images: Counter[tuple[str, str]] = Counter()  # by part and text before the number
    for names, groups in ((a.names, mine), (b.names, held)):
        for name, parts in zip(names, groups, strict=True):
            if frame := _frame(name):
                images.update((part, frame[0]) for part in parts)
                if groups is mine:
                    frames[frame] = parts
    near, apart = [], []
    for path, name, parts in zip(b.paths, b.names, held, strict=True):
        before, number, after = _frame(name) or ('', -9, '')
        beside = [frames[key] for k in (-1, 1) if (key := (before, number + k, after)) in frames]
        if any(not parts or not other or parts & other for other in beside):
            near.append(path)
        elif beside:
            apart.append(path)
    if len(near) > len(b.names) / 2:
        return [
            Finding(
                WARNING,
                'leaks',
                f'{len(near)} of {len(b.names)} images of {b.name} have an adjacent frame in {a.name} '
                'by their file names',
                'frames of one sequence show one part: split by part or by sequence',
                dict.fromkeys(near, f'adjacent frame in {a.name}'),
            )
        ]
    if len(near) + len(apart) > len(b.names) / 2 and max(images.values()) == 1:
        return [
            Finding(
                NOTE,
                'leaks',
                f'{len(near) + len(apart)} of {len(b.names)} images of {b.name} have the number before or '
                f'after one of {a.name} in their names, and each is a part of its own',
                'correct if each part has one image; if the numbers count frames of a sequence, convert '
                'again with a --group that matches the name of the sequence',
                dict.fromkeys(near + apart, f'next number in {a.name}'),
            )
        ]
    return []


def _groups(own: ImageSet, other: ImageSet, key: str) -> list[set[str]]:
    """Return the groups of each image of a set: its id, and for parts also the matches of rules in its name.

    The rules are the regular expressions that the converter noted in both sets (`--group`). An id may come
    from another source, such as the inspection page, and spell the same part differently. P07 and p07 are one
    part, since ids are typed by hand.
    """
    ids = sorted({*own.groups(key), *other.groups(key)} - {None})
    spelt = {group.casefold(): group for group in ids}
    found = [{group} - {None} for group in own.groups(key)]
    if key == 'part':
        for rule in {own.info.get('group'), other.info.get('group')} - {None}:
            for names, name in zip(found, own.names, strict=True):
                names |= {part_by_rule(rule, name)} - {None}
    return [{spelt.get(group.casefold(), group.casefold()) for group in names} for names in found]


def _frame(name: str) -> tuple[str, int, str] | None:
    """Split `C0001/C0001_0007.png` into ('C0001/C0001_', 7, '.png'); None for a name without a number."""
    found = re.fullmatch(r'(.*?)(\d{1,18})(\D*)', name)
    return (found[1], int(found[2]), found[3]) if found else None


def _by_pixels(s: ImageSet, probes: Scans) -> dict[bytes, list[str]]:
    """Return paths by the hash of their pixels, without constant images."""
    by = defaultdict(list)
    for path in s.paths:
        if not probes[path].error and not _constant(probes[path]):
            by[probes[path].pixel_hash].append(path)
    return by


def _copies_within(s: ImageSet, probes: Scans) -> list[Finding]:
    equal = [
        (copies[0], other, 'pixel-equal') for copies in _by_pixels(s, probes).values() for other in copies[1:]
    ]
    if not equal:
        return []
    unlisted = s.side == 'unlisted'
    return [
        Finding(
            NOTE if unlisted else WARNING,
            'leaks',
            f'{counted(equal, "pixel copy", "pixel copies")} within {s.name}: {_joins(equal, (s,))}',
            '' if unlisted else 'keep one of each',
            {b: f'copy of {PurePosixPath(a).name}' for a, b, _ in equal},
            equal,
        )
    ]


def _unlisted_copies(unlisted: ImageSet, sets: Sequence[ImageSet], probes: Scans) -> list[Finding]:
    """Report copies of listed images among unlisted images: if added to a split, they are a leak."""
    copies = _by_pixels(unlisted, probes)
    pairs = [
        (originals[0], copy, f'{s.name}, pixel-equal')
        for s in sets
        for pixels, originals in _by_pixels(s, probes).items()
        for copy in copies.get(pixels, ())
    ]
    if not pairs:
        return []
    return [
        Finding(
            WARNING,
            'leaks',
            f'{counted(pairs, "pixel copy", "pixel copies")} of listed images among the unlisted ones: '
            f'{_joins(pairs, (unlisted, *sets))}',
            'keep them and their series out of all other splits and of pretraining',
            {copy: f'copy of {PurePosixPath(original).name} ({note})' for original, copy, note in pairs},
            pairs,
        )
    ]


def find_crops(sets: Sequence[ImageSet], probes: Scans, workers: int) -> list[Finding]:
    """Search for images that are cut out of larger images, at any brightness and contrast.

    The search covers images of at most half the area of others. Up to 64 of them are searched in copies of
    1/16 size of all larger images, by normalised cross-correlation. More are searched by an index
    (`crop_index`) in n log n. The best place is confirmed at full size. Turned, mirrored and rescaled crops
    are not found.
    """
    paths = [path for path in dict.fromkeys(p for s in sets for p in s.paths) if not probes[path].error]
    paths = [path for path in paths if not _constant(probes[path])]
    area = {path: probes[path].height * probes[path].width for path in paths}
    if not paths:
        return []
    largest = max(area.values())
    crops = [
        p for p in paths if 2 * area[p] <= largest and min(probes[p].height, probes[p].width) >= 6 * COARSE
    ]
    if not crops:
        return []
    search = _by_index if len(crops) > _FEW_CROPS else _by_coarse_copies
    found = search(crops, paths, area, probes, workers)
    if not found:
        return []
    pairs = [(host, crop, f'crop, correlation {r:.4f}') for host, crop, r in found]
    side = {path: s.side for s in reversed(sets) for path in s.paths}
    crossed = {frozenset((side[a], side[b])) for a, b, _ in pairs}
    crossing = [f'{a} and {b}' for a, b in SIDES if frozenset((a, b)) in crossed]
    return [
        Finding(
            WARNING if crossing else NOTE,
            'leaks',
            f'{len(pairs)} of {len(crops)} smaller images searched for are crops of larger ones: '
            f'{_joins([(crop, host, "") for host, crop, _ in pairs], sets, "in")}'
            + (f'; some across {", ".join(crossing)}' if crossing else ''),
            'keep crops and their originals in one split',
            {b: f'crop of {PurePosixPath(a).name}' for a, b, _ in pairs},
            pairs,
        )
    ]


Crops = list[tuple[str, str, float]]
"""Larger image, crop, and their correlation at full size."""


def _by_coarse_copies(
    crops: Sequence[str], paths: Sequence[str], area: dict[str, int], probes: Scans, workers: int
) -> Crops:
    """Compare each crop with each larger image."""
    coarse = {path: probes.coarse(path) for path in paths}

    def search(crop: str) -> tuple[str, str, float] | None:
        template = coarse[crop]
        scores = []
        for host in paths:
            inside = coarse[host]
            if area[host] >= 2 * area[crop] and (np.array(inside.shape) >= template.shape).all():
                scores.append((float(cv2.matchTemplate(inside, template, cv2.TM_CCOEFF_NORMED).max()), host))
        scores.sort(reverse=True)
        for score, host in scores[:3]:
            if score > 0.8 and (full := _full_match(crop, host)) >= CROP_CORRELATION:
                return host, crop, full
        return None

    with ThreadPoolExecutor(workers) as pool:
        return [row for row in pool.map(search, crops) if row]


def _by_index(
    crops: Sequence[str], paths: Sequence[str], area: dict[str, int], probes: Scans, workers: int
) -> Crops:
    """Read every image once more for its points, and look up the points of the crops."""
    smallest = min(area[crop] for crop in crops)
    hosts = [path for path in paths if area[path] >= 2 * smallest]

    def points(path: str) -> Points:
        return find_points(load(path)[0].pixels)

    with ThreadPoolExecutor(workers) as pool:
        index = CropIndex(pool.map(points, hosts))

        def search(crop: str) -> tuple[str, str, float] | None:
            pixels = load(crop)[0].pixels
            for number, x, y in index.candidates(find_points(pixels)):
                host = hosts[number]
                if area[host] >= 2 * area[crop]:
                    likeness = correlation_at(pixels, load(host)[0].pixels, x, y)
                    if likeness >= CROP_CORRELATION:
                        return host, crop, likeness
            return None

        return [row for row in pool.map(search, crops) if row]


def _full_match(crop: str, host: str) -> float:
    """Return the correlation of a crop with its best place in a larger image, at full size."""
    images = []
    for path in (host, crop):
        pixels = load(path)[0].pixels
        images.append(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32))
    return float(cv2.matchTemplate(*images, cv2.TM_CCOEFF_NORMED).max())


def _joins(pairs: Sequence[tuple[str, str, str]], sets: Sequence[ImageSet], word: str = '=') -> str:
    """Return `C0065 = C0066 (10), …`: the number of pairs that join two series, parts or folders."""
    groups = {}
    for key in ('folder', 'part', 'series'):
        for s in sets:
            groups |= {path: name for path, name in zip(s.paths, s.groups(key)) if name not in (None, '.')}
    joined = Counter(
        f'{groups.get(a, PurePosixPath(a).name)} {word} {groups.get(b, PurePosixPath(b).name)}'
        for a, b, _ in pairs
    )
    return few([f'{name} ({count})' for name, count in joined.most_common()], 4)
