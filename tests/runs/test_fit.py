"""A training that would learn nothing, or other classes than its data have, does not start."""

from types import SimpleNamespace

import pytest
import torch

from projects.prepare import preflight
from projects.runs.fit import compare_batch, compare_classes
from projects.xray.handover import HandoverError, refuse_untrained
from projects.xray.hooks.backbone import BackboneHook
from projects.xray.hooks.verified_load import VerifiedLoadHook
from tools.train import main


def test_heads_are_compared_with_the_classes():
    model = dict(roi_head=dict(bbox_head=[dict(num_classes=2), dict(num_classes=1)]), backbone=dict(depth=18))
    ((found, remedy),) = compare_classes(model, ('critical', 'minor'))
    assert found == 'model.roi_head.bbox_head.1.num_classes is 1; metainfo.classes has 2: critical, minor'
    assert remedy == 'set model.roi_head.bbox_head.1.num_classes = 2'
    assert compare_classes(dict(teacher=dict(bbox_head=dict(num_classes=1))), ('critical', 'minor')) == []
    assert compare_classes(model, ()) == []


@pytest.mark.parametrize(
    ('images', 'ranks', 'most'),
    [(16, 1, 16), (70, 4, 18), (3, 4, 1)],
)
def test_the_batch_that_fits_is_named(images, ranks, most):
    found, remedy = compare_batch(images, ranks, 64)
    assert found == f'{images} training images on {ranks} rank{"s" * (ranks > 1)} are no batch of 64 for each'
    assert remedy == f'set train_dataloader.batch_size to {most} or less'


def test_the_doctor_counts_images_for_every_rank():
    loader = dict(dataset={}, batch_size=18, drop_last=True)
    assert preflight.check_batch(loader, 70, 4) == []
    (row,) = preflight.check_batch(loader | dict(batch_size=19), 70, 4)
    assert (row.name, row.found) == ('batch', '70 training images on 4 ranks are no batch of 19 for each')
    assert row.remedy == 'set train_dataloader.batch_size to 18 or less'
    assert preflight.check_batch(loader | dict(batch_size=19, drop_last=False), 70, 4) == []
    assert preflight.check_batch(dict(dataset=dict(times=2), batch_size=19, drop_last=True), 70, 4) == []


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (
            ['train_dataloader.drop_last=True', 'train_dataloader.batch_size=17'],
            'error: 16 training images on 1 rank are no batch of 17 for each; set '
            'train_dataloader.batch_size to 16 or less\n',
        ),
        (
            ['model.backbone.num_classes=3'],
            'error: model.backbone.num_classes is 3; metainfo.classes has 2: critical, minor; set '
            'model.backbone.num_classes = 2\n',
        ),
    ],
)
@pytest.mark.slow
def test_a_training_that_fits_not_stops_before_its_first_batch(
    classifier, tmp_path, capsys, options, expected
):
    assert main([str(classifier), '--work-dir', 'run', '--cfg-options', *options]) == 1
    assert capsys.readouterr().err.endswith(expected)
    assert not list((tmp_path / 'run').glob('*.pth'))
    assert not (tmp_path / 'run' / 'starts.json').exists()


@pytest.mark.parametrize('meta', [dict(iter=0, epoch=1), dict(iteration='0')])
def test_weights_that_were_never_updated_are_refused(tmp_path, meta):
    with pytest.raises(HandoverError, match=r'x\.pth: written by a run without an update \(iteration 0\)'):
        refuse_untrained('x.pth', meta)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(meta=meta, state_dict={'backbone.w': torch.ones(1)}), path)
    with pytest.raises(HandoverError, match='without an update'):
        VerifiedLoadHook._read('model.backbone.init_cfg', str(path))
    hub = SimpleNamespace(get_info=lambda key: str(path))
    with pytest.raises(HandoverError, match='without an update'):
        BackboneHook().after_train(SimpleNamespace(message_hub=hub, work_dir=tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']


@pytest.mark.parametrize('meta', [{}, dict(iter=1), dict(iteration='10900')])
def test_weights_of_another_origin_and_trained_ones_pass(meta):
    refuse_untrained('x.pth', meta)
