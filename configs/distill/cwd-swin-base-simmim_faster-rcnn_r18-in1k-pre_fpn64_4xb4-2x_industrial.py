# CWD instead of PKD.
# Command: tools/dist_train.sh <this file> 4, after the teacher's config
_base_ = './pkd-swin-base-simmim_faster-rcnn_r18-in1k-pre_fpn64_4xb4-2x_industrial.py'
model = dict(distiller=dict(distill_losses=dict(_delete_=True, **_base_.xray_cwd_losses)))
