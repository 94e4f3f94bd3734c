"""Features by a frozen backbone are those of the model itself."""

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain import get_model

from projects.prepare.curation.features import read_features
from projects.xray.running import read_config

PROBE = 'configs/small/resnet18-narrow-scratch_1xb64-linear-coslr-20e_synthetic-128px.py'


def test_a_backbone_gives_each_image_its_features(repo, tmp_path, monkeypatch):
    monkeypatch.chdir(repo)
    rng = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    names = [f'{k}.png' for k in range(3)]
    for name in names:
        image = cv2.resize(rng.random((6, 6)), (160, 160), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / 'images' / name), (image.clip(0, 1) * 255).astype(np.uint8))
    torch.manual_seed(0)
    model = get_model(PROBE, pretrained=False, device='cpu').eval()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    done = []
    source = dict(config=PROBE, checkpoint=str(tmp_path / 'model.pth'))
    found = read_features(source, str(tmp_path / 'images'), names, done.append)
    assert found.shape[0] == 3 and found.ndim == 2 and found.dtype == np.float32 and sum(done) == 3
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose(read_config(PROBE).test_dataloader.dataset.pipeline)
    for name, own in zip(names, found, strict=True):
        with DefaultScope.overwrite_default_scope('mmpretrain'), torch.no_grad():
            data = pipeline(dict(img_path=str(tmp_path / 'images' / name), gt_label=0))
            inputs = model.data_preprocessor(dict(inputs=data['inputs'][None]), False)['inputs']
            expected = model.extract_feat(inputs)[-1][0].numpy()
        assert np.allclose(own, expected, atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-4)
