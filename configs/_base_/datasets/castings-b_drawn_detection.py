# Flaws drawn into unlabelled castings, without the series that protocol B tests on.
_base_ = './gdxray-b_half_detection.py'
# The share of voids and the margin that annotators left are those of the flaws that protocol B trains on;
# sizes go from theirs to those of val: half of the boxes measure 23 to 80 px.
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
    batch_sampler=None,  # crops are square; an unlabelled list does not say how wide its images are
    dataset=dict(_delete_=True, **xray_drawn),
)
