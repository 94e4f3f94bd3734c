# PKD of the SimMIM Swin-B detector into the ResNet-50 detector.
# Command: tools/dist_train.sh <this file> 4, after the teacher's config
_base_ = ['../faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py', '../_base_/xray_distill.py']
custom_imports = _base_.xray_distill_imports
custom_hooks = _base_.xray_distill_hooks
model = dict(
    _delete_=True,
    type='XrayDistill',
    architecture=_base_.model,
    teacher='configs/faster_rcnn/faster-rcnn_swin-base-simmim-pre_fpn_4xb4-amp-2x_industrial.py',
    teacher_ckpt='work_dirs/faster-rcnn_swin-base-simmim-pre_fpn_4xb4-amp-2x_industrial/epoch_24.pth',
    distiller=_base_.xray_pkd,
)
