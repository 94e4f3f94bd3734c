"""tools/test.py: measures with their origin, pictures, and no measure of a half-loaded model."""

import datetime
import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.detector import DETECTOR, save_model

from projects.config.configs import load_config
from projects.measures.ranking import average_precision_at
from projects.report.predictions import read_predictions
from projects.xray import compat, datasets, metrics, preprocessors, transforms  # noqa: F401
from projects.xray.hooks import pictures as hooks_pictures
from tools.test import main


@pytest.fixture
def tested(classifier):
    """The small classifier's config, with epoch_1.pth beside it."""
    save_model(classifier, 'epoch_1.pth')
    return classifier


@pytest.fixture
def detector(tiny_coco, tmp_path, monkeypatch, request):
    """Factory of a small detector's config, with epoch_1.pth beside it; arguments are tiny_coco's."""
    monkeypatch.chdir(tmp_path)

    def make(**drawn):
        path = tmp_path / (re.sub(r'\W+', '_', request.node.name) + '.py')
        path.write_text(DETECTOR.replace('{root}', str(tiny_coco(n=4, **drawn))))
        save_model(path, 'epoch_1.pth')
        return path

    return make


def errors(capsys):
    """The tool's lines on stderr; the libraries' warnings are not its errors."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]


def test_a_classifiers_result_says_where_it_comes_from(tested, tmp_path):
    assert main([str(tested), 'epoch_1.pth', '--out', 'raw.pkl']) == 0
    folder = tmp_path / 'work_dirs' / tested.stem
    assert list(folder.glob('test.json*')) == [folder / 'test.json']  # no draft is left
    result = json.loads((folder / 'test.json').read_text(), parse_constant=pytest.fail)
    assert list(result) == [
        'config',
        'checkpoint',
        'metrics',
        'seed',
        'commit',
        'dirty',
        'hardware',
        'versions',
        'command',
        'date',
    ]
    assert result['versions']['torch'] == torch.__version__.split('+')[0]
    assert result['command'] == f'python tools/test.py {tested} epoch_1.pth --out raw.pkl'
    assert result['config'] == str(tested)
    assert result['checkpoint'] == 'epoch_1.pth'
    assert result['seed'] == 7  # the training's, from the checkpoint
    assert re.fullmatch(r'[0-9a-f]{40}|unknown', result['commit'])
    assert re.match(r'\d+ x .+', result['hardware'])
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(result['date'])
    assert age < datetime.timedelta(hours=1)
    assert 0 <= result['metrics']['xray/accuracy'] <= 1
    assert len(pickle.loads(Path('raw.pkl').read_bytes())) == 16


@pytest.mark.parametrize('bits', [8, 16])
def test_a_detectors_pictures_are_written(detector, tmp_path, bits):
    config = detector(bits=bits)
    assert main([str(config), 'epoch_1.pth', '--work-dir', 'run', '--show-dir', 'run/pictures']) == 0
    result = json.loads((tmp_path / 'run' / 'test.json').read_text())
    assert {'xray/AP', 'xray/AP50', 'xray/AP50_critical', 'xray/AP50_minor'} <= result['metrics'].keys()
    pictures = sorted((tmp_path / 'run' / 'pictures').glob('*.png'))
    assert [picture.name for picture in pictures] == [f'test_{i:03d}_{i + 1}.png' for i in range(4)]
    assert cv2.imread(str(pictures[0])).shape[1] == 2 * hooks_pictures.PANEL + 3 * hooks_pictures.MARGIN
    assert not list((tmp_path / 'run').rglob('vis_image'))


def test_a_detectors_measures_follow_from_its_predictions_alone(detector, tmp_path):
    config = detector(empty=1)
    val = 'val_dataloader = test_dataloader\nval_evaluator = test_evaluator\nval_cfg = dict()\n'
    config.write_text(config.read_text() + val)
    # Every box that the untrained model thinks of
    low = ['--cfg-options', 'model.test_cfg.rcnn.score_thr=0.0']
    assert main([str(config), 'epoch_1.pth', '--val', '--show-dir', 'pictures', *low]) == 0
    folder = tmp_path / 'work_dirs' / config.stem
    kept = read_predictions(folder)
    assert (kept.task, kept.classes) == ('detection', ['critical', 'minor'])
    assert Path(kept.folder, kept.truth['images'][0]['file_name']).is_file()
    assert kept.window == dict(type='full')
    assert kept.parts() == ['test0', 'test0', 'test1', 'test1']
    assert len(kept.inspected) == 4 and sum(len(image.scores) for image in kept.inspected)
    measured = json.loads((folder / 'test.json').read_text())['metrics']
    for label, name in enumerate(kept.classes):
        again = average_precision_at(kept.inspected, label)(np.arange(4))
        assert measured[f'xray/AP50_{name}'] == pytest.approx(again)
    for image, of_test in zip(read_predictions(folder, 'val').inspected, kept.inspected, strict=True):
        assert image.scores.tolist() == of_test.scores.tolist()  # here val is test
    assert len(list(Path('pictures').glob('*.png'))) == 4  # those of the test


@pytest.mark.parametrize('known', [True, False])
def test_the_power_of_the_proof_is_said_before_test_is_opened(detector, tmp_path, capsys, known):
    config = detector(empty=1)
    val = 'val_dataloader = test_dataloader\nval_evaluator = test_evaluator\nval_cfg = dict()\n'
    config.write_text(config.read_text() + val)
    ann_file = Path(load_config(config).test_dataloader.dataset.data_root, 'test.json')
    if not known:
        coco = json.loads(ann_file.read_text())
        coco['images'] = [{k: v for k, v in image.items() if k != 'part'} for image in coco['images']]
        ann_file.write_text(json.dumps(coco))
    low = ['--cfg-options', 'model.test_cfg.rcnn.score_thr=0.0']
    assert main([str(config), 'epoch_1.pth', '--val', *low]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith('before test is')]
    if known:
        assert ' 2 critical parts of val' in line and '2 critical test parts prove' in line
        assert 'probability of 0.0 %' in line
    else:
        assert line.startswith('before test is opened: no threshold of parts: parts not known: 4 of 4 images')


def test_a_classifiers_predictions_are_kept(tested, tmp_path):
    assert main([str(tested), 'epoch_1.pth']) == 0
    folder = tmp_path / 'work_dirs' / tested.stem
    kept = read_predictions(folder)
    assert kept.task == 'severity' and len(kept.images) == 16
    assert kept.parts()[:3] == ['test0', 'test0', 'test1']
    right = [max(range(2), key=image['scores'].__getitem__) == image['label'] for image in kept.images]
    accuracy = json.loads((folder / 'test.json').read_text())['metrics']['xray/accuracy']
    assert accuracy == pytest.approx(sum(right) / 16)


def test_a_test_that_fails_leaves_no_numbers_of_an_earlier_one(tested, tmp_path):
    assert main([str(tested), 'epoch_1.pth']) == 0
    (tmp_path / 'data' / 'images' / 'test_003.png').write_bytes(b'no picture')
    assert main([str(tested), 'epoch_1.pth']) == 1
    assert not list((tmp_path / 'work_dirs' / tested.stem).glob('*.json'))


def test_a_class_without_boxes_is_null_in_the_result(detector, tmp_path):
    config = detector(types=('crack',))
    assert main([str(config), 'epoch_1.pth']) == 0
    text = (tmp_path / 'work_dirs' / config.stem / 'test.json').read_text()
    result = json.loads(text, parse_constant=pytest.fail)
    assert result['metrics']['xray/AP50_minor'] is None
    assert result['metrics']['xray/AP50'] is not None


@pytest.mark.parametrize(
    'change',
    [
        lambda s: s.pop('backbone.features.0.weight'),
        lambda s: s.update({'backbone.features.0.weight': torch.ones(3, 3)}),
        lambda s: s.update({'neck.weight': torch.ones(3)}),
    ],
    ids=['missing', 'shape', 'unexpected'],
)
def test_a_checkpoint_of_another_model_is_refused(tested, tmp_path, capsys, change):
    content = torch.load('epoch_1.pth')
    change(content['state_dict'])
    torch.save(content, 'epoch_1.pth')
    assert main([str(tested), 'epoch_1.pth']) == 1
    (line,) = errors(capsys)
    assert 'epoch_1.pth: its weights are not those of the model in' in line
    assert not (tmp_path / 'work_dirs' / tested.stem / 'test.json').exists()


def test_a_torn_checkpoint_is_refused(tested, tmp_path, capsys):
    whole = (tmp_path / 'epoch_1.pth').read_bytes()
    (tmp_path / 'epoch_1.pth').write_bytes(whole[: len(whole) // 2])
    assert main([str(tested), 'epoch_1.pth']) == 1
    (line,) = errors(capsys)
    assert 'epoch_1.pth: not a readable' in line


@pytest.mark.parametrize(
    ('arguments', 'change', 'expected'),
    [
        (['absent.pth'], '', 'absent.pth: no such checkpoint'),
        (['epoch_1.pth', '--val'], '', 'has no val_evaluator'),
        (['epoch_1.pth', '--show-dir', 'd'], '', '--show-dir expects XrayVisualizationHook'),
        (['epoch_1.pth', '--cfg-options', 'x'], '', "'x' has no key=value"),
        (['epoch_1.pth'], '\ntest_evaluator = None\n', 'has no test_dataloader and test_evaluator'),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(tested, capsys, arguments, change, expected):
    tested.write_text(tested.read_text() + change)
    assert main([str(tested), *arguments]) == 2
    (line,) = errors(capsys)
    assert expected in line


def test_out_must_be_a_pickle(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['a.py', 'a.pth', '--out', 'a.json'])
    assert caught.value.code == 2
    assert 'ends in .pkl' in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['--help'])
    assert caught.value.code == 0
    assert 'python tools/test.py configs/' in capsys.readouterr().out
