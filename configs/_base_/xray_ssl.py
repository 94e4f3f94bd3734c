# Self-supervised pretraining: views, masks and image sets. Exports xray_* variables only.
_base_ = ['./xray_runtime.py', './models/swin-base_in1k.py']
from projects.xray.norm import MEAN as xray_mean, STD as xray_std  # noqa: E401, E402, I001

xray_norm = dict(mean=[xray_mean], std=[xray_std])

# SimSiam's views (arXiv:2011.10566, appendix D) of a gray image. Saturation, hue and random grayscale do not
# change a gray image and are left out, so the views have the paper's distribution.
xray_simsiam_view = [
    dict(type='XrayRandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), flip=0.5),
    dict(type='XrayColorJitter', brightness=0.4, contrast=0.4, prob=0.8),
    dict(type='XrayGaussianBlur', sigma=(0.1, 2.0), prob=0.5),
]
xray_simsiam_pipeline = [
    _base_.xray_load,
    dict(type='XrayMultiView', num_views=2, transforms=[xray_simsiam_view]),
    dict(type='PackInputs'),
]
xray_simsiam_128_view = [
    dict(xray_simsiam_view[0], scale=128),
    xray_simsiam_view[1],
    dict(xray_simsiam_view[2], sigma=(0.1, 2.0 * 128 / 224)),
]
xray_simsiam_128_pipeline = [
    _base_.xray_load,
    dict(xray_simsiam_pipeline[1], transforms=[xray_simsiam_128_view]),
    dict(type='PackInputs'),
]

# Views for radiographs: twice the resolution, so that 2 px of blur do not erase a pore; at least half the
# area, so that both views show the defect; variation of tube voltage (gamma, contrast), exposure
# (brightness), unsharpness and quantum noise instead of colour; all directions.
xray_views_view = [
    dict(
        type='XrayRandomResizedCrop',
        scale=448,
        crop_ratio_range=(0.5, 1.0),
        flip=0.5,
        flip_vertical=0.5,
        rot90=0.5,
    ),
    dict(type='XrayGamma', gamma=(0.7, 1.4), prob=0.5),
    dict(type='XrayColorJitter', brightness=0.4, contrast=0.4, prob=0.8),
    dict(type='XrayGaussianBlur', sigma=(0.1, 1.0), prob=0.5),
    dict(type='XrayPoissonNoise', prob=0.5),
]
xray_views_pipeline = [
    _base_.xray_load,
    dict(type='XrayMultiView', num_views=2, transforms=[xray_views_view]),
    dict(type='PackInputs'),
]

# Dense views for small flaws: both are cut from the same 192 px square at about native size. Each covers at
# least three quarters of it, so that they share more than half of their area.
xray_dense_view = [
    dict(
        type='XrayRandomResizedCrop',
        scale=160,
        crop_ratio_range=(0.75, 1.0),
        aspect_ratio_range=(0.9, 1.1),
        flip=0.5,
    ),
    *xray_views_view[1:],
]
xray_dense_pipeline = [
    _base_.xray_load,
    dict(type='XrayFlawCrop', size=192, flaw=0.0, scale=(0.7, 1.5)),
    dict(type='XrayMultiView', num_views=2, transforms=[xray_dense_view]),
    dict(type='PackInputs'),
]

# SimMIM (arXiv:2111.09886, section 4.1): 60 % of the image masked in 32 px patches. The crop's resize is
# antialiased as in the original; mmpretrain's is not.
xray_simmim_pipeline = [
    _base_.xray_load,
    dict(type='XrayRandomResizedCrop', scale=384, crop_ratio_range=(0.67, 1.0), flip=0.5),
    dict(type='SimMIMMaskGenerator', input_size=384, mask_patch_size=32, model_patch_size=4, mask_ratio=0.6),
    dict(type='PackInputs'),
]
xray_simmim_192_pipeline = [
    _base_.xray_load,
    dict(xray_simmim_pipeline[1], scale=192),
    dict(xray_simmim_pipeline[2], input_size=192),
    dict(type='PackInputs'),
]
# Relative to the image, 16 px patches are as large as the original's 32 px of 192.
xray_simmim_96_pipeline = [
    _base_.xray_load,
    dict(xray_simmim_pipeline[1], scale=96),
    dict(xray_simmim_pipeline[2], input_size=96, mask_patch_size=16),
    dict(type='PackInputs'),
]

xray_industrial = dict(
    type='XrayImages', data_root='data/industrial', data_prefix=dict(img_path='unlabeled'), ann_file=''
)
# Castings without the test series of protocol A or B.
xray_castings_a = dict(
    type='XrayImages',
    data_root='data/gdxray',
    data_prefix=dict(img_path='images'),
    ann_file='a/unlabeled.txt',
)
xray_castings_b = dict(xray_castings_a, ann_file='b/unlabeled.txt')

# A frozen probe during training, if there are labels beside the archive; the backbone as safetensors at the
# end; a monitor for each method.
xray_ssl_hooks = [*_base_.xray_hooks, dict(type='ProbeHook', interval=5), dict(type='BackboneHook')]
xray_simsiam_hooks = [*xray_ssl_hooks, dict(type='CollapseHook')]
xray_simmim_hooks = [*xray_ssl_hooks, dict(type='ReconstructionHook', interval=5)]

xray_ssl_loader = dict(
    drop_last=True,
    sampler=_base_.xray_shuffle,
    collate_fn=dict(type='default_collate'),
    **_base_.xray_workers,
)
