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
# Flaws of castings, drawn. The share of voids and the margin of the boxes are those of protocol B's training
# flaws. Sizes range from these flaws to those of its val: half of the boxes measure 23 to 80 px.
xray_voids = dict(
    type='DrawFlaws',
    number=(1, 6),
    pitch=(0.05, 0.35),
    weights=dict(
        gas_pore=4,
        blowhole=4,
        pinhole=4,
        shrinkage_cavity=4,
        pore_cluster=4,
        wormhole=4,
        sand_inclusion=4,
        surface_pit=4,
    ),
    margin=0.15,
)
xray_test_pipeline = [_base_.xray_load, dict(type='Resize', scale_factor=1.0), *_base_.xray_tested]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(pipeline=[*_base_.xray_annotated, *_base_.xray_crops]),
    **_base_.xray_two_cores,
)
val_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline), **_base_.xray_two_cores)
test_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline), **_base_.xray_two_cores)
