"""Hand-overs that must arrive whole, losses that must stay finite, pictures that must show what is there."""

import io
import json
import re

import cv2
import numpy as np
import pytest
import torch
import torchvision
from helpers.handover import RESNET_TARGET, detector, hand_over, log_of
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmengine.runner import Runner, save_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, get_torchvision_models
from mmengine.structures import InstanceData
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.structures import DataSample

from projects.xray import compat, datasets, handover, lite0, transforms  # noqa: F401
from projects.xray.handover import HandoverError, refuse_untrained
from projects.xray.hooks import finite_loss, pace, verified_load  # noqa: F401
from projects.xray.hooks import pictures as hooks_pictures

SWIN = dict(
    arch=dict(embed_dims=24, depths=[2, 2], num_heads=[2, 4]),
    img_size=96,
    stage_cfgs=dict(block_cfgs=dict(window_size=12)),
)
RESNET_SOURCE = dict(
    type='mmpretrain.SimSiam',
    data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
    backbone=dict(type='mmpretrain.ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(
        type='mmpretrain.NonLinearNeck', in_channels=512, hid_channels=8, out_channels=8, with_avg_pool=True
    ),
    head=dict(
        type='mmpretrain.LatentPredictHead',
        loss=dict(type='mmpretrain.CosineSimilarityLoss'),
        predictor=dict(
            type='mmpretrain.NonLinearNeck',
            in_channels=8,
            hid_channels=8,
            out_channels=8,
            with_avg_pool=False,
        ),
    ),
)
SWIN_SOURCE = dict(
    type='mmpretrain.SimMIM',
    data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
    backbone=dict(type='mmpretrain.SimMIMSwinTransformer', out_indices=(1,), **SWIN),
    neck=dict(type='mmpretrain.SimMIMLinearDecoder', in_channels=48, encoder_stride=8),
    head=dict(
        type='mmpretrain.SimMIMHead',
        patch_size=4,
        loss=dict(type='mmpretrain.PixelReconstructionLoss', criterion='L1'),
    ),
)
SWIN_TARGET = dict(type='mmpretrain.SwinTransformer', out_indices=(0, 1), pad_small_map=True, **SWIN)


def pretrained(source, path, trained_as='simsiam_resnet50_4xb64-coslr-100e_industrial-224px_20260101_000000'):
    """Save a pretraining checkpoint with weights that no initialisation gives; return its model."""
    model = MODELS.build(source)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(dict(state_dict=model.state_dict(), meta=dict(experiment_name=trained_as)), str(path))
    return model.eval()


def test_a_detector_starts_from_weights_of_a_package(tmp_path, request):
    weights = 'package://efficientnet-lite0'
    cfg = detector(dict(type='mmpretrain.EfficientNetLite0'), weights)
    cfg.neck.in_channels = [24, 40, 112, 320]
    runner, log = hand_over(cfg, tmp_path, request)
    assert f'file        {weights} (prefix' in log
    assert 'missing     none' in log
    assert 'unexpected  none' in log
    tensors = CheckpointLoader.load_checkpoint(weights, logger='silent')['state_dict']
    stem = tensors['backbone.layers.0.conv.weight']
    assert torch.equal(runner.model.backbone.layers[0].conv.weight, stem)


@pytest.mark.parametrize(
    ('source', 'target', 'lines'),
    [
        (RESNET_SOURCE, RESNET_TARGET, ['100 of 100', 'missing     none', 'unexpected  none']),
        (
            SWIN_SOURCE,
            SWIN_TARGET,
            ['missing     2 (norm0.weight, norm0.bias), allowed', 'unexpected  1 (mask_token), allowed'],
        ),
    ],
    ids=['resnet', 'swin'],
)
def test_features_survive_the_hand_over(tmp_path, request, source, target, lines):
    file = tmp_path / 'work_dirs' / 'epoch_100.pth'
    before = pretrained(source, file).backbone
    runner, log = hand_over(detector(target, file), tmp_path, request)
    after = runner.model.backbone
    image = torch.rand(1, 3, 192, 192)  # maps larger than a window, where pad_small_map plays no part
    before.eval(), after.eval()
    unmasked = (image, None) if source is SWIN_SOURCE else (image,)
    with torch.no_grad():
        assert torch.equal(after(image)[-1], before(*unmasked)[-1])
    assert all(line in log for line in [*lines, 'image set   industrial'])
    assert re.search(r'backbone +sha256 [0-9a-f]{12}\b', log)


