"""Values of `--cfg-options`: literals as Python has them, everything else as it was typed."""

import pytest

from projects.config.options import parse_value


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('/data/my castings', '/data/my castings'),
        ('/data/a,b', '/data/a,b'),
        ('s3://castings/a, b (2026)', 's3://castings/a, b (2026)'),
        ('crack, gas pore', 'crack, gas pore'),
        ('a[1]', 'a[1]'),
        ('2026_01', '2026_01'),
        ('007', 7),
        ('2', 2),
        ('-1', -1),
        ('1e-3', 1e-3),
        ('.5', 0.5),
        ('1j', '1j'),
        ('True', True),
        ('false', False),
        ('None', None),
        ('inf', float('inf')),
        ('', ''),
        ('1,2', [1, 2]),
        ('[16, 22]', [16, 22]),
        ('(0.05,0.25)', (0.05, 0.25)),
        ('[crack,pore]', ['crack', 'pore']),
        ('(critical, minor)', ('critical', 'minor')),
        ("['my castings', 'b']", ['my castings', 'b']),
        ("'quoted, text'", 'quoted, text'),
        ("{'type': 'full', 'log': True}", dict(type='full', log=True)),
        ('[(1, 2), [3]]', [(1, 2), [3]]),
        ('[]', []),
    ],
)
def test_values(text, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize('name', ['[1, 2]', "'quoted'", '1,2'])
def test_what_exists_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert parse_value(name) == name


@pytest.mark.parametrize('name', ['2', 'True', 'None'])
def test_a_word_of_python_stays_one_beside_a_folder_of_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert parse_value(name) == {'2': 2, 'True': True, 'None': None}[name]


@pytest.mark.parametrize('text', ['[my castings, b]', "[a, 'b']", '[[a], b]'])
def test_a_list_that_could_be_several_is_refused(text):
    with pytest.raises(ValueError, match='no Python literal; put its texts in quotes'):
        parse_value(text)
