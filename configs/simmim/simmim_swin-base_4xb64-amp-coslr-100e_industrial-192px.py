# SimMIM at 192 px, exactly as in the paper: the last stage's 6 x 6 map is padded to window 12, and defects
# have half the size of the 384 px baseline.
# Command: tools/dist_train.sh <this file> 4
# Cost: 10,900 iterations as its baseline, each with a quarter of the pixels.
_base_ = './simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px.py'
model = dict(backbone=dict(img_size=192, pad_small_map=True))
train_dataloader = dict(dataset=dict(pipeline=_base_.xray_simmim_192_pipeline))
