"""tools/new_experiment.py: configs of one's own data, for which the rules of all configs hold."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from projects.config.names import NameGrammarError, parse
from projects.experiment import command
from projects.experiment.facts import find_window
from projects.line.export.export import export_untrained
from projects.line.runtime import Inspector
from projects.runs.running import read_config
from tools.new_experiment import main
from tools.train import main as train

REPO = Path(__file__).resolve().parents[2]
SEVERITY = 'crack: critical\ngas_pore: minor\n'


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the configs, in which the test runs."""
    ignored = shutil.ignore_patterns('own', '__pycache__')
    shutil.copytree(REPO / 'configs', tmp_path / 'configs', ignore=ignored)
    (tmp_path / 'severity.yaml').write_text(SEVERITY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_flaws(root):
    """Boxes of 14 px, which a CPU learns from crops."""
    for split in ('train', 'val', 'test'):
        coco = json.loads((root / f'{split}.json').read_text())
        for annotation in coco['annotations']:
            annotation['bbox'][2:] = [14, 14]
        (root / f'{split}.json').write_text(json.dumps(coco))


def read(stem, options=()):
    (path,) = Path('configs/own').glob(f'*/{stem}*.py')
    return read_config(str(path), list(options))


@pytest.mark.slow
def test_one_fragment_says_all_that_is_edited(checkout, tiny_coco, capsys):
    small_flaws(tiny_coco(n=16, unlabeled=20, size=512, name='data/housings'))
    assert main(['data/housings', '--severity', 'severity.yaml', '--scale', 'cpu', '--no-timing']) == 0
    printed = capsys.readouterr().out
    assert printed.count('python tools/') == 5 and 'make own DATA=data/housings' in printed
    folder = checkout / 'configs/own/housings'
    names = {path.stem for path in folder.rglob('*.py')} | {path.stem for path in folder.glob('*.yaml')}
    assert all('housings' in name for name in names)
    assert {parse(path.stem).init for path in folder.glob('faster-rcnn_*.py')} == {
        'in1k',
        'scratch',
        'simsiam',
        'in1k-simsiam',
        'in1k-drawn',
    }
    fragment = folder / '_base_/xray_housings.py'
    assert 'warning' in fragment.read_text() and 'anchors' in fragment.read_text()

    fragment.write_text(
        fragment.read_text()
        .replace("root='data/housings'", "root='data/moved'")
        .replace("type='full'", "type='percentile'")
    )
    for path in folder.glob('*.py'):
        text = Config.fromfile(path).dump()
        assert 'data/moved' in text and 'data/housings' not in text, path.stem
        assert "window=dict(type='percentile')" in text.replace('"', "'").replace(' ', '').replace('\n', '')


def test_an_option_reaches_what_an_edit_would(checkout, tiny_coco, capsys):
    tiny_coco(n=16, size=512, name='data/housings')
    assert main(['data/housings', '--severity', 'severity.yaml', '--no-timing', '--name', 'h-2']) == 0
    capsys.readouterr()
    result = read('faster-rcnn_lite0-scratch', ['xray_own.root=data/else', 'xray_own.anchors=[2]'])
    assert {result[f'{split}_dataloader'].dataset.data_root for split in ('train', 'val', 'test')} == {
        'data/else'
    }
    assert result.test_evaluator.ann_file == 'data/else/test.json'
    assert list(result.model.rpn_head.anchor_generator.scales) == [2]
    # Without an archive, the radiographs of training as if they had no labels: never those of val or test.
    pretraining = read('simsiam_lite0_', ['xray_own.root=data/else']).train_dataloader.dataset
    assert (pretraining.data_root, pretraining.ann_file) == ('data/else', 'train.txt')
    listed = Path('data/housings/train.txt').read_text().split()
    assert len(listed) == 16 and all(name.startswith('train_') for name in listed)
    for option, remedy in {
        'xray_own.rot=1': 'did you mean xray_own.root',
        'xray_own=1': 'expected a part such as xray_own.root',
    }.items():
        with pytest.raises(ValueError, match=remedy):
            read('faster-rcnn_lite0-scratch', [option])
    with pytest.raises(ValueError, match='configs/own/'):
        read_config(str(next(Path('configs/small').glob('simsiam_*.py'))), ['xray_own.root=x'])


@pytest.mark.slow
def test_what_learns_from_crops_is_exported_too(checkout, tiny_coco):
    """Larger radiographs are tested whole, by a factor of their size."""
    root = tiny_coco(n=16, size=384, name='data/housings')
    small_flaws(root)
    assert main(['data/housings', '--severity', 'severity.yaml', '--scale', 'cpu', '--no-timing']) == 0
    config = read('faster-rcnn_lite0-in1k-pre')
    assert 'XrayFlawCrop' in str(config.train_dataloader.dataset.pipeline)
    export_untrained(config, Path('exported'), 384)
    inspector = Inspector('exported', cache=False)
    assert inspector.exported.scale == 1.0 and inspector.exported.input == [384, 384]
    assert inspector(next((root / 'images').iterdir())).verdict in ('accept', 'reject')


def test_what_is_there_is_kept_and_another_data_set_is_refused(checkout, tiny_coco, capsys):
    tiny_coco(n=16, size=256, name='data/a')
    tiny_coco(n=16, size=256, name='data/b')
    assert main(['data/a', '--severity', 'severity.yaml', '--no-timing', '--name', 'x']) == 0
    fragment = checkout / 'configs/own/x/_base_/xray_x.py'
    fragment.write_text(fragment.read_text().replace("type='full'", "type='percentile'"))
    assert main(['data/a', '--severity', 'severity.yaml', '--no-timing', '--name', 'x']) == 0
    assert 'kept as it is' in capsys.readouterr().out and 'percentile' in fragment.read_text()
    assert main(['data/b', '--severity', 'severity.yaml', '--no-timing', '--name', 'x']) == 1
    assert 'choose another --name' in capsys.readouterr().err


def test_data_from_elsewhere_are_linked_and_the_map_is_copied(checkout, tiny_coco, tmp_path_factory, capsys):
    elsewhere = tmp_path_factory.mktemp('disk')
    shutil.move(tiny_coco(n=16, size=256, name='Housings 2'), elsewhere / 'Housings 2')
    shutil.move('severity.yaml', elsewhere / 'map.yaml')
    arguments = [str(elsewhere / 'Housings 2'), '--severity', str(elsewhere / 'map.yaml'), '--no-timing']
    assert main(arguments) == 0
    assert 'links to' in capsys.readouterr().out
    assert (checkout / 'data/housings-2').resolve() == elsewhere / 'Housings 2'
    result = read('faster-rcnn_lite0-in1k-pre').train_dataloader.dataset
    assert (result.data_root, result.severity) == ('data/housings-2', 'configs/own/housings-2/severity.yaml')
    assert Path(result.severity).read_text() == SEVERITY


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['nowhere', '--severity', 'severity.yaml'], 'nowhere: expected a converted data set'),
        (['data/a', '--severity', 'none.yaml'], 'none.yaml'),
        (['data/a', '--severity', 'short.yaml'], "'gas_pore'"),
        (['data/a', '--severity', 'severity.yaml', '--name', 'Ä b'], 'small letters'),
        (['data/a', '--severity', 'severity.yaml', '--name', 'x-224px'], 'small letters'),
    ],
)
def test_bad_input_is_one_line(checkout, tiny_coco, capsys, arguments, expected):
    tiny_coco(n=16, name='data/a')
    (checkout / 'short.yaml').write_text('crack: critical\n')
    assert main([*arguments, '--no-timing']) in (1, 2)
    err = capsys.readouterr().err.strip()
    assert expected in err and len(err.splitlines()) == 1
    assert not list(Path('configs').glob('own/*')) and not list(Path('configs').glob('own/.*'))


