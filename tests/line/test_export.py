"""Export: the graphs say what mmdet says, a failure leaves nothing, and the metadata is true."""

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
import onnx
import pytest
import torch
from helpers.plates import draw_radiograph
from mmengine.config import Config

from projects.line.export import detector as export_detector
from projects.line.export import export as export_module
from projects.line.export import graphs, int8, parity, threshold
from projects.line.export.traceable import TraceableDetector, UnsupportedDetectorError
from projects.line.runtime import Inspector, engines, folder
from projects.measures.bounds import rate
from projects.radiograph.files import sha256
from projects.runs import running
from projects.xray.datasets import DatasetError
from projects.xray.handover import HandoverError
from tools import export as tool
from tools import infer

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/small'
SMALL = CONFIGS / 'faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py'
MASKS = CONFIGS / 'mask-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py'
SWIN = CONFIGS / 'faster-rcnn_swin-narrow-scratch_fpn_1xb4-8e_synthetic.py'
VIT = CONFIGS.parent / 'faster_rcnn/faster-rcnn_vit-small-scratch_fpn_4xb4-amp-2x_industrial.py'
SIDE = 96


SHAPES = dict(
    train=[(SIDE, SIDE)] * 4,
    val=[(60, SIDE)] * 5 + [(SIDE, SIDE)] * 2 + [(64, 40)] + [(60, SIDE)] * 2,  # mostly lying, one standing
    test=[(SIDE, SIDE)] * 2,
)
SOUND = ('val8.png', 'val9.png')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A drawn data set with the shapes above."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    (root / 'images').mkdir()
    for split, shapes in SHAPES.items():
        images, annotations = [], []
        for k, (height, width) in enumerate(shapes):
            image, boxes = draw_radiograph(rng, SIDE, 4)
            name = f'{split}{k}.png'
            cv2.imwrite(str(root / 'images' / name), (image[:height, :width] * 255).astype(np.uint8))
            images.append(dict(id=k + 1, file_name=name, width=width, height=height, part=f'{split}{k}'))
            for n, box in enumerate(boxes):
                if name not in SOUND and box[0] + box[2] <= width and box[1] + box[3] <= height:
                    annotations.append(
                        dict(id=len(annotations) + 1, image_id=k + 1, category_id=n % 2 + 1, bbox=box)
                        | dict(area=box[2] * box[3], iscrowd=0)
                    )
        categories = [dict(id=1, name='crack'), dict(id=2, name='gas_pore')]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / f'{split}.json').write_text(json.dumps(content))
    return root


