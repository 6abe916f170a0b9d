"""Faster R-CNN, ResNet-101 FPN, on VOC07+12: the teacher of voc_faster_rcnn_r101_to_r18."""
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
