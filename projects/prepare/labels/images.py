"""The images of a folder, and the search for the image of an annotation."""

import posixpath
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from projects.radiograph.listing import SUFFIXES, files_below, is_radiograph
from projects.radiograph.safe_parse import FormatError, _show

MAX_OBJECTS = 10_000
"""Maximum number of objects in one image."""


@dataclass
class Entry:
    """One annotated image.

    Attributes:
        reference: name of the image in the annotation file.
        source: annotation file, relative to the source folder.
        count: number of objects.
        objects: function of the image's name, height and width in px that returns the objects: dicts with
            `type` (a name), `corners` (x1, y1, x2, y2 in px from 0, at pixel edges) and optionally
            `segmentation` (COCO's polygons or uncompressed RLE), `iscrowd`, `ignore` (if the tool sets it)
            and `repairs` (changes while reading, for the ledger).
        size: width and height in px of the annotated image; None if the file does not state them.
        image: the image in `Images.paths`; empty until it is found.
    """

    reference: str
    source: str
    count: int
    objects: Callable[[str, int, int], list[dict]]
    size: tuple[int, int] | None = None
    image: str = ''


@dataclass
class Source:
    """The result of a reader.

    Attributes:
        entries: annotated images by name.
        further: further annotations of these images, in other files.
        files: annotation files.
        used: further files that were read, such as class names and masks.
        quarantine: reasons by quarantined annotation file, or by file and image.
        aside: annotation files that are in quarantine in whole or in part.
        lost: quarantined objects, as far as they could be counted.
        blocked: images whose annotation is in quarantine, so that they do not count as unlabelled.
        doubtful: images without annotation that an unreadable file may annotate.
        damaged: files that could not be read.
        by_name: number of images found only by their name.
        repeated: number of quarantine entries that only repeat another file.
        notes: useful notes, one line each.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    further: dict[str, list[Entry]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    quarantine: dict[str, str] = field(default_factory=dict)
    aside: set[str] = field(default_factory=set)
    lost: int = 0
    blocked: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)
    by_name: int = 0
    repeated: int = 0
    notes: list[str] = field(default_factory=list)

    def put_aside(self, file: str, reason: str, reference: str = '', count: int = 0) -> None:
        """Put an annotation file, or its entry for one image, in quarantine.

        Args:
            file: annotation file.
            reason: the expectation that it failed.
            reference: the image, if the file names several.
            count: number of objects lost.
        """
        self.quarantine[f'{file}: {reference}' if reference else file] = f'expected {reason}'
        self.aside.add(file)
        self.lost += count


class Images:
    """The files below a folder: radiographs, and other files that may be annotations.

    An annotation can only name one of these radiographs, wherever its path points.

    Attributes:
        src: the folder.
        paths: radiographs by name, which is the path relative to `src`.
        others: all other files by name, except hidden ones.
        hidden: number of files whose name begins with a dot.
    """

    def __init__(self, src: Path, skip: tuple[str, ...] = ()) -> None:
        """List the files below `src`; files in folders named in `skip` are no radiographs."""
        self.src = src
        self.paths: dict[str, Path] = {}
        self.others: dict[str, Path] = {}
        self.hidden = 0
        for name in files_below(src):
            path, folders = src / name, name.split('/')[:-1]
            if path.name.startswith('.'):
                self.hidden += 1
            elif is_radiograph(path) and not set(folders) & set(skip):
                self.paths[name] = path
            else:
                self.others[name] = path
        self._at: dict[str, list[str]] = {}
        self._named: dict[str, list[str]] = {}
        for name in self.paths:
            for key in {name, stem_of_radiograph(name)}:
                self._at.setdefault(key, []).append(name)
                self._named.setdefault(posixpath.basename(key), []).append(name)
        self._sorted = sorted(self._named)

    def files(self, suffix: str) -> list[str]:
        """Return the files with this suffix, in lower or upper case, that are no radiographs."""
        return [name for name in self.others if name.lower().endswith(suffix)]

    def named(self, file: str) -> list[str]:
        """Return the images with this file name, with or without suffix, in any folder."""
        return self._named.get(file, [])

    def beginning(self, stem: str) -> set[str]:
        """Return the images whose file name is this stem, or stem and `_…`, as exports number equal names."""
        found = set(self.named(stem))
        start = f'{stem}_'
        for key in self._sorted[bisect_left(self._sorted, start) :]:
            if not key.startswith(start):
                break
            found.update(self._named[key])
        return found

    def at(self, path: str) -> list[str]:
        """Return the image at a path."""
        return [path] if path in self.paths else []

    def near(self, path: str) -> list[str]:
        """Return the images whose path differs only in the suffix."""
        return next((self._at[key] for key in _without_suffix(path) if key in self._at), [])

    def alike(self, reference: str) -> list[str]:
        """Return the images with the file name of a reference; without any, those with its stem."""
        file = posixpath.basename(reference)
        return next((self._named[key] for key in _without_suffix(file) if key in self._named), [])


def stem_of_radiograph(name: str) -> str:
    """Return a name without the suffix of a radiograph; numbers with dots name DICOM files and stay."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def _without_suffix(name: str) -> tuple[str, str]:
    return name, posixpath.splitext(name)[0]


