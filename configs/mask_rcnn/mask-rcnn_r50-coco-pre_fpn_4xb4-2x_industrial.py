# The whole detector from COCO (box, mask and anchor layers start at random), a usual start in a plant.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './mask-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r50_fpn_1x_coco/'
    'mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth'
)
