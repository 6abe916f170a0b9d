"""DeepLabV3+, ResNet-101 to ResNet-18, on VOC12 + SBD: OFD and the Lipschitz term over backbone, ASPP and decoder."""
_base_ = '../baselines/voc_deeplabv3plus_r101_to_r18_ofd.py'
model = dict(losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
