# SimMIM at the original's 192 px, the paper's to the letter: the last stage's 6 x 6 map is padded to the
# 12 px window, and defects shrink to half of what its 384 px baseline sees.
# Command: tools/dist_train.sh <this file> 4
# Cost: 10,900 iterations as its baseline, each with a quarter of the pixels.
_base_ = './simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px.py'
model = dict(backbone=dict(img_size=192, pad_small_map=True))
train_dataloader = dict(dataset=dict(pipeline=_base_.xray_simmim_192_pipeline))
