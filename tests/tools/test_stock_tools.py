"""Scripts of mmdet and mmpretrain, as docs/training.md says: what works, and what stands in for the rest."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.config_grammar import find
from helpers.one_epoch import one_epoch

from projects.runs.stock import PACKAGES, folder, main

DETECTOR = str(find('faster-rcnn_lite0-scratch_fpn_1xb4-4e_synthetic'))
PROBE = str(find('resnet18-narrow-scratch_1xb64-linear-coslr-20e_synthetic-128px'))


@pytest.fixture
def stock(monkeypatch):
    """Run a script as `python -m projects.runs.stock …` does, in this process: imports cost seconds."""

    def run(package, name, *arguments):
        monkeypatch.setattr(sys, 'argv', list(sys.argv))
        assert main([package, name, *map(str, arguments)]) == 0

    return run


@pytest.mark.slow
@pytest.mark.parametrize('package', PACKAGES)
def test_a_fresh_python_finds_what_the_script_imports(repo, package):
    command = [sys.executable, '-m', 'projects.runs.stock', package, 'test.py', '--help']
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '--cfg-options' in done.stdout


@pytest.mark.parametrize('name', ['tests.py', 'dist_train.sh', '../../apis/__init__.py', __file__])
def test_an_unknown_script_is_refused_with_the_known_ones(capsys, name):
    with pytest.raises(SystemExit):
        main(['mmdet', name])
    message = capsys.readouterr().err
    assert f'{name}: no such script of mmdet' in message
    assert 'misc/print_config.py' in message


@pytest.mark.slow
def test_mmdet_trains_and_tests_and_counts(stock, tiny_coco, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ['--cfg-options', *one_epoch(tiny_coco(n=4))]
    stock('mmdet', 'train.py', DETECTOR, '--work-dir', 'run', *options)
    assert Path('run/epoch_1.pth').is_file()
    for name, views in (('tested', []), ('flipped', ['--tta'])):
        stock('mmdet', 'test.py', DETECTOR, 'run/epoch_1.pth', '--work-dir', name, *views, *options)
        assert 'xray/AP50' in next(Path(name).rglob('*.log')).read_text()
    capsys.readouterr()
    stock('mmdet', 'analysis_tools/get_flops.py', DETECTOR, '--num-images', 1, *options)
    assert re.search(r'Flops: [\d.]+G', capsys.readouterr().out)


def test_a_python_without_the_packages_is_told_what_to_run(monkeypatch, capsys):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(SystemExit):
        main(['mmpretrain', 'train.py'])
    assert 'mmpretrain: not installed for' in capsys.readouterr().err


def test_the_document_names_scripts_that_exist(repo):
    text = (repo / 'docs/training.md').read_text()
    commands = re.findall(r'^python -m projects\.runs\.stock (\w+) (\S+) CONFIG', text, re.MULTILINE)
    assert len(commands) == 2
    for package, name in [
        *commands,
        *(('mmdet', name) for name in re.findall(r'`((?:analysis_tools|misc)/\w+\.py)`', text)),
    ]:
        assert (folder(package) / name).is_file()


def test_mmdet_prints_a_config(stock, capsys):
    stock('mmdet', 'misc/print_config.py', DETECTOR)
    assert "type='LoadXray'" in capsys.readouterr().out


def test_mmpretrain_trains_tests_and_counts(stock, classifier, capsys):
    # The scripts ask for persistent workers, and this config has none.
    options = [
        '--cfg-options',
        *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'test')),
    ]
    stock('mmpretrain', 'train.py', classifier, '--work-dir', 'run', *options, 'train_cfg.max_epochs=1')
    assert Path('run/epoch_1.pth').is_file()
    stock('mmpretrain', 'test.py', classifier, 'run/epoch_1.pth', '--work-dir', 'tested', *options)
    capsys.readouterr()
    stock('mmpretrain', 'analysis_tools/get_flops.py', PROBE, '--shape', 128)
    assert re.search(r'Input shape: \(3, 128, 128\)\s+Flops: [\d.]+[KMG]', capsys.readouterr().out)


def test_the_document_names_a_counterpart_for_each_of_the_others(repo):
    text = (repo / 'docs/training.md').read_text()
    text = text[text.index("## OpenMMLab's own tools and APIs") :]
    rows = re.findall(r'^\| (`\w+\.py`.*?) \| `python (\S+ ?\S*) ', text, re.MULTILINE)
    named = {name for row, _ in rows for name in re.findall(r'(\w+\.py)', row)}
    assert {'browse_dataset.py', 'analyze_results.py', 'confusion_matrix.py', 'analyze_logs.py'} <= named
    installed = {path.name for package in PACKAGES for path in folder(package).rglob('*.py')}
    assert named <= installed
    for _, command in rows:
        assert (repo / command.split()[0]).is_file() or command.startswith('-m tensorboard'), command
