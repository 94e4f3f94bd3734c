# Generated radiographs at 192 px, with the masks of their flaws beside the boxes.
_base_ = './synthetic_detection.py'
xray_heads = dict(roi_head=dict(mask_head=dict(num_classes=len(_base_.xray_classes))))
xray_mask_pipeline = [
    _base_.xray_load_masks if step['type'] == 'LoadAnnotations' else step
    for step in _base_.train_dataloader['dataset']['pipeline']
]
train_dataloader = dict(dataset=dict(pipeline=xray_mask_pipeline))
val_evaluator = dict(masks=True)
test_evaluator = dict(masks=True)
