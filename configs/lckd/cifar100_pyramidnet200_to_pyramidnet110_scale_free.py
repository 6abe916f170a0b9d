"""PyramidNet-200 to PyramidNet-110 on CIFAR-100 with this project's Lipschitz loss: logarithms of centred norms, at
most a fifth.
"""
_base_ = '../baselines/cifar100_pyramidnet200_to_pyramidnet110_ofd.py'
model = dict(losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
