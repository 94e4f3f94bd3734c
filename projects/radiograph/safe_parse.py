"""JSON and YAML of unknown origin, read with limits on size, depth and repetition; printable text."""

import codecs
import json
import re
import reprlib
from typing import Any

import numpy as np
import yaml

from projects.errors import MMXrayError

MAX_JSON = 48 * 2**20
"""Largest JSON file. This and the next two limits keep the parsing process below 1 GiB for any content."""
MAX_NESTS = 1_000_000
MAX_QUOTES = 6_000_000
MAX_DEPTH = 100
"""Maximum depth of nested lists, in JSON and YAML. Annotations need fewer than ten."""
MAX_YAML = 256 * 2**10
"""Largest YAML file, enough for some ten thousand types; the YAML parser is slow."""

# Byte order marks. UTF-32 stands before UTF-16, since both marks begin with the same bytes.
_MARKS = {
    codecs.BOM_UTF8: 'utf-8',
    codecs.BOM_UTF32_LE: 'utf-32-le',
    codecs.BOM_UTF32_BE: 'utf-32-be',
    codecs.BOM_UTF16_LE: 'utf-16-le',
    codecs.BOM_UTF16_BE: 'utf-16-be',
}

# A JSON string that ends; a string without an end is an error anyway.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_WHOLE = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_WINDOW = 2**20
"""Bytes per step of counting brackets; each string among them takes 170 bytes meanwhile."""
_STEP = bytes(1 if c in b'[{' else 255 for c in range(256))  # as int8: 1 opens, -1 closes
_NO_BRACKET = bytes(c for c in range(256) if c not in b'[]{}')

# Characters that break a line or that UTF-8 cannot encode; file names may hold any of them.
_UNPRINTABLE = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
# Characters that a reader cannot see, or cannot tell from a blank.
_INVISIBLE = re.compile('[\xa0\xad\u061c\u180e\u2000-\u200f\u202a-\u202f\u205f-\u206f\u3000\ufeff]')

_SHOW = reprlib.Repr()
_SHOW.maxlevel, _SHOW.maxlist, _SHOW.maxdict, _SHOW.maxstring, _SHOW.maxother = 2, 5, 3, 40, 40


def _show(value: object) -> str:
    """Return a short text of any value for an error, however deep or long the value is."""
    try:
        return ' '.join(_SHOW.repr(value).split())
    except ValueError:  # an integer beyond Python's limit of digits
        return 'a huge number'


def is_printable(name: str) -> bool:
    """Whether a name fits in one line of UTF-8."""
    return not _UNPRINTABLE.search(name)


def printable(text: str) -> str:
    """Return a text as one line of UTF-8 that shows every character, with escapes such as `\\u200b`."""
    for pattern in (_UNPRINTABLE, _INVISIBLE):
        text = pattern.sub(lambda match: match[0].encode('unicode_escape').decode(), text)
    return text


def decode_text(data: bytes, name: str) -> str:
    """Decode a text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; the mark is dropped.

    Args:
        data: the content of a file.
        name: name of the file, for the remedy.

    Raises:
        FormatError: the text is in another encoding.
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
    """An annotation that cannot be read: the text states the expectation, without the file's name."""


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text, in less than 1 GiB of memory for any content.

    Raises:
        FormatError: the text is no JSON, is too large, nests too deep, or has a key twice in one object.
    """
    check_json_size(data)
    text = decode_text(data, 'it')
    if not data.isascii() and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b'\0\0'):
        data = text.encode()
    # Python's parser recurses on the C stack. The recursion limit may not protect it, as libraries raise it.
    depth = _depth(data)
    del data  # a text of the largest size leaves no memory for both
    if depth > MAX_DEPTH:
        raise FormatError(f'JSON of at most {MAX_DEPTH} lists within each other, found {depth}')
    try:
        return json.loads(text, object_pairs_hook=object_of)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f'JSON ({_show(str(error))})') from None


def _depth(data: bytes) -> int:
    """Return the depth of the lists and objects of a JSON text, up to a string without an end."""
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
    """Build a JSON object; a key that occurs twice raises `FormatError`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise FormatError(f'each key once in an object, found {_show(twice)} twice')
    return found


def check_json_size(data: bytes) -> None:
    """Raise FormatError where a parsed JSON text could take more than 1 GiB."""
    if len(data) > MAX_JSON:
        raise FormatError(f'at most {MAX_JSON >> 20} MiB')
    if data.count(b'[') + data.count(b'{') > MAX_NESTS or data.count(b'"') > MAX_QUOTES:
        raise FormatError(f'at most {MAX_NESTS} lists and objects and {MAX_QUOTES // 2} strings in a file')


class _YamlLoader(yaml.CSafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """The safe loader, with an error for a key that occurs twice, since its last value would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(value for tag, value in keys if keys.count((tag, value)) > 1)
            raise FormatError(f'each key once in a map, found {_show(twice)} twice')
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def parse_yaml(data: bytes) -> Any:
    """Return the value of a YAML text.

    Raises:
        FormatError: the text is no YAML, is too large, nests too deep, or has a key twice in one map.
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
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f', line {mark.line + 1}' if mark else ''
        raise FormatError(f'YAML ({printable(" ".join(str(error.problem).split()))[:100]}{where})') from None
    except yaml.reader.ReaderError:
        raise FormatError('YAML in UTF-8 without control characters') from None
    except Exception as error:  # yaml lets TypeError, AttributeError and others through
        raise FormatError(f'YAML ({_show(str(error))})') from None


def flag_of(value: object, what: str) -> bool:
    """Return whether a flag is set: tools write numbers, booleans and words."""
    word = value.strip().lower() if isinstance(value, str) else value
    if word is None or word in ('', '0', 'false', 'no', 0):
        return False
    if word in ('1', 'true', 'yes', 1):
        return True
    raise FormatError(f'0 or 1 for {what}, found {_show(value)}')
