# Generated radiographs at 1024 px, batch 8.
_base_ = './industrial_detection.py'
xray_set = dict(data_root='data/synthetic-1024', severity='castings')
train_dataloader = dict(batch_size=8, dataset=xray_set)
val_dataloader = dict(dataset=xray_set)
test_dataloader = dict(dataset=xray_set)
val_evaluator = dict(ann_file='data/synthetic-1024/val.json', severity='castings')
test_evaluator = dict(ann_file='data/synthetic-1024/test.json', severity='castings')
