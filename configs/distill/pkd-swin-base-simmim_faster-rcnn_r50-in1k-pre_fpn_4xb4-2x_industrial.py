# PKD of the SimMIM Swin-B detector into the ResNet-50 detector.
# Command: tools/dist_train.sh <this file> 4, after the teacher's config
_base_ = ['../faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py', '../_base_/xray_distill.py']
custom_imports = _base_.xray_distill_imports
custom_hooks = _base_.xray_distill_hooks
model = dict(
    _delete_=True, architecture=_base_.model, distiller=_base_.xray_pkd, **_base_.xray_swin_base_teacher
)
