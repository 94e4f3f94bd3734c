"""Whether the image files that a data set names are there: in a folder, behind a URL or in a packed store."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from projects.radiograph.remote import is_url, list_files
from projects.radiograph.store import find_store

from .errors import DatasetError


def check_files(names: Sequence[str], folder: str, listed_in: str | os.PathLike) -> None:
    """Check that image files exist, by listing each folder once.

    Args:
        names: File names relative to `folder`.
        folder: Image folder, or a packed store in its place, or the URL of either.
        listed_in: The file that names the images.

    Raises:
        DatasetError: Some are missing.
    """
    packed = find_store(folder)
    if packed:
        store, inner = packed
        missing = [name for name in names if store.find(f'{inner}/{name}' if inner else name) is None]
    elif is_url(folder):
        # Web servers need not list their folders: there a missing image names itself when it is read.
        present = names if folder.startswith('http') else list_files(folder)
        missing = sorted(set(names) - set(present))
    else:
        missing = _absent(names, folder)
    if missing:
        raise DatasetError(
            f'{listed_in}: {len(missing)} of {len(names)} images are not in {folder} (the first is '
            f'{min(missing)}); copy them there or correct `data_root` and `data_prefix`'
        )


def _absent(names: Sequence[str], folder: str) -> list[str]:
    """Return the names that are not in a folder."""
    wanted = defaultdict(list)
    for name in names:
        path = Path(folder, name)
        wanted[path.parent].append((path.name, name))
    missing = []
    for place, members in wanted.items():
        try:
            with os.scandir(place) as entries:
                present = {entry.name for entry in entries}
        except OSError:
            present = set()
        missing += [name for own_name, name in members if own_name not in present]
    return missing
