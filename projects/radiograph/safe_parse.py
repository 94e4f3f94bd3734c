"""JSON and YAML of unknown origin, read with limits on size, depth and repetition; text made printable."""

import json
import re
import reprlib

import numpy as np
import yaml

MAX_JSON = 48 * 2**20


"""Largest JSON file. With the next two it keeps the parsed file below 1 GB, whatever is in it."""


MAX_NESTS = 1_000_000


MAX_QUOTES = 8_000_000


MAX_DEPTH = 100


"""Lists within each other, in JSON and YAML. Annotations need fewer than ten."""


MAX_YAML = 256 * 2**10


"""Largest YAML file, of some ten thousand types; its parser is slow."""


# A JSON string; not one that never ends, which is an error anyway.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


_STEP = bytes(1 if c in b'[{' else 255 for c in range(256))  # as int8: 1 opens, -1 closes


_NO_BRACKET = bytes(c for c in range(256) if c not in b'[]{}')


# Characters that break a line or that UTF-8 does not have: names of files may hold any.
_UNPRINTABLE = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


_SHOW = reprlib.Repr()


_SHOW.maxlevel, _SHOW.maxlist, _SHOW.maxdict, _SHOW.maxstring, _SHOW.maxother = 2, 5, 3, 40, 40


def _show(value) -> str:
    """A short text of any value for an error, however deep or long it is."""
    try:
        return ' '.join(_SHOW.repr(value).split())
    except ValueError:  # an integer beyond Python's limit of digits
        return 'a huge number'


def is_printable(name: str) -> bool:
    """Whether a name has one line, in UTF-8."""
    return not _UNPRINTABLE.search(name)


def printable(text: str) -> str:
    """A text in one line of UTF-8, whatever is in it, with escapes such as `\\udcff`."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode('unicode_escape').decode(), text)


class FormatError(ValueError):
    """An annotation that cannot be understood: what was expected, without the file's name."""


def parse_json(data: bytes):
    """The value of a JSON text, in less than 1 GB whatever is in it.

    Raises:
        FormatError: it is no JSON, or too large, or its lists lie too deep.
    """
    check_json_size(data)
    # Python's parser descends on the C stack, which the recursion limit need not protect: libraries raise it.
    brackets = _STRING.sub(b'', data).translate(_STEP, _NO_BRACKET)
    depth = np.cumsum(np.frombuffer(brackets, np.int8), dtype=np.int32).max(initial=0)
    if depth > MAX_DEPTH:
        raise FormatError(f'JSON of at most {MAX_DEPTH} lists within each other, found {depth}')
    try:
        return json.loads(data)
    except ValueError as error:
        raise FormatError(f'JSON ({_show(str(error))})') from None


def check_json_size(data: bytes) -> None:
    """Raise FormatError where a JSON text could take more than 1 GB once it is parsed."""
    if len(data) > MAX_JSON:
        raise FormatError(f'at most {MAX_JSON >> 20} MiB')
    if data.count(b'[') + data.count(b'{') > MAX_NESTS or data.count(b'"') > MAX_QUOTES:
        raise FormatError(f'at most {MAX_NESTS} lists and objects and {MAX_QUOTES // 2} strings in a file')


def parse_yaml(data: bytes):
    """The value of a YAML text, however deep it nests.

    Raises:
        FormatError: it is no YAML, or too large, or its collections lie too deep.
    """
    if len(data) > MAX_YAML:
        raise FormatError(f'at most {MAX_YAML >> 10} KiB of YAML')
    depth = 0
    try:
        for event in yaml.parse(data, yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise FormatError(f'YAML of at most {MAX_DEPTH} lists within each other')
        return yaml.load(data, yaml.CSafeLoader)
    except FormatError:
        raise
    except Exception as error:  # yaml lets TypeError, AttributeError and others through
        raise FormatError(f'YAML ({_show(str(error))})') from None
