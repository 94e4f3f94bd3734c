"""Labels as the tools write them: what means something else than it looks is read right, or refused."""

import shutil

import numpy as np
import pytest
import yaml
from helpers.conversion import ledger_of
from helpers.label_sets import (
    HEIGHT,
    PLAIN,
    WIDTH,
    boxes,
    coco,
    draw,
    dump,
    rle,
)

# ---------------------------------------------------------------------------------------------- crowd


def test_a_mask_of_one_region_is_an_object_whatever_cvat_calls_it(src, convert):
    one = dict(segmentation=rle((40, 30, 80, 50)), bbox=[40.0, 30.0, 40.0, 20.0], iscrowd=1)
    coco(src, [(k, 1 + k % 2, one) for k in range(1, 7)])
    code, text, err, found = convert('coco')
    assert (code, err) == (0, '')
    assert all(boxes(a)[0][1:] == ([40, 30, 40, 20], 0) for a in found.values())
    assert 'repaired: mask of one region marked as crowd read as one object: 6' in text
    assert 'crowd' not in text.replace('marked as crowd', '')


def test_crowd_of_several_regions_stays_and_is_counted(src, convert):
    several = dict(segmentation=rle((1, 1, 9, 9), (30, 30, 40, 40)), bbox=[1, 1, 39, 39], iscrowd=1)
    region = dict(bbox=[50.0, 50.0, 30.0, 30.0], iscrowd=1)
    coco(src, [*PLAIN, (1, 1, several), (1, 1, dict(bbox=[1.0, 1.0, 5.0, 5.0])), (2, 2, region)])
    code, text, _, found = convert('coco')
    assert code == 0
    assert boxes(found['s1']) == [('crack', [1, 1, 39, 39], 1), ('crack', [1, 1, 5, 5], 0)]
    assert boxes(found['s2'])[1] == ('pore', [50, 50, 30, 30], 1)
    assert 'crowd boxes, neither learnt nor counted: 2 in = ' in text


def test_a_set_of_crowd_alone_is_refused(src, convert):
    region = dict(bbox=[50.0, 50.0, 30.0, 30.0], iscrowd=1)
    coco(src, [(k, 1, region) for k in range(1, 7)])
    code, _, err, found = convert('coco')
    assert code == 1 and not found
    assert 'all 6 are crowd' in err and err.count('\n') == 1


@pytest.mark.parametrize('value', ['1', True, 1.0, 'true'])
def test_flags_are_read_however_they_are_written(value, src, convert):
    coco(src, [*PLAIN, (1, 1, dict(bbox=[1.0, 1.0, 5.0, 5.0], iscrowd=value))])
    assert boxes(convert('coco')[3]['s1']) == [('crack', [1, 1, 5, 5], 1)]


def test_what_was_to_be_ignored_stays_so_when_it_is_read_again(src, convert):
    mask = dict(segmentation=rle((40, 30, 80, 50)), bbox=[40.0, 30.0, 40.0, 20.0])
    coco(src, [*PLAIN, (1, 1, dict(mask, iscrowd=1, ignore=1))])
    written = convert('coco')[3]['s1']
    assert boxes(written) == [('crack', [40, 30, 40, 20], 1)]
    coco(src, [*PLAIN, (1, 1, {k: written[0][k] for k in written[0] if k not in ('id', 'image_id', 'type')})])
    assert boxes(convert_again(src, convert)['s1']) == [('crack', [40, 30, 40, 20], 1)]


def convert_again(src, convert):
    (src.parent / 'out').rename(src.parent / 'before')
    return convert('coco')[3]


# ----------------------------------------------------------------------------------------- turned boxes

UPRIGHT = [56.0, 14.0, 8.0, 60.0]  # 60 x 8 px at (30, 40), turned by 90 degrees
COUNTED = 'repaired: turned box read as the upright box around it: 1'


