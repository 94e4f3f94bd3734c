# CWD instead of PKD.
# Command: python tools/train.py <this file>, after the teacher's config
_base_ = './pkd-r18-narrow_faster-rcnn_r18-tiny-scratch_fpn32_1xb4-8e_synthetic.py'
model = dict(distiller=dict(distill_losses=dict(_delete_=True, **_base_.xray_cwd_losses)))
