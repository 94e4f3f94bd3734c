"""NMS, soft-NMS and RoIAlign of projects/xray/operators.py: equal to NumPy, and to mmcv's compiled ones.

`nms_of` and the like are written after the papers and in float64, except for the IoU, whose rounding decides.
"""

import json
import subprocess
import sys

import mmcv.ops
import numpy as np
import pytest
import torch
from helpers import detector_facts

from projects.xray import operators


def boxes_and_scores(count, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 90, (count, 2))], 1).astype(np.float32)
    return boxes, rng.uniform(0, 1, count).astype(np.float32)


def iou_of(box, others, offset):
    top, end = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inter = np.maximum(end - top + np.float32(offset), 0).prod(1)
    areas = (others[:, 2:] - others[:, :2] + np.float32(offset)).prod(1)
    return inter / ((box[2:] - box[:2] + np.float32(offset)).prod() + areas - inter)


def nms_of(boxes, scores, threshold, offset=0):
    kept = []
    for i in np.argsort(-scores, kind='stable'):
        if not kept or iou_of(boxes[i], boxes[kept], offset).max() <= np.float32(threshold):
            kept.append(i)
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('count', [0, 1, 2, 300])
def test_nms(count, offset):
    boxes, scores = boxes_and_scores(count)
    dets, kept = mmcv.ops.nms(torch.tensor(boxes), torch.tensor(scores), 0.4, offset=offset)
    wanted = nms_of(boxes, scores, 0.4, offset)
    assert kept.tolist() == wanted
    assert kept.dtype == torch.int64
    np.testing.assert_array_equal(dets, np.concatenate([boxes, scores[:, None]], 1)[wanted])
    assert count < 300 or 10 < len(wanted) < 290


def test_nms_of_equal_scores_keeps_the_first():
    boxes, _ = boxes_and_scores(200)
    scores = np.tile(np.array([0.5, 0.9], np.float32), 100)
    kept = mmcv.ops.nms(torch.tensor(boxes), torch.tensor(scores), 0.4)[1]
    assert kept.tolist() == nms_of(boxes, scores, 0.4)


@pytest.mark.parametrize('tenths', range(1, 10))
def test_an_overlap_of_just_the_threshold_is_kept(tenths):
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, tenths]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert iou_of(boxes[0], boxes, 0)[1] == np.float32(tenths / 10)
    assert mmcv.ops.nms(boxes, scores, tenths / 10)[1].tolist() == [0, 1]
    assert mmcv.ops.nms(boxes, scores, tenths / 10 - 1e-6)[1].tolist() == [0]


def test_nms_by_class_leaves_the_classes_apart():
    boxes, scores = boxes_and_scores(100)
    labels = np.arange(100) % 2
    cfg = dict(type='nms', iou_threshold=0.4)
    kept = mmcv.ops.batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), cfg)[1]
    wanted = set()
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        wanted |= set(rows[nms_of(boxes[rows], scores[rows], 0.4)])
    assert set(kept.tolist()) == wanted


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('count', [0, 1, 2, 100])
def test_soft_nms(count, method, offset):
    boxes, scores = boxes_and_scores(count)
    dets, kept = mmcv.ops.soft_nms(torch.tensor(boxes), torch.tensor(scores), 0.3, 0.5, 0.01, method, offset)
    left, now, wanted, lowered = list(range(count)), scores.astype(np.float64), [], []
    while left:
        best = max(left, key=lambda i: now[i])
        wanted.append(best)
        lowered.append(now[best])
        left.remove(best)
        for i in left:
            iou = iou_of(boxes[best], boxes[i : i + 1], offset)[0]
            if method == 'gaussian':
                now[i] *= np.exp(-(iou**2) / 0.5)
            elif iou >= 0.3:
                now[i] *= 1 - iou if method == 'linear' else 0
        left = [i for i in left if now[i] >= 0.01]
    assert kept.tolist() == wanted
    np.testing.assert_array_equal(dets[:, :4], boxes[wanted])
    np.testing.assert_allclose(dets[:, 4], lowered, rtol=1e-5)


