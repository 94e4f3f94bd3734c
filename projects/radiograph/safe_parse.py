"""JSON and YAML of unknown origin, read with limits on size, depth and repetition; text made printable."""

import codecs
import json
import re
import reprlib
from typing import Any

import numpy as np
import yaml

from projects.errors import MMXrayError

MAX_JSON = 48 * 2**20
"""Largest JSON file. With the next two it keeps the process that parses it below 1 GiB, whatever is in it."""
MAX_NESTS = 1_000_000
MAX_QUOTES = 6_000_000
MAX_DEPTH = 100
"""Lists within each other, in JSON and YAML. Annotations need fewer than ten."""
MAX_YAML = 256 * 2**10
"""Largest YAML file, of some ten thousand types; its parser is slow."""

# Byte order marks. UTF-32 before UTF-16, whose mark begins alike.
_MARKS = {
    codecs.BOM_UTF8: 'utf-8',
    codecs.BOM_UTF32_LE: 'utf-32-le',
    codecs.BOM_UTF32_BE: 'utf-32-be',
    codecs.BOM_UTF16_LE: 'utf-16-le',
    codecs.BOM_UTF16_BE: 'utf-16-be',
}

# A JSON string; not one that never ends, which is an error anyway.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_WHOLE = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_WINDOW = 2**20
"""Bytes in which brackets are counted at a time; each string among them takes 170 bytes meanwhile."""
_STEP = bytes(1 if c in b'[{' else 255 for c in range(256))  # as int8: 1 opens, -1 closes
_NO_BRACKET = bytes(c for c in range(256) if c not in b'[]{}')

# Characters that break a line or that UTF-8 does not have: names of files may hold any.
_UNPRINTABLE = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
# Characters that a reader does not see, or takes for a blank.
_INVISIBLE = re.compile('[\xa0\xad\u061c\u180e\u2000-\u200f\u202a-\u202f\u205f-\u206f\u3000\ufeff]')

_SHOW = reprlib.Repr()
_SHOW.maxlevel, _SHOW.maxlist, _SHOW.maxdict, _SHOW.maxstring, _SHOW.maxother = 2, 5, 3, 40, 40


def _show(value: object) -> str:
    """A short text of any value for an error, however deep or long it is."""
    try:
        return ' '.join(_SHOW.repr(value).split())
    except ValueError:  # an integer beyond Python's limit of digits
        return 'a huge number'


def is_printable(name: str) -> bool:
    """Whether a name has one line, in UTF-8."""
    return not _UNPRINTABLE.search(name)


def printable(text: str) -> str:
    """A text in one line of UTF-8 that shows every character, with escapes such as `\\u200b`."""
    for pattern in (_UNPRINTABLE, _INVISIBLE):
        text = pattern.sub(lambda match: match[0].encode('unicode_escape').decode(), text)
    return text


def decode_text(data: bytes, name: str) -> str:
    """A text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, which is not part of the text.

    Args:
        data: the content of a file.
        name: of the file, for the remedy.

    Raises:
        FormatError: it is in another encoding.
    """
    mark, encoding = next(((m, e) for m, e in _MARKS.items() if data.startswith(m)), (b'', 'utf-8'))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, len(mark) + error.start) + 1
        raise FormatError(
            f'text in UTF-8, found another encoding in line {line}; save {name} as UTF-8'
        ) from None


class FormatError(MMXrayError, ValueError):
    """An annotation that cannot be understood: what was expected, without the file's name."""


def parse_json(data: bytes) -> Any:
    """The value of a JSON text, in less than 1 GiB whatever is in it.

    Raises:
        FormatError: it is no JSON, too large, has a key twice in one object, or its lists lie too deep.
    """
    check_json_size(data)
    text = decode_text(data, 'it')
    if not data.isascii() and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b'\0\0'):
        data = text.encode()
    # Python's parser descends on the C stack, which the recursion limit need not protect: libraries raise it.
    depth = _depth(data)
    del data  # the largest take as much room as there is
    if depth > MAX_DEPTH:
        raise FormatError(f'JSON of at most {MAX_DEPTH} lists within each other, found {depth}')
    try:
        return json.loads(text, object_pairs_hook=object_of)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f'JSON ({_show(str(error))})') from None


def _depth(data: bytes) -> int:
    """Return how deep the lists and objects of a JSON text lie, up to a string that never ends."""
    depth = deepest = at = 0
    while at < len(data):
        found = _WHOLE.match(data, at, at + _WINDOW)
        if found is None or found.end() == at:  # a string longer than the window
            found = _STRING.match(data, at)
            if found is None:
                break
        else:
            brackets = _STRING.sub(b'', found[0]).translate(_STEP, _NO_BRACKET)
            depths = np.cumsum(np.frombuffer(brackets, np.int8), dtype=np.int32)
            deepest = max(deepest, depth + int(depths.max(initial=0)))
            depth += int(depths[-1]) if depths.size else 0
        at = found.end()
    return deepest


def object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, of which each key means one thing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise FormatError(f'each key once in an object, found {_show(twice)} twice')
    return found


def check_json_size(data: bytes) -> None:
    """Raise FormatError where a JSON text could take more than 1 GiB once it is parsed."""
    if len(data) > MAX_JSON:
        raise FormatError(f'at most {MAX_JSON >> 20} MiB')
    if data.count(b'[') + data.count(b'{') > MAX_NESTS or data.count(b'"') > MAX_QUOTES:
        raise FormatError(f'at most {MAX_NESTS} lists and objects and {MAX_QUOTES // 2} strings in a file')


class _YamlLoader(yaml.CSafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """The safe loader, for which a key that occurs twice is an error: its last value would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(value for tag, value in keys if keys.count((tag, value)) > 1)
            raise FormatError(f'each key once in a map, found {_show(twice)} twice')
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def parse_yaml(data: bytes) -> Any:
    """The value of a YAML text, however deep it nests.

    Raises:
        FormatError: it is no YAML, too large, has a key twice in one map, or its collections lie too deep.
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
        return yaml.load(data, _YamlLoader)
    except FormatError:
        raise
    except Exception as error:  # yaml lets TypeError, AttributeError and others through
        raise FormatError(f'YAML ({_show(str(error))})') from None


def flag_of(value: object, what: str) -> bool:
    """Whether a flag is set: tools write numbers, truth values and words."""
    word = value.strip().lower() if isinstance(value, str) else value
    if word is None or word in ('', '0', 'false', 'no', 0):
        return False
    if word in ('1', 'true', 'yes', 1):
        return True
    raise FormatError(f'0 or 1 for {what}, found {_show(value)}')
