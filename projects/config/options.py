"""Values of `--cfg-options key=value`: Python literals are evaluated, all other text stays text."""

import ast
import re
from pathlib import Path

WORDS = {'true': True, 'false': False, 'inf': float('inf'), '-inf': float('-inf'), 'nan': float('nan')}
NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')


def parse_value(text: str):
    """Parse a number, `True`, `None`, a list, a tuple, a dict or a quoted string; other text stays text.

    mmengine's own parser deletes blanks and splits at commas: it silently turns `/data/my castings` into
    another folder. As in mmengine, a list of bare words without blanks, `[crack,pore]`, is a list of texts,
    and numbers separated by commas, `1,2`, are a list.

    Args:
        text: The text after `=`.

    Raises:
        ValueError: The text in brackets is neither a literal nor bare words.
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
    """Parse `[a,b]` and `(a,b)`; text without brackets stays text."""
    if (text[:1], text[-1:]) not in (('[', ']'), ('(', ')')):
        return text
    words = [word.strip() for word in text[1:-1].split(',')]
    if not all(re.fullmatch(r'[^\s"\'()\[\]{}]+', word) for word in words):
        raise ValueError(
            f'{text} is no Python literal; put its texts in quotes, as in "[\'my castings\', 1]"'
        )
    values = [parse_value(word) for word in words]
    return tuple(values) if text[0] == '(' else values