def test_a_turned_box_of_cvat_in_coco(src, convert):
    for degrees in (90.0, '270', -90):
        turned = dict(bbox=[30.0, 40.0, 60.0, 8.0], attributes=dict(occluded=False, rotation=degrees))
        coco(src, [*PLAIN, (1, 1, dict(turned, segmentation=[]))])
        code, text, err, found = convert('coco')
        assert (code, err) == (0, '') and COUNTED in text
        assert boxes(found['s1']) == [('crack', UPRIGHT, 0)]
        assert found['s1'][0]['area'] == 480
        shutil.rmtree(src.parent / 'out')
    # A polygon is what was drawn, whatever the box beside it is.
    polygon = dict(segmentation=[[10, 10, 30, 20, 10, 20]], bbox=[5, 5, 9, 9], attributes=dict(rotation=30))
    coco(src, [*PLAIN, (1, 1, polygon), (1, 1, dict(bbox=[3, 3, 9, 5], attributes=dict(rotation=0)))])
    code, text, _, found = convert('coco')
    assert boxes(found['s1']) == [('crack', [10, 10, 20, 10], 0), ('crack', [3, 3, 9, 5], 0)]
    assert COUNTED in text


def test_the_extent_of_a_box_at_any_angle(src, convert):
    turned = dict(bbox=[30.0, 40.0, 60.0, 8.0], attributes=dict(rotation=30.0))
    coco(src, [*PLAIN, (1, 1, turned)])
    (a,) = convert('coco')[3]['s1']
    w, h = 60 * np.cos(np.pi / 6) + 8 * 0.5, 60 * 0.5 + 8 * np.cos(np.pi / 6)
    np.testing.assert_allclose(a['bbox'], [60 - w / 2, 44 - h / 2, w, h], atol=0.01)
    assert a['area'] == pytest.approx(480, abs=0.1)
    # Clockwise: the end of the crack that lay to the left is the upper one.
    xs, ys = a['segmentation'][0][::2], a['segmentation'][0][1::2]
    assert xs[int(np.argmin(ys))] < 60


def voc(src, number, body, more=''):
    size = f'<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>'
    dump(
        src / f'Annotations/s{number}.xml',
        f'<annotation><filename>s{number}.png</filename>{size}<object><name>crack</name>{body}</object>'
        f'{more}</annotation>',
    )


BNDBOX = '<bndbox><xmin>30</xmin><ymin>40</ymin><xmax>90</xmax><ymax>48</ymax></bndbox>'


def test_turned_boxes_of_cvat_and_rolabelimg_in_voc(src, convert):
    attribute = '<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>'
    half = np.pi / 2
    robndbox = f'<robndbox><cx>60</cx><cy>44</cy><w>60</w><h>8</h><angle>{half}</angle></robndbox>'
    places = dict(left_top=(64, 14), right_top=(64, 74), right_bottom=(56, 74), left_bottom=(56, 14))
    corners = ''.join(f'<x_{k}>{x}</x_{k}><y_{k}>{y}</y_{k}>' for k, (x, y) in places.items())
    voc(src, 1, BNDBOX + attribute)
    voc(src, 2, f'<type>robndbox</type>{robndbox}')
    voc(src, 3, f'<robndbox>{corners}</robndbox>')
    voc(src, 4, BNDBOX + attribute.replace('90.0', '0.0'))
    voc(src, 5, BNDBOX)
    code, text, err, found = convert('voc')
    assert (code, err) == (0, '')
    assert [boxes(found[f's{k}'])[0][1] for k in (1, 2, 3)] == [UPRIGHT] * 3
    assert [boxes(found[f's{k}'])[0][1] for k in (4, 5)] == [[30, 40, 60, 8]] * 2
    assert COUNTED[:-1] + '3' in text


def test_a_turned_box_without_its_angle_is_put_aside(src, convert):
    for k in (2, 3, 4, 5):
        voc(src, k, BNDBOX)
    voc(src, 1, '<robndbox><cx>60</cx><cy>44</cy><w>60</w><h>8</h></robndbox>')
    code, _, err, found = convert('voc')
    assert code == 0 and 's1.xml: expected finite numbers for robndbox' in err and 's1' not in found


