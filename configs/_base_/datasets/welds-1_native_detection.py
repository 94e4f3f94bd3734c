# GDXray welds at native size, three folds by film: fold 1.
_base_ = './welds-0_native_detection.py'
train_dataloader = dict(dataset=dict(ann_file='1/train.json'))
val_dataloader = dict(dataset=dict(ann_file='1/val.json'))
test_dataloader = dict(dataset=dict(ann_file='1/test.json'))
val_evaluator = dict(ann_file='data/welds/1/val.json')
test_evaluator = dict(ann_file='data/welds/1/test.json')