def test_densecl_continues_from_weights_that_its_average_copies_at_the_first_step(tmp_path, request):
    file = tmp_path / 'epoch_100.pth'
    before = pretrained(RESNET_SOURCE, file).backbone
    model = get_config('mmpretrain::densecl/densecl_resnet50_8xb32-coslr-200e_in1k.py').model
    model._scope_, model.queue_len = 'mmpretrain', 8
    init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    model.backbone = dict(RESNET_SOURCE['backbone'], init_cfg=init_cfg)
    model.neck.update(in_channels=512, hid_channels=8)
    runner, log = hand_over(model, tmp_path, request)
    assert '100 of 100' in log
    views = [torch.rand(4, 3, 64, 64) for _ in range(2)]
    runner.model.loss(views, [])
    average = runner.model.encoder_k.module[0].state_dict()
    assert all(torch.equal(average[name], value) for name, value in before.named_parameters())


class Averaged(BaseModel):
    """A backbone and an average of it, or of another one."""

    def __init__(self, backbone, other=None):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.average = ExponentialMovingAverage(MODELS.build(other) if other else self.backbone)

    def forward(self):
        raise NotImplementedError


def test_an_average_that_has_begun_without_the_weights_stops_the_training(tmp_path, request):
    class Begin(Hook):
        priority = 'HIGHEST'

        def before_train(self, runner):
            runner.model.average.steps += 1

    file = tmp_path / 'epoch_100.pth'
    pretrained(RESNET_SOURCE, file)
    init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    model = Averaged(dict(RESNET_SOURCE['backbone'], init_cfg=init_cfg))
    with pytest.raises(HandoverError, match='0 of the 100 tensors'):
        hand_over(model, tmp_path, request, extra=[Begin()])


def test_weights_that_only_an_average_names_are_compared(tmp_path, request):
    file = tmp_path / 'epoch_100.pth'
    plain = RESNET_SOURCE['backbone']
    other = dict(plain, init_cfg=dict(type='Pretrained', checkpoint=str(file), prefix='backbone.'))
    with pytest.raises(HandoverError, match='no such checkpoint'):
        hand_over(Averaged(plain, other), tmp_path, request)
    pretrained(RESNET_SOURCE, file)
    with pytest.raises(HandoverError, match='0 of the 100 tensors'):
        hand_over(Averaged(plain, other), tmp_path, request)


def test_simmim_continues_from_classifier_weights(tmp_path, request):
    classifier = dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
        backbone=dict(type='mmpretrain.SwinTransformer', out_indices=(1,), **SWIN),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=5,
            in_channels=48,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )
    file = tmp_path / 'in1k.pth'
    pretrained(classifier, file)
    model = Config(dict(model=SWIN_SOURCE)).model
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    _, log = hand_over(model, tmp_path, request)
    assert '1 (mask_token), allowed' in log


def test_torchvision_weights_load_through_the_download_cache(tmp_path, request, monkeypatch):
    cache = tmp_path / 'cache'
    monkeypatch.setenv('TORCH_HOME', str(cache))
    url = get_torchvision_models()['resnet18']
    file = cache / 'hub' / 'checkpoints' / url.rsplit('/', 1)[1]
    file.parent.mkdir(parents=True)
    source = torchvision.models.resnet18()
    torch.save(source.state_dict(), file)
    runner, log = hand_over(detector(RESNET_TARGET, 'torchvision://resnet18', prefix=None), tmp_path, request)
    assert torch.equal(runner.model.backbone.conv1.weight, source.conv1.weight)
    assert 'unexpected  2 (fc.weight, fc.bias), allowed' in log


def test_missing_prefix_stops_the_training(tmp_path, request):
    file = tmp_path / 'epoch_100.pth'
    pretrained(RESNET_SOURCE, file)
    with pytest.raises(
        handover.HandoverError, match=r"0 of the 100 tensors .* set prefix='backbone\.'"
    ) as caught:
        hand_over(detector(RESNET_TARGET, file, prefix=None), tmp_path, request)
    assert str(file) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_wrong_prefix_stops_the_training(tmp_path, request):
    file = tmp_path / 'epoch_100.pth'
    pretrained(RESNET_SOURCE, file)
    with pytest.raises(handover.HandoverError, match=r"'encoder\.\*'.*model\.backbone\.init_cfg"):
        hand_over(detector(RESNET_TARGET, file, prefix='encoder'), tmp_path, request)


