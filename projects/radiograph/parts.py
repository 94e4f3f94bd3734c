"""The physical part that a radiograph shows: by the id in its record, or by a rule on its name.

An unknown part stays unknown: the name of a file never replaces it.
"""

import re
from collections.abc import Mapping
from typing import Any

from projects.errors import MMXrayError
from projects.ids import as_text


class PartError(MMXrayError, ValueError):
    """A name without a part: the text states the expectation and the remedy."""


def part_of(name: str, group: str | None) -> str | None:
    """Return the part of an image, by a regular expression.

    Args:
        name: path of the image below its folder.
        group: regular expression, searched in the name: its first group, or without groups the whole match,
            is the part. None where parts are unknown.

    Returns:
        The part, or None where `group` is None.

    Raises:
        PartError: no match, or an empty first group.
    """
    if group is None:
        return None
    match = re.search(group, name)
    part = match and match[min(1, match.re.groups)]
    if not part:
        raise PartError(f'no match of the group {group!r}; correct --group')
    return part


def of_several_folders(parts: Mapping[str, str | None]) -> str | None:
    """Return a line on parts with images in several top folders, which may be plants with the same numbers.

    Args:
        parts: Part of each image, by its path below the archive.

    Returns:
        One line; None where each part lies in one folder.
    """
    folders: dict[str, set[str]] = {}
    for name, part in parts.items():
        if part and '/' in name:
            folders.setdefault(part, set()).add(name.partition('/')[0])
    shared = {part: where for part, where in folders.items() if len(where) > 1}
    if not shared:
        return None
    part, where = min(shared.items(), key=lambda item: as_text(item[0]) or '')
    listed = ' and '.join(sorted(where)[:3])
    return (
        f'{len(shared)} of {len(folders)} parts have images in several folders, such as {part} in {listed}: '
        'one id is one part; if plants or lines use the same numbers, include the folder in --group: '
        "'([^/]+/.*P[0-9]+)'"
    )


def part_by_rule(rule: object, name: str) -> str | None:
    """Return the part in a name by the rule of a data set; None without a usable rule or a match.

    Args:
        rule: The regular expression that the converter noted (`group` of `info`); other values are no rule.
        name: Path of the image below its folder.
    """
    if not isinstance(rule, str) or not rule:
        return None
    try:
        return part_of(name, rule)
    except (PartError, re.error):
        return None


def recorded_part(record: Mapping[str, Any], key: str = 'part') -> str | None:
    """Return the part of a COCO image record as text, see `ids.as_text`; None where it is unknown."""
    return as_text(record.get(key))


def recorded_unit(record: Mapping[str, Any]) -> str | None:
    """Return the independent unit of an image: its part, else the group of series that show one region."""
    return recorded_part(record) or recorded_part(record, 'region')
