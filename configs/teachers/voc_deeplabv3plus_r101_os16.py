"""DeepLabV3+, ResNet-101 at output stride 16, on VOC12 + SBD: a quarter of the positions in the last two stages."""
_base_ = './voc_deeplabv3plus_r101.py'
model = dict(backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)), decode_head=dict(dilations=(1, 6, 12, 18)))
