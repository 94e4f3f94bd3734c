"""Two detectors side by side: counts by radiograph and part; a record that grows, is torn or replaced."""

import json

import pytest

from projects.line.runtime import compared
from projects.line.runtime.compared import Compared

RULE = '(P[0-9]+)_'


def line(name, first, second, threshold=0.9, risk=0.5):
    def said(folder, verdict, least):
        return dict(folder=folder * 64, threshold=least, verdict=verdict, risk=risk)

    row = dict(time='2026-11-29T08:00:00.000Z', name=name, radiograph='0' * 64, agree=first == second)
    row |= dict(first=said('a', first, threshold), second=said('b', second, 0.43))
    return json.dumps(row) + '\n'


@pytest.fixture
def record(tmp_path):
    """A record of two parts with two views each, and a function that adds to it."""
    path = tmp_path / 'shadow.jsonl'

    def add(text):
        with path.open('a') as file:
            file.write(text)

    add(line('P1_a.png', 'accept', 'accept') + line('P1_b.png', 'accept', 'reject'))
    add(line('P2_a.png', 'reject', 'accept') + line('P2_b.png', 'unreadable', 'reject'))
    return path, add


def counts(rows):
    return {(row['first'], row['second']): row['count'] for row in rows}


def test_a_part_is_as_bad_as_its_worst_view(record):
    told = Compared(record[0], RULE).told()
    assert counts(told['parts']) == {('accept', 'reject'): 1, ('reject', 'reject'): 1}
    assert counts(told['radiographs']) == {
        ('accept', 'accept'): 1,
        ('accept', 'reject'): 1,
        ('reject', 'accept'): 1,
        ('unreadable', 'reject'): 1,
    }
    (part,) = told['different']
    assert (part['part'], part['first'], part['second']) == ('P1', 'accept', 'reject')
    assert [view['name'] for view in part['views']] == ['P1_a.png', 'P1_b.png']
    assert [part['part'] for part in told['alike']] == ['P2']
    assert (told['first'], told['second']['threshold']) == (dict(folder='a' * 64, threshold=0.9), 0.43)


def test_without_a_rule_each_radiograph_is_a_part(record):
    told = Compared(record[0], None).told()
    assert told['by_part'] is False and counts(told['parts']) == counts(told['radiographs'])
    newest_first = [part['part'] for part in told['different']]
    assert newest_first == ['P2_b.png', 'P2_a.png', 'P1_b.png']


def test_a_record_that_grows_is_read_on_and_the_last_verdicts_of_a_view_count(record):
    path, add = record
    both = Compared(path, RULE)
    both.told()
    whole = line('P1_b.png', 'accept', 'accept')
    add(whole[:40])  # being written
    assert counts(both.told()['parts']) == {('accept', 'reject'): 1, ('reject', 'reject'): 1}
    add(whole[40:])
    told = both.told()
    assert counts(told['parts']) == {('accept', 'accept'): 1, ('reject', 'reject'): 1}
    assert sum(counts(told['radiographs']).values()) == 4 and told['different'] == []
    assert told['alike'][0]['part'] == 'P1'  # the last that was seen
    add('torn by a full disk\n{}\n' + line('P3_a.png', 'gone', 'accept'))
    assert both.told() == told


def test_another_detector_begins_the_comparison_again(record):
    path, add = record
    both = Compared(path, RULE)
    assert sum(counts(both.told()['radiographs']).values()) == 4
    add(line('P9_a.png', 'accept', 'accept', threshold=0.8))
    told = both.told()
    assert counts(told['radiographs']) == {('accept', 'accept'): 1} and told['first']['threshold'] == 0.8
    path.write_text(line('P1_a.png', 'reject', 'accept'))  # another record in its place
    assert counts(both.told()['radiographs']) == {('reject', 'accept'): 1}
    path.unlink()
    assert counts(both.told()['radiographs']) == {('reject', 'accept'): 1}


def test_no_record_is_nothing_to_compare(tmp_path):
    told = Compared(tmp_path / 'shadow.jsonl', RULE).told()
    assert (told['first'], told['parts'], told['different']) == (None, [], [])


def test_the_counts_of_old_parts_remain(record, monkeypatch):
    path, add = record
    monkeypatch.setattr(compared, 'KEPT', 2)
    add(line('P3_a.png', 'accept', 'reject') + line('P4_a.png', 'accept', 'reject'))
    told = Compared(path, RULE).told()
    assert counts(told['parts']) == {('accept', 'reject'): 3, ('reject', 'reject'): 1}
    assert [part['part'] for part in told['different']] == ['P4', 'P3']