def test_a_detector_may_ask_for_soft_nms_by_name():
    boxes, scores = (torch.tensor(part) for part in boxes_and_scores(50))
    found = mmcv.ops.batched_nms(boxes, scores, torch.zeros(50), dict(type='soft_nms', iou_threshold=0.3))
    assert 1 < len(found[0]) <= 50
    assert (found[0][:, 4].diff() <= 0).all()


def samples_of(box, bins, scale, ratio, aligned):
    """Bin (row, column), weight, y and x in map pixels of each sample of a region."""
    start = box * scale - (0.5 if aligned else 0)
    size = start[2:] - start[:2]
    if not aligned:
        size = np.maximum(size, 1)
    for row in range(bins):
        for column in range(bins):
            step = size / bins  # x, y
            counts = [ratio or max(int(np.ceil(side / bins)), 0) for side in size]
            for j in range(counts[1]):
                for i in range(counts[0]):
                    y = start[1] + (row + (j + 0.5) / counts[1]) * step[1]
                    x = start[0] + (column + (i + 0.5) / counts[0]) * step[0]
                    yield row, column, 1 / max(counts[0] * counts[1], 1), y, x


def neighbours_of(y, x, height, width):
    """Map pixels and weights of a sample; none more than a pixel outside the map."""
    if y < -1 or y > height or x < -1 or x > width:
        return
    y, x = (min(max(v, 0), side - 1) for v, side in ((y, height), (x, width)))
    low = int(y), int(x)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - abs(low[0] + dy - y)) * (1 - abs(low[1] + dx - x))
            if weight > 0:
                yield low[0] + dy, low[1] + dx, weight


def roi_align_of(features, rois, bins, scale, ratio, aligned, grads):
    """Pooled regions, and the gradient that `grads` give the features."""
    pooled = np.zeros((len(rois), features.shape[1], bins, bins))
    gradient = np.zeros(features.shape)
    for n, (image, *box) in enumerate(rois):
        for row, column, share, y, x in samples_of(np.array(box), bins, scale, ratio, aligned):
            for py, px, weight in neighbours_of(y, x, *features.shape[2:]):
                pooled[n, :, row, column] += share * weight * features[int(image), :, py, px]
                gradient[int(image), :, py, px] += share * weight * grads[n, :, row, column]
    return pooled, gradient


REGIONS = {
    'none': [],
    'one': [[0, 3.3, 4.1, 21.7, 30.2]],
    'of a batch': [[1, 2, 2, 30, 18], [0, 5, 5, 9.5, 9.25], [2, 0, 0, 40, 32], [1, 11, 3, 12, 4]],
    'over the edge': [[0, -9, -5, 12, 12], [0, 30, 20, 60, 50]],
    'outside': [[0, 100, 100, 140, 120], [1, -80, -80, -60, -50]],
    'thin': [[0, 8, 8, 8, 20], [0, 8, 8, 8.01, 8.01]],
}


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('regions', REGIONS)
def test_roi_align_forward_and_backward(regions, ratio, aligned):
    rng = np.random.default_rng(0)
    rois = np.array(REGIONS[regions], np.float64).reshape(-1, 5)
    features = rng.normal(size=(3, 2, 16, 20))
    grads = rng.normal(size=(len(rois), 2, 3, 3))
    wanted = roi_align_of(features, rois, 3, 0.5, ratio, aligned, grads)

    map_ = torch.tensor(features, requires_grad=True)
    pooled = mmcv.ops.roi_align(map_, torch.tensor(rois), (3, 3), 0.5, ratio, 'avg', aligned)
    pooled.backward(torch.tensor(grads))
    np.testing.assert_allclose(pooled.detach(), wanted[0], atol=1e-9)
    np.testing.assert_allclose(map_.grad, wanted[1], atol=1e-9)
    assert regions in ('none', 'outside') or pooled.any()


