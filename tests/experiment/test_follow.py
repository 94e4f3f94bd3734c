"""`make own`: its steps, which of them are done, and all of them from three labelling tools' folders."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.visualization import DetLocalVisualizer

from projects.experiment import follow
from projects.experiment.facts import ExperimentError
from projects.experiment.fragments import Experiment
from projects.report.runs import read_curves
from projects.study import step
from projects.study.plan import read_study
from tools.convert_dataset import main as convert
from tools.new_experiment import main

REPO = Path(__file__).resolve().parents[2]
ARM = """
model = dict(type='FasterRCNN', backbone=dict(type='ResNet', init_cfg=None))
train_cfg = dict(max_epochs=6, val_interval=2)
train_dataloader = dict(batch_size=4, dataset=dict(data_root='data', ann_file='train.json'))
test_dataloader = dict(dataset=dict(data_root='data', ann_file='test.json'))
"""
STEMS = [f'faster-rcnn_lite0-{init}_fpn_1xb8-6e_own-x' for init in ('in1k-pre', 'scratch')]


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment of two arms, of which nothing has run."""
    monkeypatch.chdir(tmp_path)
    folder = Path('configs/own/x')
    folder.mkdir(parents=True)
    for stem in STEMS:
        (folder / f'{stem}.py').write_text(ARM)
    arms = ''.join(f'  - config: {folder}/{stem}.py\n' for stem in STEMS)
    (folder / 'x.yaml').write_text(f'arms:\n{arms}')
    return Experiment(folder, {}, [], STEMS, STEMS)


def finished(stem, values):
    """A run that a study has tested, with its AP50 on val epoch by epoch."""
    folder = Path('work_dirs/study/x', stem, 'seed0-frac100')
    (folder / '1/vis_data').mkdir(parents=True)
    lines = [json.dumps({'step': step, 'xray/AP50': value}) for step, value in enumerate(values, 1)]
    (folder / '1/vis_data/scalars.json').write_text('\n'.join(lines))
    (folder / 'run.json').write_text(json.dumps(dict(tested=True, epochs=6)))
    (folder / 'epoch_6.pth').touch()
    return folder


def test_the_run_that_ends_best_on_val_is_exported(experiment):
    with pytest.raises(ExperimentError, match='expected a tested run'):
        follow.best_run(experiment)
    finished(STEMS[0], [0.9, 0.4])
    better = finished(STEMS[1], [0.1, 0.5])
    assert follow.best_run(experiment) == better
    export = follow.steps(experiment, Path('data'))[2]
    assert export.command()[1:3] == [f'configs/own/x/{STEMS[1]}.py', str(better / 'epoch_6.pth')]


def test_what_is_done_is_not_done_again(experiment):
    check, study, export, test, report = follow.steps(experiment, Path('data'))
    assert not check.done() and not study.done()
    run = finished(STEMS[0], [0.5])
    exported = Path('work_dirs/study/x/exported')
    assert not export.done()
    exported.mkdir()
    assert export.done() and not test.done()
    os.utime(run / 'epoch_6.pth', (4e9, 4e9))  # trained again since
    assert not export.done() and not exported.exists()
    checked = Path('work_dirs', STEMS[0], 'dataset.json')
    checked.parent.mkdir(parents=True)
    checked.write_text(json.dumps(dict(findings=[dict(level='warning')])))
    assert check.done()
    checked.write_text(json.dumps(dict(findings=[dict(level='error')])))
    assert not check.done()
    assert report.example.startswith('python tools/report.py work_dirs/study/x/*/seed*')


def radiographs(folder, size, count=40):
    """Plates with one bright flaw each, of two types in turns; name -> (type, x, y, side)."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    flaws = {}
    for number in range(count):
        image = 9000 + rng.normal(0, 300, (size, size))
        x, y = rng.integers(20, size - 50, 2)
        side = 14 if number % 2 else 24
        image[y : y + side, x : x + side] += 30000
        name = f'P{number // 2:02d}_{"ab"[number % 2]}.png'
        cv2.imwrite(str(folder / name), image.clip(0, 65535).astype(np.uint16))
        flaws[name] = ('crack' if number % 4 < 2 else 'pore', int(x), int(y), side)
    return flaws


def labelme(src, size):
    for name, (kind, x, y, side) in radiographs(src / 'images', size).items():
        shape = dict(label=kind, shape_type='rectangle', points=[[x, y], [x + side, y + side]])
        text = dict(imagePath=f'../images/{name}', imageHeight=size, imageWidth=size, shapes=[shape])
        (src / 'images' / name).with_suffix('.json').write_text(json.dumps(text))


def yolo(src, size):
    (src / 'labels').mkdir(parents=True)
    for name, (kind, x, y, side) in radiographs(src / 'images', size).items():
        row = [['crack', 'pore'].index(kind), *(v / size for v in (x + side / 2, y + side / 2, side, side))]
        (src / 'labels' / name).with_suffix('.txt').write_text(' '.join(map(str, row)))
    (src / 'data.yaml').write_text('names: [crack, pore]\n')


def coco(src, size):
    flaws = radiographs(src / 'images', size)
    images = [dict(id=i, file_name=name, width=size, height=size) for i, name in enumerate(flaws, 1)]
    boxes = [
        dict(
            id=i,
            image_id=i,
            category_id=1 + (kind == 'pore'),
            bbox=[x, y, side, side],
            area=side**2,
            iscrowd=0,
        )
        for i, (kind, x, y, side) in enumerate(flaws.values(), 1)
    ]
    names = [dict(id=1, name='crack'), dict(id=2, name='pore')]
    (src / 'instances.json').write_text(json.dumps(dict(images=images, annotations=boxes, categories=names)))


SETTING = ['data/ours', '--severity', 'severity.yaml', '--scale', 'cpu']


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """Factory: the data set `data/ours` from a labelling tool, in a checkout without experiments."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPO / 'configs', 'configs', ignore=shutil.ignore_patterns('own', '__pycache__'))
    Path('severity.yaml').write_text('crack: critical\npore: minor\n')

    def make(write, out='data/ours', size=160):
        source = Path('inspected', write.__name__)
        write(source, size)
        options = ['--severity', 'severity.yaml', '--group', 'P[0-9]+']
        assert convert([write.__name__, str(source), out, *options]) == 0
        return Path(out)

    return make


