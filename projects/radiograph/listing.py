"""The radiographs of a folder: recognised by suffix, or as DICOM by content."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .image import ImagingError
from .safe_parse import is_printable

SUFFIXES = ('.png', '.tif', '.tiff', '.dcm', '.dicom', '.dic', '.jpg', '.jpeg', '.bmp')
"""File suffixes of radiographs, in lower case. The content decides how a file is read, not its suffix."""


def files_below(folder: str | Path, dangling: bool = False) -> list[str]:
    """Return the files of a folder, recursive and through links, without sockets and other special files.

    Args:
        folder: the folder to list.
        dangling: also list links whose target is missing.

    Returns:
        Paths relative to the folder, with forward slashes, sorted; empty where the folder does not exist.

    Raises:
        ImagingError: a subfolder cannot be listed.
    """
    names: list[str] = []
    waiting: list[tuple[str, frozenset[str]]] = [('', frozenset())]
    while waiting:
        inner, above = waiting.pop()
        place = f'{folder}/{inner}'
        real = os.path.realpath(place)
        if real in above:
            continue  # a link to one of its own parent folders makes an endless loop
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            if not inner:
                return []
            raise ImagingError(
                f'{place}: expected a readable folder ({error.strerror}); check its permissions'
            ) from None
        for entry in entries:
            name = f'{inner}{entry.name}'
            if entry.is_dir():
                waiting.append((f'{name}/', above | {real}))
            elif entry.is_file() or dangling and entry.is_symlink() and not Path(entry.path).exists():
                names.append(name)
    return sorted(names)


def is_radiograph(path: str | Path) -> bool:
    """Whether a local file counts as a radiograph: by its suffix, or without a suffix as DICOM by content."""
    if is_companion(path):
        return False
    suffix = Path(path).suffix.lower()
    if suffix in SUFFIXES or not may_be_dicom(suffix):
        return suffix in SUFFIXES
    try:
        with Path(path).open('rb') as stream:
            return stream.read(132)[128:] == b'DICM'
    except OSError:
        return False


def is_companion(path: str | Path) -> bool:
    """Whether a name belongs to a companion file: the index of a DICOM medium, or macOS's `._` file."""
    name = Path(path).name
    return name.upper() == 'DICOMDIR' or name.startswith('._')


def may_be_dicom(suffix: str) -> bool:
    """Whether a file with this suffix may be DICOM: archives name files by UID, or by a number."""
    return suffix[1:].isdecimal() or not suffix


def unlistable(names: Iterable[str]) -> str | None:
    """Return the first name that a text list with one name per line cannot hold; None if all fit."""
    return next((name for name in names if not is_printable(name) or name != name.strip()), None)


def list_radiographs(folder: str | Path) -> tuple[list[str], dict[str, int]]:
    """List the radiographs of a folder, recursive and through links.

    Args:
        folder: any folder.

    Returns:
        Paths relative to the folder, with forward slashes, sorted; and the number of other files by suffix.
        Hidden files count as others.

    Raises:
        ImagingError: a subfolder cannot be listed.
    """
    names: list[str] = []
    others: Counter[str] = Counter()
    for name in files_below(folder):
        path = Path(folder, name)
        if path.name.startswith('.'):
            others['hidden'] += 1
        elif is_radiograph(path):
            names.append(name)
        else:
            others[path.suffix.lower() or 'no suffix'] += 1
    return names, dict(sorted(others.items()))
