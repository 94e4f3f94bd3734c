"""Labelled radiographs mixed with an archive's: which sample is replaced, by what, and what is refused."""

import re

import numpy as np
import pytest
import torch

from projects.synthetic import transforms  # noqa: F401
from projects.xray.datasets import XrayBackgrounds, XrayDefects
from projects.xray.errors import DatasetError
from projects.xray.mixed import XrayMixedDefects
from projects.xray.seeding import SeededDataset, leaf_datasets

LOADED = [dict(type='LoadXray'), dict(type='mmdet.LoadAnnotations', with_bbox=True)]
PACKED = dict(type='mmdet.PackDetInputs', meta_keys=('img_path', 'img_id'))


@pytest.fixture
def mixed(tiny_coco):
    """Factory: eight labelled and twelve unlabelled radiographs, mixed."""
    root = str(tiny_coco(n=8, unlabeled=12, size=128))
    labelled = dict(
        type='mmdet.XrayDefects',
        data_root=root,
        ann_file='train.json',
        data_prefix=dict(img='images'),
        severity='castings',
        pipeline=[*LOADED, PACKED],
    )
    archive = dict(
        type='mmdet.XrayBackgrounds',
        data_root=root,
        data_prefix='unlabeled',
        metainfo=dict(classes=XrayDefects.METAINFO['classes']),
        severity='castings',
        pipeline=[*LOADED, dict(type='DrawFlaws', number=(1, 4), pitch=0.4), PACKED],
    )
    return lambda share=0.5, **other: XrayMixedDefects([labelled, archive | other], share=share)


def of_archive(data, epoch=0, seed=0):
    """Whether each sample of an epoch comes from the archive."""
    samples = [SeededDataset(data, seed)[epoch, index]['data_samples'] for index in range(len(data))]
    return ['unlabeled' in sample.img_path for sample in samples]


def test_an_epoch_is_as_long_as_the_labelled_set(mixed):
    data = mixed()
    assert len(data) == 8 and data.metainfo['classes'] == ('critical', 'minor')
    labelled, archive = leaf_datasets(data)
    assert isinstance(labelled, XrayDefects) and isinstance(archive, XrayBackgrounds)


def test_a_share_of_the_samples_comes_from_the_archive(mixed):
    data = mixed()
    replaced = np.array([of_archive(data, epoch) for epoch in range(25)])
    assert 0.4 < replaced.mean() < 0.6
    assert (replaced.mean(0) > 0.15).all() and (replaced.mean(0) < 0.85).all()
    assert not any(of_archive(mixed(share=0.0))) and all(of_archive(mixed(share=1.0)))


def test_a_labelled_sample_is_that_of_the_labelled_set(mixed):
    data = mixed()
    replaced = of_archive(data, epoch=3)
    assert not all(replaced)
    for index in (place for place, from_archive in enumerate(replaced) if not from_archive):
        found = SeededDataset(data, 0)[3, index]
        expected = data.datasets[0][index]
        assert torch.equal(found['inputs'], expected['inputs'])
        boxes = found['data_samples'].gt_instances.bboxes.tensor
        assert torch.equal(boxes, expected['data_samples'].gt_instances.bboxes.tensor)


def test_seed_epoch_and_index_alone_decide(mixed):
    data = mixed()

    def draw(seed, epoch, index):
        sample = SeededDataset(data, seed)[epoch, index]
        return sample['data_samples'].img_path, sample['inputs']

    first = [draw(0, 1, index) for index in range(8)]
    np.random.seed(99)  # an earlier draw
    for index in reversed(range(8)):
        path, pixels = draw(0, 1, index)
        assert path == first[index][0] and torch.equal(pixels, first[index][1])
    for other in ((0, 2), (1, 1)):
        assert [draw(*other, index)[0] for index in range(8)] != [path for path, _ in first]


@pytest.mark.parametrize('share', [-0.1, 1.5])
def test_a_share_out_of_its_range_is_refused(mixed, share):
    with pytest.raises(DatasetError, match=re.escape(f'share={share}, expected a labelled data set')):
        mixed(share=share)


def test_other_than_two_data_sets_are_refused():
    with pytest.raises(DatasetError, match='XrayMixedDefects: 1 data sets'):
        XrayMixedDefects([dict(type='XrayDefects')])


def test_an_archive_of_other_classes_is_refused(mixed):
    with pytest.raises(DatasetError, match=r"classes \('crack',\), expected those of .*train.json"):
        mixed(metainfo=dict(classes=('crack',)), severity=None)
