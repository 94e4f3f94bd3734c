# GDXray castings at native size, protocol A: training on crops, tests on whole radiographs.
_base_ = './gdxray-a_detection.py'
# Flaws are smaller in the radiograph itself, and in crops, than at 1024 px.
xray_heads = dict(rpn_head=dict(anchor_generator=dict(scales=[4, 6])))
# Unlabelled radiographs into which flaws are drawn.
xray_backgrounds = dict(
    type='XrayBackgrounds',
    data_prefix=dict(img_path='images'),
    metainfo=_base_.xray_set['metainfo'],
    severity=None,
)
xray_test_pipeline = [_base_.xray_load, dict(type='Resize', scale_factor=1.0), *_base_.xray_tested]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(pipeline=[*_base_.xray_annotated, *_base_.xray_crops]),
    **_base_.xray_two_cores,
)
val_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline), **_base_.xray_two_cores)
test_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline), **_base_.xray_two_cores)
