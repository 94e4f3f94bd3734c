# Industrial radiographs at 1024 px, with boxes and masks of their flaws.
_base_ = './industrial_detection.py'
xray_heads = dict(roi_head=dict(mask_head=dict(num_classes=len(_base_.xray_classes))))
xray_pipeline = [_base_.xray_load, _base_.xray_load_masks, _base_.xray_resize, *_base_.xray_augmented]
train_dataloader = dict(dataset=dict(pipeline=xray_pipeline))
val_evaluator = dict(masks=True)
test_evaluator = dict(masks=True)
