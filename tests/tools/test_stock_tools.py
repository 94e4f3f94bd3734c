"""Scripts of mmdet and mmpretrain, as docs/training.md says: what works, and what stands in for the rest."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest
from helpers.config_grammar import find
from helpers.one_epoch import one_epoch

DETECTOR = str(find('faster-rcnn_lite0-scratch_fpn_1xb4-4e_synthetic'))
PROBE = str(find('resnet18-narrow-scratch_1xb64-linear-coslr-20e_synthetic-128px'))


def script(package, name):
    """Path of a script that the package brings."""
    return Path(importlib.util.find_spec(package).origin).parent / '.mim/tools' / name


@pytest.fixture
def stock(monkeypatch):
    """Run a script as `PYTHONPATH=. python …` does, in this process: imports cost seconds."""

    def run(package, name, *arguments):
        path = script(package, name)
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name='__main__')

    return run


@pytest.mark.slow
def test_mmdet_trains_and_tests_and_counts(stock, tiny_coco, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ['--cfg-options', *one_epoch(tiny_coco(n=4))]
    stock('mmdet', 'train.py', DETECTOR, '--work-dir', 'run', *options)
    assert Path('run/epoch_1.pth').is_file()
    stock('mmdet', 'test.py', DETECTOR, 'run/epoch_1.pth', '--work-dir', 'tested', *options)
    assert 'xray/AP50' in next(Path('tested').rglob('*.log')).read_text()
    capsys.readouterr()
    stock('mmdet', 'analysis_tools/get_flops.py', DETECTOR, '--num-images', 1, *options)
    assert re.search(r'Flops: [\d.]+G', capsys.readouterr().out)


def test_the_scripts_are_where_the_document_says(repo):
    text = (repo / 'docs/training.md').read_text()
    for package, name in re.findall(r'site-packages/(\w+)/\.mim/tools/(\S+) CONFIG', text):
        assert script(package, name).is_file()
        assert script(package, name).parents[2].parent.name == 'site-packages'
    for name in re.findall(r'`((?:analysis_tools|misc)/\w+\.py)`', text):
        assert script('mmdet', name).is_file()


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
    installed = {
        path.name for package in ('mmdet', 'mmpretrain') for path in script(package, '').rglob('*.py')
    }
    assert named <= installed
    for _, command in rows:
        assert (repo / command.split()[0]).is_file() or command.startswith('-m tensorboard'), command