def shape(label, points, kind='rectangle', **more):
    return dict(label=label, points=points, shape_type=kind, flags={}, **more)


def labelme(src, number, *shapes, name='', **more):
    value = dict(shapes=list(shapes), imagePath=f'../images/s{number}.png')
    dump(src / f'json/{name or f"s{number}"}.json', value | more)


SLANTED = [[30, 20], [60, 50], [55, 55], [25, 25]]
PORE = shape('pore', [[80, 20], [86, 26]])


@pytest.mark.parametrize('kind', ['oriented_rectangle', 'rotation'])
def test_a_turned_box_of_labelme_and_xanylabeling(kind, src, convert):
    labelme(src, 1, shape('crack', SLANTED, kind), PORE)
    for k in range(2, 7):
        labelme(src, k, PORE)
    code, text, err, found = convert('labelme')
    assert (code, err) == (0, '') and COUNTED in text
    assert boxes(found['s1']) == [('crack', [25, 20, 35, 35], 0), ('pore', [80, 20, 6, 6], 0)]
    assert found['s1'][0]['segmentation'] == [[float(v) for p in SLANTED for v in p]]


def test_a_row_of_four_corners_is_yolo_obb(src, convert):
    yolo(src, ['0 0.3 0.3 0.6 0.6 0.55 0.66 0.25 0.36', '1 .2 .2 .4 .2 .4 .4 .2 .4'], {1: 'OBB'})
    flat = [0.234375, 0.20833333, 0.46875, 0.52083333, 0.4296875, 0.57291667, 0.1953125, 0.26041667]
    row = ' '.join(map(str, flat))
    dump(src / 'labels/s1.txt', f'0 {row}\n1 .2 .2 .4 .2 .4 .4 .2 .4\n')
    for k in range(2, 7):
        dump(src / f'labels/s{k}.txt', '1 .5 .5 .1 .1\n')
    code, text, err, found = convert('yolo')
    assert (code, err) == (0, '') and COUNTED in text
    np.testing.assert_allclose(found['s1'][0]['bbox'], [25, 20, 35, 35], atol=0.01)


@pytest.mark.parametrize('tool', ['voc', 'labelme', 'coco'])
def test_difficult_objects_are_to_be_ignored(tool, src, convert):
    for value in ('True', '1', 'yes', True):
        for k in range(2, 7):
            voc(src, k, BNDBOX)
            labelme(src, k, PORE)
        voc(src, 1, f'<difficult>{value}</difficult>{BNDBOX}')
        labelme(src, 1, PORE | dict(difficult=value), shape('crack', [[1, 1], [9, 9]]))
        labelme(src, 2, PORE | dict(flags=dict(difficult=value)))
        odd = dict(bbox=[30.0, 40.0, 60.0, 8.0], attributes=dict(difficult=value))
        if tool == 'coco':
            for path in src.glob('json/*.json'):
                path.unlink()
            coco(src, [*PLAIN, (1, 1, odd)])
        code, text, err, found = convert(tool)
        assert (code, err) == (0, '')
        assert found['s1'][0]['iscrowd'] == 1
        assert 'kept as iscrowd: ' in text
        shutil.rmtree(src.parent / 'out')


# ------------------------------------------------------------------------------------ one thing, two ways


def test_two_categories_with_one_id_are_refused(src, convert):
    twice = [dict(id=1, name='crack'), dict(id=1, name='pore'), dict(id=90, name='pore')]
    coco(src, PLAIN[:1], categories=twice)
    code, _, err, found = convert('coco')
    assert code == 1 and not found
    assert "one name for each category id, found 'crack' and 'pore' with id 1" in err
    # The same twice says nothing else than once.
    coco(src, PLAIN, categories=[dict(id=1, name='crack')] * 2 + [dict(id=2, name='pore')])
    assert convert('coco')[0] == 0


