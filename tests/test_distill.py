"""Distillation: configs resolve, the teacher is and stays its checkpoint, the student is plain again."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from mmengine.utils import import_modules_from_strings

from projects.xray.hooks import HandoverError
from projects.xray.report.config_diff import differences, flatten, load_config, under

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
ALL = sorted((CONFIGS / 'distill').glob('*.py'))
DISTILLED = [path for path in ALL if path.name.startswith(('pkd', 'cwd'))]
SMALL = CONFIGS / 'distill' / 'pkd-r18-narrow_faster-rcnn_r18-tiny-scratch_fpn32_1xb4-8e_synthetic.py'


def student_of(path):
    """The config of the student alone; its name is the end of the distillation's."""
    stem = path.stem.split('_', 1)[1]
    (found,) = [p for p in CONFIGS.glob('*/*.py') if p.stem == stem]
    return found


@pytest.mark.parametrize('path', DISTILLED, ids=lambda p: p.stem)
def test_a_distillation_differs_from_its_student_alone_in_the_teacher_only(path):
    config, alone = load_config(path), load_config(student_of(path))
    assert not differences(alone.model, config.model.architecture)
    allowed = ('model', 'teacher', 'custom_imports', 'custom_hooks', 'find_unused_parameters')
    found = differences(alone, config)
    assert [k for k in found if not under(k, allowed) and not k.startswith('xray_')] == []
    assert config.custom_hooks[:-1] == alone.custom_hooks
    assert '_delete_' not in [part for key in flatten(config) for part in key.split('.')]


@pytest.mark.parametrize('path', DISTILLED, ids=lambda p: p.stem)
def test_the_teacher_is_an_existing_config_with_its_last_checkpoint(path):
    config = load_config(path)
    checkpoint = Path(config.model.teacher_ckpt)
    (own,) = CONFIGS.glob(f'*/{checkpoint.parent.name}.py')
    teacher = load_config(own)
    assert checkpoint.stem == f'epoch_{teacher.train_cfg.max_epochs}'
    assert not differences(teacher.model, config.model.teacher)
    # The same radiographs in, and FPNs of the same levels.
    assert config.model.architecture.data_preprocessor == teacher.model.data_preprocessor
    losses = config.model.distiller.distill_losses
    assert {loss.type for loss in losses.values()} == {
        'PKDLoss' if path.name.startswith('pkd') else 'ChannelWiseDivergence'
    }
    for name, mapping in config.model.distiller.loss_forward_mappings.items():
        width = config.model.architecture.neck.out_channels
        connector = config.model.distiller.get('connectors', {}).get(mapping.preds_S.get('connector'))
        if connector:
            assert (connector.in_channel, width) == (width, connector.in_channel)
            width = connector.out_channel
        assert width == config.model.teacher.neck.out_channels
        assert name in losses


def test_a_dumped_distillation_reloads_equal(tmp_path):
    config = load_config(SMALL)
    config.dump(tmp_path / 'dumped.py')
    assert not differences(config, load_config(tmp_path / 'dumped.py'))


@pytest.fixture(scope='module')
def distilled(tmp_path_factory):
    """The small distillation with a drawn teacher; the config, the teacher's file and its tensors."""
    config = load_config(SMALL)
    import_modules_from_strings(**config.custom_imports)
    folder = tmp_path_factory.mktemp('teacher')
    with DefaultScope.overwrite_default_scope('mmdet'):
        teacher = MODELS.build(copy.deepcopy(config.model.teacher))
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

    from projects.xray.distill import StudentHook, student_weights

    config, _, before, model = distilled
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
        plain = MODELS.build(copy.deepcopy(load_config(student_of(SMALL)).model))
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
