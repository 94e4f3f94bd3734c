"""What mistakes cost: cases drawn by hand, whose average precision is known."""

import json

import numpy as np
import pytest

from projects.measures import mistakes
from projects.measures.images import InspectedImage

FLAWS = [[0, 0, 10, 10], [100, 100, 120, 120]]


def image(*detections, flaws=FLAWS, labels=None):
    """Radiograph with flaws and with (box, score) or (box, score, label) found."""
    found = [(*detection, 0)[:3] for detection in detections]
    return InspectedImage(
        image_id=1,
        boxes=np.array([box for box, _, _ in found], float).reshape(-1, 4),
        scores=np.array([score for _, score, _ in found], float),
        labels=np.array([label for _, _, label in found], int),
        truth_boxes=np.array(flaws, float).reshape(-1, 4),
        truth_labels=np.array(labels or [0] * len(flaws), int),
    )


def test_each_oracle_mends_its_own_mistake():
    seen = image(
        ([50, 50, 60, 60], 0.9),  # on sound material
        ([0, 0, 10, 10], 0.8),  # a hit
        ([100, 100, 110, 110], 0.7),  # a quarter of its flaw
    )
    row = mistakes.costs([seen], 0)
    # One of two found as the second of three: half of the recalls at a precision of 1/2.
    assert row['AP50'] == pytest.approx(51 / 101 / 2)
    assert row['sound material dropped'] == pytest.approx(51 / 101)
    assert row['extent mended'] == pytest.approx(2 / 3)
    assert row['both'] == 1


def test_a_flaw_is_mended_once_and_not_where_another_box_hits_it():
    quarter, third = ([0, 0, 5, 5], 0.9), ([0, 0, 6, 6], 0.8)
    mended = mistakes.mend_extents(image(quarter, third), 0)
    assert mended.boxes.tolist() == [FLAWS[0]] and mended.scores.tolist() == [0.9]
    mended = mistakes.mend_extents(image(quarter, (FLAWS[0], 0.1)), 0)
    assert mended.boxes.tolist() == [FLAWS[0]] and mended.scores.tolist() == [0.1]
    # A second hit of one flaw is another kind of mistake, and stays.
    assert len(mistakes.mend_extents(image((FLAWS[0], 0.9), (FLAWS[0], 0.8)), 0).boxes) == 2


def test_boxes_and_flaws_of_another_class_are_left_alone():
    other = ([0, 0, 5, 5], 0.9, 1)
    seen = image(other, labels=[1, 0])
    assert mistakes.mend_extents(seen, 0).boxes.tolist() == seen.boxes.tolist()
    assert mistakes.drop_sound(seen, 0).boxes.tolist() == seen.boxes.tolist()
    # To class 0 a box on a flaw of class 1 lies on sound material.
    assert not len(mistakes.drop_sound(image(([0, 0, 10, 10], 0.9), labels=[1, 0]), 0).boxes)


def test_no_flaw_no_number_and_no_box_no_error():
    assert set(mistakes.costs([image(flaws=[])], 0).values()) == {None}
    assert set(mistakes.costs([image()], 0).values()) == {0.0}


def test_the_command_prints_a_row_for_each_file_and_names_what_it_cannot_read(tmp_path, capsys):
    file = tmp_path / 'seed0' / 'predictions_val.json'
    file.parent.mkdir()
    truth = dict(
        images=[dict(id=1, file_name='a.png', width=200, height=200)],
        categories=[dict(id=3, name='defect')],
        annotations=[dict(id=1, image_id=1, category_id=3, bbox=[0, 0, 10, 10], area=100, iscrowd=0)],
    )
    found = [dict(image_id=1, category_id=3, bbox=[0, 0, 5, 5], score=0.5)]
    file.write_text(json.dumps(dict(truth=truth, detections=found)))
    assert mistakes.main([str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == '| seed0 | defect | 0.000 | 1.000 | 0.000 | 1.000 |'
    file.write_text('{}')
    assert mistakes.main([str(file)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: {file}: expected predictions') and error.count('\n') == 1