def test_a_key_that_occurs_twice_is_refused(src, convert):
    coco(src, PLAIN)
    code, _, err, _ = convert('coco', severity='crack: critical\npore: minor\ncrack: minor\n')
    assert code == 2 and "'crack' twice" in err
    for k in range(1, 7):
        dump(src / f'labels/s{k}.txt', '1 .5 .5 .1 .1\n')
    dump(src / 'data.yaml', 'names:\n  0: crack\n  1: pore\n  1: crack\n')
    code, _, err, _ = convert('yolo')
    assert code == 1 and 'twice' in err and 'data.yaml' in err
    path = src / 'annotations/instances_default.json'
    path.write_text(path.read_text()[:-1] + ', "annotations": []}')
    code, _, err, _ = convert('coco')
    assert code == 1 and "'annotations' twice" in err


def test_two_different_annotations_of_one_image_are_both_put_aside(src, convert):
    for k in range(1, 7):
        labelme(src, k, PORE)
    labelme(src, 1, shape('crack', [[50, 50], [60, 60]]), name='second_opinion')
    labelme(src, 2, PORE, name='again')
    code, text, err, found = convert('labelme')
    assert code == 0 and 's1' not in found and boxes(found['s2']) == [('pore', [80, 20, 6, 6], 0)]
    assert 'images/s1.png: expected one annotation per image, found different ones' in err
    assert 'json/s1.json' in err and 'json/second_opinion.json' in err
    # again.json sorts before s2.json and says the same.
    assert 'a second one, equal to that in json/again.json' in err
    assert 'boxes: 8 in = ' in text
    assert sorted(ledger_of(src.parent / 'out')['boxes']['left'].values())[-2:] == [1, 2]


def test_exports_that_contradict_each_other_are_named_and_not_the_group(src, convert):
    for name, x in (('Train', 10), ('Test', 80)):
        rows = [(k, 1, dict(bbox=[x, 10, 20, 10])) for k in range(1, 7 if x == 10 else 6)]
        coco(src, rows, f'annotations/instances_{name}.json', images=range(1, 7 if x == 10 else 6))
    code, _, err, found = convert('coco')
    assert code == 1 and not found and '--group' not in err
    assert 'instances_Train.json' in err and 'instances_Test.json' in err
    assert '5 of 6' in err and err.count('\n') == 1


def test_exports_that_repeat_each_other_are_read_once(src, convert):
    coco(src, [(1, 1, dict(bbox=[9, 9, 9, 9])), *PLAIN], 'annotations/instances_all.json')
    for split, some in (('train', range(1, 5)), ('val', range(5, 7))):
        rows = [(1, 1, dict(bbox=[9, 9, 9, 9])), *PLAIN]
        coco(src, [r for r in rows if r[0] in some], f'annotations/instances_{split}.json', images=some)
    code, text, _, found = convert('coco')
    assert code == 0 and sum(map(len, found.values())) == 6 and len(found) == 6
    assert 'boxes: 12 in = ' in text and 'annotation in quarantine: 6' in text


def test_too_few_parts_because_of_quarantine_say_so(src, convert):
    for k in (1, 2, 3, 4):
        labelme(src, k, PORE)
    for k in (3, 4):
        dump(src / f'json/s{k}.json', '{"shapes": 1}')
    code, _, err, _ = convert('labelme')
    assert code == 1 and '--group' not in err and '2 in quarantine' in err and 'json/s3.json' in err


# ----------------------------------------------------------------------------------------------- YOLO


def yolo(src, rows, other=None, names='names: [crack, pore]\n', sheet='data.yaml', encoding='utf-8'):
    for k in range(1, 7):
        dump(src / f'labels/s{k}.txt', '\n'.join(rows) + '\n')
    (src / sheet).write_bytes(names.encode(encoding))


@pytest.mark.parametrize('classes', ['crack\npore\n', 'names: [crack, pore]\n'])
def test_class_numbers_from_one_are_refused_as_a_whole(classes, src, convert):
    yolo(src, ['1 .5 .5 .2 .1'], names=classes, sheet='data.yaml' if 'names' in classes else 'classes.txt')
    for k in (5, 6):
        dump(src / f'labels/s{k}.txt', '1 .5 .5 .2 .1\n2 .3 .3 .1 .1\n')
    # Four files would be read with shifted classes, two put aside.
    code, _, err, found = convert('yolo')
    assert code == 1 and not found and err.count('\n') == 1
    assert 'numbers from 1 to 2 and no row of class 0' in err


