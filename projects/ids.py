"""Ids of parts, flaws and groups, as text; None for a missing id."""

import math


def as_text(value: object) -> str | None:
    """Return an id as text, so that 1, 1.0 and '1' are the same id; None for a missing id.

    Tables with gaps write whole numbers as 1.0 and a missing id as NaN. Plain `str` would split one part into
    '1' and '1.0', and would join all parts without an id into a part 'nan'.

    Args:
        value: The id in a record; None, NaN, '' and blanks count as missing.
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
