"""tools/compare_readers.py: two files, and a model at an inspector's false-call rate."""

import json
import subprocess
import sys

import pytest

from projects.line.page.items import kept_name
from tools.compare_readers import main

CATEGORIES = [dict(id=1, name='critical'), dict(id=2, name='minor')]


def with_box(**changed):
    """JSON of one box, in classes that no map knows, with something wrong about it."""
    box = dict(id=0, image_id=0, category_id=1, bbox=[0, 0, 9, 9]) | changed
    images = [dict(id=0, file_name='0.png', part='p0')]
    return json.dumps(dict(images=images, annotations=[box], categories=CATEGORIES))


@pytest.fixture
def files(tmp_path):
    """Labels of six parts and corrections of the page: one box more, one severity changed."""
    images = [dict(id=i, file_name=f'{i}.png', part=f'p{i}', width=99, height=99) for i in range(6)]
    boxes = [dict(id=i, image_id=i, category_id=1, bbox=[0, 0, 9, 9], area=81) for i in range(3)]
    first = dict(images=images, annotations=boxes, categories=CATEGORIES)
    changed = [
        *boxes[:2],
        dict(boxes[2], category_id=2),
        dict(boxes[0], id=9, image_id=5, bbox=[40, 0, 9, 9]),
    ]
    second = dict(first, annotations=changed)
    for name, content in (('a', first), ('b', second)):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    detections = [dict(image_id=i, category_id=1, bbox=[0, 0, 9, 9], score=0.9 - i / 10) for i in range(4)]
    result = dict(task='detection', truth=first, detections=detections)
    (tmp_path / 'predictions.json').write_text(json.dumps(result))
    return tmp_path