def test_a_class_that_no_row_has_is_named(src, convert):
    yolo(src, ['1 .5 .5 .2 .1'])
    code, text, _, _ = convert('yolo')
    assert code == 0 and "no row of class 0 ('crack')" in text


def test_where_most_files_are_refused_nothing_is_written(src, convert):
    yolo(src, ['0 .5 .5 .2 .1'])
    for k in (1, 2, 3, 4):
        dump(src / f'labels/s{k}.txt', '7 .5 .5 .2 .1\n')
    code, _, err, found = convert('yolo')
    assert code == 1 and not found and not (src.parent / 'out').exists()
    assert '4 of 6' in err and "labels/s1.txt: expected a class of the names file in line 1, found '7'" in err


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
@pytest.mark.parametrize(
    ('sheet', 'names'),
    [('classes.txt', 'crack\r\npore\r\n'), ('data.yaml', 'names: [crack, pore]\r\n')],
)
def test_byte_order_marks_are_no_part_of_a_name(encoding, sheet, names, src, convert):
    yolo(src, ['0 .5 .5 .25 .125'], names=names, sheet=sheet, encoding=encoding)
    for k in range(1, 7):
        (src / f'labels/s{k}.txt').write_bytes('0 .5 .5 .25 .125\r\n'.encode(encoding))
    code, _, err, found = convert('yolo')
    assert (code, err) == (0, '')
    assert boxes(found['s1']) == [('crack', [48, 42, 32, 12], 0)]


def test_names_in_another_encoding_are_refused_by_file_and_line(src, convert):
    yolo(src, ['0 .5 .5 .25 .1'], names='pore\nLunker groß\n', sheet='classes.txt', encoding='cp1252')
    code, _, err, _ = convert('yolo')
    assert code == 1 and 'UTF-8' in err and 'line 2' in err and 'classes.txt' in err


def test_invisible_characters_are_shown(src, convert):
    for k in range(1, 7):
        labelme(src, k, shape('\u200bcrack', [[1, 1], [9, 9]]), shape('po\xa0re', [[1, 1], [9, 9]]))
    code, _, err, _ = convert('labelme')
    assert code == 1 and r'\u200bcrack' in err and r'po\xa0re' in err


def test_a_blank_line_keeps_its_class_number(src, convert):
    yolo(src, ['0 .5 .5 .2 .1', '2 .2 .2 .1 .1'], names='crack\n\npore\n', sheet='classes.txt')
    code, _, _, found = convert('yolo')
    assert code == 0 and [t for t, *_ in boxes(found['s1'])] == ['crack', 'pore']
    yolo(src, ['1 .5 .5 .2 .1'], names='crack\n\npore\n', sheet='classes.txt')
    (src.parent / 'out').rename(src.parent / 'before')
    assert convert('yolo')[0] == 1


def test_names_files_that_number_differently_are_refused(src, convert):
    yolo(src, ['1 .5 .5 .2 .1'])
    dump(src / 'labels/classes.txt', 'dog\ncrack\npore\n')  # LabelImg's own list
    code, _, err, _ = convert('yolo')
    assert code == 1 and 'data.yaml' in err and 'labels/classes.txt' in err
    dump(src / 'labels/classes.txt', 'crack\npore\n')
    assert convert('yolo')[0] == 0


def test_names_and_their_number_must_agree(src, convert):
    yolo(src, ['1 .5 .5 .2 .1'], names='nc: 3\nnames: [crack, pore]\n')
    code, _, err, _ = convert('yolo')
    assert code == 1 and 'nc: 3' in err


