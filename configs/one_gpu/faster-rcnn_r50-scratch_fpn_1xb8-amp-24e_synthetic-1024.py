# Faster R-CNN, ResNet-50 without pretraining, on generated radiographs of 1024 px: full size on one GPU.
# Command: python tools/train.py <this file>
# Cost: 358 images / 8 = 45 iterations an epoch, 1,080 in 24 epochs.
_base_ = '../faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
model = dict(backbone=dict(init_cfg=None))

xray_dataset = dict(data_root='data/synthetic-1024', severity='castings')
train_dataloader = dict(batch_size=8, dataset=xray_dataset)
val_dataloader = dict(dataset=xray_dataset)
test_dataloader = dict(dataset=xray_dataset)
val_evaluator = dict(ann_file='data/synthetic-1024/val.json', severity='castings')
test_evaluator = dict(ann_file='data/synthetic-1024/test.json', severity='castings')

# A sixth of the full recipe's updates, from random weights: AdamW and a cosine, as at CPU scale.
train_cfg = dict(val_interval=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=24,
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end=24,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(_delete_=True, type='AdamW', lr=4e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
auto_scale_lr = dict(base_batch_size=8)
