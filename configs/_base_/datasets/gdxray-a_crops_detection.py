# GDXray castings at native size, protocol A: training has frames of the tested parts, so scales vary little.
# Crops of 160 px in batches of four: a short schedule gets twice the updates for the same number of pixels.
_base_ = './gdxray-a_native_detection.py'
xray_crops = [
    dict(type='XrayFlawCrop', size=160, flaw=0.75, scale=(0.6, 1.6), stretch=1.3),
    *_base_.xray_crops[1:],
]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(pipeline=[*_base_.xray_annotated, *xray_crops]),
)