@pytest.mark.parametrize(
    ('row', 'reason'),
    [
        ('0 .5 .5 .25 .1 .93', 'a confidence'),
        ('0 .5 .5 .25 .1 .45 .5 2.0 .55 .5 2.0', 'key points'),
        ('0 .5 .5 .25 .1 .45 .5 1 .55 .5 0', 'key points'),
        ('0 .1 .1 .2 1.7 .3 .1', 'relative to the image'),
        ('0.5 .5 .5 .25 .1', 'expected a class'),
    ],
)
def test_rows_that_mean_something_else_are_put_aside(row, reason, src, convert):
    yolo(src, ['0 .5 .5 .25 .1'])
    dump(src / 'labels/s1.txt', row)
    code, _, err, found = convert('yolo')
    assert code == 0 and 's1' not in found
    assert err.startswith('quarantine: labels/s1.txt') and reason in err


def test_key_points_that_are_stated_leave_the_box(src, convert):
    yolo(
        src,
        ['0 .5 .5 .25 .125 .45 .5 2 .55 .5 2', '1.0 .5 .5 .25 .125'],
        names='names: [crack, pore]\nkpt_shape: [2, 3]\n',
    )
    code, text, _, found = convert('yolo')
    assert code == 0
    assert boxes(found['s1']) == [('crack', [48, 42, 32, 12], 0), ('pore', [48, 42, 32, 12], 0)]
    assert 'key points of an object left out, its box kept: 6' in text


def test_labels_that_label_studio_gave_to_two_images_block_both(src, convert):
    yolo(src, ['0 .5 .5 .25 .1'])
    for k, stem in enumerate(('0000_7436', '0000_6dd1')):
        draw(src / f'images/{stem}.png', 20 + k)
    dump(src / 'labels/0000.txt', '0 .5 .5 .2 .2\n')
    code, text, err, _ = convert('yolo')
    assert code == 0 and 'labels/0000.txt: expected its image' in err
    assert not (src.parent / 'out/unlabeled').exists()
    assert '2 left out (' in text


# ----------------------------------------------------------------------------------------------- COCO


def test_the_coco_of_via_is_read(src, convert):
    rows = [(str(k), 1 + k % 2, dict(bbox=[10, 10, 20, 10], area=200)) for k in range(1, 7)]
    rows = [(i, str(c), dict(m, segmentation=[10, 10, 30, 10, 30, 20])) for i, c, m in rows]
    coco(src, rows)
    code, _, err, found = convert('coco')
    assert (code, err) == (0, '')
    assert boxes(found['s1']) == [('pore', [10, 10, 20, 10], 0)]
    assert found['s1'][0]['segmentation'] == [[10, 10, 30, 10, 30, 20]]


def test_boxes_as_shares_of_the_image_are_refused(src, convert):
    coco(src, [(k, 1, dict(bbox=[0.1, 0.2, 0.25, 0.5])) for k in range(1, 7)])
    code, _, err, _ = convert('coco')
    assert code == 1 and 'boxes in px' in err


def test_ids_that_are_truth_values_are_refused(src, convert):
    coco(src, [(True, 1, dict(bbox=[1, 2, 3, 4]))])
    code, _, err, _ = convert('coco')
    assert code == 1 and 'ids that are numbers or text' in err


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('crack: Critical\npore: minor\n', "'crack': 'Critical'"),
        ('crack: critical\nno: minor\n', 'False: '),
        ('crack: critical\n3: minor\n', '3: '),
    ],
)
def test_a_severity_that_is_none_is_named(text, expected, src, convert):
    coco(src, PLAIN)
    code, _, err, _ = convert('coco', severity=text)
    assert code == 2 and expected in err and 'expected YAML lines' in err


def test_severity_with_a_byte_order_mark(src, convert):
    coco(src, PLAIN)
    code, _, err, _ = convert('coco', severity='\ufeffcrack: critical\r\npore: minor\r\n')
    assert (code, err) == (0, '')
    assert yaml.safe_load((src.parent / 'out/severity.yaml').read_text('utf-8-sig')) == dict(
        crack='critical', pore='minor'
    )
