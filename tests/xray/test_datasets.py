import json
import logging
import random
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from helpers.damage import HOSTILE, mutate, restructure
from helpers.radiograph_files import CASES
from mmdet.datasets.transforms import PackDetInputs
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.datasets.transforms import PackInputs

from projects.xray.classes import CASTINGS, CLASSES
from projects.xray.datasets import (
    DatasetError,
    XrayDefects,
    XrayImages,
    XraySeverity,
    describe,
    load_defects,
    read_severity,
)
from projects.xray.preprocessors import XrayClsDataPreprocessor, XraySelfSupDataPreprocessor
from projects.xray.transforms import LoadXray

SEVERITY = {'crack': 'critical', 'gas_pore': 'minor'}


@pytest.fixture
def write(tmp_path):
    """Write a COCO file: two images of 100 x 80 px, a crack and a gas pore in the first; changes applied."""

    def make(change=None, name='train.json'):
        coco = dict(
            images=[dict(id=i, file_name=f'{i}.png', width=100, height=80) for i in (7, 9)],
            categories=[dict(id=3, name='crack'), dict(id=5, name='gas_pore')],
            annotations=[
                dict(id=1, image_id=7, category_id=3, bbox=[10, 20, 30, 40], area=1200, iscrowd=0),
                dict(id=2, image_id=7, category_id=5, bbox=[50, 20, 10, 10], area=100, iscrowd=0),
            ],
        )
        if change:
            change(coco)
        path = tmp_path / name
        path.write_text(json.dumps(coco))
        return path

    return make


