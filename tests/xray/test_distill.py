"""Distillation: configs keep the rules, the teacher stays its checkpoint, the student is plain again."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from helpers.config_grammar import CONFIGS, all_configs, distill_configs, find, model_of, parse_name, resolved
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from mmengine.utils import import_modules_from_strings

from projects.config.configs import differences, flatten, load_config, under
from projects.xray.handover import HandoverError
from tools import test as test_tool
from tools import train as train_tool

ALL = distill_configs()
DISTILLED = [path for path in ALL if parse_name(path).distiller]
STUDENTS = [path for path in ALL if path not in DISTILLED]
PKD, CWD = (
    CONFIGS / 'distill' / f'{method}-r18-narrow_faster-rcnn_r18-tiny-scratch_fpn32_1xb4-8e_synthetic.py'
    for method in ('pkd', 'cwd')
)


def select(paths):
    return pytest.mark.parametrize('path', paths, ids=lambda p: p.stem)


def student_of(path):
    """The config of the student alone; its name is the end of the distillation's."""
    stem = path.stem.split('_', 1)[1]
    return next((p for p in STUDENTS if p.stem == stem), None) or find(stem)


# ------------------------------------------------------------------------------------------ configs


@select(STUDENTS)
def test_a_name_says_the_schedule_and_the_student(path):
    name, config = parse_name(path), resolved(path)
    assert (config.train_dataloader.batch_size, config.train_cfg.max_epochs) == (name.batch, name.epochs)
    assert config.auto_scale_lr.base_batch_size == name.gpus * name.batch
    assert config.optim_wrapper.type == ('AmpOptimWrapper' if name.amp else 'OptimWrapper')
    model, (depth, _, width) = config.model, name.backbone.removeprefix('resnet').partition('-')
    channels = {'': 64, 'tiny': 16}[width]
    assert (model.type, model.backbone.type, model.backbone.depth) == ('FasterRCNN', 'ResNet', int(depth))
    widths = [model.backbone.get(key, 64) for key in ('base_channels', 'stem_channels')]
    assert widths == [channels, channels]
    checkpoint = dict(in1k=f'torchvision://resnet{depth}', scratch=None)[name.init]
    assert (model.backbone.init_cfg and model.backbone.init_cfg.checkpoint) == checkpoint
    assert model.neck.out_channels == model.rpn_head.in_channels == model.rpn_head.feat_channels == name.fpn
    assert model.roi_head.bbox_roi_extractor.out_channels == name.fpn
    assert model.roi_head.bbox_head.in_channels == name.fpn


