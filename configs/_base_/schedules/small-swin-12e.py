# Twelve epochs at CPU scale, with Swin's own optimizer.
_base_ = ['./small-12e.py', './xray_swin.py']
optim_wrapper = dict(_delete_=True, **_base_.xray_small_swin)
