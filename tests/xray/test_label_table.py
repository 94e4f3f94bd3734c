"""What a Parquet file gives is what the JSON gives: items, labels, tables, errors and measures."""

import copy
import json
import os
import pickle
import re

import numpy as np
import pytest
import torch
from helpers.coco_files import any_coco

from projects.prepare.parquet import convert_labels
from projects.xray import label_table, parquet
from projects.xray.coco import describe, load_defects
from projects.xray.datasets import XrayDefects, XraySeverity
from projects.xray.errors import DatasetError
from projects.xray.label_table import open_defects
from projects.xray.metrics import XrayDefectMetric

SEVERITY = {'crack': 'critical', 'gas_pore': 'minor'}
CLASSES = ('critical', 'minor')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMXRAY_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'labels'


@pytest.fixture
def both(tmp_path, monkeypatch):
    """Write a COCO object as JSON and as Parquet of small groups, with empty image files; returns both."""
    monkeypatch.setattr(parquet, 'GROUP', 7)
    monkeypatch.setattr(label_table, 'GROUP', 7)

    def make(coco):
        paths = tmp_path / 'train.json', tmp_path / 'train.parquet'
        paths[0].write_text(json.dumps(coco))
        convert_labels(*paths)
        for image in coco['images']:
            file = tmp_path / 'images' / image['file_name']
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return [str(path) for path in paths]

    return make


def in_order_of_images(coco):
    """Annotations grouped by image, as a table has them."""
    places = {image['id']: k for k, image in enumerate(coco['images'])}
    return coco | dict(annotations=sorted(coco['annotations'], key=lambda a: places[a['image_id']]))


def untidy():
    """Labels with everything that `load_defects` repairs."""
    coco = any_coco(30, 1)
    for number, annotation in enumerate(coco['annotations']):
        if number % 6 == 0:
            annotation['bbox'] = [-3.5, 70, 40, 20.25]
        if number % 10 == 1:
            annotation['bbox'] = [30.2, 10, 0.25, 3]
        if number % 11 == 2:
            annotation['area'] = 0
        if number % 11 == 3:
            del annotation['area']
        if number % 9 == 4:
            annotation['id'] = 5
        if number % 13 == 5:
            annotation['ignore'] = 'yes'
        if number % 13 == 6:
            del annotation['id']
        if number % 7 == 3:
            annotation['bbox'] = [0.1, 0.2, 99.9, 0.7 + 0.3]
    return coco


@pytest.mark.parametrize('coco', [any_coco(40), untidy()], ids=['tidy', 'untidy'])
def test_a_table_holds_what_the_json_holds(both, coco):
    plain, large = both(coco)
    expected = in_order_of_images(load_defects(plain, CLASSES, SEVERITY))
    table = open_defects(large, CLASSES, SEVERITY)
    assert table.coco() == expected and len(table) == len(expected['images'])
    assert describe(expected, large) == table.describe()
    assert list(table.names()) == [image['file_name'] for image in expected['images']]
    assert table.series() == {image.get('series') for image in expected['images']}
    ids = [image['id'] for image in expected['images']]
    assert table.rows_of([ids[20], ids[3], 10**6]) == ([3, 20], [10**6])
    again = pickle.loads(pickle.dumps(table))
    assert again.record(11) == table.record(11)


def items_of(dataset):
    return [dataset.get_data_info(k) for k in range(len(dataset))]


@pytest.mark.parametrize('rule', [None, dict(filter_empty_gt=True), dict(min_size=90), dict(min_size=0)])
@pytest.mark.parametrize('indices', [None, 4, -4, [3, 1]])
def test_detection_items_are_the_same(both, tmp_path, rule, indices):
    coco = untidy()
    coco['annotations'] = [a for a in coco['annotations'] if a['image_id'] % 4 == 1]
    for image in coco['images'][::5]:
        image.update(width=200, height=150)
    found = []
    for path in both(coco):
        dataset = XrayDefects(
            ann_file=path,
            data_prefix=dict(img=str(tmp_path / 'images')),
            metainfo=dict(classes=CLASSES),
            severity=SEVERITY,
            filter_cfg=rule,
            indices=indices,
        )
        found.append(items_of(dataset))
        if indices is None:
            turned = dataset.get_subset(range(len(dataset))[::-1])
            assert turned.get_data_info(1)['img_id'] == found[-1][-2]['img_id']
            assert len(copy.deepcopy(dataset)) == len(dataset)
            spawned = pickle.loads(pickle.dumps(dataset))  # as a loader that is not forked gets it
            assert spawned.get_data_info(0) == dataset.get_data_info(0)
    for a, b in zip(*found, strict=True):
        key = lambda instance: json.dumps(instance, sort_keys=True)  # noqa: E731
        assert sorted(a.pop('instances'), key=key) == sorted(b.pop('instances'), key=key)
        assert a == b


