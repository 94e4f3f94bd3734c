"""The overlay: labels of overlapping boxes can be read."""

from itertools import combinations

from projects.line.runtime.pictures import place_label

PICTURE, ROOM = (640, 480), (80, 16)


def place_all(boxes):
    taken = []
    for box in boxes:
        x, y = place_label(box, ROOM, PICTURE, taken)
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


def test_more_labels_than_there_is_room_for_still_have_a_place():
    assert len(place_all([[5, 5, 9, 9]] * 200)) == 200
