# GDXray castings, protocol B: whole regions of parts are held out.
_base_ = './gdxray-a_detection.py'
train_dataloader = dict(dataset=dict(ann_file='b/train.json'))
val_dataloader = dict(dataset=dict(ann_file='b/val.json'))
test_dataloader = dict(dataset=dict(ann_file='b/test.json'))
val_evaluator = dict(ann_file='data/gdxray/b/val.json')
test_evaluator = dict(ann_file='data/gdxray/b/test.json')
