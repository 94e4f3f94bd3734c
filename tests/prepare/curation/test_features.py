"""Features by a frozen backbone are those of the model itself."""

import zipfile

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain import get_model

from projects.prepare.curation.features import read_features
from projects.prepare.ledger import UsageError
from projects.runs.running import read_config

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
    others = {
        'whole, of another net': {f'backbone.{k}': v for k, v in torch.nn.Linear(3, 3).state_dict().items()},
        'of a detector': {k.replace('layer4', 'layer5'): v for k, v in model.state_dict().items()},
        'without a prefix': {k.removeprefix('backbone.'): v for k, v in model.state_dict().items()},
    }
    for state in others.values():
        torch.save(dict(state_dict=state), tmp_path / 'other.pth')
        wrong = source | dict(checkpoint=str(tmp_path / 'other.pth'))
        with pytest.raises(
            UsageError, match=r'other.pth: \d+ tensors of the backbone .* are not in it, such'
        ):
            read_features(wrong, str(tmp_path / 'images'), names, done.append)
    (tmp_path / 'torn.pth').write_bytes((tmp_path / 'model.pth').read_bytes()[:5000])
    (tmp_path / 'text.pth').write_text('no checkpoint')
    torch.save([1], tmp_path / 'list.pth')
    for name in ('torn', 'text', 'list'):
        wrong = source | dict(checkpoint=str(tmp_path / f'{name}.pth'))
        with pytest.raises(UsageError, match='expected a PyTorch checkpoint') as caught:
            read_features(wrong, str(tmp_path / 'images'), names, done.append)
        assert '\n' not in str(caught.value)
    detector = source | dict(config='configs/small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py')
    with pytest.raises(UsageError, match='expected a classifier or probe'):
        read_features(detector, str(tmp_path / 'images'), names, done.append)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path.read_bytes()


@pytest.mark.parametrize(
    'wrong', ['torn', 'changed', 'one array', 'no names', 'nested', 'twice', 'text', 'zip']
)
def test_a_file_of_features_that_is_none_is_one_line(tmp_path, wrong):
    path, features = tmp_path / 'f.npz', np.ones((3, 2), np.float32)
    data = saved(path, names=np.array(['a', 'b', 'c']), features=features)
    if wrong == 'torn':
        path.write_bytes(data[: len(data) // 2])
    elif wrong == 'changed':
        at = data.index(features.tobytes())
        path.write_bytes(data[:at] + b'xyz' + data[at + 3 :])
    elif wrong == 'one array':
        with path.open('wb') as file:
            np.save(file, features)
    elif wrong == 'zip':
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('names.npy', 'text')
    else:
        names = dict(nested=np.array([['a'], ['b'], ['c']]), twice=np.array(['a', 'b', 'b']))
        values = features.astype(str) if wrong == 'text' else features
        saved(
            path,
            features=values,
            **({} if wrong == 'no names' else dict(names=names.get(wrong, np.array(list('abc'))))),
        )
        if wrong == 'text':
            saved(path, features=np.array(list('xyz')), names=np.array(list('abc')))
    with pytest.raises(
        UsageError, match='f.npz: expected (an .npz file with|each name once).*(write|correct) it'
    ) as caught:
        read_features(str(path), '', ['a', 'b'], lambda done: None)
    assert '\n' not in str(caught.value)
