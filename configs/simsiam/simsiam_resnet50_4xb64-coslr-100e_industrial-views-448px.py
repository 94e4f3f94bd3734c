# SimSiam with views designed for radiographs (xray_views_view in _base_/xray_ssl.py) instead of the paper's.
# Command: tools/dist_train.sh <this file> 4
# Cost: 10,900 iterations as its baseline, each with four times the pixels and activations.
_base_ = './simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py'
train_dataloader = dict(dataset=dict(pipeline=_base_.xray_views_pipeline))