def cut(study):
    """Write a study's numbers of epochs down to one."""
    text = study.read_text()
    first, second = re.findall(r'config: (.*)', text)
    text = text.replace(first, f'{first}\n    epochs_factor: 0.005')
    text = text.replace(second, f'{second}\n    epochs_factor: 0.005\n    pretrain_epochs_factor: 0.01')
    study.write_text(text)


def ended(name):
    """Whether a report and a folder for the line are there."""
    study = Path('work_dirs/study', name)
    page = (study / 'report/index.html').read_text()
    return list((study / 'exported').glob('*.xml')) and 'in1k' in page and 'simsiam' in page


def test_the_same_labels_of_three_tools_are_the_same_data_set(converted):
    """One of them is followed to its end below; `make test-long` follows each."""
    roots = [converted(write, f'data/{write.__name__}') for write in (labelme, yolo, coco)]

    def content(root, split):
        record = json.loads((root / f'{split}.json').read_text())
        names = {image['id']: image['file_name'] for image in record['images']}
        types = {category['id']: category['name'] for category in record['categories']}
        boxes = [
            (names[a['image_id']], types[a['category_id']], *(round(v, 2) for v in a['bbox']))
            for a in record['annotations']
        ]
        return sorted((i['file_name'], i['part'], i['width']) for i in record['images']), sorted(boxes)

    for split in ('train', 'val', 'test'):
        first, *others = [content(root, split) for root in roots]
        assert first[0] and first[1] and all(other == first for other in others)


@pytest.mark.parametrize(
    ('write', 'size'),
    [
        pytest.param(labelme, 160, marks=pytest.mark.slow),
        pytest.param(yolo, 160, marks=pytest.mark.long),
        pytest.param(coco, 384, marks=pytest.mark.long),
    ],
)
def test_forty_radiographs_to_a_report_and_a_folder_for_the_line(write, size, converted, monkeypatch, capsys):
    """The steps of `make own` and of its study, each by its tool, in this process: imports cost seconds.

    Whole radiographs of 160 px are learnt from, and crops of larger ones.
    """

    def tool(name, arguments):
        DetLocalVisualizer._instance_dict.clear()  # it would go on writing to the folder of the run before
        return importlib.import_module(f'tools.{name}').main(list(arguments))

    def call(name, arguments, job, folder):
        assert tool(name, arguments) == 0
        return f'python tools/{name}.py'

    def start(command):
        if command[0] == 'study':
            study = read_study(command[1])
            return max(step.do(study, job) for job in study.jobs)
        return tool(command[0], command[1:])

    monkeypatch.setattr(step, 'call', call)
    monkeypatch.setattr(follow, 'start', start)
    converted(write, size=size)
    assert main([*SETTING, '--no-timing']) == 0
    assert ('XrayFlawCrop' in Path('configs/own/ours/_base_/xray_ours.py').read_text()) == (size > 320)
    cut(Path('configs/own/ours/ours.yaml'))
    assert main([*SETTING, '--run']) == 0
    assert ended('ours')
    assert all(
        read_curves(path).val['AP50'] for path in Path('work_dirs/study/ours').glob('faster-rcnn*/seed*')
    )
    printed = capsys.readouterr().out
    assert 'inspect: make inspect MODEL=work_dirs/study/ours/exported' in printed
    assert main([*SETTING, '--run']) == 0
    assert capsys.readouterr().out.count('done before') == 3


@pytest.mark.long
def test_as_a_user_types_it_each_step_in_a_process_of_its_own(converted, capfd):
    """No file is written by hand but the severity map; the numbers of epochs are cut to one."""
    converted(labelme)
    assert main(SETTING) == 0
    assert re.search(r'faster-rcnn: \d+ iterations of', capfd.readouterr().out)
    cut(Path('configs/own/ours/ours.yaml'))
    run = [sys.executable, str(REPO / 'tools/new_experiment.py'), *SETTING, '--run']
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert ended('ours')
    again = subprocess.run(run, capture_output=True, text=True, check=False, timeout=3000)
    assert again.returncode == 0 and again.stdout.count('done before') == 3, again.stdout
