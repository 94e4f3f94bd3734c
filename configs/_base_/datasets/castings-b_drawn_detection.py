# Flaws drawn into unlabelled castings, without the test series of protocol B.
_base_ = './gdxray-b_half_detection.py'
# The share of voids and the margin of the boxes are those of protocol B's training flaws. Sizes range from
# these flaws to those of val: half of the boxes measure 23 to 80 px.
xray_voids = dict(
    gas_pore=4,
    blowhole=4,
    pinhole=4,
    shrinkage_cavity=4,
    pore_cluster=4,
    wormhole=4,
    sand_inclusion=4,
    surface_pit=4,
)
xray_drawn = dict(
    data_root='data/gdxray',
    ann_file='b/unlabeled.txt',
    pipeline=[
        _base_.xray_load,
        dict(type='DrawFlaws', number=(1, 6), pitch=(0.05, 0.35), weights=xray_voids, margin=0.15),
        *_base_.xray_crops,
    ],
    **_base_.xray_backgrounds,
)
train_dataloader = dict(
    batch_sampler=None,  # crops are square; an unlabelled list does not state image sizes
    dataset=dict(_delete_=True, **xray_drawn),
)