@select(STUDENTS)
def test_a_student_trains_whole_and_is_chosen_on_val(path):
    config = resolved(path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = model_of(config).train()
    assert not [name for name, p in model.named_parameters() if not p.requires_grad]
    assert all(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert config.sync_bn == 'torch'
    assert config.default_hooks.checkpoint.save_best == 'xray/AP50'


def test_stems_are_unique():
    stems = [path.stem for path in ALL + all_configs()]
    assert len(set(stems)) == len(stems)


@select(DISTILLED)
def test_a_distillation_differs_from_its_student_alone_in_the_teacher_only(path):
    config, alone = resolved(path), resolved(student_of(path))
    assert not differences(alone.model, config.model.architecture)
    allowed = ('model', 'custom_imports', 'custom_hooks')
    found = differences(alone, config)
    assert [k for k in found if not under(k, allowed) and not k.startswith('xray_')] == []
    assert config.custom_hooks[:-1] == alone.custom_hooks
    assert config.custom_imports.imports == [*alone.custom_imports.imports, 'projects.xray.distill']
    assert config.custom_imports.allow_failed_imports is False
    assert '_delete_' not in [part for key in flatten(config) for part in key.split('.')]


@select(DISTILLED)
def test_the_teacher_is_the_named_one_with_its_last_checkpoint(path):
    name, config = parse_name(path), resolved(path)
    checkpoint = Path(config.model.teacher_ckpt)
    own = find(checkpoint.parent.name)
    taught = re.fullmatch(r'faster-rcnn_(.+?)(-pre|-scratch)_fpn_.*', own.stem)[1]
    assert name.teacher == taught
    assert parse_name(own).images == name.images
    teacher = resolved(own)
    assert config.model.teacher == str(own.relative_to(CONFIGS.parent))
    assert checkpoint.stem == f'epoch_{teacher.train_cfg.max_epochs}'
    # The same radiographs in, and FPNs of the same levels.
    assert config.model.architecture.data_preprocessor == teacher.model.data_preprocessor
    losses = config.model.distiller.distill_losses
    kind = dict(pkd='PKDLoss', cwd='ChannelWiseDivergence')[name.distiller]
    assert [loss.type for loss in losses.values()] == [kind] * 4
    for loss, mapping in config.model.distiller.loss_forward_mappings.items():
        width = config.model.architecture.neck.out_channels
        connector = config.model.distiller.get('connectors', {}).get(mapping.preds_S.get('connector'))
        if connector:
            assert (connector.in_channel, width) == (width, connector.in_channel)
            width = connector.out_channel
        assert width == teacher.model.neck.out_channels
        assert loss in losses


def test_a_dumped_distillation_reloads_equal(tmp_path):
    config = load_config(PKD)
    config.dump(tmp_path / 'dumped.py')
    assert not differences(config, load_config(tmp_path / 'dumped.py'))


# ---------------------------------------------------------------------------------------- the model


@pytest.fixture(scope='module', params=[PKD, CWD], ids=['pkd', 'cwd'])
def distilled(request, tmp_path_factory):
    """A small distillation with a drawn teacher; the config, the teacher's file and its tensors."""
    config = load_config(request.param)
    import_modules_from_strings(**config.custom_imports)
    folder = tmp_path_factory.mktemp('teacher')
    with DefaultScope.overwrite_default_scope('mmdet'):
        from projects.xray.distill import model_of

        teacher = MODELS.build(copy.deepcopy(model_of(config.model.teacher)))
        teacher.init_weights()
        for buffer in teacher.buffers():
            buffer.data = buffer.data + 0.25 if buffer.is_floating_point() else buffer.data
        path = folder / 'teacher.pth'
        torch.save(dict(state_dict=teacher.state_dict()), path)
        settings = copy.deepcopy(config.model)
        settings.teacher_ckpt = str(path)
        model = MODELS.build(settings)
        model.init_weights()
    return config, path, teacher.state_dict(), model


def test_training_moves_student_and_connectors_and_leaves_the_teacher(distilled, tmp_path):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    from projects.xray.hooks.student import StudentHook, student_weights

    config, _, before, model = distilled
    parts = [model.distiller, *model.distiller.distill_losses.values(), *model.distiller.connectors.values()]
    loss = config.model.distiller.distill_losses.loss_fpn0.type
    assert [type(part).__name__ for part in parts] == [
        'ConfigurableDistiller',
        *[loss] * 4,
        *['ConvModuleConnector'] * 4,
    ]
    assert all(type(part).__module__.startswith('mmrazor.') for part in parts)
    model.train()
    assert not any(module.training for module in model.teacher.modules())
    sample = DetDataSample(metainfo=dict(img_shape=(96, 96), scale_factor=(1.0, 1.0), ori_shape=(96, 96)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 12.0, 40.0, 44.0]]), labels=torch.tensor([0])
    )
    torch.manual_seed(0)
    data = dict(inputs=[torch.randint(0, 255, (1, 96, 96), dtype=torch.uint8)] * 2, data_samples=[sample] * 2)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    started = {key: value.clone() for key, value in model.state_dict().items()}
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    distilling = [value for key, value in losses.items() if key.startswith('distill.')]
    assert len(distilling) == 4
    assert all(value > 0 for value in distilling)
    # From the distillation alone: the student's backbone and the connectors learn from the teacher.
    sum(distilling).backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, started[key])}
    assert any(key.startswith('architecture.backbone.conv1') for key in moved)
    assert sum(key.startswith('distiller.connectors.') for key in moved) >= 4
    assert not any(key.startswith('teacher.') for key in moved)
    assert all(torch.equal(value, before[key]) for key, value in model.teacher.state_dict().items())

    # The student's tensors are a checkpoint of its own config, whole.
    path = tmp_path / 'student.pth'
    torch.save(dict(state_dict=student_weights(model)), path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        plain = MODELS.build(copy.deepcopy(load_config(student_of(PKD)).model))
    load_checkpoint(plain, str(path), strict=True, logger='silent')
    assert type(plain).__name__ == 'FasterRCNN'
    saved = dict(state_dict=model.state_dict())
    StudentHook().before_save_checkpoint(None, saved)
    kinds = {key.split('.')[0] for key in saved['state_dict']}
    assert kinds == {'architecture', 'distiller'}
    # Such a checkpoint resumes and tests the run, strictly.
    torch.save(saved, path)
    load_checkpoint(model, str(path), strict=True, logger='silent')
    assert all(torch.equal(value, before[key]) for key, value in model.teacher.state_dict().items())


@pytest.mark.parametrize('change', ['missing', 'shape', 'unexpected'])
def test_a_teacher_that_is_not_whole_stops_the_run(distilled, tmp_path, monkeypatch, change):
    _, path, _, model = distilled
    content = torch.load(path, weights_only=True)['state_dict']
    key = 'roi_head.bbox_head.fc_cls.weight'  # not the backbone, which another hook compares
    if change == 'missing':
        del content[key]
    elif change == 'shape':
        content[key] = content[key][:1]
    else:
        content['roi_head.mask_head.weight'] = torch.zeros(1)
    torch.save(dict(state_dict=content), tmp_path / 'other.pth')
    monkeypatch.setattr(model, 'teacher_ckpt', str(tmp_path / 'other.pth'))
    monkeypatch.setitem(model.teacher.init_cfg, 'checkpoint', str(tmp_path / 'other.pth'))
    for module in (model, model.teacher):
        monkeypatch.setattr(module, '_is_init', False)
    with pytest.raises(HandoverError, match='1 tensors are not those of the teacher'):
        model.init_weights()


# --------------------------------------------------------------------------------- from end to end


@pytest.fixture
def run(distilled, tiny_coco, tmp_path, monkeypatch):
    """Options with which the small configs read a drawn set and the drawn teacher, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    root = tiny_coco(n=8, empty=3)
    options = [f'val_evaluator.ann_file={root}/val.json', f'test_evaluator.ann_file={root}/test.json']
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options += [
            f'{loader}.dataset.data_root={root}',
            f'{loader}.num_workers=0',
            f'{loader}.persistent_workers=False',
        ]
    return options, f'model.teacher_ckpt={distilled[1]}'


def train(config, run, epochs, *arguments):
    options = [*run[0], run[1], f'train_cfg.max_epochs={epochs}']
    return train_tool.main([str(config), *arguments, '--cfg-options', *options])


def tensors(path):
    return torch.load(path)['state_dict']


@pytest.mark.parametrize('distilled', [PKD], indirect=True)
@pytest.mark.slow
def test_a_student_is_trained_resumed_and_tested_as_a_plain_detector(distilled, run, tmp_path):
    config = Path(distilled[0].filename)
    assert train(config, run, 1, '--work-dir', 'run') == 0
    first, student = tensors('run/epoch_1.pth'), tensors('run/student.pth')
    assert {key.split('.')[0] for key in first} == {'architecture', 'distiller'}
    assert {f'architecture.{key}' for key in student} == {k for k in first if k.startswith('architecture.')}
    assert all(torch.equal(first[f'architecture.{key}'], value) for key, value in student.items())

    assert train(config, run, 2, '--work-dir', 'run', '--resume') == 0
    second = tensors('run/epoch_2.pth')
    log = '\n'.join(path.read_text() for path in sorted(Path('run').rglob('*.log')))
    assert 'resumed epoch: 1' in log
    assert 'distill.loss_fpn0' in log
    changed = [key for key in second if not torch.equal(second[key], first[key])]
    assert [key for key in changed if key.startswith('distiller.connectors.')]
    assert torch.load('run/epoch_2.pth')['meta']['iter'] == 4
    student = tensors('run/student.pth')
    assert all(torch.equal(second[f'architecture.{key}'], value) for key, value in student.items())

    # The plain config takes it, and says of every radiograph what the distillation's own says.
    for path, checkpoint, options in (
        (student_of(config), 'run/student.pth', run[0]),
        (config, 'run/epoch_2.pth', [*run[0], run[1]]),
    ):
        arguments = [str(path), checkpoint, '--work-dir', path.stem, '--cfg-options', *options]
        assert test_tool.main(arguments) == 0
    plain, whole = (
        json.loads((Path(path.stem) / 'predictions.json').read_text())['detections']
        for path in (student_of(config), config)
    )
    assert plain == whole
    assert plain