def test_twelve_bits_in_sixteen_get_a_window_that_fits(tiny_coco):
    root = tiny_coco(n=4, bits=12)
    names = sorted(path.name for path in (root / 'images').iterdir())
    window, result = find_window(root / 'images', names)
    assert window == dict(type='absolute', low=0, high=4095) and '65535' in result
    root = tiny_coco(n=4, bits=16, name='deep')
    assert find_window(root / 'images', names)[0] == dict(type='full')


@pytest.mark.parametrize('name', ['', 'Ab', 'a_b', '1a', 'a-', 'a-views', 'a-128px'])
def test_a_name_that_stems_cannot_carry_is_refused(name):
    with pytest.raises(NameGrammarError, match='choose another'):
        command.own_images(name)


def own_tree(checkout, tiny_coco, scale, **data):
    small_flaws(tiny_coco(n=16, size=512, name='data/ours', **data))
    arguments = [
        'data/ours',
        '--severity',
        'severity.yaml',
        '--scale',
        scale,
        '--no-timing',
        '--name',
        'oursx',
    ]
    assert main(arguments) == 0
    environment = os.environ | {'MMXRAY_CONFIGS': str(checkout / 'configs'), 'OMP_NUM_THREADS': '1'}
    tests = [str(REPO / 'tests' / name) for name in ('configs', 'config/test_names.py')]
    return subprocess.run(
        [
            sys.executable,
            '-m',
            'pytest',
            '-c',
            str(REPO / 'pyproject.toml'),
            '-q',
            '-x',
            '-k',
            'oursx',
            *tests,
        ],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_rules_of_all_configs_hold_for_ones_own(checkout, tiny_coco):
    done = own_tree(checkout, tiny_coco, 'cpu', unlabeled=20)
    assert done.returncode == 0, done.stdout[-3000:]
    assert ' passed' in done.stdout and 'skipped' not in done.stdout


@pytest.mark.long
@pytest.mark.parametrize('scale', ['one-gpu', 'four-gpu'])
def test_the_rules_of_all_configs_hold_for_ones_own_at_full_size(checkout, tiny_coco, scale):
    done = own_tree(checkout, tiny_coco, scale, unlabeled=0)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize('scale', ['one-gpu', 'four-gpu'])
@pytest.mark.slow
def test_the_recipes_for_gpus_take_their_steps(checkout, tiny_coco, scale):
    """Built as they are, except for the size of the run: two iterations of small radiographs."""
    tiny_coco(n=16, unlabeled=20, name='data/ours')
    assert main(['data/ours', '--severity', 'severity.yaml', '--scale', scale, '--no-timing']) == 0
    here = [
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_dataloader.batch_size=2',
        'train_dataloader.dataset.indices=4',
        'auto_scale_lr.base_batch_size=2',
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
    ]
    tested = [
        f'{split}_dataloader.{option}'
        for split in ('val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False', 'dataset.indices=2')
    ]
    runs = {
        'simsiam_resnet50_': ['train_dataloader.dataset.pipeline.1.transforms.0.0.scale=32'],
        'faster-rcnn_r50-scratch': [
            *tested,
            'xray_own.resize.scale=(64,64)',
            'model.train_cfg.rcnn.sampler.num=16',
            'model.test_cfg.rpn.max_per_img=20',
        ],
    }
    for stem, options in runs.items():
        (config,) = Path('configs/own/ours').glob(f'{stem}*.py')
        assert train([str(config), '--cfg-options', *here, *options]) == 0
        folder = Path('work_dirs', config.stem)
        assert (folder / 'epoch_1.pth').is_file()
        # Not of scalars.json: runs of one process share the visualizer that writes it.
        (log,) = folder.rglob('*.log')
        losses = re.findall(r'Epoch\(train\).* loss: (\S+)', log.read_text())
        assert len(losses) == 2 and np.isfinite([float(loss) for loss in losses]).all()