def edit(file, change):
    """Rewrite the tensors of a checkpoint."""
    content = torch.load(file)
    change(content['state_dict'])
    torch.save(content, file)


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        (lambda s: s.pop('backbone.layer1.0.conv1.weight'), r'1 missing \(layer1\.0\.conv1\.weight\)'),
        (
            lambda s: s.update({'backbone.conv1.weight': torch.ones(8, 3, 7, 7)}),
            r'1 of another shape \(conv1',
        ),
        (lambda s: s.update({'backbone.layer9.weight': torch.ones(1)}), r'1 unexpected \(layer9\.weight\)'),
        (lambda s: s['backbone.conv1.weight'].fill_(torch.nan), r'1 with other values \(conv1\.weight\)'),
    ],
    ids=['missing', 'shape', 'unexpected', 'nan'],
)
def test_a_single_wrong_tensor_stops_the_training(tmp_path, request, change, complaint):
    file = tmp_path / 'epoch_100.pth'
    pretrained(RESNET_SOURCE, file)
    edit(file, change)
    with pytest.raises(handover.HandoverError, match=complaint):
        hand_over(detector(RESNET_TARGET, file), tmp_path, request)


def test_the_norm_of_the_last_stage_may_not_be_missing(tmp_path, request):
    file = tmp_path / 'epoch_100.pth'
    pretrained(SWIN_SOURCE, file)
    edit(file, lambda s: s.pop('backbone.norm1.weight'))
    with pytest.raises(handover.HandoverError, match=r'1 missing \(norm1\.weight\)'):
        hand_over(detector(SWIN_TARGET, file), tmp_path, request)


@pytest.mark.parametrize('extra', ['fc.weight', 'head.fc.bias', 'mask_token'])
def test_heads_and_mask_token_may_be_left_behind(tmp_path, request, extra):
    file = tmp_path / 'epoch_100.pth'
    pretrained(RESNET_SOURCE, file)
    edit(file, lambda s: s.update({f'backbone.{extra}': torch.ones(1)}))
    _, log = hand_over(detector(RESNET_TARGET, file), tmp_path, request)
    assert f'unexpected  1 ({extra}), allowed' in log


def test_weights_that_are_overwritten_after_loading_stop_the_training(tmp_path, request):
    class Reinitialise(Hook):
        priority = 'HIGHEST'

        def before_train(self, runner):
            torch.nn.init.ones_(runner.model.backbone.layer2[0].conv1.weight)

    file = tmp_path / 'epoch_100.pth'
    pretrained(RESNET_SOURCE, file)
    with pytest.raises(handover.HandoverError, match=r'1 with other values \(layer2\.0\.conv1\.weight\)'):
        hand_over(detector(RESNET_TARGET, file), tmp_path, request, extra=[Reinitialise()])


def test_a_whole_detector_may_bring_another_number_of_classes(tmp_path, request):
    file = tmp_path / 'coco.pth'
    source = pretrained(detector(RESNET_TARGET, num_classes=80), file)
    runner, log = hand_over(detector(RESNET_TARGET), tmp_path, request, load_from=file)
    assert torch.equal(runner.model.backbone.conv1.weight, source.backbone.conv1.weight)
    assert re.search(r'other parts \d+ matched, 0 missing, 0 unexpected, mismatched: 4 \(roi_head', log)


def test_load_from_without_the_backbone_stops_the_training(tmp_path, request):
    file = tmp_path / 'coco.pth'
    pretrained(detector(RESNET_TARGET), file)
    edit(file, lambda s: [s.pop(key) for key in list(s) if key.startswith('backbone.')])
    with pytest.raises(handover.HandoverError, match='0 of the 100 tensors'):
        hand_over(detector(RESNET_TARGET), tmp_path, request, load_from=file)


def test_training_from_scratch_says_so(tmp_path, request):
    _, log = hand_over(detector(RESNET_TARGET), tmp_path, request)
    assert 'training starts from random weights' in log


