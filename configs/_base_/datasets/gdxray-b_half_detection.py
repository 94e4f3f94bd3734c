# GDXray castings, protocol B: whole regions of parts are held out. Training uses crops of 160 px. Tests use
# half size, since flaws of unseen parts are larger: half of val's measure 47 to 123 px, half of train's 20 to
# 27. Batches of four: a short schedule gets twice the updates for the same number of pixels.
_base_ = './gdxray-a_native_detection.py'
# Other parts have another tube voltage, exposure and sharpness, so the crops vary these. A flaw measures 12
# to 100 px in its crop, whatever its size in the radiograph, and is stretched up to three times.
xray_crops = [
    dict(type='XrayFlawCrop', size=160, flaw=0.75, scale=(0.3, 4.0), side=(12, 100), stretch=3.0),
    *_base_.xray_crops[1:3],  # flip, film curve
    dict(type='XrayColorJitter', brightness=0.3, contrast=0.4, prob=0.5),
    dict(type='XrayGaussianBlur', sigma=(0.3, 2.0), prob=0.5),
    *_base_.xray_crops[3:],
]
xray_test_pipeline = [_base_.xray_load, dict(type='Resize', scale_factor=0.5), *_base_.xray_tested]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(ann_file='b/train.json', pipeline=[*_base_.xray_annotated, *xray_crops]),
)
val_dataloader = dict(dataset=dict(ann_file='b/val.json', pipeline=xray_test_pipeline))
test_dataloader = dict(dataset=dict(ann_file='b/test.json', pipeline=xray_test_pipeline))
val_evaluator = dict(ann_file='data/gdxray/b/val.json')
test_evaluator = dict(ann_file='data/gdxray/b/test.json')
