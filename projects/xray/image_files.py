"""Check that a data set's image files exist, in a folder, behind a URL or in a packed store."""

import os
from collections.abc import Iterable

from projects.radiograph.remote import is_url, list_files
from projects.radiograph.store import find_store

from .errors import DatasetError


def check_files(names: Iterable[str], folder: str, listed_in: str | os.PathLike) -> None:
    """Check that image files exist, by listing each folder once.

    Args:
        names: File names relative to `folder`; iterated once.
        folder: Image folder or packed store, or the URL of either.
        listed_in: The file that names the images.

    Raises:
        DatasetError: Image files are missing.
    """
    packed = find_store(folder)
    if packed:
        store, inner = packed
        there = lambda name: store.find(f'{inner}/{name}' if inner else name) is not None  # noqa: E731
    elif folder.startswith('http') and is_url(folder):
        return  # web servers need not list folders; reading a missing image gives its own error
    elif is_url(folder):
        present = set(list_files(folder))
        there = present.__contains__
    else:
        there = _Folders(folder).has
    missing, count = [], 0
    for count, name in enumerate(names, 1):  # noqa: B007
        if not there(name):
            missing.append(name)
    if missing:
        raise DatasetError(
            f'{listed_in}: {len(missing)} of {count} images are not in {folder} (the first is '
            f'{min(missing)}); copy them there or correct `data_root` and `data_prefix`'
        )


class _Folders:
    """The files below a folder; each subfolder is listed on first use."""

    def __init__(self, folder: str):
        self.folder, self.listed = folder, {}

    def has(self, name: str) -> bool:
        """Whether a file exists."""
        place, _, own = os.path.join(self.folder, name).rpartition('/')  # noqa: PTH118 (a million of them)
        if place not in self.listed:
            try:
                with os.scandir(place or '/') as entries:
                    self.listed[place] = {entry.name for entry in entries}
            except OSError:
                self.listed[place] = set()
        return own in self.listed[place]
