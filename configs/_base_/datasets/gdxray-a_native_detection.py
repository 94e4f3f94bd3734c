# GDXray castings at native size, protocol A: crops to learn from, whole radiographs to test.
_base_ = './gdxray-a_detection.py'
# Three crops of four are around a flaw. The scale varies widely: unseen castings have flaws several times
# as large as those learnt from. No preferred direction; film curve (gamma) and quantum noise vary.
xray_crops = [
    dict(type='XrayFlawCrop', size=256, flaw=0.75, scale=(0.5, 2.5)),
    dict(type='XrayRandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='XrayGamma', gamma=(0.7, 1.4), prob=0.5),
    dict(type='XrayPoissonNoise', prob=0.5),
    dict(type='PackDetInputs'),
]
xray_loader = dict(num_workers=1, pin_memory=False)
xray_test_pipeline = [
    _base_.xray_load,
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True),
    _base_.xray_pack,
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(pipeline=[_base_.xray_load, dict(type='LoadAnnotations', with_bbox=True), *xray_crops]),
    **xray_loader,
)
val_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline), **xray_loader)
test_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline), **xray_loader)