def as_cascade(model):
    """What makes a Faster R-CNN a Cascade R-CNN: three heads whose deltas have other units."""
    head = dict(model.roi_head.bbox_head, reg_class_agnostic=True)
    heads = [
        dict(head, bbox_coder=dict(head['bbox_coder'], target_stds=[s, s, 2 * s, 2 * s]))
        for s in (0.1, 0.05, 0.033)
    ]
    roi = dict(type='CascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25], bbox_head=heads)
    return dict(type='CascadeRCNN', roi_head=roi, train_cfg=dict(rcnn=[model.train_cfg.rcnn] * 3))


def write_detector(config, root, folder, cascade=False):
    """Write a config for the drawn data, and a checkpoint whose scores differ; return the paths of both."""
    cfg = Config.fromfile(config)
    if config == VIT:  # as ViT-S, but for its size
        cfg.model.backbone.update(
            arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
        )
        cfg.model.neck.in_channels = 16
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(root)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (SIDE, SIDE)
    cfg.model.test_cfg.rpn.update(nms_pre=60, max_per_img=40)
    if cascade:
        cfg.merge_from_dict(dict(model=as_cascade(cfg.model)))
    path = folder / config.name
    cfg.dump(path)
    model = export_detector.untrained_detector(copy.deepcopy(cfg))
    heads = model.roi_head.bbox_head if cascade else [model.roi_head.bbox_head]
    layers = [layer for head in heads for layer in (head.fc_cls, head.fc_reg)]
    for head in (model.rpn_head.rpn_cls, *layers):
        head.weight.data *= 10  # untrained heads give all boxes one score, and ties are nobody's to decide
    checkpoint = path.with_name('weights.pth')
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return path, checkpoint


@pytest.fixture(scope='module')
def detector(data, tmp_path_factory):
    """Paths of the small config and its checkpoint."""
    return write_detector(SMALL, data, tmp_path_factory.mktemp('config'))


@pytest.fixture(scope='module')
def exported(detector, tmp_path_factory):
    """The exported folder."""
    out = tmp_path_factory.mktemp('exports') / 'small'
    assert tool.main([*map(str, detector), str(out)]) == 0
    return out


def test_both_graphs_are_proven_and_the_metadata_says_so(exported, detector):
    content = folder.read(exported)
    assert sorted(content.files) == ['model.bin', 'model.onnx', 'model.xml']
    assert [row['engine'] for row in content.parity] == ['openvino', 'onnxruntime']
    for row in content.parity:
        # All at mmdet's own scale; eight are padded more than mmdet pads them by themselves.
        assert (row['images'], row['padded']) == (10, 8)
        assert row['AP50_critical']['loss'] <= 0.005
        assert row['boxes'] > 50
        assert row['matched'] >= parity.MIN_MATCHED * row['boxes']
        assert row['score_max'] <= parity.MAX_SCORE_ERROR
    assert (content.input, content.native, content.classes) == (
        [SIDE, SIDE],
        [SIDE, SIDE],
        ['critical', 'minor'],
    )
    assert (content.mean, content.std, content.window, content.precision) == (
        114.5,
        57.6,
        dict(type='full'),
        'fp32',
    )
    assert content.depths == ['8-bit unsigned']
    assert content.origin['sha256'] == sha256(detector[1])
    assert len(content.curve) == 39
    for row in content.curve:  # counts and bounds, in the words of the report
        for key in ('escape', 'false_reject'):
            expected = rate(row[f'{key}_events'], row[f'{key}_units'])
            assert row[f'{key}_words'] == str(expected) and row[f'{key}_upper'] == expected.upper
            assert row[key] == expected.rate
    assert 'the lowest score of a critical part was taken' in content.threshold_reason
    # At the chosen threshold no validation part escapes that the detector can catch at all.
    assert 0 < content.threshold < 1


def test_the_folder_keeps_the_reference_of_drift(exported):
    reference = folder.read(exported).reference
    assert reference['radiographs'] >= reference['units'] >= 10
    assert set(reference['gray']) == {'p50', 'contrast', 'noise'}
    assert sum(group['count'] for group in reference['risk'].values()) == reference['radiographs']


def test_a_frame_unlike_those_of_validation_is_refused(exported, data, tmp_path):
    """The folder carries the gray levels of its validation radiographs, and the runtime holds to them."""
    inspect = Inspector(exported)
    image = cv2.imread(str(data / 'images' / 'val0.png'), cv2.IMREAD_UNCHANGED)
    assert inspect(data / 'images' / 'test0.png').verdict
    tube_off = np.random.default_rng(0).normal(4, 1.5, image.shape).clip(0, 255).astype(np.uint8)
    for name, frame in (('shifted', image // 16), ('off', tube_off)):
        cv2.imwrite(str(tmp_path / f'{name}.png'), frame)
        with pytest.raises(ValueError, match=f'{name}.png: .*percentile'):
            inspect(tmp_path / f'{name}.png')


def test_the_folder_and_the_checkpoint_give_the_same_results(exported, detector, tmp_path):
    image = Path(Config.fromfile(detector[0]).val_dataloader.dataset.data_root) / 'images' / 'val0.png'
    assert infer.main([*map(str, detector), str(image), '--out', str(tmp_path / 'torch')]) == 0
    (line,) = (tmp_path / 'torch' / 'shard-1-of-1' / 'journal.jsonl').read_text().splitlines()
    row, content = json.loads(line), Inspector(exported)(image)
    assert row['labels'] == content.labels.tolist()
    assert np.abs(np.array(row['boxes']) - content.boxes).max() < 0.05
    assert np.abs(np.array(row['scores']) - content.scores).max() < 1e-3


def test_an_export_that_differs_is_not_kept(detector, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parity, 'MAX_SCORE_ERROR', -1.0)
    assert tool.main([*map(str, detector), str(tmp_path / 'out' / 'x'), '--images', '2']) == 1
    errors = capsys.readouterr().err
    assert 'nothing is kept' in errors
    assert len([line for line in errors.splitlines() if line.startswith('error')]) == 1
    assert list((tmp_path / 'out').iterdir()) == []


def test_weights_of_another_config_are_refused(detector, tmp_path, capsys):
    content = torch.load(detector[1], weights_only=True)
    content['state_dict'].pop('roi_head.bbox_head.fc_cls.weight')
    torch.save(content, tmp_path / 'other.pth')
    assert tool.main([str(detector[0]), str(tmp_path / 'other.pth'), str(tmp_path / 'x')]) == 1
    assert 'give the checkpoint that this config trained' in capsys.readouterr().err
    assert not (tmp_path / 'x').exists()
    with pytest.raises(HandoverError):
        export_detector.load_detector(running.read_config(str(detector[0])), str(tmp_path / 'other.pth'))


def test_wrong_use_exits_2(detector, tmp_path, capsys):
    (tmp_path / 'there').mkdir()
    assert tool.main([*map(str, detector), str(tmp_path / 'there')]) == 2
    assert 'there: exists' in capsys.readouterr().err
    assert tool.main([str(detector[0]), str(tmp_path / 'none.pth'), str(tmp_path / 'x')]) == 2
    with pytest.raises(SystemExit) as stop:
        tool.main([*map(str, detector), str(tmp_path / 'x'), '--max-loss', '2'])
    assert stop.value.code == 2


def test_missing_calibration_images_are_named(detector, tmp_path):
    cfg = running.read_config(str(detector[0]))
    root = Path(cfg.train_dataloader.dataset.data_root)
    cfg.train_dataloader.dataset.data_prefix.img = 'elsewhere'
    with pytest.raises(DatasetError, match=f'{root}/elsewhere/train0.png: 3 images missing'):
        export_detector.read_split(cfg, 'train', 3)


def test_a_blank_validation_image_stops_the_export(detector, data, tmp_path, capsys):
    """The line would set it aside: threshold and proof are not of a set that it takes."""
    shutil.copytree(data, tmp_path / 'data')
    blank = tmp_path / 'data' / 'images' / 'val1.png'
    cv2.imwrite(str(blank), np.zeros((60, SIDE), np.uint8))
    options = ['--cfg-options', f'val_dataloader.dataset.data_root={tmp_path}/data']
    assert tool.main([*map(str, detector), str(tmp_path / 'out' / 'x'), *options]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert f'{blank}: holds no picture' in line
    assert line.endswith('or leave it out of the data set')
    assert not (tmp_path / 'out').exists()


CUT = """
import resource, sys
sys.path.insert(0, {repo!r})
from projects.line.export import export
from tools import export as tool
write = getattr(export, {writer!r})

def cut(*args):
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    write(*args)

setattr(export, {writer!r}, cut)
sys.exit(tool.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(('writer', 'file'), [('write_onnx', 'model.onnx'), ('write_openvino', 'model.bin')])
@pytest.mark.slow
def test_a_full_disk_is_said_and_leaves_nothing(detector, exported, tmp_path, repo, writer, file):
    # Files may grow to half of what this one needs.
    program = CUT.format(repo=str(repo), writer=writer, limit=(exported / file).stat().st_size // 2)
    command = [
        sys.executable,
        '-c',
        program,
        *map(str, detector),
        str(tmp_path / 'out' / 'x'),
        '--images',
        '2',
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('error')]
    assert f'{tmp_path}/out/x: not written' in line
    assert 'nothing is left; make room' in line
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (PermissionError(13, 'Permission denied', 'data/1.png'), "Permission denied: 'data/1.png'"),
        (TimeoutError(), r'not written \(TimeoutError\(\)\)'),
        (export_detector.ExportError('openvino differs'), '^openvino differs$'),
        (RuntimeError('no memory'), '^no memory$'),
        (KeyboardInterrupt(), ''),
    ],
)
def test_what_ended_an_export_is_said_and_nothing_is_left(tmp_path, error, expected):
    kind = export_detector.ExportError if isinstance(error, OSError) else type(error)
    with pytest.raises(kind, match=expected), export_module.draft_folder(tmp_path / 'x'):
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (lambda cfg: cfg.model.test_cfg.rcnn.nms.update(type='soft_nms'), 'plain NMS'),
        (lambda cfg: cfg.model.test_cfg.rpn.nms.update(class_agnostic=True), 'plain NMS'),
        (lambda cfg: cfg.model.test_cfg.rcnn.nms.update(offset=1), 'plain NMS'),
        (lambda cfg: cfg.model.test_cfg.rcnn.nms.update(max_num=5), 'plain NMS'),
        (lambda cfg: cfg.model.test_cfg.rcnn.nms.update(score_threshold=0.2), 'plain NMS'),
        (lambda cfg: cfg.model.test_cfg.rcnn.update(max_per_img=-1), 'max_per_img of at least 1'),
        (lambda cfg: cfg.model.test_cfg.rpn.update(max_per_img=0), 'max_per_img of at least 1'),
        (lambda cfg: cfg.model.roi_head.bbox_head.bbox_coder.update(clip_border=False), 'clip_border'),
        (lambda cfg: cfg.model.rpn_head.bbox_coder.update(clip_border=False), 'clip_border'),
        (lambda cfg: cfg.model.data_preprocessor.update(pad_value=114), 'pad_value of 0'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_part_that_would_be_reproduced_wrongly_is_refused_in_one_line(detector, change, expected):
    cfg = running.read_config(str(detector[0]))
    change(cfg)
    with pytest.raises(UnsupportedDetectorError, match=f'^[^\n]*expected [^\n]*{expected}[^\n]*$'):
        TraceableDetector(export_detector.untrained_detector(cfg), (SIDE, SIDE))


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (lambda roi: roi.bbox_head[1].update(reg_class_agnostic=False), 'one box for all classes'),
        (lambda roi: roi.bbox_head[2].bbox_coder.update(clip_border=False), 'clip_border'),
    ],
    ids=['boxes by class', 'border'],
)
def test_a_cascade_that_would_be_reproduced_wrongly_is_refused(detector, change, expected):
    cfg = running.read_config(str(detector[0]))
    cfg.merge_from_dict(dict(model=as_cascade(cfg.model)))
    change(cfg.model.roi_head)
    with pytest.raises(UnsupportedDetectorError, match=f'^CascadeRCNN: expected [^\n]*{expected}[^\n]*$'):
        TraceableDetector(export_detector.untrained_detector(cfg), (SIDE, SIDE))


def test_an_input_that_does_not_fit_the_strides_is_refused(detector):
    model = export_detector.untrained_detector(running.read_config(str(detector[0])))
    with pytest.raises(UnsupportedDetectorError, match='multiples of 32'):
        TraceableDetector(model, (100, 96))


@pytest.mark.parametrize(
    'change',
    [
        dict(keep_ratio=False),
        dict(backend='pillow'),
        dict(interpolation='area'),
        dict(scale_factor=0.5),
        dict(scale=None, scale_factor=0.5),
        dict(scale=None, scale_factor=(0.5, 0.5), keep_ratio=False),
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_pipeline_that_the_runtime_does_not_follow_is_refused(detector, change):
    cfg = running.read_config(str(detector[0]))
    model = export_detector.untrained_detector(cfg)
    cfg.test_dataloader.dataset.pipeline[1].update(change)
    with pytest.raises(export_detector.ExportError, match='its test pipeline .*expected'):
        export_detector.describe(cfg, None, model, [(SIDE, SIDE)])


def test_the_input_holds_every_validation_image_at_mmdets_own_scale(detector):
    cfg = running.read_config(str(detector[0]))
    model = export_detector.untrained_detector(cfg)
    result = export_detector.describe(cfg, None, model, [(30, 96)] * 5 + [(64, 40), (192, 96)])
    # 30 x 96 stays and is padded to 32 x 96, 64 x 40 grows by 1.5 to 96 x 60, 192 x 96 is halved.
    assert result.input == [96, 96]
    assert result.native == [192, 96]  # shrunk the most
    inspector = Inspector.of(result, None)
    for shape, extent in (((30, 96), [30, 96]), ((64, 40), [96, 60]), ((192, 96), [96, 48])):
        assert inspector.input_of(np.eye(*shape, dtype=np.uint8))[1].tolist() == extent


def by_factor(files, factor):
    """The config with its radiographs resized by a factor, as one that learns from crops is tested."""
    cfg = Config.fromfile(files[0])
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        (resize,) = [step for step in loader.dataset.pipeline if step.type == 'Resize']
        del resize.scale, resize.keep_ratio
        resize.scale_factor = factor
    path = files[0].with_name(f'by-factor-{files[0].name}')
    cfg.dump(path)
    return path, files[1]


def test_a_detector_that_resizes_by_a_factor_is_proven_on_radiographs_of_every_size(detector, tmp_path):
    files = by_factor(detector, 1.5)
    # Random weights lose what they want where mmdet pads less.
    options = ['--max-loss', '0.99', '--max-critical-loss', '0.99']
    assert tool.main([*map(str, files), str(tmp_path / 'export'), *options]) == 0
    content = folder.read(tmp_path / 'export')
    assert (content.scale, content.native, content.input) == (1.5, [SIDE, SIDE], [160, 160])
    for row in content.parity:
        assert row['matched'] >= parity.MIN_MATCHED * row['boxes'] > 50
    inspector = Inspector(tmp_path / 'export', cache=False)
    rng = np.random.default_rng(0)
    for height, width in [(SIDE, SIDE), *rng.integers(20, SIDE, (20, 2)).tolist()]:
        extent = inspector.input_of(np.eye(height, width, dtype=np.uint8))[1]
        resize = mmcv.transforms.Resize(scale_factor=1.5)
        wanted = resize(dict(img=np.zeros((height, width), np.uint8), img_shape=(height, width)))['img'].shape
        assert tuple(extent) == wanted
    # A longer film is cut into tiles of that factor, not shrunk into the input.
    tiles = inspector._tiles(np.eye(SIDE, 4 * SIDE))
    assert len(tiles) > 3 and {(tile.shape, factor) for _, _, tile, factor in tiles} == {((SIDE, 106), 1.5)}


@pytest.mark.parametrize('config', [SMALL, SWIN], ids=['resnet', 'swin'])
@pytest.mark.slow
def test_the_graph_has_one_channel_and_keeps_no_more_boxes_than_configured(config, data, tmp_path):
    files = write_detector(config, data, tmp_path)
    model = export_detector.load_detector(running.read_config(str(files[0])), str(files[1]))
    whole = TraceableDetector(model, (SIDE, SIDE)).eval()
    (stem,) = [m for m in whole.backbone.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels == 1]
    # The detector that it was made of is as it was.
    (own,) = [m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels == 3]
    assert torch.allclose(stem.weight, own.weight.sum(1, keepdim=True))
    graphs.write_onnx(whole, tmp_path / 'model.onnx')
    graph = onnx.load(tmp_path / 'model.onnx').graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
    most = [values[node.input[2]] for node in graph.node if node.op_type == 'NonMaxSuppression']
    assert most == [[40], [100]]
    assert [node.input[0] for node in graph.node if node.op_type == 'Expand' and 'image' in node.input] == []


def test_any_size_is_resized_to_the_pixel_as_mmcv_does(detector):
    cfg = running.read_config(str(detector[0]))
    model = export_detector.untrained_detector(cfg)
    rng = np.random.default_rng(0)
    for height, width in [(8193, 8192), (1499, 1000), *rng.integers(20, 3000, (60, 2)).tolist()]:
        result = export_detector.describe(cfg, None, model, [(height, width)])
        extent = Inspector.of(result, None).input_of(np.eye(height, width, dtype=np.uint8))[1]
        assert tuple(extent[::-1]) == mmcv.rescale_size((width, height), (SIDE, SIDE))


def test_an_untrained_detector_uses_all_its_layers_and_is_the_same_again(detector):
    first, second = (
        export_detector.untrained_detector(running.read_config(str(detector[0]))).state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    norms = [name.removesuffix('running_mean') for name in first if name.endswith('running_mean')]
    assert len(norms) == 20
    for name in norms:
        # A gamma of 0 at its end would leave a residual branch out of everything that is compared.
        assert (first[name + 'weight'] == 1).all()
        assert first[name + 'running_mean'].abs().min() > 0
        assert (first[name + 'running_var'] != 1).all()


@pytest.mark.slow
def test_a_cascade_is_exported_and_each_of_its_stages_moves_the_boxes(data, tmp_path):
    config, checkpoint = write_detector(SMALL, data, tmp_path, cascade=True)
    assert tool.main([str(config), str(checkpoint), str(tmp_path / 'out')]) == 0
    for row in folder.read(tmp_path / 'out').parity:
        assert row['boxes'] > 50 and row['matched'] == row['boxes']
        assert row['score_max'] <= parity.MAX_SCORE_ERROR
    model = export_detector.load_detector(running.read_config(str(config)), str(checkpoint))
    whole = TraceableDetector(model, (SIDE, SIDE)).eval()
    image, extent = torch.rand(1, 1, SIDE, SIDE) * 255, torch.tensor([SIDE, SIDE], dtype=torch.float32)
    with torch.no_grad():
        every = whole(image, extent)[0]
        for stage in range(3):
            layer = whole.stages[stage][1].fc_reg
            kept = layer.weight.clone()
            layer.weight.zero_()
            found = whole(image, extent)[0]
            layer.weight.copy_(kept)
            assert found.shape != every.shape or not torch.allclose(found, every, atol=0.1)


@pytest.mark.slow
def test_a_vit_detector_is_exported_and_each_of_its_layers_counts(data, tmp_path):
    config, checkpoint = write_detector(VIT, data, tmp_path)
    gammas = [v for k, v in torch.load(checkpoint)['state_dict'].items() if '.gamma' in k]
    assert len(gammas) == 4 and all((gamma == 1).all() for gamma in gammas)
    assert tool.main([str(config), str(checkpoint), str(tmp_path / 'out')]) == 0
    content = folder.read(tmp_path / 'out')
    assert content.input == [112, 112]  # 96 px, padded to a multiple of 28
    for row in content.parity:
        assert row['boxes'] > 50 and row['matched'] == row['boxes']
        assert row['score_max'] <= parity.MAX_SCORE_ERROR


def test_boxes_are_matched_by_place_and_class():
    box = np.array([[0, 0, 100, 100], [200, 200, 300, 300]], np.float32)
    one = (box, np.array([0.9, 0.8]), np.array([0, 1]))
    assert parity.compare_boxes([one], [one])['matched'] == 2
    other = (box + [[0, 0, 0.4, 0], [9, 9, 9, 9]], np.array([0.85, 0.8]), np.array([0, 1]))
    found = parity.compare_boxes([one], [other])
    assert (found['matched'], found['boxes'], found['more']) == (1, 2, 0)
    assert found['score_max'] == pytest.approx(0.05)
    swapped = (box, np.array([0.9, 0.8]), np.array([1, 0]))
    assert parity.compare_boxes([one], [swapped])['matched'] == 0
    empty = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert parity.compare_boxes([empty], [one]) == dict(boxes=0, matched=0, more=2, score_max=0, score_mean=0)


def ask_mmdet(detector, change=lambda model: None):
    """What mmdet says of the validation radiographs, and what the export says of itself."""
    cfg = running.read_experiment(str(detector[0]), None)
    model = export_detector.load_detector(cfg, str(detector[1]))
    change(model)
    images = export_detector.read_split(cfg, 'val')
    return parity.ask_mmdet(
        cfg, model, images, export_detector.describe(cfg, str(detector[1]), model, images.sizes())
    )


def one_less(found):
    return parity.Found.of(*(values[1:] for values in found))


def test_where_rounding_decides_what_mmdet_finds_ap50_alone_is_compared(detector):
    reference = ask_mmdet(detector)
    assert not reference.ties(range(10))
    tied = [k in (0, 5, 8) for k in range(10)]
    other = [one_less(found) if tie else found for found, tie in zip(reference.alike, tied, strict=True)]
    row = parity.compare(reference, other, 'openvino', 'fp32')
    assert 'tied' not in row and row['matched'] == row['boxes'] - 3  # nothing excuses them

    draws = []

    def rounded(seed, images):
        draws.append((seed, len(images.paths)))
        return [
            (other if seed else reference.alike)[reference.images.paths.index(path)] for path in images.paths
        ]

    reference = dataclasses.replace(reference, rounded=rounded, _drawn={})
    row = parity.compare(reference, other, 'openvino', 'fp32')
    assert (row['images'], row['tied']) == (10, 3)
    assert (
        row['matched']
        == row['boxes']
        == sum(len(found[0]) for found in other) - sum(len(other[k][0]) for k in (0, 5, 8))
    )
    assert row['AP50']['rounding'] >= 0
    assert draws == [(seed, 3) for seed in range(4)]  # mmdet is asked again about images that differ alone
    parity.check(row, 1, 1)
    everywhere = [one_less(found) for found in reference.alike]
    with pytest.raises(export_detector.ExportError, match='boxes of mmdet found again'):
        parity.check(parity.compare(reference, everywhere, 'openvino', 'fp32'), 1, 1)


@pytest.mark.parametrize('tied', [3, None])
def test_a_second_engine_that_loses_more_where_rounding_decides_is_left_out(
    detector, tmp_path, monkeypatch, capsys, tied
):
    """Without ties an engine that differs is a fault of the graph, and nothing is kept."""
    compare = parity.compare

    def worse(reference, found, engine, precision):
        row = compare(reference, found, engine, precision)
        if engine == 'onnxruntime':
            row |= dict(tied=tied, AP50_critical=dict(mmdet=0.9, export=0.8, loss=0.1, low=None, high=None))
        return row

    monkeypatch.setattr(export_module, 'compare', worse)
    out = tmp_path / 'out'
    assert tool.main([*map(str, detector), str(out)]) == (0 if tied else 1)
    error = capsys.readouterr().err
    assert 'onnxruntime fp32: AP50_critical falls by 0.1000' in error
    assert out.exists() == bool(tied)
    if tied:
        content = folder.read(out)
        assert list(content.engines) == ['openvino'] and [row['engine'] for row in content.parity] == [
            'openvino'
        ]
        assert 'model.onnx' not in content.files and not (out / 'model.onnx').exists()
        assert Inspector(out).engine == 'openvino'


def test_one_score_for_all_anchors_leaves_the_boxes_to_rounding(detector):
    def tie(model):
        torch.nn.init.zeros_(model.rpn_head.rpn_cls.weight)

    reference = ask_mmdet(detector, tie)
    assert reference.ties(range(10)) == [*range(10)]
    found = [one_less(found) for found in reference.alike]
    row = parity.compare(reference, found, 'openvino', 'fp32')
    with pytest.raises(export_detector.ExportError, match=r'on 0 validation images \(10 more are set apart'):
        parity.check(row, 1, 1)


def test_the_loss_of_ap50_is_paired_over_parts():
    box = [10.0, 10.0, 20.0, 20.0]
    truth = dict(
        images=[dict(id=k, width=64, height=64, part=f'p{k}') for k in range(20)],
        annotations=[dict(id=k, image_id=k, category_id=1, bbox=box, area=400, iscrowd=0) for k in range(20)],
        categories=[dict(id=1, name='critical')],
    )
    hit = (np.array([[10.0, 10.0, 30.0, 30.0]]), np.array([0.9]), np.array([0]))
    miss = (np.array([[40.0, 40.0, 60.0, 60.0]]), np.array([0.9]), np.array([0]))
    rows = parity.compare_ap50(truth, [hit] * 20, [hit] * 15 + [miss] * 5)
    assert rows['AP50']['loss'] > 0.1
    assert rows['AP50']['low'] < rows['AP50']['loss'] < rows['AP50']['high']
    assert rows['AP50'] == rows['AP50_critical']
    same = parity.compare_ap50(truth, [hit] * 20, [hit] * 20)['AP50']
    assert (same['loss'], same['low'], same['high']) == (0, 0, 0)


ROW = dict(engine='openvino', precision='fp32', images=9, padded=0, boxes=1000, matched=1000, more=0)
ROW |= dict(score_max=0.0, score_mean=0.0)
MEASURED = dict(mmdet=0.9, export=0.9, loss=0.0, low=-0.1, high=0.1)
INT8 = ROW | dict(precision='int8', matched=10, AP50=MEASURED, AP50_critical=MEASURED)


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        (ROW | dict(boxes=0, matched=0), 'mmdet finds no box'),
        (ROW | dict(matched=994), '994 of 1000 boxes'),
        (ROW | dict(more=6), '6 more'),
        (ROW | dict(score_max=0.002), 'differ by up to 0.002'),
        (ROW | dict(score_max=float('nan')), 'differ by up to nan'),
        (INT8 | dict(AP50=MEASURED | dict(loss=0.011)), 'AP50 falls by 0.0110, expected at most 0.01'),
        (INT8 | dict(AP50_critical=MEASURED | dict(loss=0.006)), 'AP50_critical falls by 0.0060.*0.005'),
        (INT8 | dict(AP50_critical=MEASURED | dict(loss=0.006, low=None, high=None)), 'AP50_critical falls'),
        (INT8 | dict(AP50=dict(reason='no value')), r'AP50 cannot be measured \(no value\)'),
        ({k: v for k, v in INT8.items() if not k.startswith('AP50')}, 'AP50 cannot be measured'),
        (ROW | dict(padded=1), 'AP50 cannot be measured'),
        (ROW | dict(tied=1), 'AP50 cannot be measured'),
        (ROW | dict(boxes=0, matched=0, tied=4), 'no box on 5 validation images .4 more are set apart'),
        (ROW | dict(tied=1, AP50=MEASURED | dict(loss=0.011)), 'AP50 falls by 0.0110'),
        (
            ROW | dict(tied=1, AP50=MEASURED | dict(loss=0.031, rounding=0.02)),
            'AP50 falls by 0.0310, that of mmdet by 0.0200 through rounding alone',
        ),
    ],
    ids=range(15),
)
def test_a_proof_without_evidence_or_beyond_its_limits_fails(row, expected):
    with pytest.raises(export_detector.ExportError, match=f'{expected}.*nothing is kept'):
        parity.check(row, 0.01, 0.005)


def test_a_proof_within_its_limits_holds():
    parity.check(ROW | dict(matched=995, more=5), 0.01, 0.005)
    parity.check(INT8, 0.01, 0.005)
    parity.check(ROW | dict(tied=1, AP50=MEASURED | dict(loss=0.03, rounding=0.02)), 0.01, 0.005)


def test_without_part_ids_the_loss_is_that_of_the_point():
    box = [10.0, 10.0, 20.0, 20.0]
    truth = dict(
        images=[dict(id=k, width=64, height=64) for k in range(4)],
        annotations=[dict(id=k, image_id=k, category_id=1, bbox=box, area=400, iscrowd=0) for k in range(4)],
        categories=[dict(id=1, name='critical'), dict(id=2, name='minor')],
    )
    hit = (np.array([[10.0, 10.0, 30.0, 30.0]]), np.array([0.9]), np.array([0]))
    miss = (np.array([[40.0, 40.0, 60.0, 60.0]]), np.array([0.9]), np.array([0]))
    rows = parity.compare_ap50(truth, [hit] * 4, [hit, hit, miss, miss])
    assert rows['AP50_critical']['loss'] > 0.4
    assert rows['AP50_critical']['low'] is None
    assert 'no part id' in rows['AP50_critical']['method']
    # Nothing annotated: no value, and no loss of 0 either.
    nothing = parity.compare_ap50(truth | dict(annotations=[]), [hit] * 4, [hit] * 4)
    assert list(nothing['AP50']) == list(nothing['AP50_critical']) == ['reason']


def test_the_threshold_comes_from_all_validation_images(exported, detector, tmp_path, capsys):
    arguments = [*map(str, detector), str(tmp_path / 'few'), '--images', '2', '--max-false-reject', '0.01']
    assert tool.main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ['few']  # nothing else lies beside the folder
    few, all_of_them = folder.read(tmp_path / 'few'), folder.read(exported)
    assert [row['images'] for row in few.parity] == [2, 2]
    assert (few.threshold, few.curve) == (all_of_them.threshold, all_of_them.curve)
    # What it costs is said, with its bound, and a cost above the limit is a warning.
    printed = capsys.readouterr()
    rejected = few.cost['rejected']
    assert rejected > 0 and few.cost['sound'] == 3
    assert f'it costs: {rejected} of 3 sound validation parts rejected' in printed.out
    assert 'at most' in few.cost_in_words() and few.cost_in_words() in printed.out
    assert 'warning: that is more than 1% of the sound parts; train longer' in printed.err


def test_the_threshold_is_for_the_rule_of_the_runtime(exported):
    truth = dict(
        images=[dict(id=1, width=64, height=64, part='p')],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[10, 10, 20, 20], area=400, iscrowd=0)],
        categories=[dict(id=1, name='critical'), dict(id=2, name='minor')],
    )
    # The report would suppress the critical box under the minor one; the line rejects for it.
    boxes = np.array([[10.0, 10.0, 30.0, 30.0], [10.0, 10.0, 30.0, 31.0]], np.float32)
    content = folder.read(exported)
    content.curve = []
    threshold.choose_threshold(content, truth, [(boxes, np.float32([0.6, 0.7]), np.array([0, 1]))], 0.05)
    assert content.threshold == pytest.approx(0.6, abs=1e-4)
    assert content.threshold <= float(np.float32(0.6))
    assert [row['escape'] for row in content.curve if row['threshold'] in (0.55, 0.65)] == [0, 1]


def test_a_threshold_of_validation_parts_is_no_proof(exported):
    box = np.array([[10.0, 10.0, 30.0, 30.0]], np.float32)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int)
    truth = dict(
        images=[dict(id=k, width=64, height=64, part=f'p{k}') for k in range(93)],
        annotations=[
            dict(id=k, image_id=k, category_id=1, bbox=[10, 10, 20, 20], area=400, iscrowd=0)
            for k in range(93)
        ],
        categories=[dict(id=1, name='critical'), dict(id=2, name='minor')],
    )
    found = [nothing] + [(box, np.float32([0.6]), np.array([0]))] * 92
    content = folder.read(exported)
    threshold.choose_threshold(content, truth, found, 0.05)
    assert 'chosen on 93 critical parts of validation, of which 1 escape there' in content.threshold_reason
    assert 'Proven' not in content.threshold_reason
    # Too few: the part that nothing finds is named beside the threshold of the others.
    few = truth | dict(images=truth['images'][:9], annotations=truth['annotations'][:9])
    threshold.choose_threshold(content, few, found[:9], 0.05)
    assert content.threshold == pytest.approx(0.6, abs=1e-4)
    assert ' 9 critical parts' in content.threshold_reason and '1 escape' in content.threshold_reason


@pytest.mark.parametrize('kind', [SMALL, MASKS], ids=['boxes', 'masks'])
def test_an_image_without_a_finding_is_an_empty_answer_of_both_engines(kind, data, tmp_path):
    files = write_detector(kind, data, tmp_path)
    cfg = running.read_config(str(files[0]))
    cfg.model.test_cfg.rcnn.score_thr = 0.9999
    whole = TraceableDetector(export_detector.load_detector(cfg, str(files[1])), (SIDE, SIDE)).eval()
    graphs.write_onnx(whole, tmp_path / 'model.onnx')
    graphs.write_openvino(tmp_path / 'model.onnx', tmp_path / 'model.xml')
    blank = np.full((1, 1, SIDE, SIDE), 114.5, np.float32), np.array([SIDE, SIDE], np.float32)
    for engine, graph in export_detector.GRAPHS.items():
        boxes, scores, labels, *masks = engines.load(engine, tmp_path / graph, threads=1)(*blank)
        assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
        assert [found.shape for found in masks] == [(0, 28, 28)] * (kind is MASKS)


def quantised(files, out, repo):
    """Export in INT8 and return the metadata, the names of the INT8 layers, and those that must be none."""
    # In a process of its own: after NNCF, a training in the same process crashes. Random weights lose what
    # they want; what is tested is what is quantised and what is said.
    options = ['--int8', '--calib', '4', '--max-loss', '0.99', '--max-critical-loss', '0.99']
    command = [sys.executable, 'tools/export.py', *map(str, files), str(out), *options]
    subprocess.run(command, cwd=repo, check=True, timeout=600)
    model = engines.core().read_model(out / 'model.xml')
    fakes = [n for n in model.get_ops() if n.get_type_name() == 'FakeQuantize']
    users = {t.get_node().get_friendly_name() for n in fakes for t in n.output(0).get_target_inputs()}
    return folder.read(out), int8.quantised_layers(model), users & set(int8.decoding(model))


@pytest.mark.slow
def test_masks_leave_the_graphs_as_mmdet_gives_them(data, tmp_path, capsys):
    files = write_detector(MASKS, data, tmp_path)
    out = tmp_path / 'masks'
    assert tool.main([*map(str, files), str(out)]) == 0
    content = folder.read(out)
    for row in content.parity:
        assert row['matched'] >= parity.MIN_MATCHED * row['boxes'] > 50
        assert row['mask_iou'] >= 0.99
    assert all(
        line.endswith('00 |') or '0.99' in line
        for line in parity.format_parity(content.parity).splitlines()[2:]
    )
    blank = np.full((1, 1, SIDE, SIDE), 114.5, np.float32), np.array([SIDE, SIDE], np.float32)
    files_of = {name: out / graph for name, graph in content.engines.items()}
    for engine, graph in files_of.items():
        run = engines.load(engine, graph, threads=1)
        boxes, scores, labels, masks = run(*blank)
        assert masks.shape == (len(boxes), 28, 28) and len(labels) == len(scores) == len(boxes)
    inspection = Inspector(out, cache=False)(data / 'images' / 'val5.png')
    assert len(inspection.masks) == len(inspection.boxes) > 5
    assert sum(mask.area > 0 for mask in inspection.masks) > 5


def test_a_graph_whose_masks_differ_is_not_kept():
    boxes = np.array([[0, 0, 8, 8]], np.float32), np.array([0.5], np.float32), np.array([0])
    mask = np.zeros((1, 10, 12), bool)
    mask[0, :8, :8] = True
    half = mask.copy()
    half[0, :4] = False
    row = parity.compare_boxes([parity.Found.of(*boxes, mask)], [parity.Found.of(*boxes, half)])
    assert row['mask_iou'] == 0.5
    row |= dict(engine='openvino', precision='fp32', images=1, padded=0)
    with pytest.raises(
        export_detector.ExportError, match='masks overlap those of mmdet by 0.500.*nothing is kept'
    ):
        parity.check(row, 0.01, 0.01)
    same = parity.compare_boxes([parity.Found.of(*boxes, mask)], [parity.Found.of(*boxes, mask)])
    parity.check(row | same, 0.01, 0.01)


def test_masks_of_int8_are_compared_where_boxes_have_moved():
    """INT8 finds few boxes again to 1 %: their masks are compared all the same, or the export is refused."""
    mask = np.zeros((1, 20, 24), bool)
    mask[0, :10, :10] = True
    scores = np.array([0.5], np.float32), np.array([0])
    asked = [parity.Found.of(np.array([[0, 0, 10, 10]], np.float32), *scores, mask)]
    lost = dict(loss=0.0, low=None, high=None)
    row = dict(engine='openvino', precision='int8', images=1, padded=0, AP50=lost, AP50_critical=lost)
    moved = [parity.Found.of(np.array([[0, 0, 10, 11]], np.float32), *scores, np.roll(mask, 1, axis=1))]
    result = parity.compare_boxes(asked, moved)
    assert result['matched'] == 0 and result['mask_iou'] == pytest.approx(9 / 11)
    with pytest.raises(export_detector.ExportError, match='masks overlap those of mmdet by 0.818'):
        parity.check(row | result, 0.01, 0.01)
    elsewhere = [parity.Found.of(np.array([[9, 9, 19, 19]], np.float32), *scores, mask)]
    for other in (
        elsewhere,
        [parity.Found.of(*asked[0])],
        [parity.Found.of(np.empty((0, 4)), *scores, mask[:0])],
    ):
        result = parity.compare_boxes(asked, other)
        assert result['mask_iou'] is None and '| – |' in parity.format_parity([row | result])
        with pytest.raises(export_detector.ExportError, match='no box of mmdet is found again'):
            parity.check(row | result, 0.01, 0.01)


@pytest.mark.long
def test_int8_is_proven_in_float32_first_and_its_loss_is_stated(detector, tmp_path, repo):
    result, layers, decoding = quantised(detector, tmp_path / 'int8', repo)
    assert (result.precision, list(result.engines)) == ('int8', ['openvino'])
    assert sorted(result.files) == ['model.bin', 'model.xml']
    assert result.calibration['images'] == 4
    assert [(row['engine'], row['precision']) for row in result.parity] == [
        ('openvino', 'fp32'),
        ('openvino', 'int8'),
    ]
    assert result.parity[0]['matched'] >= parity.MIN_MATCHED * result.parity[0]['boxes']
    assert {'loss', 'low', 'high'} <= set(result.parity[1]['AP50_critical'])
    table = parity.format_parity(result.parity).splitlines()
    assert [line.split(' | ')[1] for line in table[2:]] == ['fp32', 'int8']
    # Backbone, FPN, RPN and the fully connected layers, not the decoding of boxes.
    for part in ('/backbone/', '/neck/', '/rpn/rpn_conv', '/rpn/rpn_cls', '/rpn/rpn_reg'):
        assert [name for name in layers if name.startswith(part)], part
    for part in ('shared_fcs.0', 'shared_fcs.1', 'fc_cls', 'fc_reg'):
        assert [name for name in layers if name.startswith('/bbox_head/' + part)], part
    assert not decoding


@pytest.mark.long
def test_a_swin_detector_is_exported_in_float32_and_int8(data, tmp_path, repo):
    files = write_detector(SWIN, data, tmp_path)
    result, layers, decoding = quantised(files, tmp_path / 'int8', repo)
    assert result.parity[0]['boxes'] > 50
    assert result.parity[0]['score_max'] <= parity.MAX_SCORE_ERROR
    # The products of attention and of its projections.
    for part in ('attn/w_msa/MatMul', 'attn/w_msa/qkv', 'ffn'):
        assert [name for name in layers if part in name], part
    # NNCF knows it for a transformer, and smooths the activations before it quantises them.
    assert b'nncf_smooth_quant' in (tmp_path / 'int8' / 'model.xml').read_bytes()
    assert not decoding