def test_two_readers_and_a_model(files, capsys):
    options = ['--model', str(files), '--json', str(files / 'out.json')]
    assert main([str(files / 'a.json'), str(files / 'b.json'), *options]) == 0
    printed = capsys.readouterr().out
    assert 'a.json and b.json: 6 images that both read' in printed
    assert 'boxes: 3 and 4; 3 marked by both, 0 by a.json alone, 1 by b.json alone' in printed
    assert 'b.json: 0.167 critical false calls an image, recall 2 of 3 = 66.7%' in printed
    assert 'the model at score >= 0.6: 0.167, recall 3 of 3 = 100.0% (the score is read off' in printed
    content = json.loads((files / 'out.json').read_text())
    assert content['agreement']['severities'] == [[2, 1], [0, 0]]
    assert content['agreement']['kappa']['table'] == [[2, 1, 0], [0, 0, 0], [1, 0, 2]]
    assert content['model']['model_recall'] == 1 and content['model']['threshold'] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (None, 'No such file'),
        ('{', 'expected a COCO file'),
        ('[]', 'expected a COCO file'),
        (json.dumps(dict(images=[dict(id=1)], annotations=[], categories=[])), 'expected a COCO file'),
        (
            json.dumps(dict(images=[], annotations=[], categories=CATEGORIES)),
            'no image (`file_name`) in common',
        ),
        (
            json.dumps(dict(images=[], annotations=[], categories=[dict(id=1, name='crack')])),
            'name them alike',
        ),
        (with_box(image_id=99), 'a box of image 99, which the file does not list'),
        (with_box(category_id=7), 'a box of category 7, which the file does not list'),
        (with_box(bbox=[0, None, 9, 9]), 'expected a COCO file'),
        (with_box(bbox=[0, float('nan'), 9, 9]), 'expected a COCO file'),
        (with_box(bbox=[0, 0, 9]), 'expected a COCO file'),
        (with_box(bbox=[0, 0, 0, 9]), 'the second reader: image 0: an annotated box without area'),
    ],
)
def test_what_cannot_be_compared_is_wrong_use(files, capsys, content, reason):
    if content is not None:
        (files / 'c.json').write_text(content)
    assert main([str(files / 'a.json'), str(files / 'c.json')]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count('\n') == 1 and 'Traceback' not in error


def test_a_model_of_other_images_is_wrong_use(files, capsys):
    content = json.loads((files / 'predictions.json').read_text())
    content['truth']['images'] = content['truth']['images'][:2]
    content['detections'] = content['detections'][:2]
    (files / 'predictions.json').write_text(json.dumps(content))
    assert main([str(files / 'a.json'), str(files / 'b.json'), '--model', str(files)]) == 2
    assert 'tested on 2 of the 6 images that both readers read' in capsys.readouterr().err


def test_a_second_reader_of_a_sample_is_compared_with_the_model_on_it(files, capsys):
    """The model was tested on all six images, the second reader read three of them."""
    second = json.loads((files / 'b.json').read_text())
    second['images'] = second['images'][:3]
    second['annotations'] = [dict(box, score=0.1) for box in second['annotations'] if box['image_id'] < 3]
    (files / 'b.json').write_text(json.dumps(second))
    assert main([str(files / 'a.json'), str(files / 'b.json'), '--model', str(files)]) == 0
    printed = capsys.readouterr().out
    assert 'b.json: 0 critical false calls an image, recall 2 of 3 = 66.7%' in printed
    assert 'recall 3 of 3 = 100.0%' in printed and 'note: 3 images of the first reader alone' in printed


def test_numbers_that_cannot_be_written_are_one_line(files, capsys):
    (files / 'taken').write_text('')
    options = ['--json', str(files / 'taken' / 'out.json')]
    assert main([str(files / 'a.json'), str(files / 'b.json'), *options]) == 2
    error = capsys.readouterr().err
    assert 'give another file' in error and error.count('\n') == 1


def test_boxes_on_what_the_other_marked_once_are_told(files, capsys):
    second = json.loads((files / 'b.json').read_text())
    second['annotations'].append(dict(id=10, image_id=0, category_id=2, bbox=[2, 2, 5, 5]))
    (files / 'b.json').write_text(json.dumps(second))
    assert main([str(files / 'a.json'), str(files / 'b.json')]) == 0
    assert 'by b.json alone; 0 and 1 more on what the other marked once' in capsys.readouterr().out


def test_corrections_of_the_page_are_one_of_two_files(files, capsys):
    """Their copies have a hash in their names, and labels come in types, in whatever order."""
    labels, corrected = (json.loads((files / f'{name}.json').read_text()) for name in 'ab')
    names = [
        kept_name(f'day/{image["file_name"]}', f'{k:064x}') for k, image in enumerate(corrected['images'])
    ]
    corrected['images'] = [
        dict(i, file_name=name) for i, name in zip(corrected['images'], names, strict=True)
    ]
    labels['categories'] = [dict(id=2, name='gas_pore'), dict(id=1, name='crack')]
    severity = files / 'severity.yaml'
    severity.write_text('crack: critical\ngas_pore: minor\n')
    for name, content in (('labels', labels), ('corrections', corrected)):
        (files / f'{name}.json').write_text(json.dumps(content))
    both = [str(files / 'labels.json'), str(files / 'corrections.json')]
    assert main([*both, '--severity', str(severity), '--json', str(files / 'out.json')]) == 0
    assert json.loads((files / 'out.json').read_text())['agreement']['severities'] == [[2, 1], [0, 0]]
    assert main(both) == 2
    assert 'name them alike' in capsys.readouterr().err
    severity.write_text('gas_pore: minor\n')
    assert main([*both, '--severity', str(severity)]) == 2
    assert "types ['crack'] have no class" in capsys.readouterr().err


def test_classes_in_another_order_are_the_same_classes(files, capsys):
    """The first class is the critical one, whatever stands first in the file."""
    for name in 'ab':
        content = json.loads((files / f'{name}.json').read_text())
        (files / f'{name}.json').write_text(json.dumps(content | dict(categories=CATEGORIES[::-1])))
    options = ['--json', str(files / 'out.json')]
    assert main([str(files / 'a.json'), str(files / 'b.json'), *options]) == 0
    record = json.loads((files / 'out.json').read_text())['agreement']
    assert (record['classes'], record['severities']) == (['critical', 'minor'], [[2, 1], [0, 0]])
    assert record['kappa']['table'] == [[2, 1, 0], [0, 0, 0], [1, 0, 2]]


def test_it_runs_as_a_script(files, repo):
    command = [sys.executable, 'tools/compare_readers.py', str(files / 'a.json'), str(files / 'a.json')]
    printed = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout
    assert 'kappa 1.000' in printed