def test_a_checkpoint_that_is_not_there_comes_with_its_command(tmp_path, request):
    config = sorted(handover.CONFIGS.glob('simsiam/*_4xb*.py'))[0]
    checkpoint = f'work_dirs/{config.stem}/epoch_100.pth'
    with pytest.raises(handover.HandoverError) as caught:
        hand_over(detector(RESNET_TARGET, tmp_path / checkpoint), tmp_path, request)
    assert str(caught.value) == (
        f'{tmp_path / checkpoint}: no such checkpoint, expected by model.backbone.init_cfg; '
        f'make it with `tools/dist_train.sh configs/simsiam/{config.name} 4`'
    )


def test_an_unknown_checkpoint_that_is_not_there_comes_with_a_remedy(tmp_path, request):
    with pytest.raises(handover.HandoverError, match='put it there or correct the path'):
        hand_over(detector(RESNET_TARGET, tmp_path / 'mine.pth'), tmp_path, request)


def test_small_pretrainings_are_made_on_one_process():
    config = sorted(handover.CONFIGS.glob('small/*_1xb*.py'))[0]
    command = handover.command_for(f'work_dirs/study/first/{config.stem}/seed0-frac1/epoch_9.pth')
    assert command == f'python tools/train.py configs/small/{config.name}'


def test_weights_of_another_image_set_are_refused(tmp_path, request):
    """A copy under another name would let test series into pretraining."""
    file = tmp_path / 'simsiam_resnet50_4xb64-coslr-100e_castings-b-224px' / 'epoch_100.pth'
    pretrained(RESNET_SOURCE, file, 'simsiam_resnet50_4xb64-coslr-100e_castings-a-224px_20260101_000000')
    with pytest.raises(handover.HandoverError, match="trained on 'castings-a' .*, expected 'castings-b'"):
        hand_over(detector(RESNET_TARGET, file), tmp_path, request)


def chain(window=None, dtype='uint8', size=0, mean=114.5, std=57.6, wrapped=False):
    """Config of a run that loads its radiographs so."""
    load = dict(type='LoadXray', dtype=dtype, size=size)
    if window:
        load['window'] = window
    data = dict(type='XrayImages', pipeline=[load, dict(type='PackInputs')])
    if wrapped:
        data = dict(type='RepeatDataset', times=2, dataset=data)
    norm = dict(type='XraySelfSupDataPreprocessor', mean=[mean], std=[std])
    config = dict(train_dataloader=dict(batch_size=4, dataset=data))
    return Config(
        config | (dict(data_preprocessor=norm) if wrapped else dict(model=dict(data_preprocessor=norm)))
    )


FULL, NARROW = dict(type='full'), dict(type='absolute', low=0, high=4095)


def pretrained_as(cfg, tmp_path):
    """A checkpoint whose run loaded as `cfg` says; as mmengine writes it."""
    file = tmp_path / 'epoch_100.pth'
    pretrained(RESNET_SOURCE, file)
    content = torch.load(file)
    content['meta']['cfg'] = cfg if isinstance(cfg, str) else cfg.pretty_text
    torch.save(content, file)
    return file


