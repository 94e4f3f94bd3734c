"""The overlay: labels of overlapping boxes can be read."""

from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
from helpers.exported import export_to, spot

from projects.line.runtime import Inspector, pictures
from projects.line.runtime.pictures import place_label

PICTURE, ROOM = (640, 480), (80, 16)


def place_all(boxes):
    taken = []
    for box in boxes:
        if (place := place_label(box, ROOM, PICTURE, taken)) is not None:
            x, y = place
            taken.append((x, y, x + ROOM[0], y + ROOM[1]))
    return taken


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_a_single_label_lies_above_its_box_or_below_at_the_border():
    assert place_label([100, 100, 150, 140], ROOM, PICTURE, []) == (100, 84)
    assert place_label([100, 0, 150, 40], ROOM, PICTURE, [(100, 0, 180, 16)]) == (100, 41)


def test_labels_of_boxes_upon_each_other_do_not_overlap():
    boxes = [[100 + k, 100 + 2 * k, 150 + k, 140 + k] for k in range(12)]
    boxes += [[630, 470, 640, 480], [0, 0, 5, 5], [600, 0, 640, 8], [0, 0, 640, 480]]
    placed = place_all(boxes)
    assert not any(overlap(a, b) for a, b in combinations(placed, 2))
    assert all(a >= 0 and b >= 0 and c <= 640 and d <= 480 for a, b, c, d in placed)


def test_a_label_lies_on_no_other_box_if_that_can_be():
    # Above the lower box is the upper one, below it a third.
    others = [(100, 70, 150, 98), (100, 141, 150, 170)]
    assert place_label([100, 100, 150, 140], ROOM, PICTURE, [], others) == (151, 100)
    # Everywhere is a box: on it rather than nowhere.
    assert place_label([100, 100, 150, 140], ROOM, PICTURE, [], [(0, 0, 640, 480)]) == (100, 84)


def test_a_label_for_which_there_is_no_room_covers_no_other():
    placed = place_all([[5, 5, 9, 9]] * 200)
    assert len(placed) == 30  # lines of 16 px
    assert not any(overlap(a, b) for a, b in combinations(placed, 2))


def test_an_overlay_with_boxes_near_each_other_is_read_label_by_label(tmp_path, monkeypatch):
    written = []
    put = cv2.putText

    def keep(picture, text, at, font, size, colour, line, kind):
        (width, height), below = cv2.getTextSize(text, font, size, 1)
        if line == 1:
            written.append((at[0], at[1] - height, at[0] + width, at[1] + below))
        return put(picture, text, at, font, size, colour, line, kind)

    monkeypatch.setattr(pictures.cv2, 'putText', keep)
    inspection = Inspector(export_to(tmp_path / 'exported'), cache=False)(spot(20, 30))
    boxes = np.array([[200 + 9 * k, 220 + 4 * k, 230 + 9 * k, 240 + 4 * k] for k in range(8)], np.float32)
    many = replace(
        inspection,
        pixels=np.full((480, 640), 128, np.uint8),
        boxes=boxes,
        scores=np.linspace(0.99, 0.5, 8, dtype=np.float32),
        labels=np.arange(8) % 2,
        severities=[('critical', 'minor')[k % 2] for k in range(8)],
    )
    picture = pictures.overlay(many, 0.5)
    assert len(written) == 8
    assert not any(overlap(a, b) for a, b in combinations(written, 2))
    hits = [(k, j) for k, label in enumerate(written) for j, box in enumerate(boxes) if overlap(label, box)]
    assert not hits
    # The text alone covers the radiograph, no plate behind it.
    left, top, right, bottom = written[0]
    assert (picture[top:bottom, left:right] == 128).all(2).mean() > 0.05
