# PKD of the half-width detector with SimSiam weights of castings into the quarter-width student, protocol A.
# Command: python tools/train.py <this file>, after the teacher's config
_base_ = './faster-rcnn_r18-tiny-scratch_fpn32_1xb4-12e_gdxray-a.py'
custom_imports = _base_.xray_distill_imports
custom_hooks = _base_.xray_distill_hooks
model = dict(
    _delete_=True,
    type='XrayDistill',
    architecture=_base_.model,
    teacher='configs/small/faster-rcnn_r18-narrow-simsiam-castings-pre_fpn_1xb4-12e_gdxray-a.py',
    teacher_ckpt='work_dirs/faster-rcnn_r18-narrow-simsiam-castings-pre_fpn_1xb4-12e_gdxray-a/epoch_12.pth',
    distiller=_base_.xray_pkd_32_to_64,
)