@pytest.mark.parametrize(
    ('theirs', 'own', 'expected'),
    [
        (chain(FULL), chain(NARROW), "window {'type': 'full'}.* expected window {'type': 'absolute'"),
        (
            chain(NARROW, wrapped=True),
            chain(dict(NARROW, high=1023)),
            "'high': 4095.* expected .*'high': 1023",
        ),
        (chain(), chain(dtype='float32'), 'dtype uint8.* expected .*dtype float32'),
        (chain(mean=127.5), chain(), r'mean \[127.5\].* expected .*mean \[114.5\]'),
        (chain(), chain(std=1, wrapped=True), r'std \[57.6\].* expected .*std \[1.0\]'),
        (chain(dict(FULL, log=True)), chain(), "'log': True"),
    ],
)
def test_weights_of_radiographs_loaded_otherwise_are_refused(tmp_path, request, theirs, own, expected):
    file = pretrained_as(theirs, tmp_path)
    with pytest.raises(handover.HandoverError, match=expected) as caught:
        hand_over(detector(RESNET_TARGET, file), tmp_path, request, cfg=own)
    assert str(caught.value).startswith(str(file)) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('theirs', 'own', 'expected'),
    [
        (
            chain(NARROW, size=512, wrapped=True),
            chain(dict(NARROW, log=False)),
            "loaded as   window {'high': 4095",
        ),
        (chain(), chain(FULL), 'loaded as   window'),
        (chain(), Config(), 'loaded as   window'),  # a run that loads no radiographs
        (
            "model = dict(type='FasterRCNN')\nimg_norm_cfg = dict(mean=[1, 2, 3])",
            chain(),
            'loaded as   not said',
        ),
        ('train_dataloader = open(', chain(), 'loaded as   not said'),
        ('raise SystemExit', chain(), 'loaded as   not said'),  # it is read, never run
    ],
)
def test_weights_loaded_alike_or_of_unknown_origin_pass_and_say_so(tmp_path, request, theirs, own, expected):
    _, log = hand_over(detector(RESNET_TARGET, pretrained_as(theirs, tmp_path)), tmp_path, request, cfg=own)
    assert expected in log


