"""export_labels: what a labelling tool gets is what the converter was given, and reads again."""

import json

import cv2
import numpy as np
from helpers.label_sets import PLAIN, coco, rle

from projects.prepare.tile import fill_polygon
from projects.radiograph.rle import outline
from tools.export_labels import main

OBJECTS = [
    (1, 1, dict(bbox=[8.0, 4.0, 16.0, 16.0], segmentation=[[8, 4, 24, 4, 16, 20]])),
    (1, 2, dict(segmentation=rle((40, 30, 80, 50)), bbox=[40.0, 30.0, 40.0, 20.0], iscrowd=1)),
    (1, 2, dict(segmentation=rle((2, 60, 8, 66), (12, 60, 18, 66)), bbox=[2.0, 60.0, 16.0, 6.0], iscrowd=1)),
    (1, 1, dict(bbox=[30.0, 70.0, 60.0, 8.0], attributes=dict(rotation=20.0))),
    (1, 1, dict(bbox=[90.0, 10.0, 10.0, 10.0], attributes=dict(difficult=True))),
    (1, 1, dict(bbox=[100.0, 80.0, 40.0, 40.0])),  # reaches out of the image
]


def objects(found):
    """Annotations by image, without what numbers them, in one order."""
    own = ('id', 'image_id', 'category_id', 'clipped_from')
    return {
        stem: sorted(
            json.dumps({k: v for k, v in a.items() if k not in own}, sort_keys=True) for a in annotations
        )
        for stem, annotations in found.items()
    }


def test_labels_come_back_as_they_went(src, convert, capsys):
    coco(src, [*PLAIN, *OBJECTS])
    code, _, _, found = convert('coco')
    assert code == 0 and len(found['s1']) == 6
    out = src.parent / 'out'
    assert main([str(out), str(src.parent / 'instances_default.json')]) == 0
    assert '6 images, 11 boxes, of which 4 have a polygon or mask and 2 are crowd' in capsys.readouterr().out
    out.rename(src.parent / 'before')
    (src.parent / 'instances_default.json').rename(src / 'annotations/instances_default.json')
    code, text, err, again = convert('coco')
    assert (code, err) == (0, '') and 'clipped' not in text and 'turned' not in text
    assert objects(again) == objects(found)


def test_label_studio_gets_polygons_and_no_box_beside_them(src, convert, capsys):
    coco(src, [*PLAIN, *OBJECTS])
    assert convert('coco')[0] == 0
    target = src.parent / 'labels.json'
    assert main([str(src.parent / 'out'), str(target), '--label-studio']) == 0
    assert 'note: Label Studio knows no crowd: 2 boxes' in capsys.readouterr().out
    exported = json.loads(target.read_text())
    assert all(isinstance(a['segmentation'], list) for a in exported['annotations'])
    assert all(('bbox' in a) != bool(a['segmentation']) for a in exported['annotations'])
    assert sorted(len(a['segmentation']) for a in exported['annotations']) == [0] * 7 + [1, 1, 1, 2]


def test_an_outline_holds_the_pixels_of_its_mask():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = cv2.GaussianBlur(rng.standard_normal((40, 50)), (0, 0), 1.5) > 0.05
        filled = np.zeros_like(mask)
        for polygon in outline(mask):
            filled |= fill_polygon(np.reshape(polygon, (-1, 2)), *mask.shape)
        # Holes are filled: what is beyond the mask is enclosed by it.
        outside = cv2.connectedComponents((~np.pad(mask, 1)).astype(np.uint8), connectivity=4)[1]
        np.testing.assert_array_equal(filled, (outside != outside[0, 0])[1:-1, 1:-1])


def test_no_data_set_is_named(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / 'out.json')]) == 2
    assert 'expected train.json' in capsys.readouterr().err
    (tmp_path / 'train.json').write_text('{"images": [{}], "annotations": [], "categories": []}')
    assert main([str(tmp_path), str(tmp_path / 'out.json')]) == 2
    err = capsys.readouterr().err
    assert "without 'id'" in err and err.count('\n') == 1
