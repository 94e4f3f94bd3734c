# PKD of the half-width detector with SimSiam weights of castings into the quarter-width student, protocol A.
# Command: python tools/train.py <this file>, after the teacher's config
_base_ = './faster-rcnn_r18-tiny-scratch_fpn32_1xb4-12e_gdxray-a.py'
custom_imports = _base_.xray_distill_imports
custom_hooks = _base_.xray_distill_hooks
model = dict(
    _delete_=True,
    architecture=_base_.model,
    distiller=_base_.xray_pkd_32_to_64,
    **_base_.xray_r18_narrow_castings_teacher,
)
