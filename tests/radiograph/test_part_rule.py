"""Which part a radiograph shows: ids are text, an unknown part stays unknown, a rule reads the path."""

import pytest

from projects.radiograph.parts import of_several_folders, part_by_rule, recorded_part, recorded_unit


@pytest.mark.parametrize(
    ('record', 'part'),
    [
        ({}, None),
        (dict(part=None), None),
        (dict(part=''), None),
        (dict(part='  '), None),
        (dict(part=float('nan')), None),
        (dict(part=0), '0'),
        (dict(part=1), '1'),
        (dict(part=1.0), '1'),
        (dict(part=1.5), '1.5'),
        (dict(part=' 1'), '1'),
        (dict(part='1'), '1'),
    ],
)
def test_ids_of_parts_are_text_and_an_unknown_part_is_none(record, part):
    assert recorded_part(record) == part


def test_the_unit_is_the_part_else_the_region_group():
    assert recorded_unit(dict(part=3, region='C0011')) == '3'
    assert recorded_unit(dict(region='C0011')) == 'C0011'
    assert recorded_unit({}) is None


@pytest.mark.parametrize(
    ('rule', 'name', 'part'),
    [
        ('P[0-9]+', 'day/P12_a.png', 'P12'),
        ('(P[0-9]+)_a', 'day/P12_a.png', 'P12'),
        ('P[0-9]+', 'day/other.png', None),
        ('P([0-9]*)', 'P_a.png', None),
        (None, 'P12.png', None),
        ('', 'P12.png', None),
        ('(', 'P12.png', None),
        (7, 'P12.png', None),
    ],
)
def test_a_rule_finds_the_part_in_a_path(rule, name, part):
    assert part_by_rule(rule, name) == part


def test_parts_of_several_folders_are_told_of():
    one = {'a/P1_1.png': 'P1', 'a/P1_2.png': 'P1', 'b/P2.png': 'P2', 'P1.png': 'P1', 'b/x.png': None}
    assert of_several_folders(one) is None and of_several_folders({}) is None
    result = of_several_folders(one | {'b/P1.png': 'P1'})
    assert result.startswith('1 of 2 parts have images in several folders, such as P1 in a and b: ')
    assert '\n' not in result
