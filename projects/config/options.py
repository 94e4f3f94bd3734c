"""Values of `--cfg-options key=value`: Python literals as Python has them, everything else as typed."""

import ast
import re
from pathlib import Path

WORDS = {'true': True, 'false': False, 'inf': float('inf'), '-inf': float('-inf'), 'nan': float('nan')}
NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')


def parse_value(text: str):
    """Read a value: a number, `True`, `None`, a list, a tuple, a dict or a quoted string; else text.

    mmengine's own reading deletes blanks and splits at commas: `/data/my castings` would be another folder,
    without a word. A list of bare words without blanks, `[crack,pore]`, is a list of texts, as mmengine has
    it; numbers with commas between them, `1,2`, are a list.

    Args:
        text: What stands behind `=`.

    Raises:
        ValueError: Brackets around what is neither literal nor bare words.
    """
    if text == 'None':
        return None
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if NUMBER.fullmatch(text):
        try:
            return int(text)
        except ValueError:
            return float(text)
    if Path(text).exists():
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return _bare_words(text)
    if isinstance(value, int | float | complex) and not isinstance(value, bool):
        return text  # 2026_01 is a folder, not a number
    if isinstance(value, tuple) and not text.startswith('('):
        return list(value)
    return value


def _bare_words(text: str):
    """Read `[a,b]` and `(a,b)`; whatever has no brackets is text."""
    if (text[:1], text[-1:]) not in (('[', ']'), ('(', ')')):
        return text
    words = [word.strip() for word in text[1:-1].split(',')]
    if not all(re.fullmatch(r'[^\s"\'()\[\]{}]+', word) for word in words):
        raise ValueError(
            f'{text} is no Python literal; put its texts in quotes, as in "[\'my castings\', 1]"'
        )
    values = [parse_value(word) for word in words]
    return tuple(values) if text[0] == '(' else values
