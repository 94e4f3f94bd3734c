"""Neighbouring numbers in file names: frames of one sequence are told from parts that are counted."""

import re

import pytest

from projects.prepare.findings import ImageSet
from projects.prepare.leaks import _shared_groups
from projects.radiograph.parts import part_of


def images(name, names, group=None, parts=None):
    """A split whose parts are those of a rule, of a list, or not known."""
    parts = parts or [part_of(n, group) for n in names]
    records = [dict(file_name=n, part=part) for n, part in zip(names, parts, strict=True)]
    return ImageSet(name, f'{name}.json', 'images', list(names), records, info=dict(group=group))


def adjacent(train, test):
    return [f'{f.level} {f.text}' for f in _shared_groups(train, test)]


def views(numbers, pattern='P{:02d}_{}.png'):
    return [pattern.format(number, view) for number in numbers for view in 'ab']


TRAIN, TEST = (8, 9, 11, 12, 14), (10, 13)


@pytest.mark.parametrize(
    'pattern', ['P{:02d}_{}.png', 'lot 3/P{:02d}{}.png', 'P{:02d}/{}.png', '{:05d}_{}.tif']
)
def test_parts_that_are_counted_are_no_frames(pattern):
    train, test = (
        images(n, views(k, pattern), r'P?[0-9]{2,}') for n, k in (('train', TRAIN), ('test', TEST))
    )
    assert adjacent(train, test) == []


def test_a_part_is_one_in_either_case():
    train = images('train', ['x.png', 'y.png'], parts=['P07', 'P08'])
    test = images('test', ['u.png', 'v.png'], parts=['p07', 'P09'])
    assert adjacent(train, test) == [
        'warning 1 of 2 images of test share a part or series with train: 1 part (p07)'
    ]
    assert adjacent(test, train)[0].endswith('with test: 1 part (p07)')


def test_without_known_parts_numbers_count_frames():
    (line,) = adjacent(images('train', views(TRAIN)), images('test', views(TEST)))
    assert line == 'warning 4 of 4 images of test have an adjacent frame in train by their file names'


def test_frames_of_one_part_on_both_sides_stay_a_warning():
    names = [[f'castA/{k:04d}.png' for k in numbers] for numbers in (TRAIN, TEST)]
    found = adjacent(*(images(n, k, '^[^/]+') for n, k in zip(('train', 'test'), names, strict=True)))
    assert len(found) == 2 and all(line.startswith('warning 2 of 2 images of test') for line in found)
    assert 'share a part' in found[0] and 'adjacent frame' in found[1]


@pytest.mark.parametrize('group', ['[0-9]+', '[0-9]{4}', r'(\d+)\.png'])
def test_a_frame_number_taken_for_the_part_is_still_told_of(group):
    train = [f'cast{s}_{k:04d}.png' for s in 'AB' for k in TRAIN]
    test = [f'cast{s}_{k:04d}.png' for s in 'AB' for k in TEST]
    # The rule makes one part of frame 8 of both castings, which shows nothing of what the number counts.
    (line,) = adjacent(images('train', train, group), images('test', test, group))
    assert re.match(r'note 4 of 4 images of test have the number before or after one of train', line)
    assert 'each is a part of its own' in line


def test_parts_of_a_table_over_one_running_number():
    """Serial numbers from elsewhere: several images of a part show that the number does not stand for it."""
    train = images('train', [f'img_{k:04d}.png' for k in (1, 2, 5, 6)], parts=['SN7', 'SN7', 'SN2', 'SN2'])
    test = images('test', [f'img_{k:04d}.png' for k in (3, 4)], parts=['SN9', 'SN9'])
    assert adjacent(train, test) == []
    single = images('test', ['img_0003.png', 'img_0007.png'], parts=['SN9', 'SN4'])
    alone = images('train', ['img_0002.png', 'img_0008.png'], parts=['SN7', 'SN2'])
    assert adjacent(alone, single)[0].startswith('note 2 of 2 images')


def test_an_image_without_a_part_among_known_ones_counts_as_a_frame():
    train = images('train', views(TRAIN), 'P[0-9]+')
    test = images('test', views(TEST), 'P[0-9]+')
    for record in test.records:
        record['part'] = None
    test.info.clear()
    train.info.clear()
    assert adjacent(train, test)[0].startswith('warning 4 of 4')
