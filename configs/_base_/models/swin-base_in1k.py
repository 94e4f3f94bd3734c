# The paper's Swin-B with window 12 at 384 px and ImageNet weights. Exports xray_* variables only.
xray_window_12 = dict(block_cfgs=dict(window_size=12))
xray_swin_base_in1k = dict(
    type='Pretrained',
    checkpoint='https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/convert/'
    'swin_base_patch4_window12_384-02c598a4.pth',
    prefix='backbone.',
)