@pytest.mark.parametrize('lacking', [False, True])
def test_masks_are_the_same_or_missing_alike(both, tmp_path, lacking):
    coco = any_coco(12)
    for number, annotation in enumerate(coco['annotations']):
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h]] if number != 7 or not lacking else []
        annotation.pop('ignore', None)
        annotation['iscrowd'] = 0
    found = []
    for path in both(coco):
        options = dict(ann_file=path, data_prefix=dict(img=str(tmp_path / 'images')), severity=SEVERITY)
        pipeline = [dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)]
        if lacking:
            with pytest.raises(DatasetError, match='1 of .* no `segmentation`'):
                XrayDefects(**options, metainfo=dict(classes=CLASSES), pipeline=pipeline)
            continue
        found.append(items_of(XrayDefects(**options, metainfo=dict(classes=CLASSES), pipeline=pipeline)))
    key = lambda instance: json.dumps(instance, sort_keys=True)  # noqa: E731
    for a, b in zip(*found, strict=True) if found else ():
        assert sorted(a['instances'], key=key) == sorted(b['instances'], key=key)
        assert all(isinstance(instance['mask']['counts'], str) for instance in b['instances'])


def test_masks_are_checked_before_anything_is_trained(both, tmp_path, cache, monkeypatch):
    """In the data set and in the metric of validation, whose file is read at the end of an epoch."""
    coco = any_coco(12)
    for annotation in coco['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h]]
    good = both(coco)[1]
    coco['annotations'][25]['segmentation'] = dict(size=[80, 100], counts=[7999])
    options = dict(data_prefix=dict(img=str(tmp_path / 'images')), severity=SEVERITY)
    options |= dict(
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)],
    )
    XrayDefects(ann_file=good, **options)
    monkeypatch.setattr('projects.xray.datasets.with_masks', None)
    XrayDefects(ann_file=good, **options)  # they were checked
    monkeypatch.undo()
    monkeypatch.setenv('MMXRAY_CACHE', str(cache.parent))
    wrong = both(coco)[1]
    with pytest.raises(DatasetError, match='annotation 26 .*expected run lengths that add up'):
        XrayDefects(ann_file=wrong, **options)
    metric = XrayDefectMetric(wrong, severity=SEVERITY, masks=True)
    with pytest.raises(DatasetError, match='annotation 26 .*expected run lengths that add up'):
        metric.dataset_meta = dict(classes=CLASSES)


def test_what_leaves_no_box_is_refused_alike(both, tmp_path):
    for path in both(any_coco(20)):
        with pytest.raises(DatasetError, match='leaves 0 of 20 images and 0 boxes'):
            XrayDefects(
                ann_file=path,
                data_prefix=dict(img=str(tmp_path / 'images')),
                metainfo=dict(classes=CLASSES),
                severity=SEVERITY,
                filter_cfg=dict(min_size=500),
            )


@pytest.mark.parametrize('balanced', [False, True])
def test_severity_items_are_the_same(both, tmp_path, balanced):
    found = []
    for path in both(untidy()):
        dataset = XraySeverity(
            ann_file=path, data_prefix=str(tmp_path / 'images'), severity=SEVERITY, balanced=balanced
        )
        found.append(items_of(pickle.loads(pickle.dumps(dataset))))
    assert found[0] == found[1]


def broken(change):
    coco = any_coco(12)
    change(coco)
    return coco


