"""The segmentation demo with a second view of each batch, and all losses that the study compares.

Guidance compares the logits of every pixel.
"""
_base_ = '../../demo/digits_deeplabv3plus_r18x32_to_r18x16.py'
model = dict(
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        ofd_views=dict(
            type='mmlckd.OFDLoss', loss_weight=1e-4, map_weights=[1 / 4, 1 / 2, 1, 1, 1 / 16], connectors=True,
            views='both'),
        lipschitz_local=dict(type='mmlckd.LocalLipschitzKDLoss', taps=['decode_head.conv_seg'])))
