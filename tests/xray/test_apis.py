"""OpenMMLab's Python APIs see what training sees: paths and arrays give the boxes and features of a test."""

import cv2
import numpy as np
import pytest
import torch
from helpers.config_grammar import CONFIGS
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain import FeatureExtractor, ImageClassificationInferencer, get_model

from projects.runs.running import read_config

DETECTOR = CONFIGS / 'small/faster-rcnn_lite0-scratch_fpn_1xb4-4e_synthetic.py'
PROBE = CONFIGS / 'small/resnet18-narrow-scratch_1xb64-linear-coslr-20e_synthetic-128px.py'


@pytest.fixture(scope='module')
def radiograph(tmp_path_factory):
    """A 16-bit file and its pixels."""
    pixels = np.random.default_rng(0).integers(20000, 40000, (96, 96)).astype(np.uint16)
    pixels[40:60, 30:50] = 60000
    path = tmp_path_factory.mktemp('radiographs') / 'part.png'
    assert cv2.imwrite(str(path), pixels)
    return str(path), pixels


@pytest.fixture(scope='module')
def detector():
    torch.manual_seed(0)
    return init_detector(read_config(str(DETECTOR)), device='cpu')


def boxes(sample):
    return torch.cat([sample.pred_instances.bboxes, sample.pred_instances.scores[:, None]], 1)


def test_a_detector_takes_paths_arrays_and_lists(detector, radiograph):
    path, pixels = radiograph
    expected = boxes(inference_detector(detector, path))
    assert len(expected)
    for inputs in (pixels, [path, path], [pixels, pixels]):
        found = inference_detector(detector, inputs)
        for sample in found if isinstance(found, list) else [found]:
            assert torch.equal(boxes(sample), expected)
    # Eight bits of the same picture are another radiograph: a float or a colour copy would be none.
    assert not torch.equal(boxes(inference_detector(detector, (pixels // 512).astype(np.uint8))), expected)


def test_det_inferencer_gives_the_same(detector, radiograph, monkeypatch):
    path, pixels = radiograph
    expected = boxes(inference_detector(detector, path))
    inferencer = DetInferencer(model=str(DETECTOR), device='cpu', show_progress=False)
    inferencer.model.load_state_dict(detector.state_dict())
    for inputs in (path, pixels, [path, pixels]):
        for found in inferencer(inputs, no_save_vis=True)['predictions']:
            scores = torch.tensor(found['scores'])
            assert torch.allclose(scores, expected[:, 4], atol=1e-6)
            assert torch.allclose(torch.tensor(found['bboxes']), expected[:, :4], atol=1e-3)


@pytest.mark.parametrize('api', [ImageClassificationInferencer, FeatureExtractor])
def test_classifiers_and_features_take_paths_and_arrays(radiograph, api):
    path, pixels = radiograph
    model = get_model(str(PROBE), pretrained=False, device='cpu').eval()
    cfg = read_config(str(PROBE))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = Compose(cfg.test_dataloader.dataset.pipeline)(dict(img_path=path, gt_label=0))
        inputs = model.data_preprocessor(dict(inputs=data['inputs'][None]), False)['inputs']
        with torch.no_grad():
            expected = model.extract_feat(inputs)
            scores = model.predict(inputs)[0].pred_score
            expected = expected[-1][0]
    found = api(model)([path, pixels], batch_size=2)
    assert len(found) == 2
    for one in found:
        if api is FeatureExtractor:
            assert torch.allclose(one[-1], expected, atol=1e-5)
        else:
            assert np.allclose(one['pred_scores'], scores.numpy(), atol=1e-5)