@MODELS.register_module(force=True)
class LossOf(BaseModel):
    """Its loss is the mean of the images, so a NaN image gives a NaN loss."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=(torch.stack(inputs) * self.scale).mean())


def train_on(images, tmp_path, request, custom_hooks, **optim_wrapper):
    samples = [
        dict(inputs=image, data_samples=DetDataSample(metainfo=dict(img_path=f'part_{i}.png')))
        for i, image in enumerate(images)
    ]
    train(samples, 'pseudo_collate', tmp_path, request, custom_hooks, **optim_wrapper)


def train(samples, collate, tmp_path, request, custom_hooks, **optim_wrapper):
    runner = Runner(
        model=LossOf(),
        work_dir=str(tmp_path / 'run'),
        train_dataloader=dict(
            dataset=samples,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type=collate),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)) | optim_wrapper,
        default_hooks=dict(logger=dict(type='LoggerHook', interval=2)),
        custom_hooks=custom_hooks,
        experiment_name=re.sub(r'\W', '_', request.node.name),
    )
    runner.train()


def test_a_loss_that_is_not_finite_names_the_radiographs(tmp_path, request):
    images = [torch.zeros(1, 4, 4) for _ in range(6)]
    images[3][0, 0, 0] = torch.nan
    with pytest.raises(
        finite_loss.LossError, match=r'epoch 1, iteration 2: loss not finite on part_2\.png, part_3\.png;'
    ):
        train_on(images, tmp_path, request, [finite_loss.FiniteLossHook()])


def test_a_loss_over_two_views_that_is_not_finite_names_their_radiographs(tmp_path, request):
    """A pretraining's batch is two tensors of views and a list of mmpretrain's samples, one a radiograph."""
    views = np.zeros((6, 2, 4, 4), np.float32)
    views[3, 1, 0, 0] = np.nan  # one view of the fourth radiograph
    samples = [PackInputs()(dict(img=list(pair), img_path=f'part_{i}.png')) for i, pair in enumerate(views)]
    assert isinstance(samples[0]['data_samples'], DataSample)
    with pytest.raises(finite_loss.LossError, match=r'not finite on part_2\.png, part_3\.png;'):
        train(samples, 'default_collate', tmp_path, request, [finite_loss.FiniteLossHook()])


@OPTIM_WRAPPERS.register_module()
class OverflowingWrapper(OptimWrapper):
    """Mixed precision whose gradients overflow in every iteration: each update is skipped."""

    loss_scaler = torch.amp.GradScaler('cpu', init_scale=3e38)

    def update_params(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward()
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update(3e38)
        self.zero_grad()


def test_a_training_whose_updates_are_all_skipped_comes_to_no_end(tmp_path, request):
    hooks = [finite_loss.FiniteLossHook()]
    images = [torch.full((1, 4, 4), 10.0)] * 4
    with pytest.raises(finite_loss.LossError, match='^iteration 4: no weight has changed since the start'):
        train_on(images, tmp_path, request, hooks, type='OverflowingWrapper')
    assert not (tmp_path / 'run' / 'epoch_2.pth').exists()
    first = tmp_path / 'run' / 'epoch_1.pth'
    with pytest.raises(HandoverError, match='written before the first update'):
        refuse_untrained(str(first), torch.load(first, weights_only=False)['meta'])


def test_the_pace_is_in_the_log_and_the_bar_only_on_a_terminal(tmp_path, request, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr('sys.stderr', screen)
    train_on([torch.ones(1, 4, 4)] * 8, tmp_path, request, [finite_loss.FiniteLossHook(), pace.PaceHook()])
    assert 'epoch 1/2' in screen.getvalue()
    assert 'epoch 2/2' in screen.getvalue()
    log = log_of(tmp_path / 'run')
    shares = [float(share) for share in re.findall(r'data_share: ([\d.]+)', log)]
    assert len(shares) == 4
    assert all(0 <= share <= 1 for share in shares)
    assert '\r' not in log
    assert 'it/s' not in log


def test_no_bar_without_a_terminal(tmp_path, request, capsys):
    train_on([torch.zeros(1, 4, 4)] * 4, tmp_path, request, [pace.PaceHook()])
    assert 'epoch 1/2' not in capsys.readouterr().err


CLASSES, PALETTE = ('critical', 'minor'), [(213, 94, 0), (86, 180, 233)]


def coloured(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(-1)


def panels(picture):
    """Cut the two panels out of a picture of a square radiograph."""
    top, left = hooks_pictures.MARGIN + hooks_pictures.HEADER, hooks_pictures.MARGIN
    truth = picture[top : top + hooks_pictures.PANEL, left : left + hooks_pictures.PANEL]
    return truth, picture[
        top : top + hooks_pictures.PANEL,
        2 * left + hooks_pictures.PANEL : 2 * left + 2 * hooks_pictures.PANEL,
    ]


def test_truth_is_left_and_prediction_right_in_the_colours_of_their_classes():
    image = np.full((96, 96), 100, np.uint8)
    truth = [(np.array([10, 20, 40, 50]), 0, None)]
    predicted = [(np.array([60, 70, 80, 90]), 1, 0.9)]
    left, right = panels(hooks_pictures.draw_comparison(image, truth, predicted, CLASSES, PALETTE, 'a.png'))
    scale = hooks_pictures.PANEL / 96
    for panel, colour, other, (x1, y1, x2, y2) in (
        (left, PALETTE[0], PALETTE[1], truth[0][0] * scale),
        (right, PALETTE[1], PALETTE[0], predicted[0][0] * scale),
    ):
        assert not coloured(panel, other).any()
        rows, columns = np.nonzero(coloured(panel, colour))
        # The outline lies around the box; the label above it only.
        assert abs(rows.max() - y2) <= 3
        assert abs(columns.min() - x1) <= 3
        inside = panel[int(y1) + 2 : int(y2) - 2, int(x1) + 2 : int(x2) - 2]
        assert (inside == 100).all()


def test_ignored_regions_are_gray_and_not_counted():
    image = np.full((96, 96), 100, np.uint8)
    box = np.array([10, 20, 40, 50])
    ignored = hooks_pictures.draw_comparison(image, [(box, -1, None)], [], CLASSES, PALETTE)
    left, _ = panels(ignored)
    assert coloured(left, hooks_pictures.IGNORED).any()
    assert not coloured(left, PALETTE[0]).any()
    nothing = hooks_pictures.draw_comparison(image, [], [], CLASSES, PALETTE)
    header = slice(0, hooks_pictures.MARGIN + hooks_pictures.HEADER)
    assert np.array_equal(ignored[header], nothing[header])


def test_crowded_labels_do_not_hide_one_another():
    rng = np.random.default_rng(0)
    boxes = [(np.array([x, y, x + 9, y + 9]), 0, 0.5) for x, y in rng.uniform(0, 86, (80, 2))]
    outlines = [tuple(box * 8) for box, _, _ in boxes]
    tags = []
    for outline in outlines:
        spot = hooks_pictures._free_spot(outline, 60, 19, (768, 768), tags, outlines)
        if spot is not None:
            tags.append(spot)
            assert spot[0] >= 0
            assert spot[3] <= 768
    assert len(tags) > 40
    assert not any(hooks_pictures._overlap(a, b) for i, a in enumerate(tags) for b in tags[:i])


@pytest.mark.parametrize('size', [(40, 1000), (1000, 40), (1, 1), (2048, 2048)])
def test_any_shape_makes_a_picture(size):
    box = np.array([0, 0, size[1], size[0]])
    picture = hooks_pictures.draw_comparison(
        np.zeros(size, np.uint8),
        [(box, 0, None)],
        [(box, 1, 0.5)],
        CLASSES,
        PALETTE,
        'a_long_name' * 20,
        'note',
    )
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert max(picture.shape) < 2000


@MODELS.register_module(force=True)
class Oracle(BaseModel):
    """Predicts the boxes that it is told, in the frame of the file or of its flip, as mmdet's detectors do.

    With `masks`, of the file's size (height, width), also the middle half of each box.
    """

    def __init__(self, answers, masks=None):
        super().__init__()
        self.answers = answers
        self.masks = masks

    def forward(self, inputs, data_samples=None, mode='predict'):
        for sample in data_samples:
            boxes = torch.tensor(self.answers[sample.img_id], dtype=torch.float32).reshape(-1, 4)
            count = len(boxes)
            if sample.get('flip'):
                boxes = bbox_flip(boxes, sample.ori_shape, sample.flip_direction)
            sample.pred_instances = InstanceData(
                bboxes=boxes, labels=torch.ones(count, dtype=torch.long), scores=torch.full((count,), 0.8)
            )
            if self.masks:
                masks = torch.zeros(count, *self.masks, dtype=torch.bool)
                for mask, (x1, y1, x2, y2) in zip(masks, boxes):
                    w, h = (x2 - x1) / 4, (y2 - y1) / 4
                    mask[int(y1 + h) : int(y2 - h), int(x1 + w) : int(x2 - w)] = True
                sample.pred_instances.masks = masks
        return data_samples


@MODELS.register_module(force=True)
class Nothing(torch.nn.Module):
    """Passes a batch on as it is."""

    def forward(self, data, training=False):
        return data


def predict(root, tmp_path, request, resize=192, masks=None, views=None, **hook):
    """Test an oracle on the test split, with the picture hook; views: probabilities of a flip."""
    coco = json.loads((root / 'test.json').read_text())
    answers = {image['id']: [] for image in coco['images']}
    for ann in coco['annotations']:
        x, y, w, h = ann['bbox']
        answers[ann['image_id']].append([x, y, x + w, y + h])
    pipeline = [
        dict(type='LoadXray'),
        dict(type='mmdet.Resize', scale=(resize, resize)),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(
            type='mmdet.PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        ),
    ]
    model = Oracle(answers, masks)
    if views:  # as mmdet's tools/test.py --tta
        meta = (*pipeline[-1]['meta_keys'], 'flip', 'flip_direction')
        flips = [dict(type='mmdet.RandomFlip', prob=float(flip)) for flip in views]
        pack = [dict(type='mmdet.PackDetInputs', meta_keys=meta)]
        pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, pack])
        nms = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        model = DetTTAModel(module=model, tta_cfg=nms)
    runner = Runner(
        model=model,
        work_dir=str(tmp_path / 'run'),
        test_dataloader=dict(
            dataset=dict(
                type='mmdet.XrayDefects',
                data_root=str(root),
                ann_file='test.json',
                data_prefix=dict(img='images'),
                metainfo=dict(classes=CLASSES, palette=PALETTE),
                severity=dict(crack='critical', gas_pore='minor'),
                pipeline=pipeline,
                test_mode=True,
            ),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
        ),
        test_cfg=dict(),
        test_evaluator=[],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        custom_hooks=[hooks_pictures.XrayVisualizationHook(**hook)],
        experiment_name=re.sub(r'\W', '_', request.node.name),
    )
    runner.test()
    return coco


def test_masks_are_drawn_as_outlines(tiny_coco, tmp_path, request):
    root = tiny_coco(n=2, masks=True)
    for name, masks in (('boxes', None), ('masks', (96, 96))):
        predict(root, tmp_path, request, masks=masks, out_dir=str(tmp_path / name))
    plain, drawn = (
        cv2.imread(str(tmp_path / name / 'test_000_1.png'))[..., ::-1] for name in ('boxes', 'masks')
    )
    (annotation,) = [
        a for a in json.loads((root / 'test.json').read_text())['annotations'] if a['image_id'] == 1
    ]
    scale = hooks_pictures.PANEL / 96
    x, y, w, h = np.array(annotation['bbox']) * scale
    ellipse = np.array(annotation['segmentation'][0]).reshape(-1, 2) * scale
    for number, (before, after) in enumerate(zip(panels(plain), panels(drawn), strict=True)):
        rows, columns = np.nonzero((before != after).any(-1))
        if number == 0:  # the annotated ellipse: some point of the line near each of its own
            distance = np.hypot(columns[:, None] - ellipse[:, 0], rows[:, None] - ellipse[:, 1])
            assert distance.min(0).max() <= 1.5 * scale
        else:  # the predicted mask: half as wide and high
            assert np.ptp(columns) == pytest.approx(w / 2, abs=2 * scale)
            assert np.ptp(rows) == pytest.approx(h / 2, abs=2 * scale)


@pytest.mark.parametrize('bits', [8, 16])
def test_the_picture_shows_the_windowed_radiograph_and_boxes_in_its_frame(tiny_coco, tmp_path, request, bits):
    root = tiny_coco(n=4, bits=bits, size=96)
    coco = predict(root, tmp_path, request, num_images=None, out_dir=str(tmp_path / 'pictures'))
    files = sorted((tmp_path / 'pictures').glob('*.png'))
    assert [file.name for file in files] == [f'test_{i:03d}_{i + 1}.png' for i in range(4)]
    stored = cv2.imread(str(root / 'images' / 'test_000.png'), cv2.IMREAD_UNCHANGED).astype(float)
    expected = cv2.resize(
        stored / (2**bits - 1) * 255,
        (hooks_pictures.PANEL, hooks_pictures.PANEL),
        interpolation=cv2.INTER_CUBIC,
    )
    left, right = panels(cv2.imread(str(files[0]))[..., ::-1])
    (annotation,) = [a for a in coco['annotations'] if a['image_id'] == 1]
    for panel, colour in ((left, PALETTE[0]), (right, PALETTE[1])):
        gray = (panel == panel[..., :1]).all(-1) & (panel[..., 0] > 0)
        assert gray.mean() > 0.8
        assert np.abs(panel[..., 0][gray] - expected[gray]).mean() < 3
        rows, columns = np.nonzero(coloured(panel, colour))
        x, y, w, h = np.array(annotation['bbox']) * hooks_pictures.PANEL / 96
        assert abs(columns.min() - x) <= 4
        assert abs(rows.max() - (y + h)) <= 4 or abs(rows.max() - (y + h + 19)) <= 4


def test_test_time_augmentation_draws_the_radiograph_that_is_not_flipped(tiny_coco, tmp_path, request):
    root = tiny_coco(n=2, size=96)
    pictures = {}
    for views in (None, (True, False), (False, True), (True,)):
        folder = tmp_path / str(views)
        predict(root, tmp_path, request, views=views, out_dir=str(folder))
        pictures[views] = [file.read_bytes() for file in sorted(folder.glob('*.png'))]
    assert len(pictures[None]) == 2
    assert pictures[True, False] == pictures[False, True] == pictures[None]
    assert pictures[(True,)] == []  # a picture of flips alone would not fit the boxes


def test_the_visualizer_gets_an_even_choice_of_images(tiny_coco, tmp_path, request):
    root = tiny_coco(n=9)
    predict(root, tmp_path, request, num_images=3)
    pictures = sorted(file.name for file in (tmp_path / 'run').rglob('vis_image/*.png'))
    assert pictures == ['test_test_000_0.png', 'test_test_004_0.png', 'test_test_008_0.png']


@pytest.mark.parametrize('hook', [dict(draw=False), dict(score_thr=0.9)])
def test_nothing_is_drawn_below_the_threshold_or_when_off(tiny_coco, tmp_path, request, hook):
    root = tiny_coco(n=2)
    predict(root, tmp_path, request, out_dir=str(tmp_path / 'pictures'), **hook)
    files = sorted((tmp_path / 'pictures').glob('*.png'))
    if 'draw' in hook:
        assert files == []
    else:
        _, right = panels(cv2.imread(str(files[0]))[..., ::-1])
        assert not coloured(right, PALETTE[1]).any()
