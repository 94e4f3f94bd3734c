"""Files of a data set, by themselves and against each other: readable, size, suffix, depth, exposure."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from projects.radiograph.gray_levels import band_of, outside
from projects.radiograph.listing import may_be_dicom
from projects.radiograph.remote import join

from .findings import ERROR, WARNING, Finding, ImageSet, counted, with_boxes
from .scan import Scans

SUFFIXES_OF = {
    'PNG': {'.png'},
    'TIFF': {'.tif', '.tiff'},
    'DICOM': {'.dcm', '.dicom', '.dic'},
    'JPEG': {'.jpg', '.jpeg'},
    'BMP': {'.bmp'},
}


def check_files(sets: Sequence[ImageSet], scans: Scans) -> list[Finding]:
    """Judge the files by themselves and against each other.

    Args:
        sets: all sets.
        scans: scans of their images.
    """
    used = list(dict.fromkeys(path for s in sets for path in s.paths))
    good = [path for path in used if not scans[path].error]
    findings = _finding(
        ERROR,
        {path: scans[path].error for path in used if scans[path].error},
        'cannot be read',
        'copy or export them again, or take them out of the annotation file',
    )
    findings += _check_sizes(sets, scans)
    findings += _finding(
        WARNING,
        {
            path: f'{scans[path].format} content'
            for path in good
            if scans[path].format in SUFFIXES_OF and not _fits(path, scans[path].format)
        },
        'with the suffix of another format',
        'rename them; the content decides how they are read',
    )
    findings += _check_depths(good, scans)
    findings += _finding(
        WARNING,
        {path: f'{scans[path].frames} frames' for path in good if scans[path].frames > 1},
        'hold several frames, of which the first is read',
        'export one file per frame if the other frames matter',
    )
    findings += _check_constant(sets, used, good, scans) + _check_exposure(good, scans)
    return findings + _check_gray_levels(sets, scans)


def _check_gray_levels(sets: Sequence[ImageSet], scans: Scans) -> list[Finding]:
    """Report the images of train and test that a detector proven on val would refuse on the line."""
    val = [path for s in sets if s.side == 'val' for path in s.paths if not scans[path].error]
    band = band_of([scans[path].levels for path in val])
    findings = []
    for side in ('train', 'test'):
        strange = {}
        for path in dict.fromkeys(path for s in sets if s.side == side for path in s.paths):
            if not scans[path].error and (words := outside(scans[path].levels, band)):
                strange[path] = words[0]
        findings += _finding(
            WARNING,
            strange,
            f'of {side} unlike those of val in their gray levels: an exported detector would refuse them',
            'check that they show a part; if so, add such images to val',
        )
    return findings


def _finding(level: str, images: dict[str, str], text: str, remedy: str) -> list[Finding]:
    """Return one finding about some images; an empty list without images."""
    return [Finding(level, 'files', f'{counted(images, "image")} {text}', remedy, images)] if images else []


def _fits(path: str, kind: str) -> bool:
    suffix = PurePosixPath(path).suffix.lower()
    return suffix in SUFFIXES_OF[kind] or kind == 'DICOM' and may_be_dicom(suffix)


def _check_sizes(sets: Sequence[ImageSet], scans: Scans) -> list[Finding]:
    """Compare the sizes of the images with their records."""
    found = {}
    for s in sets:
        for record, path in zip(s.records, s.paths):
            p, size = scans[path], (record.get('width'), record.get('height'))
            if not p.error and (p.width, p.height) != size:
                found[path] = f'{p.width} x {p.height} px, annotated as {size[0]} x {size[1]}'
    return _finding(
        ERROR,
        found,
        'of another size than the annotation file says',
        'convert the data set again from these files',
    )


def _check_depths(good: Sequence[str], scans: Scans) -> list[Finding]:
    """Report images of another bit depth than most."""
    # The images of a packed store have one depth: the depth of their files is no longer known.
    depth_of = {path: (scans[path].bits, scans[path].dtype) for path in good if scans[path].format != 'store'}
    depths = Counter(depth_of.values())
    if len(depths) < 2:
        return []
    common = depths.most_common(1)[0][0]
    other = ', '.join(f'{n} of {b} bit ({d})' for (b, d), n in depths.most_common())
    return _finding(
        WARNING,
        {path: f'{depth[0]} bit' for path, depth in depth_of.items() if depth != common},
        f'of another bit depth than most: {other}',
        'state an absolute window per depth, or export all files at one depth',
    )


def _check_constant(
    sets: Sequence[ImageSet], used: Sequence[str], good: Sequence[str], scans: Scans
) -> list[Finding]:
    """Report images of one value: an error if they have boxes, and if results are measured on them."""
    constant = {path: f'all {scans[path].low:g}' for path in good if scans[path].low == scans[path].high}
    labelled = {join(s.folder, record['file_name']) for s in sets for record in with_boxes(s)}
    # Only images that the runtime accepts are measured after training.
    measured = {path for s in sets if s.side in ('val', 'test') for path in s.paths} - labelled
    findings = []
    for level, chosen, why in (
        (ERROR, labelled, ', yet boxes are drawn on it'),
        (ERROR, measured, ', and the runtime refuses such an image'),
        (WARNING, set(used) - labelled - measured, ''),
    ):
        findings += _finding(
            level,
            {path: note for path, note in constant.items() if path in chosen},
            f'constant: every pixel has one value{why}',
            'export them again or leave them out',
        )
    return findings


def _check_exposure(good: Sequence[str], scans: Scans) -> list[Finding]:
    """Report images that are binary, saturated, cut by the window, or of an unusual size."""
    binary, saturated, cut = {}, {}, {}
    for path in good:
        p = scans[path]
        if p.low == p.high:
            continue
        histogram = scans.histogram(path)
        share = histogram[[0, 255]] / histogram.sum()
        if p.at_low + p.at_high >= 1:
            binary[path] = f'only {p.low:g} and {p.high:g}'
        elif max(p.at_low, p.at_high) > 0.5:
            value, own = (p.low, p.at_low) if p.at_low > p.at_high else (p.high, p.at_high)
            saturated[path] = f'{own:.0%} of the pixels are {value:g}'
        elif share.max() > 0.5:
            cut[path] = f'{share.max():.0%} {("black", "white")[share.argmax()]}'
    findings = _finding(
        WARNING,
        binary,
        'binary: every pixel has one of two values, as in a mask or a thresholded picture',
        'use the original files of the detector; a binary image cannot be restored',
    )
    findings += _finding(
        WARNING,
        saturated,
        'saturated: over half of the pixels have the lowest or the highest value of the file',
        'expose again, or mask the background',
    )
    findings += _finding(
        WARNING,
        cut,
        'saturated by the window: over half of the pixels are black or white after it',
        'see the suggested window',
    )
    area = np.array([scans[path].height * scans[path].width for path in good], float)
    middle = np.median(area) if len(area) else 0
    return findings + _finding(
        WARNING,
        {
            path: f'{scans[path].width} x {scans[path].height} px'
            for path, a in zip(good, area)
            if not 0.25 <= a / middle <= 4
        },
        f'over four times smaller or larger than the median of {middle / 1e6:.2f} megapixels',
        'check that they are whole radiographs at the same magnification',
    )
