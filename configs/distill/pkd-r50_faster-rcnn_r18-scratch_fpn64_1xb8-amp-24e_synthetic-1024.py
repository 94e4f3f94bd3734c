# PKD of the ResNet-50 detector into the line's student, on generated radiographs of 1024 px.
# Command: python tools/train.py <this file>, after the teacher's config
_base_ = './faster-rcnn_r18-scratch_fpn64_1xb8-amp-24e_synthetic-1024.py'
custom_imports = _base_.xray_distill_imports
custom_hooks = _base_.xray_distill_hooks
model = dict(
    _delete_=True,
    architecture=_base_.model,
    distiller=_base_.xray_pkd_light_64_to_256,
    **_base_.xray_r50_teacher,
)
