"""DeepLabV3+, ResNet-18 at output stride 16, alone on VOC12 + SBD."""
_base_ = './voc_deeplabv3plus_r18.py'
model = dict(backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)), decode_head=dict(dilations=(1, 6, 12, 18)))
