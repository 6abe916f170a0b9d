"""DeepLabV3+, ResNet-101 at output stride 8, on VOC12 + SBD: mmseg's own recipe, whose checkpoint the zoo has."""
_base_ = 'mmseg::deeplabv3plus/deeplabv3plus_r101-d8_4xb4-40k_voc12aug-512x512.py'
