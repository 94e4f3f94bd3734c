"""The radiographs below a folder or URL, in one order."""

from collections import Counter
from pathlib import Path

from .read import files_below, is_radiograph

# ---------------------------------------------------------------------------------------------- packing


def list_radiographs(folder: str | Path) -> tuple[list[str], dict[str, int]]:
    """List the radiographs of a folder, recursive and through links.

    Args:
        folder: any folder.

    Returns:
        Paths relative to the folder, with forward slashes, sorted; and how many other files of each suffix
        there are. Hidden files count as others.

    Raises:
        ImagingError: a folder below it cannot be listed.
    """
    names, others = [], Counter()
    for name in files_below(folder):
        path = Path(folder, name)
        if path.name.startswith('.'):
            others['hidden'] += 1
        elif is_radiograph(path):
            names.append(name)
        else:
            others[path.suffix.lower() or 'no suffix'] += 1
    return names, dict(sorted(others.items()))
