"""Ids of parts, flaws and groups as data sets write them: text, and None where there is none."""

import math


def as_text(value: object) -> str | None:
    """Return an id as text, so that 1, 1.0 and '1' are one; None where it is missing.

    Tables with gaps write whole numbers as 1.0 and a missing id as NaN: as text of their own, one part would
    be two, and all parts that nobody knows would be one.

    Args:
        value: As it stands in a record; None, '' and blanks, and NaN are no ids.
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