def collect(found: Source, images: Images, name: str, read_one: Callable[[], list[Entry]]) -> list[Entry]:
    """Return the entries of one annotation file; an unreadable file has none and goes into quarantine."""
    found.files.append(name)
    try:
        return read_one()
    except FormatError as error:
        found.put_aside(name, str(error))
        found.damaged.append(name)
        # The image with the same name must not count as unlabelled.
        found.blocked.update(images.named(PurePosixPath(name).stem))
        return []


def find_images(found: Source, images: Images, entries: list[Entry]) -> None:
    """Find the image of each entry: by path from the annotation file, by path from the top, else by name.

    An image that one file names by path is not given to another file that states only the name. If two files
    could mean one image, neither gets it.
    """
    for entry in entries:
        entry.reference = posixpath.normpath(entry.reference.replace('\\', '/'))
    several = Counter(entry.source for entry in entries)
    taken = {entry.image for entry in entries}
    waiting = [entry for entry in entries if not entry.image]

    def settle(way: Callable[[Entry], list[str]]) -> None:
        for entry in waiting:
            names = way(entry)
            if len(names) == 1 and names[0] not in taken:
                entry.image = names[0]
        taken.update(entry.image for entry in waiting)
        waiting[:] = [entry for entry in waiting if not entry.image]

    def beside(entry: Entry) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(entry.source), entry.reference))

    settle(lambda entry: images.at(beside(entry)))
    settle(lambda entry: images.near(beside(entry)))
    settle(lambda entry: images.at(entry.reference))
    settle(lambda entry: images.near(entry.reference))
    alike = {id(entry): images.alike(entry.reference) for entry in waiting}
    # Two exports in one folder with one name mean one image; in two folders, the image of one may be missing.
    claims: dict[str, set[tuple[str, str]]] = {}
    for entry in waiting:
        names = alike[id(entry)]
        if len(names) == 1 and names[0] not in taken:
            claims.setdefault(names[0], set()).add((posixpath.dirname(entry.source), entry.reference))
    before = len(waiting)
    settle(lambda entry: [name for name in alike[id(entry)] if len(claims.get(name, ())) < 2])
    found.by_name = before - len(waiting)
    for entry in waiting:
        names = alike[id(entry)]
        reason = _why_not_found(entry, names)
        reference = _show(entry.reference) if several[entry.source] > 1 else ''
        found.put_aside(entry.source, reason, reference, entry.count)
        found.blocked.update(names, images.named(PurePosixPath(entry.source).stem))
    for entry in entries:
        if entry.image in found.entries:
            found.further.setdefault(entry.image, []).append(entry)
        elif entry.image:
            found.entries[entry.image] = entry


def _why_not_found(entry: Entry, names: list[str]) -> str:
    """Return the failed expectation for an entry without an image; `names` are the images with its name."""
    if len(names) > 1:
        file = posixpath.basename(entry.reference)
        return f'one image named {_show(file)}, found {len(names)} in different folders'
    other = f'only {names[0]}, which others name too' if names else 'none'
    return f'its image {_show(entry.reference)} below the source, found {other}'
