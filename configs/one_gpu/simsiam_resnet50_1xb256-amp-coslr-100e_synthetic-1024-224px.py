# SimSiam, ResNet-50, on generated radiographs of 1024 px: the full recipe on one GPU, in half precision.
# Command: python tools/train.py <this file>
# Cost: 1,800 radiographs / 256 = 7 iterations an epoch, 700 in all.
_base_ = '../simsiam/simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py'
train_dataloader = dict(batch_size=256, dataset=dict(data_root='data/synthetic-1024'))

optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
default_hooks = dict(logger=dict(interval=7))
# The channels-last layout is faster on tensor cores.
custom_hooks = [*_base_.custom_hooks, dict(type='ChannelsLastHook')]
