# Eight epochs at CPU scale, Swin's own optimizer at a higher rate.
_base_ = ['./small-8e.py', './xray_swin.py']
optim_wrapper = dict(_delete_=True, **_base_.xray_small_swin)
