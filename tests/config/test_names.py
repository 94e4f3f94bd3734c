"""One grammar: every stem of every config says the same, whoever reads it."""

import pytest
from helpers.config_grammar import all_configs, distill_configs

from projects.config import names

STEMS = [path.stem for path in (*all_configs(), *distill_configs())]


@pytest.mark.parametrize('stem', STEMS)
def test_every_reader_of_a_stem_agrees(stem):
    name, table = names.parse(stem), names.summary(stem)
    assert names.gpus_of(stem) == name.gpus
    if names.is_pretraining(stem):
        assert name.kind in ('pretrain', 'drawn')
        assert names.image_set(stem) == name.images
        assert names.image_set(f'work_dirs/{stem}/epoch_{name.epochs}.pth') == name.images
        assert names.image_set(f'work_dirs/study/x/{stem}/seed0-frac100/epoch_1.pth') == name.images
    else:
        init, _, teacher = table['init'].partition(names.BETWEEN)
        assert (table['dataset'], init, names.BACKBONES[table['backbone']]) == (
            name.images,
            name.init,
            name.backbone,
        )
        assert teacher == (f'{name.distiller}-{name.teacher}' if name.teacher else '')
        assert names.is_own_pretraining(name.init) == (name.init not in names.BASELINES)


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('work_dirs/simsiam_resnet50_4xb64-coslr-100e_industrial-views-448px/epoch_100.pth', 'industrial'),
        ('simmim_swin-base_4xb64-amp-coslr-100e_castings-a-384px', 'castings-a'),
        ('simsiam_resnet50_1xb256-amp-coslr-100e_synthetic-1024-224px', 'synthetic-1024'),
        ('simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px', 'synthetic'),
        ('drawn_lite0-in1k-pre_fpn_1xb8-6e_castings-b-160px', 'castings-b'),
        ('data/synthetic-old/resnet18.pth', None),
        ('torchvision://resnet50', None),
    ],
)
def test_the_archive_that_a_pretraining_saw(path, expected):
    assert names.image_set(path) == expected


@pytest.mark.parametrize('stem', ['my_own_config', 'faster-rcnn_r50-none-pre_fpn_4xb4-2x_industrial', ''])
def test_a_stem_outside_the_grammar_is_refused(stem):
    with pytest.raises(names.NameGrammarError, match=r'configs/README\.md'):
        names.parse(stem)


@pytest.mark.parametrize(
    ('stem', 'expected'),
    [
        ('faster-rcnn_r50-in1k-simsiam-pre_fpn_4xb4-2x_industrial', ('industrial', 'r50', 'in1k-simsiam')),
        ('faster-rcnn_swin-base-scratch_fpn_4xb4-amp-6x_gdxray-b', ('gdxray-b', 'swin-base', 'scratch')),
        (
            'faster-rcnn_r18-narrow-simsiam-castings-pre_fpn_1xb4-12e_gdxray-b',
            ('gdxray-b', 'r18-narrow', 'simsiam-castings'),
        ),
        (
            'swin-base-simmim-pre_4xb64-linear-coslr-90e_industrial-384px',
            ('industrial', 'swin-base', 'simmim'),
        ),
        (
            'pkd-swin-base-simmim_faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial',
            ('industrial', 'r50', 'in1k + pkd-swin-base-simmim'),
        ),
        (
            'cwd-r18-narrow_faster-rcnn_r18-tiny-scratch_fpn32_1xb4-8e_synthetic',
            ('synthetic', 'r18-tiny', 'scratch + cwd-r18-narrow'),
        ),
        ('mask-rcnn_r50-simsiam-pre_fpn_4xb4-2x_industrial', ('industrial', 'r50', 'simsiam')),
        ('my_own_config', ('', '', 'my_own_config')),
        (
            'drawn_lite0-in1k-pre_fpn_1xb4-4e_castings-b-160px',
            ('gdxray-b', 'lite0', 'in1k-drawn-castings alone'),
        ),
        ('drawn_lite0_fpn_1xb8-4e_welds-256px', ('welds', 'lite0', 'drawn alone')),
    ],
)
def test_arms_are_read_from_names(stem, expected):
    named = names.summary(stem)
    assert (named['dataset'], named['backbone'], named['init']) == expected