def test_the_pooled_map_may_lie_in_memory_in_any_order():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 16, 16, generator=rng)
    rois = torch.tensor([[0, 1, 2, 13, 9.5], [1, 3, 3, 8, 8]])
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        own = features.clone(memory_format=layout).requires_grad_()
        pooled = mmcv.ops.roi_align(own, rois, (7, 7))
        pooled.transpose(2, 3).pow(2).sum().backward()
        found.append((pooled, own.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_single(dtype):
    features = torch.linspace(-1, 1, 512).reshape(1, 2, 16, 16).to(dtype).requires_grad_()
    rois = torch.tensor([[0, 1, 2, 13, 9.5]], dtype=dtype)
    pooled = mmcv.ops.roi_align(features, rois, (7, 7))
    pooled.sum().backward()
    single = features.detach().float().requires_grad_()
    wanted = mmcv.ops.roi_align(single, rois.float(), (7, 7))
    wanted.sum().backward()
    assert torch.equal(pooled, wanted.to(dtype))
    assert torch.equal(features.grad, single.grad.to(dtype))


def test_gradients_where_deterministic_algorithms_are_asked_for():
    features = torch.rand(1, 2, 16, 16, requires_grad=True)
    rois = torch.tensor([[0, 1, 2, 13, 9.5]] * 20)
    torch.use_deterministic_algorithms(True)
    try:
        mmcv.ops.roi_align(features, rois, (7, 7)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert features.grad.sum().item() == pytest.approx(20 * 2 * 49, rel=1e-5)


@pytest.mark.parametrize(
    ('call', 'named'),
    [
        (lambda: mmcv.ops.RoIPool(7)(torch.zeros(1, 1, 9, 9), torch.zeros(1, 5)), 'roi_pool_forward'),
        (
            lambda: mmcv.ops.roi_align(torch.zeros(1, 1, 9, 9), torch.zeros(1, 5), 7, 1.0, 0, 'max'),
            "RoIAlign with pool_mode='max'",
        ),
    ],
)
def test_any_other_operator_is_refused_when_it_is_called(call, named):
    with pytest.raises(operators.MissingOperatorError) as caught:
        call()
    assert str(caught.value).startswith(f"mmcv's operator {named} is called, expected NMS, ")
    assert '\n' not in str(caught.value)


LATE = """
import sys
import projects
assert 'torch' not in sys.modules
import mmdet.models, mmpretrain.models
from mmcv.ops import get_compiler_version
print(get_compiler_version())
"""
COMPILED = """
import importlib.util, sys
import projects
spec = importlib.util.find_spec('mmcv._ext')
print(type(spec.loader).__name__)
"""


@pytest.mark.slow
def test_whoever_imports_projects_can_import_the_libraries(repo):
    done = subprocess.run([sys.executable, '-c', LATE], cwd=repo, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1:] == [f'torchvision {operators.torchvision.__version__}'], done.stderr


def test_compiled_operators_are_used_as_they_are(repo, tmp_path):
    """A module that mmcv itself brings is found before ours."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('')
    loaders = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, '-c', f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n{COMPILED}'],
            cwd=repo,
            capture_output=True,
            text=True,
            timeout=300,
        )
        loaders += done.stdout.split()
        (tmp_path / 'mmcv/_ext.py').write_text('')
    assert loaders == ['OperatorsFinder', 'SourceFileLoader']


def test_a_detector_learns_and_finds_as_on_the_compiled_operators():
    """The record is of one processor; another rounds otherwise, so that the last digits are left out."""
    recorded = json.loads(detector_facts.RECORDED.read_text())
    found = detector_facts.gather()
    for step, (mine, theirs) in enumerate(zip(found['losses'], recorded['losses'], strict=True)):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4), f'update {step}'
    for kind in detector_facts.SUPPRESSIONS:
        for mine, theirs in zip(found[kind], recorded[kind], strict=True):
            mine, theirs = np.array(mine), np.array(theirs)
            near = np.abs(mine[:, None, :4] - theirs[None, :, :4]).max(2) < 0.1
            near &= np.abs(mine[:, None, 4] - theirs[None, :, 4]) < 1e-3
            near &= mine[:, None, 5] == theirs[None, :, 5]
            assert len(mine) == len(theirs) == 20
            assert near.any(1).sum() >= 19