@pytest.fixture
def log(caplog):
    """Text of what mmengine's logger said."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger=logger.name)
    yield lambda: caplog.text
    logger.removeHandler(caplog.handler)


def annotation(**values):
    return lambda coco: coco['annotations'][0].update(values)


# ---------------------------------------------------------------------------------------- load_defects


def test_types_become_classes_and_are_kept(write):
    coco = load_defects(write(), CLASSES, SEVERITY)
    assert coco['categories'] == [dict(id=1, name='critical'), dict(id=2, name='minor')]
    assert [(a['category_id'], a['type']) for a in coco['annotations']] == [(1, 'crack'), (2, 'gas_pore')]
    assert coco['annotations'][0]['bbox'] == [10, 20, 30, 40]
    assert coco['repairs'] == {}


def test_the_order_of_classes_sets_the_ids(write):
    coco = load_defects(write(), ('minor', 'critical'), SEVERITY)
    assert [a['category_id'] for a in coco['annotations']] == [2, 1]


def test_defect_free_images_and_image_ids_are_kept(write):
    assert [image['id'] for image in load_defects(write(), CLASSES, SEVERITY)['images']] == [7, 9]


def test_masks_and_other_fields_are_kept(write):
    polygon = [[10, 20, 40, 20, 40, 60]]
    coco = load_defects(write(annotation(segmentation=polygon, area=600, contrast=0.1)), CLASSES, SEVERITY)
    ann = coco['annotations'][0]
    assert (ann['segmentation'], ann['area'], ann['contrast']) == (polygon, 600, 0.1)


def test_without_a_map_the_types_are_the_classes(write):
    path = write(lambda coco: coco.update(categories=[dict(id=3, name='gas_pore'), dict(id=5, name='crack')]))
    coco = load_defects(path, ('crack', 'gas_pore'), None)
    assert [a['category_id'] for a in coco['annotations']] == [2, 1]


@pytest.mark.parametrize(
    ('box', 'expected', 'repair'),
    [
        ([-1, 20, 30, 40], [0, 20, 29, 40], 'boxes clipped to their image'),
        ([80, 60, 30, 40], [80, 60, 20, 20], 'boxes clipped to their image'),
        ([99.5, 10, 0.5, 10], [99, 10, 1, 10], 'boxes widened to one pixel'),
        ([10, 10.25, 5, 0.5], [10, 10, 5, 1], 'boxes widened to one pixel'),
        ([7.51, 8.51, 0.67, 0.67], [7.345, 8.345, 1, 1], 'boxes widened to one pixel'),  # 8.345 - 7.345 < 1
        ([90, 10, 10.005, 10], [90, 10, 10, 10], None),  # rounding of the writer
    ],
)
def test_box_repairs_are_counted(write, box, expected, repair):
    coco = load_defects(write(annotation(bbox=box)), CLASSES, SEVERITY)
    assert coco['annotations'][0]['bbox'] == pytest.approx(expected)
    assert coco['repairs'] == ({repair: 1} if repair else {})
    # mmdet would drop anything smaller than this without a word.
    assert min(coco['annotations'][0]['bbox'][2:]) >= 1


def test_repeated_and_missing_annotation_ids_are_renumbered(write):
    def change(coco):
        coco['annotations'].append({**coco['annotations'][0], 'id': 2})
        coco['annotations'].append({k: v for k, v in coco['annotations'][0].items() if k != 'id'})

    coco = load_defects(write(change), CLASSES, SEVERITY)
    assert [a['id'] for a in coco['annotations']] == [1, 2, 3, 4]
    assert coco['repairs'] == {'annotation ids renumbered': 2}


def test_zero_area_field_and_ignore_are_repaired(write):
    coco = load_defects(write(annotation(area=0, ignore=1)), CLASSES, SEVERITY)
    ann = coco['annotations'][0]
    assert (ann['area'], ann['iscrowd'], 'ignore' in ann) == (1200, 1, False)
    assert coco['repairs'] == {'areas set to that of the box': 1, '`ignore` read as `iscrowd`': 1}


BROKEN = {
    'annotation 1 .* wholly outside its image of 100 x 80': annotation(bbox=[100, 20, 5, 5]),
    'annotation 1 .*without area': annotation(bbox=[10, 20, 0, 5]),
    r'annotation 1 .*expected \[x, y, w, h\]': annotation(bbox=[10, 20, 5]),
    r'annotation 1 .*box None, expected': annotation(bbox=None),
    r'annotation 1 .*nan': annotation(bbox=[10, 20, float('nan'), 5]),
    'annotation 1 belongs to image 8': annotation(image_id=8),
    r'annotation 1 belongs to image \[7\]': annotation(image_id=[7]),
    r"annotation 1 .*category_id 4.*\{3: 'crack', 5: 'gas_pore'\}": annotation(category_id=4),
    'image id 7 or file name 9.png occurs twice': lambda coco: coco['images'][1].update(id=7),
    'image id 9 or file name 7.png occurs twice': lambda coco: coco['images'][1].update(file_name='7.png'),
    'image 9.png has width 0': lambda coco: coco['images'][1].update(width=0),
    'image number 1 lacks': lambda coco: coco['images'][1].pop('file_name'),
    r'file name ../9.png leaves': lambda coco: coco['images'][1].update(file_name='../9.png'),
    r'file name /a/9.png leaves': lambda coco: coco['images'][1].update(file_name='/a/9.png'),
    "category id 3 or name 'gas_pore' occurs twice": lambda coco: coco['categories'][1].update(id=3),
    'category .* lacks': lambda coco: coco['categories'][1].pop('name'),
    '`categories` is not a list': lambda coco: coco.pop('categories'),
    '`images` is not a list': lambda coco: coco.update(images={}),
    '0 images': lambda coco: coco.update(images=[], annotations=[]),
    '0 boxes in 2 images': lambda coco: coco.update(annotations=[]),
}


@pytest.mark.parametrize('message', BROKEN)
def test_broken_files_are_named_in_one_line(write, message):
    path = write(BROKEN[message])
    with pytest.raises(DatasetError, match=message) as error:
        load_defects(path, CLASSES, SEVERITY)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', ['{"images": [', '[1, 2]', '"a"'])
def test_not_a_coco_file(tmp_path, content):
    (tmp_path / 'a.json').write_text(content)
    with pytest.raises(DatasetError, match='a.json.*(JSON|COCO)') as error:
        load_defects(tmp_path / 'a.json', CLASSES, SEVERITY)
    assert '\n' not in str(error.value)


def test_files_that_could_fill_the_memory_are_refused(tmp_path):
    path = tmp_path / 'train.json'
    for content, case in {
        b'{"images": [' + b'[],' * 1_000_001 + b'[]]}': 'at most 1000000 lists',
        b'{"images": [' + b'[' * 101 + b']' * 101 + b']}': 'at most 100 lists within each other',
    }.items():
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=f'^{path}: expected .*{case}'):
            load_defects(path, ('crack',))
    with path.open('wb') as file:
        file.truncate(49 * 2**20)
    with pytest.raises(DatasetError, match=f'^{path}: expected at most 48 MiB'):
        load_defects(path, ('crack',))


@pytest.mark.parametrize('name', ['a\0b.png', 'gr\udcfcn.png', '\ud800', 'two\nlines.png'])
def test_file_names_that_no_file_can_have_are_refused(write, name):
    path = write(lambda coco: coco['images'][0].update(file_name=name))
    with pytest.raises(DatasetError, match='is not one line of UTF-8') as error:
        load_defects(path, ('crack', 'gas_pore'))
    str(error.value).encode()
    assert '\n' not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(DatasetError, match='gone.json: no such annotation file.*convert_dataset'):
        load_defects(tmp_path / 'gone.json', CLASSES, SEVERITY)


def test_types_missing_from_the_map_are_listed(write):
    with pytest.raises(DatasetError, match=r"train.json.*'crack' \(the map has 'Crack'\), 'gas_pore'"):
        load_defects(write(), CLASSES, {'Crack': 'critical'})


def test_a_declared_type_without_boxes_needs_no_entry(write):
    path = write(lambda coco: coco['categories'].append(dict(id=6, name='unused')))
    assert len(load_defects(path, CLASSES, SEVERITY)['annotations']) == 2


def test_map_value_that_is_no_class(write):
    with pytest.raises(DatasetError, match=r"'gas_pore': 'Minor'.*\['critical', 'minor'\]"):
        load_defects(write(), CLASSES, {'crack': 'critical', 'gas_pore': 'Minor'})


def test_types_other_than_the_classes_show_both_sides(write):
    with pytest.raises(DatasetError, match=r"\['crack', 'gas_pore'\].*\['critical', 'minor'\].*severity"):
        load_defects(write(), CLASSES, None)
    with pytest.raises(DatasetError, match='upper and lower case only'):
        load_defects(write(), ('Crack', 'Gas_pore'), None)


def test_one_class_given_as_a_string(write):
    with pytest.raises(DatasetError, match=r"string 'defect'.*\('defect',\)"):
        load_defects(write(), 'defect', None)


def test_a_file_of_crowd_alone_is_refused_and_crowd_is_told(tiny_coco):
    root = tiny_coco(n=3)
    path = root / 'train.json'
    coco = json.loads(path.read_text())
    coco['annotations'][0]['iscrowd'] = '1'
    coco['annotations'][1]['iscrowd'] = '0'  # text that Python takes for true
    path.write_text(json.dumps(coco))
    loaded = load_defects(path, ('crack', 'gas_pore'))
    assert [a['iscrowd'] for a in loaded['annotations'][:2]] == [1, 0]
    count = len(loaded['annotations']) - 1
    assert f'{count} boxes; 1 crowd boxes beside them are neither learnt nor counted' in describe(
        loaded, path
    )
    coco['annotations'][0]['iscrowd'] = 'some'
    path.write_text(json.dumps(coco))
    with pytest.raises(DatasetError, match="expected 0 or 1 for iscrowd, found 'some'"):
        load_defects(path, None)
    for annotation in coco['annotations']:
        annotation['iscrowd'] = 1
    path.write_text(json.dumps(coco))
    with pytest.raises(DatasetError, match=f'{count + 1} crowd boxes, which are neither learnt nor counted'):
        load_defects(path, None)


# ----------------------------------------------------------------------------------------- read_severity


def test_severity_by_name_dict_and_file(tmp_path):
    assert read_severity(None) is None
    assert read_severity('castings') == CASTINGS
    assert read_severity(SEVERITY) == SEVERITY
    (tmp_path / 'map.yaml').write_text('crack: critical\ngas_pore: minor\n')
    (tmp_path / 'map.json').write_text(json.dumps(SEVERITY))
    assert read_severity(str(tmp_path / 'map.yaml')) == SEVERITY
    assert read_severity(str(tmp_path / 'map.json')) == SEVERITY


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('gone.yaml', None, 'castings.*existing YAML or JSON file'),
        ('map.txt', 'crack: critical', 'existing YAML or JSON file'),
        ('map.yaml', 'crack: [critical', 'expected YAML'),
        ('map.yaml', '- crack', 'expected a map'),
        ('map.yaml', '', 'expected a map'),
    ],
)
def test_bad_severity_file(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match=f'{name}.*{message}') as error:
        read_severity(str(tmp_path / name))
    assert '\n' not in str(error.value)


# ------------------------------------------------------------------------------------------- XrayDefects


def defects(root, split='train', **kwargs):
    kwargs = dict(severity='castings', data_prefix=dict(img='images'), **kwargs)
    return XrayDefects(ann_file=f'{split}.json', data_root=str(root), **kwargs)


def test_defects_keep_empty_images_and_every_box(tiny_coco):
    root = tiny_coco(n=4, empty=1)
    dataset = defects(root)
    coco = json.loads((root / 'train.json').read_text())
    assert len(dataset) == 4
    assert [dataset.get_data_info(i)['img_id'] for i in range(4)] == [1, 2, 3, 4]
    assert dataset.get_data_info(3)['instances'] == []
    assert sum(len(info['instances']) for info in dataset) == len(coco['annotations'])
    assert dataset.metainfo['classes'] == ('critical', 'minor')
    for ann, instance in zip(coco['annotations'], [i for info in dataset for i in info['instances']]):
        x, y, w, h = ann['bbox']
        assert instance['bbox'] == pytest.approx([x, y, x + w, y + h])
        assert instance['bbox_label'] == ann['category_id'] - 1  # crack -> critical, gas_pore -> minor
        assert 'mask' not in instance


def test_defects_keep_masks(tiny_coco):
    root = tiny_coco(n=2)
    coco = json.loads((root / 'train.json').read_text())
    coco['annotations'][0]['segmentation'] = [[1, 1, 9, 1, 9, 9]]
    (root / 'train.json').write_text(json.dumps(coco))
    assert defects(root).get_data_info(0)['instances'][0]['mask'] == [[1, 1, 9, 1, 9, 9]]


def test_defects_run_through_a_stock_pipeline_on_one_channel(tiny_coco):
    pipeline = [
        dict(type='LoadXray'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='RandomFlip', prob=1.0),
        dict(type='PackDetInputs'),
    ]
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = defects(tiny_coco(n=2), pipeline=pipeline)
    item = dataset[0]
    assert item['inputs'].shape == (1, 64, 64)
    box = item['data_samples'].gt_instances.bboxes.tensor[0].tolist()
    x1, y1, x2, y2 = (v * 64 / 96 for v in dataset.get_data_info(0)['instances'][0]['bbox'])
    assert box == pytest.approx([64 - x2, y1, 64 - x1, y2], abs=1e-3)


def test_defects_print_one_table(tiny_coco, log):
    defects(tiny_coco(n=4, empty=1))
    assert log().count('class / type') == 1
    assert '4 images (1 without defects)' in log()


def test_table_counts_images_and_boxes_per_class_and_type(write):
    def change(coco):
        coco['annotations'].append(dict(id=4, image_id=9, category_id=3, bbox=[90, 0, 20, 10]))

    path = write(change)
    rows = {
        tuple(line.rsplit(maxsplit=2)[0].split()): line.split()[-2:]
        for line in describe(load_defects(path, CLASSES, SEVERITY), path).splitlines()
    }
    assert rows[('critical',)] == ['2', '2']
    assert rows[('crack',)] == ['2', '2']
    assert rows[('minor',)] == rows[('gas_pore',)] == ['1', '1']
    assert 'repaired: 1 boxes clipped' in describe(load_defects(path, CLASSES, SEVERITY), path)


def test_missing_images_are_counted(tiny_coco):
    root = tiny_coco(n=3)
    (root / 'images' / 'train_001.png').unlink()
    with pytest.raises(DatasetError, match='train.json: 1 of 3 images are not in .*images.*train_001.png'):
        defects(root)
    shutil.rmtree(root / 'images')
    with pytest.raises(DatasetError, match='3 of 3 images'):
        defects(root)


def test_filter_names_itself_and_says_what_it_leaves_out(tiny_coco, log):
    root = tiny_coco(n=4, empty=1)
    assert len(defects(root, filter_cfg=dict(filter_empty_gt=True))) == 3
    assert 'left out 1 of 4 images' in log()
    with pytest.raises(
        DatasetError, match=r"train.json: filter_cfg=\{'min_size': 1000\} leaves 0 of 4 images"
    ):
        defects(root, filter_cfg=dict(min_size=1000))


def test_indices_that_leave_no_box(tiny_coco):
    root = tiny_coco(n=4, empty=1)
    assert len(defects(root, indices=2)) == 2
    with pytest.raises(DatasetError, match=r'indices=\[3\] leaves 1 of 4 images and 0 boxes'):
        defects(root, indices=[3])


# ------------------------------------------------------------------------------------------ XraySeverity


def severity(root, **kwargs):
    return XraySeverity(ann_file='train.json', data_root=str(root), **kwargs)


def test_one_critical_box_makes_the_image_critical(tiny_coco, log):
    # Images show, in turn: crack; gas_pore and crack; crack; nothing.
    dataset = severity(tiny_coco(n=4, empty=1))
    assert dataset.get_gt_labels().tolist() == [0, 0, 0]
    assert '1 images without boxes left out' in log()
    assert [info['img_path'].rsplit('/', 2)[1:] for info in dataset] == [
        ['images', f'train_{i:03d}.png'] for i in range(3)
    ]


def test_only_minor_boxes_make_the_image_minor(tiny_coco):
    dataset = severity(tiny_coco(n=3), severity={'crack': 'minor', 'gas_pore': 'critical'})
    assert dataset.get_gt_labels().tolist() == [1, 0, 1]


def test_ignored_regions_do_not_label_an_image(tiny_coco):
    root = tiny_coco(n=3)
    coco = json.loads((root / 'train.json').read_text())
    for ann in coco['annotations']:
        ann['iscrowd'] = int(ann['category_id'] == 1)  # the cracks
    (root / 'train.json').write_text(json.dumps(coco))
    assert severity(root).get_gt_labels().tolist() == [1]


def test_severity_needs_its_images(tiny_coco):
    root = tiny_coco(n=3)
    shutil.rmtree(root / 'images')
    with pytest.raises(DatasetError, match='train.json: 3 of 3 images are not in'):
        severity(root)


# -------------------------------------------------------------------------------------------- XrayImages


@pytest.fixture
def folder(tmp_path):
    for name in ('b/2.png', 'a/1.TIF', '3.png'):
        path = tmp_path / 'unlabeled' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', np.zeros((4, 4), np.uint8))[1].tobytes())
    (tmp_path / 'unlabeled' / 'notes.txt').write_text('no radiograph')
    (tmp_path / 'unlabeled' / '._3.png').write_text('resource fork')
    return tmp_path


def names(dataset, root):
    return [info['img_path'].removeprefix(f'{root}/unlabeled/') for info in dataset]


def test_folder_is_recursive_sorted_and_counts_what_it_leaves_out(folder, log):
    dataset = XrayImages(data_root=str(folder))
    assert names(dataset, folder) == ['3.png', 'a/1.TIF', 'b/2.png']
    assert [info['sample_idx'] for info in dataset] == [0, 1, 2]
    assert "3 unlabelled radiographs; left out: {'.txt': 1, 'hidden': 1}" in log()


def test_folder_follows_links(folder, tmp_path_factory):
    archive = tmp_path_factory.mktemp('archive')
    shutil.copy(folder / 'unlabeled' / '3.png', archive / '9.png')
    (folder / 'unlabeled' / 'archive').symlink_to(archive)
    assert 'archive/9.png' in names(XrayImages(data_root=str(folder)), folder)


def test_list_sets_what_and_in_which_order(folder):
    (folder / 'list.txt').write_text('b/2.png\n\n3.png\n')
    dataset = XrayImages(data_root=str(folder), ann_file='list.txt')
    assert names(dataset, folder) == ['b/2.png', '3.png']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'list.txt: not readable'),
        ('\n', 'list.txt: an empty list'),
        ('3.png\nc/4.png\n', 'list.txt: 1 of 2 images are not in .*c/4.png'),
    ],
)
def test_bad_list(folder, content, message):
    if content is not None:
        (folder / 'list.txt').write_text(content)
    with pytest.raises(DatasetError, match=message) as error:
        XrayImages(data_root=str(folder), ann_file='list.txt')
    assert '\n' not in str(error.value)


def test_folder_without_radiographs(folder):
    with pytest.raises(DatasetError, match='gone: no such folder.*.png'):
        XrayImages(data_root=str(folder), data_prefix='gone')
    (folder / 'texts').mkdir()
    (folder / 'texts' / 'a.txt').write_text('a')
    with pytest.raises(DatasetError, match='texts: no radiograph in this folder'):
        XrayImages(data_root=str(folder), data_prefix='texts')


# ---------------------------------------------------------------------------------------- mutations


@pytest.mark.parametrize(('seed', 'count'), [(0, 200), pytest.param(1, 5000, marks=pytest.mark.long)])
def test_damaged_annotation_files_end_in_one_line(write, seed, count):
    rng, refused = random.Random(seed), 0
    path = write()
    original = path.read_bytes()
    tokens = list(re.finditer(rb'[^\s<>"\[\],:{}]+', original))
    for k in range(count):
        token = rng.choice(tokens)
        spliced = original[: token.start()] + rng.choice(HOSTILE) + original[token.end() :]
        path.write_bytes((mutate(original, rng), spliced, restructure(original, rng))[k % 3])
        try:
            load_defects(path, ('crack', 'gas_pore'))
        except DatasetError as error:
            refused += 1
            assert str(error).startswith(str(path)) and '\n' not in str(error), error
    assert count * 0.3 < refused < count


# ------------------------------------------------------------------------------------------ every format


@pytest.mark.parametrize('name', CASES)
def test_every_code_of_every_format_reaches_the_tensor(name, tmp_path):
    data, expected, _ = CASES[name]
    path = tmp_path / 'radiograph'
    path.write_bytes(data)
    loaded = LoadXray(dtype='float32')(dict(img_path=str(path), img_id=1))
    inputs = PackInputs()(dict(loaded))['inputs']
    assert torch.equal(inputs, PackDetInputs()(loaded)['inputs'])
    assert inputs.shape == (1, *expected.shape)
    # In the order of the codes, and no two of them alike, after normalisation too.
    batch = dict(inputs=inputs[None], data_samples=None)
    for preprocessor in (XrayClsDataPreprocessor(), XraySelfSupDataPreprocessor()):
        tensor = preprocessor(dict(batch))['inputs']
        assert tensor.shape == (1, 3, *expected.shape)
        assert (torch.diff(tensor[0, 2].flatten()) > 0).all()
