# 90 epochs of SGD: 0.1 per 256 images, no decay, on standardised features (StandardisedPooling). LARS, which
# SimSiam uses for batches of 4,096, changes a head by a small share of its norm per update: after 80 updates
# the probe still predicts the most frequent class.
_base_ = 'mmpretrain::_base_/schedules/imagenet_lars_coslr_90e.py'
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', momentum=0.9, weight_decay=0.0, lr=0.1))
auto_scale_lr = dict(base_batch_size=256)
