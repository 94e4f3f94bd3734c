# PKD of the half-width detector into the quarter-width student, on generated radiographs.
# Command: python tools/train.py <this file>, after the teacher's config
_base_ = './faster-rcnn_r18-tiny-scratch_fpn32_1xb4-8e_synthetic.py'
custom_imports = _base_.xray_distill_imports
custom_hooks = _base_.xray_distill_hooks
model = dict(
    _delete_=True,
    architecture=_base_.model,
    distiller=_base_.xray_pkd_32_to_64,
    **_base_.xray_r18_narrow_teacher,
)
