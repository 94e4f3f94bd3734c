# SimSiam continued from ImageNet weights: does the plant's own data add to what ImageNet taught?
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline, 10,900 iterations.
_base_ = './simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')))
