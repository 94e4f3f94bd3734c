"""A large JSON object read piece by piece: its long arrays are never in memory as a whole."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from .safe_parse import object_of

CHUNK = 1 << 22  # characters read at a time
NUMBER = frozenset('-0123456789')
LONGEST_NUMBER = 1024
Consumer = Callable[[dict[str, Any], Iterator[Any]], Any]


def read_object(path: Path, consume: Mapping[str, Consumer]) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: The file.
        consume: By key, a function. Its arguments are the object as read so far, and an iterator over the
            elements of the array of that key. Its result replaces the array. It must use all elements.

    Raises:
        json.JSONDecodeError: The file holds no JSON object, or is truncated.
        FormatError: An object has a key twice.
        OSError, UnicodeDecodeError: The file cannot be read.
    """
    content: dict[str, Any] = {}
    with path.open(encoding='utf-8-sig') as file:
        text = _Text(file)
        text.expect('{')
        if text.peek() == '}':
            text.expect('}')
            return content
        while True:
            key = text.value()
            if key in content:
                raise text.error(f'{key!r} twice')
            text.expect(':')
            if key in consume and text.peek() == '[':
                content[key] = consume[key](content, _elements(text))
            else:
                content[key] = text.value()
            if text.peek() == '}':
                break
            text.expect(',')
        text.expect('}')
        if text.peek():
            raise text.error('extra data')
    return content


def _elements(text: '_Text') -> Iterator[Any]:
    """Yield the elements of the array that begins here."""
    text.expect('[')
    if text.peek() == ']':
        text.expect(']')
        return
    while True:
        yield text.value()
        if text.peek() == ']':
            text.expect(']')
            return
        text.expect(',')


class _Text:
    """A buffer over the text of a file; it moves forward as values are taken."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.buffer, self.position = file, '', 0
        self.decoder = json.JSONDecoder(object_pairs_hook=object_of)

    def fill(self) -> bool:
        """Read more text; return whether there was any."""
        # The buffer doubles, so that a long value is not decoded again for every chunk.
        more = self.file.read(max(CHUNK, len(self.buffer) - self.position))
        self.buffer, self.position = self.buffer[self.position :] + more, 0
        return bool(more)

    def peek(self) -> str:
        """Return the next character other than white space; '' at the end."""
        while True:
            while self.position < len(self.buffer):
                character = self.buffer[self.position]
                if character not in ' \t\n\r':
                    return character
                self.position += 1
            if not self.fill():
                return ''

    def expect(self, character: str) -> None:
        """Take the next character, which must be `character`."""
        if self.peek() != character:
            raise self.error(f'expected {character!r}')
        self.position += 1

    def value(self) -> Any:
        """Take the next value."""
        if self.peek() in NUMBER:  # the first digits of a number are a valid number, too
            while len(self.buffer) - self.position < LONGEST_NUMBER and self.fill():
                pass
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.position)
            except json.JSONDecodeError:
                if not self.fill():
                    raise
                continue
            self.position = end
            return value

    def error(self, what: str) -> json.JSONDecodeError:
        """Return an error at the current position."""
        return json.JSONDecodeError(what, self.buffer, min(self.position, len(self.buffer)))
