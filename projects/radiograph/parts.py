"""The physical part that an image shows, by its name."""

import re


class PartError(ValueError):
    """A name without a part: what was expected, and the remedy."""


def part_of(name: str, group: str | None) -> str | None:
    """The part of an image, by a regular expression.

    Args:
        name: path of the image below its folder.
        group: regular expression, searched in the name: what it matches, or its first group if it has one, is
            the part. None where no part is known.

    Returns:
        The part, or None where `group` is None.

    Raises:
        PartError: no match, or one in which the first group has no share.
    """
    if group is None:
        return None
    match = re.search(group, name)
    part = match and match[min(1, match.re.groups)]
    if not part:
        raise PartError(f'no match of the group {group!r}; correct --group')
    return part
