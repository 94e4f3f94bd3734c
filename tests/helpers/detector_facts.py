"""What a small detector computes with the operators at hand: losses while it learns, boxes afterwards.

`compiled_operators.json` holds it for mmcv's own operators, made by `python tests/helpers/detector_facts.py`
in an environment whose mmcv was compiled. It refuses to write down what other operators gave.
"""

import json
import os
import platform
import sys
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

import projects.xray.compat  # noqa: F401

REPO = Path(__file__).resolve().parents[2]
RECIPE = REPO / 'configs/small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py'
RECORDED = Path(__file__).with_name('compiled_operators.json')
SIZE, IMAGES, STEPS = 128, 2, 6
SUPPRESSIONS = {'nms': dict(type='nms'), 'soft_nms': dict(type='soft_nms', method='gaussian')}


def radiographs():
    """Inputs and data samples of a batch: plates with bright squares, whose places are the labels."""
    from mmdet.structures import DetDataSample

    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for _ in range(IMAGES):
        image = rng.normal(90, 4, (1, SIZE, SIZE))
        boxes = []
        for _ in range(3):
            x, y = rng.integers(8, SIZE - 40, 2)
            w, h = rng.integers(12, 32, 2)
            image[0, y : y + h, x : x + w] += 80
            boxes.append([x, y, x + w, y + h])
        truth = InstanceData(bboxes=torch.tensor(boxes).float(), labels=torch.tensor([0, 1, 0]))
        meta = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
        samples.append(DetDataSample(gt_instances=truth, metainfo=meta))
        inputs.append(torch.from_numpy(image.clip(0, 255).astype(np.uint8)))
    return dict(inputs=inputs, data_samples=samples)


def gather() -> dict:
    """Losses of each of STEPS updates; then boxes and scores after NMS and after soft-NMS.

    Returns:
        `losses`: one dict a step; `nms` and `soft_nms`: per image rows x1, y1, x2, y2 in px, score, label.
    """
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    torch.set_num_threads(1)
    torch.manual_seed(0)
    cfg = Config.fromfile(RECIPE)
    cfg.model.test_cfg.rcnn.update(score_thr=0.02, max_per_img=20)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        model.init_weights()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        model.train()
        losses = []
        for _ in range(STEPS):
            batch = model.data_preprocessor(radiographs(), True)
            total, found = model.parse_losses(model.loss(batch['inputs'], batch['data_samples']))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append({name: value.item() for name, value in found.items()})
        model.eval()
        facts = dict(losses=losses)
        for kind, settings in SUPPRESSIONS.items():
            model.roi_head.test_cfg.nms = dict(iou_threshold=0.5, **settings)
            with torch.no_grad():
                predicted = model.test_step(radiographs())
            facts[kind] = [
                torch.cat([p.bboxes, p.scores[:, None], p.labels[:, None].float()], 1).tolist()
                for p in (sample.pred_instances for sample in predicted)
            ]
    return facts


def main() -> int:
    """Write the facts down; returns 1 where the operators are not mmcv's own."""
    from mmcv.ops import get_compiler_version

    compiler = get_compiler_version()
    if 'torchvision' in compiler:
        print(f'the operators are those of {compiler}, expected compiled ones of mmcv', file=sys.stderr)
        return 1
    made = dict(
        command='python tests/helpers/detector_facts.py',
        operators=f'mmcv {mmcv.__version__}, compiled by {compiler}',
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
    )
    RECORDED.write_text(json.dumps(dict(made=made, **gather()), indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
