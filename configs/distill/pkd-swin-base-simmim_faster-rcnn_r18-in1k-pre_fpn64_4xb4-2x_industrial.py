# PKD of the SimMIM Swin-B detector into the line's student (ResNet-18, 64-channel FPN).
# Command: tools/dist_train.sh <this file> 4, after the teacher's config
_base_ = './faster-rcnn_r18-in1k-pre_fpn64_4xb4-2x_industrial.py'
custom_imports = _base_.xray_distill_imports
custom_hooks = _base_.xray_distill_hooks
model = dict(
    _delete_=True,
    architecture=_base_.model,
    distiller=_base_.xray_pkd_64_to_256,
    **_base_.xray_swin_base_teacher,
)
