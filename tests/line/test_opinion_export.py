"""The second opinion of a real backbone: both engines say the same; too few sound parts are refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.plates import draw_radiograph
from mmengine.config import Config

from projects.line.export.detector import (
    GRAPHS,
    ExportError,
    Radiographs,
    describe,
    untrained_detector,
)
from projects.line.export.graphs import torch_engine, write_onnx, write_openvino
from projects.line.export.opinion import CHANNELS, PatchFeatures, add_opinion, sound_of
from projects.line.export.traceable import TraceableDetector
from projects.line.runtime import Inspector, folder

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/small'
SIDE = 96


def plates(root, count, name):
    """Sound drawn plates, a part each."""
    rng, images = np.random.default_rng(len(name)), []
    for k in range(count):
        image, _ = draw_radiograph(rng, SIDE, 0)
        cv2.imwrite(str(root / f'{name}{k}.png'), (image * 255).astype(np.uint8))
        images.append(dict(id=k, file_name=f'{name}{k}.png', height=SIDE, width=SIDE, part=f'{name}{k}'))
    paths = [str(root / image['file_name']) for image in images]
    return Radiographs(paths, dict(images=images, annotations=[], categories=[]))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['r18-narrow', 'swin-narrow'])
def test_both_engines_flag_as_it_was_calibrated(tmp_path, name):
    cfg = Config.fromfile(CONFIGS / f'faster-rcnn_{name}-scratch_fpn_1xb4-8e_synthetic.py')
    detector = untrained_detector(cfg)
    exported = describe(cfg, None, detector, [(SIDE, SIDE)])
    whole = TraceableDetector(detector, exported.input).eval()
    train, val, out = plates(tmp_path, 12, 'train'), plates(tmp_path, 12, 'val'), tmp_path / 'exported'
    out.mkdir()
    write_onnx(whole, out / GRAPHS['onnxruntime'])
    write_openvino(out / GRAPHS['onnxruntime'], out / GRAPHS['openvino'])
    exported.engines = dict(GRAPHS)
    prepare = Inspector.of(exported, torch_engine(whole))
    add_opinion(exported, out, whole, prepare, train, val)
    folder.write(out, exported)
    assert exported.opinion['sound'] == 12 and exported.opinion['radiographs'] == 12
    unlike = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    scores = []
    for engine in GRAPHS:
        inspect = Inspector(out, engine, cache=False)
        held = [inspect(path).unusual for path in val.paths]
        assert max(held) == pytest.approx(exported.opinion['threshold'], rel=1e-4)
        assert inspect(unlike).flagged
        scores.append([*held, inspect(unlike).unusual])
    np.testing.assert_allclose(*scores, rtol=1e-3)


def test_features_are_those_of_the_backbone(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py')
    whole = TraceableDetector(untrained_detector(cfg), (64, 96)).eval()
    net = PatchFeatures(whole).eval()
    with torch.no_grad():
        found = net(torch.full((1, 1, 64, 96), 100.0))
        assert found.shape == (1, CHANNELS, 8, 12)
        assert not torch.equal(found, net(torch.full((1, 1, 64, 96), 150.0)))


def test_what_has_an_annotation_is_not_sound_and_too_few_are_refused(tmp_path):
    images = plates(tmp_path, 12, 'a')
    images.truth['annotations'] = [dict(image_id=3), dict(image_id=7)]
    assert [image['id'] for image in sound_of(images).truth['images']] == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    few = plates(tmp_path, 4, 'b')
    with pytest.raises(ExportError, match='10 sound radiographs in train and 4 in val, expected at least 10'):
        add_opinion(None, tmp_path, None, None, images, few)