@pytest.mark.parametrize(
    'change',
    [
        lambda coco: coco['images'][9].update(file_name=coco['images'][2]['file_name']),
        lambda coco: coco['images'][9].update(file_name='../x.png'),
        lambda coco: coco['images'][9].update(file_name='/x.png'),
        lambda coco: coco['images'][9].update(file_name='a\nb.png'),
        lambda coco: coco['images'][9].update(width=0),
        lambda coco: coco['images'][9].update(height=1.5),
        lambda coco: coco['images'][9].pop('width'),
        lambda coco: coco['annotations'][9].update(category_id=99),
        lambda coco: coco['annotations'][9].update(bbox=[1, 2, 3]),
        lambda coco: coco['annotations'][9].update(bbox=[1, 2, 3, float('nan')]),
        lambda coco: coco['annotations'][9].update(bbox=[1, 2, 0, 3]),
        lambda coco: coco['annotations'][9].update(bbox=[200, 2, 5, 3]),
        lambda coco: coco['annotations'][9].update(iscrowd='perhaps'),
        lambda coco: coco['categories'].append(dict(id=3, name='x')),
        lambda coco: coco['categories'][0].update(name='Crack'),
        lambda coco: [annotation.update(iscrowd=1) for annotation in coco['annotations']],
        lambda coco: coco['annotations'].clear(),
        lambda coco: (coco['images'].clear(), coco['annotations'].clear()),
    ],
)
def test_what_is_wrong_is_said_alike(both, change):
    plain, large = both(broken(change))
    with pytest.raises(DatasetError) as expected:
        load_defects(plain, CLASSES, SEVERITY)
    with pytest.raises(DatasetError) as found:
        open_defects(large, CLASSES, SEVERITY)
    # A column of boxes holds 3 as 3.0.
    assert re.sub(r'(\d)\.0\b', r'\1', str(found.value)) == str(expected.value).replace(plain, large)


def test_a_missing_file_and_a_string_of_classes(tmp_path):
    with pytest.raises(DatasetError, match='a.parquet: no such'):
        open_defects(tmp_path / 'a.parquet', None)
    with pytest.raises(DatasetError, match='is the string'):
        open_defects(tmp_path / 'a.parquet', 'pore')


def test_the_checked_file_is_used_again_until_it_is_damaged(both, cache):
    _, large = both(any_coco(20))
    expected = open_defects(large, None).coco()
    (mapped,) = cache.glob('*.arrow')
    before = mapped.stat().st_ino
    assert open_defects(large, None).coco() == expected and mapped.stat().st_ino == before
    content = bytearray(mapped.read_bytes())
    content[len(content) // 2] ^= 1
    mapped.write_bytes(content)
    assert open_defects(large, None).coco() == expected
    assert mapped.stat().st_ino != before


def test_old_checked_files_go_and_a_full_disk_is_one_line(both, cache, monkeypatch):
    monkeypatch.setattr(label_table, '_KEPT', 2)
    for images in (5, 6, 7):
        _, large = both(any_coco(images))
        open_defects(large, None)
    assert len(list(cache.iterdir())) == 4
    monkeypatch.setenv('MMXRAY_CACHE', '/proc/none')
    with pytest.raises(DatasetError, match='expected room for the labels of .*; point MMXRAY_CACHE'):
        open_defects(large, None)


def test_the_metric_measures_the_same(both):
    coco = any_coco(30, 3)
    measured = []
    for path in both(coco):
        metric = XrayDefectMetric(ann_file=path, severity=SEVERITY, drop_series=['C1'])
        metric.dataset_meta = dict(classes=CLASSES)
        for image in coco['images'][:20]:
            boxes = [a['bbox'] for a in coco['annotations'] if a['image_id'] == image['id']]
            boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]).reshape(-1, 4)
            found = dict(bboxes=boxes, scores=torch.linspace(0.9, 0.2, len(boxes)))
            found['labels'] = torch.arange(len(boxes)) % 2
            metric.process({}, [dict(img_id=image['id'], pred_instances=found)])
        measured.append(metric.evaluate(30))
        assert {image['id'] for image in metric.predictions['truth']['images']} == {
            image['id'] for image in coco['images'][:20]
        }
        metric.process({}, [dict(img_id=4, pred_instances=found)])
        with pytest.raises(DatasetError, match=r'no image with the ids \[4\]'):
            metric.evaluate(30)
    np.testing.assert_equal(*measured)


def test_memory_does_not_grow_with_the_records(both, cache):
    _, large = both(any_coco(20))
    dataset = open_defects(large, None)
    maps = open(f'/proc/{os.getpid()}/maps').read()  # noqa: SIM115, PTH123
    assert str(next(cache.glob('*.arrow'))) in maps and len(dataset) == 20
