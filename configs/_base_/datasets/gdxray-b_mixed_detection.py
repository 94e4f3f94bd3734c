# GDXray castings, protocol B, every second sample an unlabelled casting with drawn flaws.
_base_ = './castings-b_drawn_detection.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='XrayMixedDefects',
        datasets=[
            dict(
                ann_file='b/train.json',
                pipeline=[*_base_.xray_annotated, *_base_.xray_crops],
                **_base_.xray_set,
            ),
            _base_.xray_drawn,
        ],
    ),
)
