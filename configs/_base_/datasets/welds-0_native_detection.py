# GDXray welds at native size, three folds by film: fold 0.
_base_ = './gdxray-a_crops_detection.py'
xray_set = dict(data_root='data/welds')
train_dataloader = dict(dataset=dict(ann_file='0/train.json', **xray_set))
val_dataloader = dict(dataset=dict(ann_file='0/val.json', **xray_set))
test_dataloader = dict(dataset=dict(ann_file='0/test.json', **xray_set))
val_evaluator = dict(ann_file='data/welds/0/val.json', drop_series=())
test_evaluator = dict(ann_file='data/welds/0/test.json', drop_series=())
