# The whole detector from COCO (box and anchor layers start at random), a usual start in a plant.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/'
    'faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
)
