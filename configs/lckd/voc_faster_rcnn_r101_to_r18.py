"""Faster R-CNN, ResNet-101 to ResNet-18, on VOC07+12: OFD and the Lipschitz term on the three stages that train,
before their last ReLU.
"""
_base_ = '../baselines/voc_faster_rcnn_r101_to_r18_ofd.py'
model = dict(losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
