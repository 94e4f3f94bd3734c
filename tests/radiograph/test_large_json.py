"""A large JSON object, read piece by piece as json reads it whole."""

import json

import pytest

from projects.radiograph import large_json
from projects.radiograph.large_json import read_object


@pytest.mark.parametrize('chunk', [1, 2, 7, 1 << 20])
@pytest.mark.parametrize(
    'content',
    [
        {},
        {'a': 12, 'b': [], 'c': -1.5e-7},
        {
            'truth': {'x': [1, {'y': 'z, ] }'}]},
            'b': [{'s': 0.25, 'n': None}, [1, 2], 'ü"', 123456],
            'end': True,
        },
    ],
)
def test_it_reads_what_json_reads(tmp_path, monkeypatch, chunk, content):
    monkeypatch.setattr(large_json, 'CHUNK', chunk)
    path = tmp_path / 'a.json'
    seen = {}

    def consume(before, elements):
        seen.update(before)
        return list(elements)

    for text in (json.dumps(content), json.dumps(content, indent=2, ensure_ascii=False)):
        path.write_text(text)
        assert read_object(path, {'b': consume}) == content
    assert seen == {key: value for key, value in content.items() if 'b' in content and key in ('a', 'truth')}


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[]',
        '{',
        '{"a": 1',
        '{"a" 1}',
        '{"b": [1, 2',
        '{"b": [1 2]}',
        '{"a": 1} x',
        '{"a": 1,}',
        '{"b": [}',
    ],
)
def test_what_is_no_object_is_refused(tmp_path, text):
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(json.JSONDecodeError):
        read_object(path, {'b': lambda _, elements: list(elements)})
